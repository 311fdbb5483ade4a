"""The data spec: where a domain's images are, and how they are decoded and split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from radapt_jax.data.domain import INTERPOLATION, Interpolation, Resizing, check_name
from radapt_jax.data.settle import FACTS
from radapt_jax.data.sources.registry import SOURCES
from radapt_jax.data.sources.source import Source
from radapt_jax.utils.checks import FLAG, PATH, TEXT, check, check_all, number, one_of, whole


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where a domain's images are and how they are decoded and split.

    Args:
      name: of the domain.
      source: where the images come from: "embedded", "folder", "tfds", "decathlon" or another name
        in `sources.registry.SOURCES`.
      dir: folder of the domains ("folder"), or `data_dir` ("tfds", "decathlon").
      dataset: name of the folder or dataset, if it differs from the domain's.
      size, resize, squash, interpolation: as in `Domain`; size and resize are in pixels.
      val: how a validation split is cut from train if there is none: "random" images, chosen by a
        hash of their names, or "blocks", the last images of each class (if neighbours in a class
        look alike).
      val_fraction: share of each class that goes to validation, in [0, 1), exact for "blocks"; a
        class of two or more images has at least one in each part.
      train_on: "train", or "train+val" to train on the validation images too; none are left then.
      train_fraction: share of each class's training images to use, in (0, 1]; at least one.
      images_per_class: the largest number of training images of a class to use; 0: no limit.
      subset: seed that decides which images these are; a larger choice includes a smaller one.
      max_unreadable: share of a split's images that may be unreadable, in [0, 1]; they are left
        out.

    Raises:
      ValueError: a value outside these ranges.
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
    train_on: str = "train"
    train_fraction: float = 1.0
    images_per_class: int = 0
    subset: int = 0
    max_unreadable: float = 0.001
    interpolation: Interpolation = "bicubic"  # cards from before this fact have none

    def __post_init__(self) -> None:
        check_name(self.name)
        check("source", self.source, one_of(*sorted(SOURCES)), f"domain {self.name!r}: ")
        check_all(vars(self), KINDS, f"domain {self.name!r}: ")
        if self.dir:
            object.__setattr__(self, "dir", str(Path(self.dir).expanduser().absolute()))

    @property
    def resizing(self) -> Resizing:
        return Resizing(self.resize, self.squash, self.interpolation)

    def without_place(self) -> DataSpec:
        """Return the data spec without this machine's folders, for files that go elsewhere."""
        own = Path(self.dataset)
        return dataclasses.replace(
            self, dir="", dataset=own.name if own.is_absolute() else self.dataset
        )

    def open(self) -> Source:
        """Return the source of these images.

        Raises:
          FileNotFoundError: the images are not there.
          ValueError: they are not as the source expects.
        """
        source = SOURCES[self.source](self)
        return dataclasses.replace(source, name=self.name)


KINDS = {
    "dir": PATH,
    "dataset": TEXT,
    "size": whole(1),
    "resize": whole(1),
    "squash": FLAG,
    "interpolation": INTERPOLATION,
    "val": one_of("random", "blocks"),
    "val_fraction": number("[0, 1)"),
    "train_on": one_of("train", "train+val"),
    "train_fraction": number("(0, 1]"),
    "images_per_class": whole(0),
    "subset": whole(0),
    "max_unreadable": number("[0, 1]"),
}
FIELDS = tuple(field.name for field in dataclasses.fields(DataSpec) if field.name != "name")
OPTIONS = (*FIELDS, *FACTS, "facts")
