"""Evaluates a domain, or all domains of a family: predictions, top-1 and loss."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from radapt_jax.data import batches
from radapt_jax.data.cache import Split, decode_split
from radapt_jax.data.domain import Domain
from radapt_jax.data.load import NothingToEvaluate, load_one_split
from radapt_jax.data.pixels import HostPixels, Pixels
from radapt_jax.data.sources.arrays import open_arrays
from radapt_jax.evaluation.result import Result, row_of, shown_split
from radapt_jax.evaluation.sources import open_source
from radapt_jax.evaluation.step import EvalStep, make_eval_step
from radapt_jax.family.family import Family
from radapt_jax.utils import distributed
from radapt_jax.utils.trees import Variables

log = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """What a network predicts for the images of a split, in order."""

    predicted: np.ndarray  # labels, int32 (n,)
    sure: np.ndarray  # their probabilities, float32 (n,)
    losses: np.ndarray  # nats, float32 (n,); exp(-loss) is the probability of the right class


class Answers(NamedTuple):
    """What a domain predicts for the images of a split, which a table calls `split`."""

    domain: Domain
    split: str
    images: Split
    found: Predicted


def predict_split(
    eval_step: EvalStep,
    variables: Variables,
    pixels: Pixels,
    domain: Domain,
    batch_size: int,
    devices: int,
    crops: int = 1,
) -> Predicted:
    """Return what a network predicts for every image of a split.

    Args:
      eval_step: from `step.make_eval_step`.
      variables: `params`, `adapters` and `batch_stats`.
      pixels: of the split.
      domain: says how images are cropped.
      batch_size: images over all devices; a multiple of `devices`.
      devices: how many there are, over all processes.
      crops: views of each image whose probabilities are averaged; see `views.eval_views`.

    Raises:
      FloatingPointError: some of what it says is NaN, which would count as the first class.
    """
    found: list[tuple[int, Mapping[str, Any]]] = []
    shares = batches.eval_batches(pixels, domain, batch_size, devices, crops, distributed.place())
    for real, batch in shares:
        found.append((real, eval_step(variables, batch, pixels.resident)))
    columns = {
        name: np.concatenate([np.asarray(it[name]).reshape(-1)[:real] for real, it in found])
        for name in ("predicted", "sure", "loss")
    }
    if broken := int((~np.isfinite(columns["sure"])).sum()):
        raise FloatingPointError(
            f"domain {domain.name!r}: found NaN for {broken} of {len(columns['sure'])} images; "
            "expected probabilities. Its variables, or the shared ones, are broken: train it "
            "again, or restore it."
        )
    return Predicted(columns["predicted"], columns["sure"], columns["loss"])


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of images.

    Args:
      loss: mean cross-entropy, in nats.
      top1: in percent.
      count: of the images.
    """

    loss: float
    top1: float
    count: int


def scores_of(judged: Predicted, labels: np.ndarray, left_out: int = 0) -> Scores:
    """Return the scores of images with known labels.

    Args:
      judged: what a network predicts for them.
      labels: int32 (n,).
      left_out: images that cannot be read; they count as wrong, but not in the loss.
    """
    count = len(labels) + left_out
    return Scores(
        loss=float(judged.losses.mean(dtype=np.float64)),
        top1=100 * float((judged.predicted == labels).sum()) / count,
        count=count,
    )


def evaluate(
    family: Family,
    name: str,
    images: Any,
    labels: Any,
    *,
    batch_size: int = 256,
    dtype: Any = jnp.float32,
    crops: int = 1,
) -> Scores:
    """Return how well a domain of a family predicts images in memory.

    Args:
      family: that has the domain.
      name: of the domain.
      images: uint8 (n, h, w, 3), of NumPy or JAX; or n arrays, PIL images, paths or encoded bytes.
        They are resized and cropped as in every evaluation of the domain.
      labels: n whole numbers, or n names among the domain's classes.
      batch_size: images that go through the network at once.
      dtype: of the computation.
      crops: views of each image whose probabilities are averaged: 1 (the centre), 5 (also the
        corners) or 10 (also mirrored, for domains that mirror in training).

    Returns:
      Top-1 in percent, mean loss in nats, and the count of images; see `Scores`.

    Raises:
      KeyError: no such domain.
      ValueError: images that cannot be read, or labels that do not fit them or the classes.
      FloatingPointError: some of what the domain says is NaN.
    """
    domain = family[name].domain
    source = open_arrays(name, {"test": (images, labels)}, domain.classes)
    split = decode_split(source, "test", domain.resizing)
    judged = predict_domain(family, name, split, batch_size, dtype, crops)
    return scores_of(judged, split.targets)


def evaluate_family(
    family: Family,
    *,
    domains: Sequence[str] | None = None,
    split: str = "test",
    cache_dir: str | Path,
    data_dir: str | None = None,
    or_in: str | None = None,
    batch_size: int = 256,
    dtype: Any = jnp.float32,
    crops: int = 1,
    see: Callable[[Answers], None] | None = None,
) -> list[Result]:
    """Evaluate domains of a family on one split, and return a result for each.

    A domain without a labelled test split is evaluated on val, as its result says. If no domains
    are named, a domain whose images are missing, unknown or of other classes, or may all have been
    trained on, gets a result without top-1, and a warning; and so does one that says NaN.

    Args:
      family: with the domains.
      domains: their names; default: all.
      split: "test", "val" or "train".
      cache_dir: where decoded images are kept.
      data_dir: where the images of all domains are now, if they have moved.
      or_in: where those are that are not where their domain's card says.
      batch_size: images over all devices; rounded up to a multiple of their number.
      dtype: of the computation.
      crops: as in `evaluate`.
      see: gets the answers of each domain that is evaluated, before the next one's images are read.

    Raises:
      KeyError: there is no such domain.
      FileNotFoundError: the images of a domain that is named are not there.
      ValueError: it is not known where the images of a domain that is named are; images have other
        classes; or they are not split into train and val as in training.
      FloatingPointError: a domain that is named says NaN.
    """
    rows = []
    for name in family.domains if domains is None else domains:
        member = family[name]
        missing = None
        with distributed.agreed():
            try:
                spec, source = open_source(member, data_dir, or_in=or_in)
                which, images = load_one_split(spec, source, split, cache_dir, member.record)
            except (FileNotFoundError, NothingToEvaluate) as error:
                if domains is not None:
                    raise
                log.warning("%s: not evaluated. %s", name, error)
                missing = "not here" if isinstance(error, FileNotFoundError) else "nothing"
        distributed.check_same(
            missing or (which, len(images), images.left_out), f"images of {name}"
        )
        if missing:
            rows.append(row_of(family, name, missing, 0, None))
            continue
        try:
            judged = predict_domain(family, name, images, batch_size, dtype, crops)
        except FloatingPointError as error:  # on every process
            if domains is not None:
                raise
            log.warning("%s", error)
            rows.append(row_of(family, name, "NaN", 0, None))
            continue
        found, shown = scores_of(judged, images.targets, images.left_out), shown_split(which, crops)
        rows.append(row_of(family, name, shown, found.count, found.top1))
        if see is not None:
            see(Answers(member.domain, shown, images, judged))
    return rows


def predict_domain(
    family: Family,
    name: str,
    images: Split,
    batch_size: int = 256,
    dtype: Any = jnp.float32,
    crops: int = 1,
) -> Predicted:
    """Return what one domain of a family predicts for the images of a split.

    Args:
      family: with the domain.
      name: of the domain.
      images: the split.
      batch_size, dtype, crops: as in `evaluate_family`.

    Raises:
      KeyError: there is no such domain.
      FloatingPointError: some of what it says is NaN.
    """
    devices = distributed.devices()
    batch_size = -(-batch_size // len(devices)) * len(devices)
    member = family[name]
    step = make_eval_step(member.spec, member.domain, devices=devices, dtype=dtype)
    pixels = HostPixels(images, member.domain.size)
    variables = family.variables(name)
    return predict_split(step, variables, pixels, member.domain, batch_size, len(devices), crops)
