"""Which values an entry may have. A kind is a test and its words; all errors share one wording.

check("config.train.steps", -1, whole(0))
ValueError: found config.train.steps -1; expected a whole number from 0.
"""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MOST = 2**31 - 1  # what an int32 holds


class Kind(NamedTuple):
    """Which values an entry may have: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


def check(name: str, found: Any, kind: Kind, of: str = "") -> None:
    """Raise ValueError unless the value found is of this kind; the message begins with `of`."""
    if not kind.holds(found):
        raise ValueError(f"{of}found {name} {found!r}; expected {kind.words}.")


def check_all(found: Mapping[str, Any], kinds: Mapping[str, Kind], of: str = "") -> None:
    """Check every entry that has a kind.

    Raises:
      KeyError: an entry is missing.
      ValueError: an entry is of another kind.
    """
    for name, kind in kinds.items():
        check(name, found[name], kind, of)


def number(interval: str) -> Kind:
    """Return the kind of a number in an interval such as "[0, 1)" or "(0, inf)"."""
    lowest, highest = map(float, interval[1:-1].split(","))
    above = operator.ge if interval[0] == "[" else operator.gt
    below = operator.le if interval[-1] == "]" else operator.lt

    def holds(found: Any) -> bool:  # NaN is in no interval
        real = isinstance(found, numbers.Real) and not isinstance(found, bool)
        return real and above(found, lowest) and below(found, highest)

    return Kind(f"a number in {interval}", holds)


def whole(lowest: int, *, multiple_of: int = 1) -> Kind:
    """Return the kind of an integer of at least `lowest`."""

    def holds(found: Any) -> bool:
        integer = isinstance(found, numbers.Integral) and not isinstance(found, bool)
        return integer and lowest <= found <= MOST and found % multiple_of == 0

    steps = f", a multiple of {multiple_of}" if multiple_of > 1 else ""
    return Kind(f"a whole number from {lowest}{steps}", holds)


def one_of(*choices: str) -> Kind:
    """Return the kind of one of some words."""
    return Kind(
        f"one of {list(choices)}", lambda found: isinstance(found, str) and found in choices
    )


def optional(kind: Kind) -> Kind:
    """Return that kind, or None in its place."""
    return Kind(f"{kind.words}, or None", lambda found: found is None or kind.holds(found))


def several(kind: Kind, count: int | None = None) -> Kind:
    """Return the kind of a tuple or list whose entries are of `kind`: `count` of them, if given."""

    def holds(found: Any) -> bool:
        listed = isinstance(found, tuple | list) and count in (None, len(found))
        return listed and all(map(kind.holds, found))

    return Kind(f"{'several' if count is None else count}, each {kind.words}", holds)


TEXT = Kind("text", lambda found: isinstance(found, str))
PATH = Kind("a path", lambda found: isinstance(found, str | os.PathLike))
FLAG = Kind("True or False", lambda found: isinstance(found, bool))


def names(listed: str) -> tuple[str, ...]:
    """Return the names in a comma-separated entry."""
    return tuple(part.strip() for part in listed.split(",") if part.strip())
