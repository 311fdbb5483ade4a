"""What is known of a domain apart from its weights, and the Visual Decathlon's facts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from radapt_jax.values import (
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
        check_all(vars(self), KINDS, f"domain {self.name!r}: ")
        if not self.classes:
            raise ValueError(f"domain {self.name!r} has no classes; expected at least one.")
        if self.resize < self.size:
            raise ValueError(
                f"domain {self.name!r}: found resize {self.resize} below size {self.size}; "
                "the crop must fit into the resized image."
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Domain:
        check_all(facts, {"classes": several(TEXT), "mean": RGB_KIND, "std": RGB_KIND})
        lists = {key: tuple(facts[key]) for key in ("classes", "mean", "std")}
        return cls(**{**facts, **lists})


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can name a domain and its folder."""
    check("domain name", name, NAME)


def check_apart(names: Iterable[str]) -> None:
    """Raise ValueError if two names are the same to a file system that ignores case."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"found domains {other!r} and {name!r}; they would share a folder where case is "
                "ignored. Rename one."
            )


LONGEST_NAME = 100  # what is added to it still makes a file name
NAME = Kind(
    f"letters, digits, '_', '-' and inner dots, {LONGEST_NAME} at most (it names a folder)",
    lambda found: (
        isinstance(found, str)
        and len(found) <= LONGEST_NAME
        and bool(re.fullmatch(r"[A-Za-z0-9_-]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?", found))
    ),
)
RGB_KIND = several(number("(-inf, inf)"), 3)
KINDS = {
    "classes": several(TEXT),
    "mean": RGB_KIND,  # RGB, for images in [0, 1]
    "std": several(number("(0, inf)"), 3),
    "size": whole(8, multiple_of=8),
    "resize": whole(8),
    "squash": FLAG,
    "crop": one_of("random", "centre"),
    "flip": FLAG,
    "adapter_decay": optional(number("[0, inf)")),
}


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
