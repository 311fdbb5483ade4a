"""Merges the domains of several workdirs into one family, under new names where they clash."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from radapt_jax.family.family import Family
from radapt_jax.utils import trees


class Rename(NamedTuple):
    """A new name for a domain of a workdir; None: of the only workdir that has this domain."""

    workdir: Path | None
    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Rename:
        """Return what OLD=NEW or WORKDIR:OLD=NEW says.

        Raises:
          ValueError: the text is neither.
        """
        where, equals, new = text.rpartition("=")
        workdir, _, old = where.rpartition(":")
        if not (equals and old and new):
            raise ValueError(f"found rename {text!r}; expected OLD=NEW or WORKDIR:OLD=NEW.")
        return cls(Path(workdir) if workdir else None, old, new)

    def __str__(self) -> str:
        return f"{f'{self.workdir}:' if self.workdir else ''}{self.old}={self.new}"


Place = tuple[Path, str]  # a workdir, and the name of a domain there


def merge(workdirs: Sequence[str | Path], renames: Iterable[Rename] = ()) -> Family:
    """Return a family with the domains of several workdirs; nothing is written.

    The shared weights and their source domain are those of the first workdir. Copies of that domain
    in other workdirs are left out, unless they are renamed.

    Raises:
      FileNotFoundError: a workdir holds no family.
      ValueError: a domain was trained on other shared weights, two domains have the same name, or a
        rename matches no domain or several.
    """
    families = {Path(workdir): Family.load(workdir) for workdir in workdirs}
    shared = next(iter(families.values())).shared
    places = [(workdir, name) for workdir, family in families.items() for name in family]
    prints = {
        (workdir, name): trees.fingerprint(families[workdir][name].variables)
        for workdir, name in places
        if name == shared.source
    }
    sources = list(prints)
    copies = {place for place in sources[1:] if prints[place] == prints[sources[0]]}
    new_names = _resolve(renames, places, copies)
    if sources and sources[0] in new_names:
        shared = dataclasses.replace(shared, source=new_names[sources[0]])
    merged = Family(shared)
    origin: dict[str, Place] = {}
    for workdir, name in places:
        if (workdir, name) in copies and (workdir, name) not in new_names:
            continue
        new = new_names.get((workdir, name), name)
        if new in merged:
            other, there = origin[new]
            raise ValueError(
                f"domain {new!r} is in {workdir} and in one before it: {there!r} of {other}. "
                f"Rename one: --rename {workdir}:{name}=NEW."
            )
        merged.add(new, families[workdir][name])
        origin[new] = workdir, name
    return merged


def _resolve(
    renames: Iterable[Rename], places: Sequence[Place], copies: set[Place]
) -> dict[Place, str]:
    """Return the new name of every domain that gets one."""
    found: dict[Place, str] = {}
    for rename in renames:
        named = [place for place in places if place[1] == rename.old]
        if rename.workdir is None:
            meant = [place for place in named if place not in copies]
        else:
            meant = [place for place in named if place[0].absolute() == rename.workdir.absolute()]
        if not meant:
            there = ", ".join(f"{workdir}:{name}" for workdir, name in places)
            raise ValueError(f"found rename {rename}, but no such domain; expected one of {there}.")
        if len(meant) > 1:
            options = " or ".join(f"--rename {workdir}:{rename.old}=NEW" for workdir, _ in meant)
            raise ValueError(
                f"found rename {rename}, but {len(meant)} such domains; use {options}."
            )
        if meant[0] in found:
            raise ValueError(f"found two renames of {rename.old!r} of {meant[0][0]}; expected one.")
        found[meant[0]] = rename.new
    return found
