"""Finished runs as their workdirs hold them: results, curves, settings, and the family itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radapt_jax.evaluation.result import Result
from radapt_jax.family import adapter_file
from radapt_jax.family.family import Family
from radapt_jax.utils import files


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
      name: what the page calls it.
      workdir: where it is.
      family: its domains.
      results: a result of each domain.
      curves: lines of the metrics of each domain that was trained here, as text by column.
      settings: of the config, by its dotted name.
      sizes: bytes of each domain's adapter file, of those that have one.
    """

    name: str
    workdir: Path
    family: Family
    results: list[Result]
    curves: dict[str, list[dict[str, str]]]
    settings: dict[str, Any]
    sizes: dict[str, int]

    @property
    def adapted(self) -> list[Result]:
        """The results of all domains but the source, whose weights are the shared ones."""
        return [row for row in self.results if not row.source]

    def adapter(self, domain: str) -> str:
        """Return a domain's kind of adapters, with their ranks and bits where these are fewer."""
        member = self.family[domain]
        found, ranks = member.spec.adapter.kind, getattr(member.spec.adapter, "ranks", None)
        if isinstance(ranks, Mapping):
            found += f", ranks {min(ranks.values())} to {max(ranks.values())}"
        elif ranks is not None:
            found += f", rank {ranks:g}" + (" of the full one" if isinstance(ranks, float) else "")
        return found if member.rounding is None else f"{found}, int{member.rounding.adapters}"


def read_runs(workdirs: Sequence[str | Path]) -> list[Run]:
    """Read finished runs; those of the same folder name get folders above it before theirs.

    Raises:
      FileNotFoundError: a workdir is not there, or its run is not finished.
      ValueError: none are named, one is named twice, or a file in a workdir is damaged.
    """
    if not workdirs:
        raise ValueError("found no workdirs; expected those of one or several finished runs.")
    places = [files.located(it).resolve() for it in workdirs]
    if len(set(places)) < len(places):
        raise ValueError(f"found a workdir twice in {list(map(str, workdirs))}; name each once.")
    return [_read(place, _name(place, places)) for place in places]


def _name(place: Path, places: Sequence[Path]) -> str:
    """Return the end of a path that is no other's, as few folders as that takes."""
    ends = (place.parts[-length:] for length in range(1, len(place.parts) + 1))
    alone = (it for it in ends if sum(one.parts[-len(it) :] == it for one in places) == 1)
    return Path(*next(alone, place.parts)).as_posix()


def _read(workdir: Path, name: str) -> Run:
    path = workdir / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"found no {path}; expected a finished run. A run that was stopped is finished by the "
            "command that began it."
        )
    try:
        results = [Result(**facts) for facts in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"found {path}, which holds no results of a run: {error}") from error
    family = Family.load(workdir, [row.domain for row in results])
    curves = {
        row.domain: files.read_rows(workdir / "metrics" / f"{row.domain}.csv") for row in results
    }
    config = workdir / "config.json"
    settings = _flat(json.loads(config.read_text())) if config.is_file() else {}
    curves = {domain: lines for domain, lines in curves.items() if lines}
    return Run(name, workdir, family, results, curves, settings, _sizes(family))


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested settings by their dotted names."""
    if not isinstance(tree, dict):
        return {path: tree}
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{path}.{name}" if path else name)
    return found


def _sizes(family: Family) -> dict[str, int]:
    """Return the bytes of each domain's file; domains with weights of their own have none."""
    return {
        name: adapter_file.size(family[name])
        for name in family
        if not family[name].has_own_weights and name != family.shared.source
    }
