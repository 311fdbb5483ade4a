"""Top-1 of a domain, and of all domains of a family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.data import batches
from radapt_jax.data.cache import Split
from radapt_jax.data.loading import load_splits
from radapt_jax.family import Family
from radapt_jax.steps import make_eval_step


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the final table; `images` counts the training images, `count` those evaluated."""

    domain: str
    method: str
    classes: int
    images: int
    split: str
    count: int
    top1: float
    parameters: int
    ratio: float


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

    A domain without a test split is evaluated on val; the row says so.

    Args:
      data_dir: where the images are now, if they have moved.

    Raises:
      KeyError: no such domain.
      ValueError: a domain that was added without saying where its images are was asked for.
    """
    devices = jax.local_devices()
    batch_size = -(-batch_size // len(devices)) * len(devices)
    rows = []
    for name in family.domains if domains is None else domains:
        member = family[name]
        if member.data is None:
            if domains is None:
                continue
            raise ValueError(f"domain {name!r} does not say where its images are; use `predict`.")
        spec = member.data
        if data_dir is not None and spec.dir:
            spec = dataclasses.replace(spec, dir=data_dir)
        source = spec.open()
        if source.classes != member.domain.classes:
            raise ValueError(
                f"domain {name!r}: found classes {list(source.classes[:3])}... "
                f"({len(source.classes)}), trained with {list(member.domain.classes[:3])}... "
                f"({member.domain.num_classes}). The images are not those it was trained on."
            )
        splits = load_splits(spec, source, cache_dir)
        held_out = split if split in splits else ("val" if "val" in splits else "train")
        eval_step = make_eval_step(member.spec, member.domain, devices=devices, dtype=dtype)
        result = evaluate(
            eval_step, family.variables(name), splits[held_out], batch_size, len(devices)
        )
        rows.append(
            Row(
                domain=name,
                method=member.method,
                classes=member.domain.num_classes,
                images=len(splits["train"]),
                split=held_out,
                count=int(result["count"]),
                top1=result["top1"],
                parameters=family.parameters(name),
                ratio=family.ratio(name),
            )
        )
    return rows
