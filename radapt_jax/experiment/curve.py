"""Choosing how to compress by what it costs: accuracy on validation images against bytes."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radapt_jax.compress.ranks import rank_rule
from radapt_jax.compress.which import dense_kinds, targets
from radapt_jax.evaluation.evaluate import predict_domain, scores_of
from radapt_jax.experiment.compressed import (
    Dense,
    Opened,
    compressed_as,
    renew,
    rounded_family,
)
from radapt_jax.experiment.settings import Settings
from radapt_jax.family import packing
from radapt_jax.family.family import Family
from radapt_jax.family.rounding import OF_ADAPTERS, WHOLE
from radapt_jax.report.curve import Point, plot_curve, table
from radapt_jax.utils import distributed, files

log = logging.getLogger(__name__)
FLOAT32 = 4  # bytes of a value


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to compress: a kind, a share of the full rank (None: as the config says), and bits."""

    kind: str
    share: float | None = None
    bits: int = WHOLE

    def of(self, settings: Settings) -> Settings:
        """Return the settings of a run that compresses in this way."""
        how = dataclasses.replace(settings.compression, kind=self.kind)
        if self.share is not None:
            how = dataclasses.replace(how, ranks=rank_rule("uniform", share=self.share))
        options = dataclasses.replace(settings.options, bits=self.bits)
        return dataclasses.replace(settings, compression=how, options=options)


def candidates(among: str) -> dict[str, Candidate]:
    """Return the ways that an entry such as "parallel int4, joint 0.25 int8" names, by name.

    Raises:
      ValueError: it names one that is not there.
    """
    names = [" ".join(it.split()) for it in among.split(",") if it.strip()]
    return {name: _candidate(name) for name in names}


def _candidate(name: str) -> Candidate:
    kind, *words = name.split()
    kinds, found = [*targets(), *dense_kinds()], Candidate(kind)
    known = {f"int{bits}": bits for bits in OF_ADAPTERS if bits != WHOLE}
    for word in words:
        if word in known:
            found = dataclasses.replace(found, bits=known[word])
            continue
        try:
            share = float(word)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            kind = ""
        if kind in dense_kinds():  # which keep their rank
            kind = ""
        found = dataclasses.replace(found, share=share)
    if kind not in kinds:
        raise ValueError(
            f"found config.compress.among with {name!r}; expected a kind of {kinds}, a share of "
            f"the full rank in (0, 1] (not of {dense_kinds()}, which keep it), and one of "
            f"{list(known)}, such as 'joint 0.25 int4'."
        )
    return found


def chosen(settings: Settings, dense: Dense, workdir: Path) -> Settings:
    """Return the settings with the smallest way that loses little enough.

    Where the config names no ways, they are as they were. Nothing is trained to choose: each is
    measured on validation images, with statistics of norms taken anew. The choice is kept in
    <workdir>/curve.json, the picture in curve.png.

    Raises:
      ValueError: a domain has no validation images, or every way loses more.
    """
    among = candidates(settings.compression.among)
    if not among:
        return settings
    path = workdir / "curve.json"
    if path.is_file():
        name = json.loads(path.read_text())["chosen"]
    else:
        points = measured(settings, dense, among)
        log.info("%s", table(points))
        name = smallest(points, settings.compression.at_most)
        facts = {"chosen": name, "points": [dataclasses.asdict(it) for it in points]}
        text = json.dumps(facts, indent=1) + "\n"

        def write() -> None:
            workdir.mkdir(parents=True, exist_ok=True)
            plot_curve(points, name, workdir / "curve.png")
            files.write_atomically(path, text)

        distributed.by_main(write)
    log.info("compressed to %s", name)
    return among[name].of(settings)


def measured(settings: Settings, dense: Dense, among: dict[str, Candidate]) -> list[Point]:
    """Return accuracy and bytes of the dense domains, and of every way to compress them."""
    points = [_point("dense", dense.family, dense)]
    for name, way in among.items():
        how = way.of(settings)
        opened = Opened(compressed_as(how.compression, dense), dense)
        for domain in dense.names:
            renew(opened, domain, way.bits, how.compression.statistics)
        points.append(_point(name, rounded_family(opened, way.bits), dense))
        log.info("%s: %.2f %% on validation images", name, points[-1].top1)
    return points


def _point(name: str, family: Family, dense: Dense) -> Point:
    top1, size = [], FLOAT32 * family.shared.basis_parameters()
    for domain in dense.names:
        splits = dense.images(domain).splits
        if "val" not in splits:
            raise ValueError(
                f"domain {domain!r} has no validation images, by which a way to compress is "
                "chosen. Name one: --config.compress.kind and --config.compress.bits, with "
                "config.compress.among ''."
            )
        judged = predict_domain(family, domain, splits["val"])
        top1.append(scores_of(judged, splits["val"].targets, splits["val"].left_out).top1)
        size += sum(it.nbytes for it in packing.packed(family[domain]).values())
    return Point(name, float(np.mean(top1)), size)


def smallest(points: Sequence[Point], at_most: float) -> str:
    """Return the name of the smallest way that loses at most so many points.

    Args:
      points: of the dense domains, then of every way.
      at_most: points of validation top-1.

    Raises:
      ValueError: every way loses more.
    """
    first, *others = points
    good = [it for it in others if first.top1 - it.top1 <= at_most]
    if not good:
        best = max(others, key=lambda it: it.top1)
        raise ValueError(
            f"found no way that loses at most {at_most:g} points: the best, {best.name!r}, loses "
            f"{first.top1 - best.top1:.2f}.\n{table(points)}\nName others "
            "(config.compress.among), or allow more (config.compress.at_most)."
        )
    return min(good, key=lambda it: it.size).name
