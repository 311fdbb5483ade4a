"""From a config to a domain's facts and splits."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radapt_jax.data.cache import Split, Unlabelled, load_split
from radapt_jax.data.embedded import open_embedded
from radapt_jax.data.folder import open_folder
from radapt_jax.data.prepared import open_tfds
from radapt_jax.data.sources import Source
from radapt_jax.domains import Domain, check_name, known_options

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where a domain's images are and how they are decoded and split.

    Args:
      name: of the domain.
      source: "embedded", "folder" or "tfds".
      dir: folder of the domains ("folder") or `data_dir` ("tfds").
      dataset: name of the folder or dataset, if it is not the domain's.
      size, resize, squash: as in `Domain`.
      val: how a validation split is cut from train where there is none: "random" images, or
        "blocks", the last images of each class (where neighbours in a class look alike).
      val_fraction: share of each class that goes to validation.
    """

    name: str
    source: str
    dir: str = ""
    dataset: str = ""
    size: int = 64
    resize: int = 72
    squash: bool = False
    val: str = "random"
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.source not in SOURCES:
            raise ValueError(
                f"domain {self.name!r}: found source {self.source!r}; expected one of "
                f"{sorted(SOURCES)}."
            )
        if self.val not in ("random", "blocks"):
            raise ValueError(
                f"domain {self.name!r}: found val {self.val!r}; expected 'random' or 'blocks'."
            )
        if not 0.0 <= self.val_fraction < 1.0:
            raise ValueError(
                f"domain {self.name!r}: found val_fraction {self.val_fraction}; expected a share "
                "in [0, 1)."
            )

        if self.dir:
            object.__setattr__(self, "dir", str(Path(self.dir).expanduser().absolute()))

    def open(self) -> Source:
        source = SOURCES[self.source](self)
        return dataclasses.replace(source, name=self.name)


SOURCES: Mapping[str, Callable[[DataSpec], Source]] = {
    "embedded": lambda spec: open_embedded(spec.dataset or spec.name),
    "folder": lambda spec: open_folder(spec.dataset or spec.name, spec.dir),
    "tfds": lambda spec: open_tfds(spec.name, spec.dir, dataset=spec.dataset or None),
}
FACTS = ("mean", "std", "crop", "flip", "adapter_decay")
OPTIONS = (*(field.name for field in dataclasses.fields(DataSpec) if field.name != "name"), *FACTS)


@dataclasses.dataclass(frozen=True)
class DomainData:
    """A domain's facts, its splits (train, and val and test where there are any), its spec."""

    domain: Domain
    splits: Mapping[str, Split]
    spec: DataSpec


def load_domain(
    name: str, defaults: Mapping[str, Any], options: Mapping[str, Any], cache_dir: str | Path
) -> DomainData:
    """Open, decode and describe one domain.

    Crop, flip and adapter decay of a Visual Decathlon domain are those of the challenge. Mean and
    std are measured on the training split. Of a domain whose crop is "centre" the network sees
    the whole shorter side: `size` becomes `resize` (72, as in the original), or the other way
    round where that is no multiple of 8. `options` override all of this.

    Args:
      name: of the domain.
      defaults: `DataSpec` fields for every domain.
      options: `DataSpec` fields and mean, std, crop, flip, adapter_decay for this one.
      cache_dir: where decoded images are kept.

    Raises:
      ValueError: an unknown option, or whatever the source finds wrong.
      FileNotFoundError: the images are not there.
    """
    for option in options:
        if option not in OPTIONS:
            close = difflib.get_close_matches(option, OPTIONS, 1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"expected some of {sorted(OPTIONS)}."
            )
            raise ValueError(f"domain {name!r}: found option {option!r}; {hint}")
    facts = {**known_options(name), **{key: options[key] for key in FACTS if key in options}}
    fields = {**defaults, **{key: value for key, value in options.items() if key not in FACTS}}
    if facts.get("crop") == "centre" and not options.keys() & {"resize", "size"}:
        whole = "resize" if fields["resize"] % 8 == 0 else "size"
        fields["resize"] = fields["size"] = fields[whole]
    spec = DataSpec(name=name, **fields)
    source = spec.open()
    shape = {"size": spec.size, "resize": spec.resize, "squash": spec.squash}
    not_measured = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    domain = Domain(name, source.classes, **{**not_measured, **shape, **facts})  # checks first
    splits = load_splits(spec, source, cache_dir)
    mean, std = splits["train"].statistics()
    return DomainData(
        dataclasses.replace(domain, **{"mean": mean, "std": std, **facts}), splits, spec
    )


def load_splits(spec: DataSpec, source: Source, cache_dir: str | Path) -> dict[str, Split]:
    """Decode all splits of a source; cut a validation split from train where there is none.

    A split whose labels are all -1, as those of a challenge's test images, is left out.
    """
    splits = {}
    for split in source.splits:
        try:
            splits[split] = _decoded(spec, source, split, cache_dir)
        except Unlabelled:
            log.info("%s: split %s has no labels, and is left out.", spec.name, split)
    if "val" not in splits and spec.val_fraction > 0:
        val = _validation_positions(splits["train"].targets, spec)
        if len(val):
            train = np.setdiff1d(np.arange(len(splits["train"])), val)
            splits["val"] = splits["train"].subset(val)
            splits["train"] = splits["train"].subset(train)
    return splits


def load_one_split(
    spec: DataSpec, source: Source, split: str, cache_dir: str | Path
) -> tuple[str, Split]:
    """Decode one split; val, or else train, where there is none of that name. Return which."""
    if split == "test" and split in source.splits:
        try:
            return split, _decoded(spec, source, split, cache_dir)
        except Unlabelled:
            pass
    splits = load_splits(spec, source, cache_dir)
    found = next(name for name in (split, "val", "train") if name in splits)
    return found, splits[found]


def _decoded(spec: DataSpec, source: Source, split: str, cache_dir: str | Path) -> Split:
    return load_split(source, split, spec.resize, spec.squash, Path(cache_dir).expanduser())


def _validation_positions(labels: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Choose `val_fraction` of every class, the same ones in every run; at least one of two."""
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        amount = max(round(spec.val_fraction * len(members)), 1) if len(members) > 1 else 0
        if spec.val == "random":
            members = np.random.default_rng([len(labels), label]).permutation(members)
        chosen.append(members[len(members) - amount :])
    return np.sort(np.concatenate(chosen))
