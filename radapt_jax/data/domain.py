"""What a domain is, apart from its weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from radapt_jax.utils.checks import (
    FLAG,
    TEXT,
    Kind,
    check,
    check_all,
    number,
    one_of,
    optional,
    several,
    whole,
)

LARGEST = 1 << 13  # pixels of a side that images are resized to
RGB = tuple[float, float, float]
Crop = Literal["random", "centre"]
Interpolation = Literal["bicubic", "bilinear"]


class Resizing(NamedTuple):
    """How images are resized before they are cropped; see `Domain`."""

    resize: int
    squash: bool = False
    interpolation: Interpolation = "bicubic"


@dataclasses.dataclass(frozen=True)
class Domain:
    """A dataset with its own label set: classes, normalisation and the crop the network sees.

    Args:
      name: letters, digits, `_`, `-` and inner dots; also the name of its folder on disk.
      classes: class names in label order.
      mean, std: per channel (RGB), for images scaled to [0, 1].
      size: side of the square that the network sees, in pixels.
      resize: length in pixels to which images are resized first: the shorter side, or both sides
        with `squash`. At least `size`.
      squash: resize to a square, whatever the aspect ratio.
      interpolation: between pixels when resizing, "bicubic" or "bilinear".
      crop: training takes a "random" `size` x `size` window of the resized image (of an aspect
        ratio up to 8:1), or the "centre" one. Evaluation always takes the centre.
      flip: mirror left to right with probability 1/2 in training.
      adapter_decay: weight decay of this domain's adapter kernels; None: the config's.

    Raises:
      ValueError: a value outside these ranges.
    """

    name: str
    classes: tuple[str, ...]
    mean: RGB
    std: RGB
    size: int = 64
    resize: int = 72
    squash: bool = False
    crop: Crop = "random"
    flip: bool = True
    adapter_decay: float | None = None
    interpolation: Interpolation = "bicubic"  # cards from before this fact have none

    def __post_init__(self) -> None:
        check_name(self.name)
        check_all(vars(self), KINDS, f"domain {self.name!r}: ")
        if not self.classes:
            raise ValueError(f"domain {self.name!r} has no classes; expected at least one.")
        if self.resize > LARGEST:
            raise ValueError(
                f"domain {self.name!r}: found resize {self.resize}; expected {LARGEST} at most."
            )
        if self.resize < self.size:
            raise ValueError(
                f"domain {self.name!r}: found resize {self.resize} below size {self.size}; "
                "the crop must fit into the resized image."
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def resizing(self) -> Resizing:
        return Resizing(self.resize, self.squash, self.interpolation)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values; `from_json` undoes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Domain:
        """Return the domain that `to_json` describes.

        Raises:
          KeyError: no classes, mean or std.
          TypeError: an unknown fact, or one that is missing.
          ValueError: a value outside its range.
        """
        check_all(facts, {"classes": several(TEXT), "mean": RGB_KIND, "std": RGB_KIND})
        lists = {key: tuple(facts[key]) for key in ("classes", "mean", "std")}
        return cls(**{**facts, **lists})


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can name a domain and its folder."""
    check("domain name", name, NAME)


def check_apart(names: Iterable[str]) -> None:
    """Raise ValueError if two names differ only in case: some file systems ignore it."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"found domains {other!r} and {name!r}; they would share a folder where case is "
                "ignored. Rename one."
            )


LONGEST_NAME = 100  # leaves room for the suffixes of file names
NAME = Kind(
    f"letters, digits, '_', '-' and inner dots, {LONGEST_NAME} at most (it names a folder)",
    lambda found: (
        isinstance(found, str)
        and len(found) <= LONGEST_NAME
        and bool(re.fullmatch(r"[A-Za-z0-9_-]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?", found))
    ),
)
RGB_KIND = several(number("(-inf, inf)"), 3)
INTERPOLATION = one_of("bicubic", "bilinear")
KINDS = {
    "classes": several(TEXT),
    "mean": RGB_KIND,  # RGB, for images in [0, 1]
    "std": several(number("(0, inf)"), 3),
    "size": whole(1),
    "resize": whole(1),
    "squash": FLAG,
    "interpolation": INTERPOLATION,
    "crop": one_of("random", "centre"),
    "flip": FLAG,
    "adapter_decay": optional(number("[0, inf)")),
}
