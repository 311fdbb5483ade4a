"""A family that is served: predictions in shared batches, and domains that come and go."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from radapt_jax.data.domain import check_apart, check_name
from radapt_jax.family.family import Family
from radapt_jax.family.fits import check_not_source
from radapt_jax.family.member import Member
from radapt_jax.models.registry import Backbones
from radapt_jax.serve.batcher import Batcher
from radapt_jax.serve.decoding import Decoder
from radapt_jax.serve.engine import Answer, Engine, Question
from radapt_jax.serve.facts import Facts, read_facts
from radapt_jax.serve.limits import DEFAULT, MOST, WAIT, Limits
from radapt_jax.serve.metrics import Metrics
from radapt_jax.serve.refusals import Refused, busy
from radapt_jax.serve.store import Store

log = logging.getLogger(__name__)


class Service:
    """Everything behind the addresses.

    Args:
      workdir: of a run, or where a family was saved.
      limits: what is accepted.
      wait: seconds that the first images of a batch wait for others.
      batch: most images of a batch.
      mix: whether domains share batches where that is faster; else each is computed apart.
      at_most: read domains when they are first asked for, and hold this many; see `Family.load`.
      backbones: your own networks, by name.

    Raises:
      FileNotFoundError, ValueError: see `Family.load`; or there are no domains.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        limits: Limits = DEFAULT,
        wait: float = WAIT,
        batch: int = MOST,
        mix: bool = True,
        at_most: int | None = None,
        backbones: Backbones | None = None,
    ) -> None:
        self.limits = limits
        self.family = Family.load(workdir, at_most=at_most, backbones=backbones)
        self.facts = read_facts(self.family, workdir, backbones)
        if not self.facts:
            raise ValueError(f"found no domains in {workdir}; expected at least one to serve.")
        self._engine = Engine(self.family, self.facts, batch, mix=mix)
        self._store = Store(workdir, backbones)
        self._decoder = Decoder(limits.pixels)
        self._batcher = Batcher(self._engine.answer, most=self._engine.most, wait=wait)
        self._changing = asyncio.Lock()
        self._waiting = 0
        self.ready = False
        gauges = {"domains": lambda: len(self.facts), "waiting_images": lambda: self._waiting}
        self.metrics = Metrics(gauges, self._engine.used)
        self._batcher.on_batch = self.metrics.batches.observe

    async def start(self) -> None:
        """Compile and measure all programs; from then on `ready`."""
        self._batcher.start()
        await self._batcher.change(self._engine.start)
        self.ready = True

    async def stop(self) -> None:
        """Answer what waits, then let the threads go."""
        self.ready = False
        await self._batcher.stop()
        self._decoder.close()

    async def predict(self, name: str, images: list[Any]) -> list[Answer]:
        """Return the answers to encoded images or arrays of one domain, in their order.

        They are all of one version of the domain.

        Raises:
          Refused: there is no such domain, no room in the queue or no time, an image cannot be
            read, or the domain cannot be read from disk.
        """
        began = time.monotonic()
        self.found(name)
        with self._admitted(len(images)):
            try:
                async with asyncio.timeout(self.limits.seconds):
                    answers = await self._answers(name, images)
            except TimeoutError:
                raise Refused(
                    503,
                    f"found no answer within {self.limits.seconds:g} s; expected one. Ask again "
                    "later, or for fewer images.",
                    {"Retry-After": "1"},
                ) from None
        self.metrics.answered(name, len(images), time.monotonic() - began)
        return answers

    async def _answers(self, name: str, images: list[Any]) -> list[Answer]:
        while True:
            facts = self.found(name)
            decoded = await self._decoder.decoded(images, facts.domain)
            if self.facts.get(name, facts).sees_as(facts):  # not changed meanwhile
                break
        self.found(name)
        most = self._engine.most
        parts = [decoded[at : at + most] for at in range(0, len(decoded), most)]
        try:
            asked = (self._batcher.ask(Question(name, it)) for it in parts)
            return list(await asyncio.gather(*asked))
        except (ValueError, OSError) as error:
            log.error("domain %r cannot be read: %s", name, error)
            raise Refused(
                503,
                f"domain {name!r} is damaged on the server's disk, or another one by now; expected "
                "it as it was when the server started. Put it again, or start the server again.",
            ) from error

    async def put(self, name: str, body: bytes) -> tuple[Facts, str]:
        """Serve the domain of an adapter file under a name; return its facts and what was done.

        Requests that came before are answered with the domain as it was.

        Raises:
          Refused: the file is damaged, of other shared weights, or cannot be saved now; or the
            name is the source domain's, which is there, and the file is another.
        """
        _check(check_name, name)
        member, card = await asyncio.to_thread(self._read, name, body)
        async with self._changing:
            before = self.facts.get(name)
            facts = Facts.of(member, card)
            there = before is not None and before.same(facts)
            if there and await asyncio.to_thread(self._store.holds, name, facts.version):
                return facts, "unchanged"
            if before is not None and not there:
                self._check_not_source(name)
            _check(check_apart, [*(self.facts.keys() - {name}), name])
            async with self._in_memory(name):
                with _refusing():
                    ready = await asyncio.to_thread(self._engine.prepare, member, facts)
                    await asyncio.to_thread(self._store.put, ready.member)
                self.facts[name] = facts
                await self._batcher.change(lambda: self._engine.put(ready))
        return facts, "added" if before is None else "replaced"

    async def remove(self, name: str) -> Facts:
        """Serve a domain no longer, and delete it; its file is kept, see `Store`.

        Raises:
          Refused: there is no such domain, it is the source domain, or it cannot be deleted
            now.
        """
        async with self._changing:
            facts = self.found(name)
            self._check_not_source(name)
            async with self._in_memory(name):
                with _refusing():
                    await asyncio.to_thread(self._store.remove, name)
                del self.facts[name]
                await self._batcher.change(lambda: self._engine.remove(name))
        return facts

    @asynccontextmanager
    async def _in_memory(self, name: str) -> AsyncIterator[None]:
        """Hold a domain while it changes on disk: what waits is answered with it as it was."""
        if name in self.family:
            with suppress(ValueError, OSError):  # if it cannot be read, it answers nobody
                await asyncio.to_thread(self.family.pin, name)
        try:
            yield
        finally:
            if name in self.family:
                self.family.unpin(name)

    def _check_not_source(self, name: str) -> None:
        try:
            check_not_source(name, self.family.shared)
        except ValueError as error:
            raise Refused(409, str(error)) from error

    def _read(self, name: str, body: bytes) -> tuple[Member, dict[str, Any]]:
        """Return the domain of an adapter file under a name, checked, and its card."""
        with _refusing(), tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(body)
            file.flush()
            try:
                member = self.family.fitted(name, self.family.read_domain(file.name))
            except ValueError as error:
                raise ValueError(str(error).replace(file.name, "the file")) from error
        return member, member.card()

    def found(self, name: str) -> Facts:
        """Return the facts of a domain.

        Raises:
          Refused: there is no such domain.
        """
        if name not in self.facts:
            raise Refused(
                404, f"found no domain {name[:100]!r}; there are {sorted(self.facts)[:50]}."
            )
        return self.facts[name]

    def check_room(self) -> None:
        """Raise Refused where not even one more image can wait."""
        if self._waiting >= self.limits.waiting:
            raise busy(self._waiting, 1, self.limits.waiting)

    @contextmanager
    def _admitted(self, images: int) -> Iterator[None]:
        """Count images as waiting."""
        if self._waiting + images > self.limits.waiting:
            raise busy(self._waiting, images, self.limits.waiting)
        self._waiting += images
        try:
            yield
        finally:
            self._waiting -= images


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what is wrong with a file, or with the workdir, into a refusal."""
    try:
        yield
    except BlockingIOError as error:
        log.error("a domain could not be changed: %s", error)
        raise Refused(
            409,
            "found another process writing to the server's workdir; expected none. Ask again when "
            "it is done.",
        ) from error
    except OSError as error:
        log.error("a domain could not be changed: %s", error)
        why = getattr(error.__cause__, "strerror", None) or error.strerror or "see the server's log"
        raise Refused(507, f"the domain could not be saved: {why}.") from error
    except ValueError as error:
        raise Refused(422, str(error)) from error


def _check(test: Any, found: Any) -> None:
    with _refusing():
        test(found)
