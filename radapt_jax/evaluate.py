"""Top-1 of a domain, and of all domains of a family."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.data import batches
from radapt_jax.data.cache import Split
from radapt_jax.data.loading import DataSpec, load_one_split
from radapt_jax.data.sources import Source
from radapt_jax.family import Family
from radapt_jax.member import Member
from radapt_jax.steps import make_eval_step

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the final table.

    `images` counts the training images, `count` those evaluated; `top1` (percent) is None where
    the images are not there. `ratio` is over the backbone's parameters, heads apart, and `basis`
    that of the β that the family's jointly compressed domains share. `source` marks the domain
    that brings the shared weights.
    """

    domain: str
    method: str
    classes: int
    images: int
    split: str
    count: int
    top1: float | None
    parameters: int
    ratio: float
    basis: float = 0.0
    source: bool = False


def evaluate(
    eval_step: Callable[[Any, Any], Mapping[str, Any]],
    variables: Mapping[str, Any],
    split: Split,
    batch_size: int,
    devices: int,
) -> dict[str, float]:
    """Return mean "loss" (nats), "top1" (percent) and "count" over every image of a split."""
    totals: dict[str, float] = {"loss": 0.0, "correct": 0.0, "count": 0.0}
    for batch in batches.eval_batches(split, batch_size, devices):
        for name, value in eval_step(variables, batch).items():
            totals[name] += float(value)
    count = totals["count"]
    return {
        "loss": totals["loss"] / count,
        "top1": 100 * totals["correct"] / count,
        "count": count,
    }


def evaluate_family(
    family: Family,
    *,
    domains: Sequence[str] | None = None,
    split: str = "test",
    cache_dir: str | Path,
    data_dir: str | None = None,
    batch_size: int = 256,
    dtype: Any = jnp.float32,
) -> list[Row]:
    """Evaluate domains of a family (default: all whose images are known) on one split.

    A domain without a test split is evaluated on val; the row says so. Among all domains, one
    whose images are not there gets a row without top-1.

    Args:
      data_dir: where the images are now, if they have moved.

    Raises:
      KeyError: no such domain.
      FileNotFoundError: the images of a domain that was asked for by name are not there.
      ValueError: a domain that was asked for does not say where its images are, or they have
        other classes.
    """
    rows = []
    for name in family.domains if domains is None else domains:
        member = family[name]
        if member.data is None and domains is None:
            continue
        try:
            which, images = _images(member, split, cache_dir, data_dir)
            result = evaluate_domain(family, name, images, batch_size, dtype)
        except FileNotFoundError as error:
            if domains is not None:
                raise
            log.warning("%s: not evaluated. %s", name, error)
            which, result = "not here", {"count": 0, "top1": None}
        rows.append(
            Row(
                domain=name,
                method=member.method,
                classes=member.domain.num_classes,
                images=member.images.get("train", 0),
                split=which,
                count=int(result["count"] or 0),
                top1=result["top1"],
                parameters=family.parameters(name),
                ratio=family.ratio(name),
                basis=family.basis_parameters() / family.backbone_parameters(),
                source=name == family.shared.source,
            )
        )
    return rows


def evaluate_domain(
    family: Family, name: str, images: Split, batch_size: int = 256, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """Return loss, top-1 and count of one domain of a family on a split."""
    devices = jax.local_devices()
    batch_size = -(-batch_size // len(devices)) * len(devices)
    member = family[name]
    step = make_eval_step(member.spec, member.domain, devices=devices, dtype=dtype)
    return evaluate(step, family.variables(name), images, batch_size, len(devices))


def _images(
    member: Member, split: str, cache_dir: str | Path, data_dir: str | None
) -> tuple[str, Split]:
    """Return which split of a domain is there to be evaluated, and its images."""
    spec, source = open_source(member, data_dir)
    return load_one_split(spec, source, split, cache_dir)


def open_source(member: Member, data_dir: str | None = None) -> tuple[DataSpec, Source]:
    """Open a domain's images where its card says they are, or under `data_dir`.

    Raises:
      FileNotFoundError: they are not there.
      ValueError: the card does not say where, or their classes are others.
    """
    name, spec = member.domain.name, member.data
    if spec is None:
        raise ValueError(f"domain {name!r} does not say where its images are; use `predict`.")
    if data_dir is not None and spec.dir:
        spec = dataclasses.replace(spec, dir=data_dir)
    source = spec.open()
    if source.classes != member.domain.classes:
        raise ValueError(
            f"domain {name!r}: found classes {list(source.classes[:3])}... "
            f"({len(source.classes)}), trained with {list(member.domain.classes[:3])}... "
            f"({member.domain.num_classes}). The images are not those it was trained on."
        )
    return spec, source
