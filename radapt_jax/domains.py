"""What is known of a domain apart from its weights, and the Visual Decathlon's facts."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

RGB = tuple[float, float, float]
Crop = Literal["random", "centre"]


@dataclasses.dataclass(frozen=True)
class Domain:
    """A dataset with its own label set: classes, normalisation and the crop the network sees.

    Args:
      name: letters, digits, `_`, `-` and inner dots; also the name of its folder on disk.
      classes: class names in label order.
      mean, std: per channel (RGB), for images scaled to [0, 1].
      size: side of the square that the network sees, in pixels; a multiple of 8.
      resize: images are first resized to this length in pixels: the shorter side, or both
        where `squash` is set. At least `size`.
      squash: resize to a square, whatever the aspect ratio.
      crop: training takes a "random" `size` x `size` window of the whole resized image (of an
        aspect ratio up to 8:1), or the "centre" one. Evaluation always takes the centre.
      flip: mirror left to right with probability 1/2 in training.
      adapter_decay: weight decay of this domain's adapter kernels; None: the config's.

    Raises:
      ValueError: on a value outside these ranges.
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

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.classes:
            raise ValueError(f"domain {self.name!r} has no classes; expected at least one.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise ValueError(
                f"domain {self.name!r}: found mean {self.mean} and std {self.std}; expected three "
                "finite numbers each (RGB, images in [0, 1]), every std above 0."
            )
        if not (isinstance(self.size, int) and isinstance(self.resize, int)):
            raise TypeError(f"found size {self.size!r}, resize {self.resize!r}; expected integers.")
        if self.size < 8 or self.size % 8:
            raise ValueError(
                f"domain {self.name!r}: found size {self.size}; expected a multiple of 8 pixels."
            )
        if self.resize < self.size:
            raise ValueError(
                f"domain {self.name!r}: found resize {self.resize} below size {self.size}; "
                "the crop must fit into the resized image."
            )
        if self.adapter_decay is not None and self.adapter_decay < 0:
            raise ValueError(
                f"domain {self.name!r}: adapter_decay is {self.adapter_decay}; expected 0 or more."
            )
        if self.crop not in ("random", "centre"):
            raise ValueError(
                f"domain {self.name!r}: found crop {self.crop!r}; expected 'random' or 'centre'."
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Domain:
        lists = {key: tuple(facts[key]) for key in ("classes", "mean", "std")}
        return cls(**{**facts, **lists})


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can name a domain and its folder."""
    if not re.fullmatch(r"[A-Za-z0-9_-]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?", name):
        raise ValueError(
            f"found domain name {name!r}; expected letters, digits, '_', '-' and inner dots "
            "(it names a folder)."
        )


@dataclasses.dataclass(frozen=True)
class DecathlonFacts:
    """One domain of the Visual Decathlon, as the challenge and the original code define it.

    `category_base` is the challenge's category id of label 0. `adapter_decay` is that of CVPR
    2018, section 4.1 (None: the domain is never a target), and `baseline` the accuracy in percent
    from which the score's largest error follows. Mean and std are those of the original code.
    """

    num_classes: int
    category_base: int
    mean: RGB
    std: RGB
    adapter_decay: float | None
    augment: bool
    baseline: float

    def options(self) -> dict[str, Any]:
        """Return the `Domain` fields that follow from the facts, statistics apart."""
        return {
            "crop": "random" if self.augment else "centre",
            "flip": self.augment,
            "adapter_decay": self.adapter_decay,
        }


def _grey(value: float) -> RGB:
    return (value, value, value)


DECATHLON: Mapping[str, DecathlonFacts] = {
    "imagenet12": DecathlonFacts(
        1000, 60_000_001, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None, True, 59.87
    ),
    "aircraft": DecathlonFacts(
        100,
        10_000_001,
        (0.47983041, 0.51074066, 0.53437998),
        (0.21070221, 0.20508901, 0.23729657),
        2e-3,
        True,
        60.34,
    ),
    "cifar100": DecathlonFacts(
        100,
        20_000_001,
        (0.50705882, 0.48666667, 0.44078431),
        (0.26745098, 0.25647059, 0.27607843),
        1e-4,
        True,
        82.12,
    ),
    "daimlerpedcls": DecathlonFacts(
        2, 30_000_001, _grey(0.48203529), _grey(0.23612616), 5e-4, True, 92.82
    ),
    "dtd": DecathlonFacts(
        47,
        40_000_001,
        (0.52696497, 0.47025164, 0.42396662),
        (0.25226877, 0.2409176, 0.2499409),
        2e-3,
        True,
        55.53,
    ),
    "gtsrb": DecathlonFacts(
        43,
        50_000_001,
        (0.33921263, 0.3117836, 0.32047045),
        (0.27560347, 0.26576119, 0.27089863),
        1e-4,
        False,
        97.53,
    ),
    "vgg-flowers": DecathlonFacts(
        102,
        100_000_001,
        (0.43414682, 0.38309883, 0.29714763),
        (0.28509808, 0.23842338, 0.2639633),
        2e-3,
        True,
        81.41,
    ),
    "omniglot": DecathlonFacts(
        1623, 70_000_001, _grey(0.08099839), _grey(0.27046935), 5e-4, False, 87.69
    ),
    "svhn": DecathlonFacts(
        10,
        80_000_001,
        (0.4376821, 0.4437697, 0.47280442),
        (0.19803012, 0.20101562, 0.19703614),
        1e-4,
        False,
        96.55,
    ),
    "ucf101": DecathlonFacts(
        101,
        90_000_001,
        (0.49953101, 0.49880386, 0.49981996),
        (0.10898684, 0.10810246, 0.10679939),
        5e-4,
        True,
        51.2,
    ),
}


def decathlon_name(name: str) -> str | None:
    """Return the name in `DECATHLON` of one of its domains, or None for any other name.

    `vgg_flowers` and `vgg-flowers` are the same domain.
    """
    spelled = name.replace("_", "-")
    return spelled if spelled in DECATHLON else None


def known_options(name: str, *, statistics: bool = False) -> dict[str, Any]:
    """Return crop, flip and adapter decay of a decathlon domain, or {} for any other name.

    With `statistics`, mean and std too: they are those of the challenge's own images.
    """
    known = decathlon_name(name)
    if known is None:
        return {}
    facts = DECATHLON[known]
    return {**facts.options(), **({"mean": facts.mean, "std": facts.std} if statistics else {})}
