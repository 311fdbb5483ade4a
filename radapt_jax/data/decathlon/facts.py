"""The Visual Decathlon's ten domains: class counts, statistics, augmentation and decay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.data.domain import RGB


@dataclasses.dataclass(frozen=True)
class DecathlonFacts:
    """One domain of the Visual Decathlon, as the challenge and the original code define it.

    Args:
      num_classes: how many classes it has.
      category_base: the challenge's category id of label 0.
      mean, std: of the original code, per channel (RGB), for images scaled to [0, 1].
      adapter_decay: weight decay of CVPR 2018, section 4.1; None: the domain is never a target.
      augment: whether training crops at random and mirrors.
      baseline: accuracy in percent that gives the score's largest error.
    """

    num_classes: int
    category_base: int
    mean: RGB
    std: RGB
    adapter_decay: float | None
    augment: bool
    baseline: float

    def options(self) -> dict[str, Any]:
        """Return the `Domain` fields that follow from the facts, without mean and std."""
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
    """Return a domain's name as spelled in `DECATHLON`, or None if it has no such domain.

    `vgg_flowers` and `vgg-flowers` are the same domain.
    """
    spelled = name.replace("_", "-")
    return spelled if spelled in DECATHLON else None


def known_options(name: str, *, statistics: bool = False) -> dict[str, Any]:
    """Return crop, flip and adapter decay of a decathlon domain, or {} for any other name.

    With `statistics`, mean and std too, which are those of the challenge's own images.
    """
    known = decathlon_name(name)
    if known is None:
        return {}
    facts = DECATHLON[known]
    return {**facts.options(), **({"mean": facts.mean, "std": facts.std} if statistics else {})}
