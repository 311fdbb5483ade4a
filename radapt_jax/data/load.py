"""Loads a domain: its facts and its splits, from the config's options."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radapt_jax.data import holdout
from radapt_jax.data.cache import Split, load_split
from radapt_jax.data.domain import Domain
from radapt_jax.data.holdout import HeldOut, OtherImages, Record
from radapt_jax.data.settle import USUAL, decathlon_facts, log_differences, settled
from radapt_jax.data.sources.source import Source
from radapt_jax.data.spec import FIELDS, OPTIONS, DataSpec
from radapt_jax.utils.checks import check, whole

log = logging.getLogger(__name__)


class NothingToEvaluate(ValueError):
    """No labelled images are known that were not trained on."""


@dataclasses.dataclass(frozen=True)
class DomainData:
    """A domain's facts, its splits and its data spec.

    Args:
      domain: the facts.
      splits: "train", and "val" and "test" if there are any.
      spec: the data spec; None: the images are in memory.
      held_out: the images of val, if they were cut from train.
    """

    domain: Domain
    splits: Mapping[str, Split]
    spec: DataSpec | None
    held_out: HeldOut = dataclasses.field(default_factory=HeldOut)


def load_domain(
    name: str,
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    cache_dir: str | Path,
    record: Record | None = None,
    *,
    multiple_of: int = 1,
) -> DomainData:
    """Open, decode and describe one domain.

    With the source of images "decathlon", crop, flip, adapter decay, mean and std are those of the
    Visual Decathlon; with the option `facts` (the name of one of its domains), all but mean and
    std. They fill in what nobody asked for: an adapter decay, size or resize other than `USUAL` is
    kept, and `options` override everything. Other means and stds are measured on the training
    images.

    If the crop is "centre", the network sees the whole shorter side: `size` becomes `resize` (72,
    as in the original code), or `resize` becomes `size` where 72 is no multiple of `multiple_of`.
    Both stay as they are if the crop is the decathlon's and the config asks for a size or resize.
    Whatever differs from the defaults is logged.

    Args:
      name: of the domain.
      defaults: `DataSpec` fields for every domain, and adapter_decay.
      options: `DataSpec` fields and mean, std, crop, flip, adapter_decay, facts for this one.
      cache_dir: where decoded images are kept.
      record: what the card of an earlier training of this domain says; see `load_splits`.
      multiple_of: the backbone takes only sizes that are multiples of this, in pixels.

    Raises:
      ValueError: an unknown option, a size that the backbone cannot take, or images or labels that
        are wrong.
      FileNotFoundError: the images are not there.
    """
    for option in options:
        if option not in OPTIONS:
            close = difflib.get_close_matches(option, OPTIONS, 1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"expected some of {sorted(OPTIONS)}."
            )
            raise ValueError(f"domain {name!r}: found option {option!r}; {hint}")
    usual = {**USUAL, **defaults}
    fields = {key: it for key, it in {**usual, **options}.items() if key in FIELDS}
    known = decathlon_facts(name, fields, options)
    chosen = settled(usual, fields, known, options, multiple_of)
    fields |= {key: chosen.pop(key) for key in ("size", "resize")}
    log_differences(name, usual, {**fields, **chosen}, options, known)
    spec = DataSpec(name=name, **fields)
    sides = whole(multiple_of, multiple_of=multiple_of)
    check("size", spec.size, sides, f"domain {name!r}: ")
    source = spec.open()
    shape = {"size": spec.size, **spec.resizing._asdict()}
    not_measured = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    # Check the facts before decoding takes its time.
    domain = Domain(name, source.classes, **{**not_measured, **shape, **chosen})
    splits, held_out = load_splits(spec, source, cache_dir, record)
    warn_of_empty_classes(domain, splits["train"])
    mean, std = splits["train"].statistics()
    domain = dataclasses.replace(domain, **{"mean": mean, "std": std, **chosen})
    return DomainData(domain, splits, spec, held_out)


def load_splits(
    spec: DataSpec, source: Source, cache_dir: str | Path, record: Record | None = None
) -> tuple[dict[str, Split], HeldOut]:
    """Return all splits of a source of images as training uses them, and what was cut from train.

    If there is no validation split, one is cut from train; if the data spec says so, it joins train
    instead. Train keeps as many images as the data spec says. A split without labels, such as a
    challenge's test images, is left out.

    Args:
      spec: the data spec.
      source: of the images.
      cache_dir: where decoded images are kept.
      record: what the card of a domain that has been trained says about its images: the ones held
        out then are held out again.

    Raises:
      OtherImages: the validation images may have been trained on.
      ValueError: see `cache.load_split`; or the training images have no labels.
    """
    joined = spec.train_on == "train+val"
    parts = [part for part in ("train", "val") if part in source.splits]
    splits = {"train": _decoded(spec, source, "+".join(parts if joined else ["train"]), cache_dir)}
    for name in source.splits:
        if name == "train" or (joined and name == "val"):
            continue
        split = _decoded(spec, source, name, cache_dir)
        if split.labelled:
            splits[name] = split
        else:
            log.info("%s: the images of %s have no labels.", spec.name, name)
    if not splits["train"].labelled:
        raise ValueError(f"domain {spec.name!r}: its training images have no labels.")
    cut, whole = "val" not in splits and not joined and spec.val_fraction > 0, splits["train"]
    if cut and len(val := _held_out(spec, whole, record)):
        splits["val"] = whole.subset(val)
        splits["train"] = whole.without(val)
    held_out = HeldOut.of(splits["val"].own_names if cut and "val" in splits else ())
    train = splits["train"]
    used = holdout.choose_used(
        train.own_names, train.targets, spec.train_fraction, spec.images_per_class, spec.subset
    )
    splits["train"] = train.subset(used)
    if record is not None:
        there = {name: len(part) for name, part in splits.items() if name in ("train", "val")}
        holdout.check_record(record, spec.name, there, cut=cut)
    return splits, held_out


def warn_of_empty_classes(domain: Domain, train: Split) -> None:
    """Warn of classes that nothing teaches."""
    if empty := sorted(set(range(domain.num_classes)) - set(train.targets.tolist())):
        log.warning(
            "%s: %d of %d classes have no training images that can be read, such as %r; they "
            "cannot be learnt.",
            domain.name,
            len(empty),
            domain.num_classes,
            domain.classes[empty[0]],
        )


def load_one_split(
    spec: DataSpec, source: Source, split: str, cache_dir: str | Path, record: Record
) -> tuple[str, Split]:
    """Return the name and the images of one split, to evaluate on.

    If there is no such split or it has no labels, this is val, or else train.

    Raises:
      NothingToEvaluate: val was trained on too and no other images have labels; or no test images
        have labels, and val may have been trained on.
      OtherImages: see `load_splits`.
      ValueError: see `cache.load_split`.
    """
    if split == "test" and split in source.splits:
        test = load_test(spec, source, cache_dir)
        if test.labelled:
            return split, test
    if spec.train_on == "train+val" and split != "train":
        raise NothingToEvaluate(
            f"domain {spec.name!r} was trained on train and val, and its test images have no "
            "labels: nothing is left to evaluate it on. Score the answers with --labels, or write "
            "them to a file with --submission."
        )
    try:
        splits, _ = load_splits(spec, source, cache_dir, record)
    except OtherImages as error:
        if split == "test":
            raise NothingToEvaluate(str(error)) from error
        raise
    found = next(name for name in (split, "val", "train") if name in splits)
    return found, splits[found]


def load_test(spec: DataSpec, source: Source, cache_dir: str | Path) -> Split:
    """Return the test split, with labels or without.

    Raises:
      ValueError: there is none, or see `cache.load_split`.
    """
    if "test" not in source.splits:
        raise ValueError(
            f"domain {spec.name!r} has no test images; it has {', '.join(source.splits)}."
        )
    return _decoded(spec, source, "test", cache_dir)


def _decoded(spec: DataSpec, source: Source, split: str, cache_dir: str | Path) -> Split:
    folder = Path(cache_dir).expanduser()
    return load_split(source, split, spec.resizing, folder, spec.max_unreadable)


def _held_out(spec: DataSpec, train: Split, record: Record | None) -> np.ndarray:
    """Return the positions of the images of train to hold out for validation."""
    if record is not None and record.held_out is not None:
        return record.held_out.find(train.own_names, spec.name)
    names = train.own_names if record is None else None
    return holdout.choose_held_out(names, train.targets, spec.val, spec.val_fraction)
