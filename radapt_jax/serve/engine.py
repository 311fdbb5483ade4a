"""Answers batches that mix domains, with programs that were compiled and measured before."""

from __future__ import annotations

import collections
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.serve.facts import Facts, Key
from radapt_jax.serve.limits import MOST
from radapt_jax.serve.plan import Cut, plan
from radapt_jax.serve.programs import Programs, make_programs
from radapt_jax.serve.slots import Slots
from radapt_jax.utils import trees

STEP = 4  # from one batch size to the next

log = logging.getLogger(__name__)


class Question(NamedTuple):
    """Images of one domain: uint8 (n, side, side, 3)."""

    domain: str
    images: np.ndarray


class Answer(NamedTuple):
    """The domain as it was when it answered, and probabilities (n, classes)."""

    facts: Facts
    probabilities: np.ndarray


class Ready(NamedTuple):
    """A domain that can be put in place at once; see `Engine.prepare`."""

    facts: Facts
    member: Member
    programs: Programs | None  # instead of the present ones, which have no room for it


class Engine:
    """A family behind few programs. `prepare` may run in any thread, all else in one thread.

    Args:
      family: the domains. With `at_most`, they are read when they are first asked for.
      facts: of every domain of the family, by name.
      most: images of a batch. Programs are compiled for 1, 4, 16, ... and this many.
      mix: whether domains share batches where that is faster.
    """

    def __init__(
        self, family: Family, facts: Mapping[str, Facts], most: int = MOST, *, mix: bool = True
    ) -> None:
        self._family, self._facts, self._mix = family, dict(facts), mix
        self.most, self._sizes = most, sizes(most)
        self._programs: dict[Key, Programs] = {}
        self.used: collections.Counter[str] = collections.Counter()  # programs by way, for metrics

    def start(self) -> None:
        """Compile and measure all programs, and stack the domains.

        Raises:
          ValueError: a domain is damaged.
        """
        for facts in self._facts.values():
            if facts.key not in self._programs:
                self._programs[facts.key] = self._made(facts, self._variables(facts))
        for key, programs in self._programs.items():
            _tell(key, programs)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions, together at most `most` images.

        Raises:
          KeyError: there is no such domain.
          ValueError: a domain that is on disk is damaged, or another one by now.
          OSError: it is no longer there.
        """
        asked = [self._facts[it.domain] for it in questions]
        groups: dict[Key, list[int]] = {}
        for place, facts in enumerate(asked):
            groups.setdefault(facts.key, []).append(place)
        found: dict[int, np.ndarray] = {}
        for key, places in groups.items():
            found |= self._of_group(self._programs[key], places, questions)
        return [
            Answer(facts, found[place][:, : facts.domain.num_classes])
            for place, facts in enumerate(asked)
        ]

    def _of_group(
        self, programs: Programs, places: Sequence[int], questions: Sequence[Question]
    ) -> dict[int, np.ndarray]:
        """Return the probabilities of questions that the same programs answer, by place."""
        counts: collections.Counter[str] = collections.Counter()
        for place in places:
            counts[questions[place].domain] += len(questions[place].images)
        missing = {name for name in counts if not programs.alone.holds(self._facts[name])}
        before = dict.fromkeys(missing, programs.fold_seconds)
        chosen = plan(counts, programs.alone_cuts, programs.mixed_cuts, before)
        found: dict[int, np.ndarray] = {}
        for name in chosen.alone:
            facts = self._facts[name]
            if not programs.alone.holds(facts):  # one before it may have taken its place
                programs.alone.hold(facts, self._variables(facts))
            alone = functools.partial(programs.alone.predict, facts=facts)
            own = _of(questions, places, [name])
            found |= self._run("alone", alone, programs.alone_cuts, own, questions)
        if chosen.mixed:
            slots, cuts = programs.slots, programs.mixed_cuts
            assert slots is not None
            assert cuts is not None
            for name in chosen.mixed:
                self._stack(slots, self._facts[name], chosen.mixed)
            mixed = _of(questions, places, chosen.mixed)
            found |= self._run("mixed", slots.predict, cuts, mixed, questions)
        return found

    def _stack(self, slots: Slots | None, facts: Facts, needed: Sequence[str] = ()) -> None:
        """Give a domain a row if it has none, and if there are rows."""
        if slots is not None and not slots.holds(facts.name, facts.version):
            slots.hold(facts.domain, facts.version, self._variables(facts), needed)

    def _variables(self, facts: Facts) -> dict[str, Any]:
        """Return a domain's variables, as they were when its facts were read.

        Raises:
          ValueError: it is damaged on disk, or another process has written it since.
        """
        if self._family.at_most is not None:
            found = str(self._family[facts.name].card()["sha256"])
            if found != facts.version:
                raise ValueError(
                    f"domain {facts.name!r}: found sha256 {found[:12]}... on disk; expected "
                    f"{facts.version[:12]}..., as when the server started. Start it again."
                )
        return self._family.variables(facts.name)

    def _run(
        self,
        way: str,
        run: Callable[..., np.ndarray],
        cuts: Sequence[Cut],
        places: Sequence[int],
        questions: Sequence[Question],
    ) -> dict[int, np.ndarray]:
        """Run a program over the images of questions, by the cheapest cut; return rows by place."""
        images = np.concatenate([questions[place].images for place in places])
        names = [questions[it].domain for it in places for _ in questions[it].images]
        rows, at = [], 0
        for size in cuts[len(images)].sizes:
            part, own = images[at : at + size], names[at : at + size]
            lacking = size - len(part)
            padded = np.pad(part, ((0, lacking), (0, 0), (0, 0), (0, 0)), mode="edge")
            rows.append(run(padded, names=own + own[-1:] * lacking)[: len(part)])
            at += size
        self.used[way] += len(rows)
        whole, ends = np.concatenate(rows), np.cumsum([len(questions[it].images) for it in places])
        return dict(zip(places, np.split(whole, ends[:-1]), strict=True))

    def prepare(self, member: Member, facts: Facts) -> Ready:
        """Check a domain, and compile what it needs that is not there; nothing is changed yet.

        Raises:
          ValueError: it does not fit the family, or has values that are not finite.
        """
        fitted = self._family.fitted(facts.name, member)
        _check_finite(fitted)
        programs = self._programs.get(facts.key)
        if programs and programs.room_for(self._rows(facts), facts.domain.num_classes):
            return Ready(facts, fitted, None)
        variables = {"params": self._family.shared.params, **fitted.variables}
        return Ready(facts, fitted, self._made(facts, variables))

    def put(self, ready: Ready) -> None:
        """Put a domain in place, instead of the one of its name; it is on disk already."""
        name = ready.facts.name
        if name in self._facts:
            self._programs[self._facts[name].key].forget(name)
        self._family.add(name, ready.member)
        self._family.saved(name)
        self._facts[name] = ready.facts
        if ready.programs is not None:
            self._programs[ready.facts.key] = ready.programs
        self._stack(self._programs[ready.facts.key].slots, ready.facts)

    def remove(self, name: str) -> None:
        """Let a domain go."""
        self._programs[self._facts.pop(name).key].forget(name)
        self._family.forget(name)

    def _made(self, example: Facts, variables: Mapping[str, Any]) -> Programs:
        """Compile programs with room for the domains there are, and for this one.

        The domains there are have their rows at once, unless they are read when asked for.
        """
        alike = [it for it in self._facts.values() if it.key == example.key]
        classes = max(it.domain.num_classes for it in (example, *alike))
        made = make_programs(
            example,
            variables,
            sizes=self._sizes,
            rows=self._rows(example),
            classes=classes,
            mix=self._mix,
        )
        if self._family.at_most is None:
            for it in alike:
                self._stack(made.slots, it)
        return made

    def _rows(self, facts: Facts) -> int:
        """Return how many domains are stacked with this one, itself included.

        Where domains are read on use, it is as many as the family holds, and those of a batch.
        """
        alike = {it.name for it in self._facts.values() if it.key == facts.key} | {facts.name}
        at_most = self._family.at_most
        return len(alike) if at_most is None else min(len(alike), max(at_most, self.most))


def sizes(most: int) -> tuple[int, ...]:
    """Return the batch sizes to compile: powers of `STEP`, and the largest."""
    smaller = itertools.takewhile(lambda size: size < most, (STEP**k for k in itertools.count()))
    return (*smaller, most)


def _of(questions: Sequence[Question], places: Sequence[int], names: Sequence[str]) -> list[int]:
    return [place for place in places if questions[place].domain in names]


def _check_finite(member: Member) -> None:
    """Raise ValueError if a value is NaN or infinite: all answers would be NaN."""
    for path, leaf in trees.flatten(trees.to_numpy(member.variables)).items():
        if not np.isfinite(leaf).all():
            raise ValueError(
                f"domain {member.domain.name!r}: found NaN or infinite values in {path}; expected "
                "finite ones. Train it again."
            )


def _tell(key: Key, programs: Programs) -> None:
    """Log what a batch of each size costs, and so what is chosen."""
    for way, found in (("alone", programs.alone_cuts), ("mixed", programs.mixed_cuts)):
        if found is not None:
            sizes = sorted({size for cut in found for size in cut.sizes})
            took = ", ".join(f"{size}: {1000 * found[size].seconds:.1f} ms" for size in sizes)
            log.info("%s, %d px, %s: %s", key.spec.adapter.kind, key.side, way, took)
