"""Gathers questions of all requests into batches, and changes domains between two of them."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from radapt_jax.serve.engine import Answer, Question

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A question, when it was asked (the loop's seconds), and where its answer goes."""

    question: Question
    since: float
    answer: asyncio.Future[Answer]


class Change(NamedTuple):
    """What is done between two batches, and where its end is told."""

    make: Callable[[], Any]
    done: asyncio.Future[Any]


class Batcher:
    """One queue, first in, first out; a thread of its own computes batch after batch.

    A question that was asked before a change is answered as it was before the change, and one that
    was asked after it as it is then.

    Questions wait for others only where others come: after a batch of one question the next one is
    not waited with, so that a single client has its answers at once.

    Args:
      answer: answers questions, at most `most` images at once; called in the thread.
      most: images of a batch.
      wait: seconds that the first question of a batch waits for others.
    """

    def __init__(
        self, answer: Callable[[Sequence[Question]], list[Answer]], *, most: int, wait: float
    ) -> None:
        self._answer, self._most, self._wait = answer, most, wait
        self._queue: collections.deque[Asked | Change] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "engine")
        self._task: asyncio.Task[None] | None = None
        self._others_come = True
        self.on_batch: Callable[[int], None] = lambda images: None

    def ask(self, question: Question) -> asyncio.Future[Answer]:
        """Queue a question of at most `most` images, at once; the future has its answer.

        It may have the errors of `Engine.answer`.
        """
        loop = asyncio.get_running_loop()
        asked = Asked(question, loop.time(), loop.create_future())
        self._put(asked)
        return asked.answer

    def change(self, make: Callable[[], Any]) -> asyncio.Future[Any]:
        """Let this run in the thread, between two batches; the future has what it returns."""
        change = Change(make, asyncio.get_running_loop().create_future())
        self._put(change)
        return change.done

    def start(self) -> None:
        """Begin to work, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Answer what is in the queue, then end."""
        while self._queue:
            await asyncio.sleep(0.005)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    def _put(self, it: Asked | Change) -> None:
        self._queue.append(it)
        self._arrived.set()

    async def _work(self) -> None:
        while True:
            await self._something()
            first = self._queue[0]
            if isinstance(first, Change):
                await self._make(first)
                self._queue.popleft()
                continue
            batch = await self._gathered(first)
            self._others_come = len(batch) > 1
            await self._answered(batch)
            for _ in batch:
                self._queue.popleft()

    async def _something(self) -> None:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()

    async def _gathered(self, first: Asked) -> list[Asked]:
        """Return the questions of a batch: until it is full, or time is up, or a change follows.

        They stay in the queue, so that `stop` waits for them.
        """
        loop = asyncio.get_running_loop()
        until = first.since + (self._wait if self._others_come else 0)
        while True:
            batch, full = self._front()
            left = until - loop.time()
            if full or left <= 0:
                return batch
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return self._front()[0]

    def _front(self) -> tuple[list[Asked], bool]:
        """Return the questions at the front that fit in a batch, and whether no more can join."""
        batch: list[Asked] = []
        images = 0
        for it in self._queue:
            if isinstance(it, Change):
                return batch, True
            images += len(it.question.images)
            if images > self._most:
                return batch, True
            batch.append(it)
        return batch, images == self._most

    async def _answered(self, batch: list[Asked]) -> None:
        """Answer a batch; questions of those who are gone are left out."""
        wanted = [it for it in batch if not it.answer.done()]
        if not wanted:
            return
        try:
            answers = await self._in_thread(self._answer, [it.question for it in wanted])
            self.on_batch(sum(len(it.question.images) for it in wanted))
            found: list[Any] = list(answers)
        except Exception as error:
            if len(wanted) == 1:
                found = [error]
            else:  # each for itself, so that the others have their answers
                for it in wanted:
                    await self._answered([it])
                return
        for it, answer in zip(wanted, found, strict=True):
            _tell(it.answer, answer)

    async def _make(self, change: Change) -> None:
        try:
            found = await self._in_thread(change.make)
        except Exception as error:
            found = error
        _tell(change.done, found)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _tell(future: asyncio.Future[Any], found: Any) -> None:
    """Give a future its result or its error, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)
