"""The programs of domains that have a network and an image size in common, and what they cost."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.serve.alone import Alone
from radapt_jax.serve.facts import Facts
from radapt_jax.serve.plan import Cut, cuts
from radapt_jax.serve.slots import Slots

RUNS = 5  # of each program, of which the median counts
HEADS = 64  # padded heads have a multiple of this many classes
FEWEST = 8  # rows


@dataclasses.dataclass
class Programs:
    """Compiled programs of a few batch sizes, alone and mixed, with their seconds.

    Args:
      apart: the domains are not mixed.
      alone: computes images of one domain.
      slots: computes images of several domains; None: they are not, or there is one only.
      alone_cuts, mixed_cuts: the cheapest way to compute each number of images.
      fold_seconds: what it takes to make a domain ready to be computed alone.
    """

    apart: bool
    alone: Alone
    slots: Slots | None
    alone_cuts: list[Cut]
    mixed_cuts: list[Cut] | None
    fold_seconds: float

    def room_for(self, count: int, classes: int) -> bool:
        """Whether this many domains, with this many classes at most, fit in."""
        if self.slots is None:
            return (self.apart or count < 2) and classes <= self.alone.width
        return count <= self.slots.rows and classes <= self.slots.width

    def forget(self, name: str) -> None:
        """Let go of what was computed for a domain."""
        self.alone.forget(name)
        if self.slots is not None:
            self.slots.forget(name)


def make_programs(
    example: Facts,
    variables: Mapping[str, Any],
    *,
    sizes: Sequence[int],
    rows: int,
    classes: int,
    mix: bool,
) -> Programs:
    """Compile the programs of a domain and those like it, and measure them on images of noise.

    Args:
      example: the domain.
      variables: its variables.
      sizes: batch sizes to compile.
      rows: domains that must fit in.
      classes: the most that one of them has.
      mix: whether they may share batches.
    """
    key, width = example.key, HEADS * -(-classes // HEADS)
    alone = Alone(key, width)
    alone.hold(example, variables)
    fold_seconds = _seconds(alone.hold, example, variables)
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (max(sizes), key.side, key.side, 3), np.uint8)
    took = {size: _seconds(alone.predict, images[:size], facts=example) for size in sizes}
    apart = key.apart or not mix
    if apart or rows < 2:
        return Programs(apart, alone, None, cuts(took, max(sizes)), None, fold_seconds)
    slots = Slots(key.spec, variables["params"], max(FEWEST, 1 << (rows - 1).bit_length()), width)
    slots.hold(example.domain, example.version, variables)
    which = np.arange(max(sizes), dtype=np.int32) % slots.rows
    mixed = {size: _seconds(slots.run, images[:size], which[:size]) for size in sizes}
    both = cuts(took, max(sizes)), cuts(mixed, max(sizes))
    return Programs(apart, alone, slots, *both, fold_seconds)


def _seconds(run: Callable[..., object], *arguments: Any, **named: Any) -> float:
    """Return the median time of a program, which is compiled first."""
    run(*arguments, **named)
    found = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run(*arguments, **named)
        found.append(time.perf_counter() - start)
    return statistics.median(found)
