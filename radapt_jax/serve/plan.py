"""How a batch is cut: which of its images are computed together, by programs of fixed sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """The cheapest way to compute some images: the sizes of its programs, and their seconds."""

    seconds: float
    sizes: tuple[int, ...]


class Plan(NamedTuple):
    """Which domains of a batch are computed alone, and how the others are cut together."""

    seconds: float
    alone: tuple[str, ...]
    mixed: tuple[str, ...]


def cuts(seconds: Mapping[int, float], most: int) -> list[Cut]:
    """Return the cheapest cut of every number of images from 0 to `most`.

    A program of size s computes up to s images in `seconds[s]`; what it lacks is padded.
    """
    found = [Cut(0.0, ())]
    for count in range(1, most + 1):
        ways = (
            Cut(took + found[max(count - size, 0)].seconds, (size,))
            for size, took in seconds.items()
        )
        best = min(ways)
        found.append(Cut(best.seconds, best.sizes + found[max(count - best.sizes[0], 0)].sizes))
    return found


def plan(
    counts: Mapping[str, int],
    alone: Sequence[Cut],
    mixed: Sequence[Cut] | None,
    before: Mapping[str, float],
) -> Plan:
    """Return the cheapest plan of a batch: the domains with most images alone, the rest mixed.

    Args:
      counts: images by domain.
      alone: the cheapest cuts of one domain's images.
      mixed: those of images of several domains; None: these domains cannot be mixed.
      before: seconds that must be spent before a domain is computed alone, to fold it; 0 if it is
        not there.
    """
    names = sorted(counts, key=lambda name: (-counts[name], name))
    if mixed is None:
        seconds = sum(alone[counts[name]].seconds + before.get(name, 0) for name in names)
        return Plan(seconds, tuple(names), ())
    found = []
    for split in range(len(names) + 1):
        apart, rest = names[:split], names[split:]
        seconds = sum(alone[counts[name]].seconds + before.get(name, 0) for name in apart)
        seconds += mixed[sum(counts[name] for name in rest)].seconds
        found.append(Plan(seconds, tuple(apart), tuple(rest)))
    return min(found, key=lambda it: it.seconds)
