"""Which network a state_dict is of, by the names in it.

A network is added by one line of `ORIGINS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from radapt_jax.convert import efficientnet_lite, original, resnet, resnet_cifar
from radapt_jax.convert.pickled import short
from radapt_jax.convert.torch import COUNTER
from radapt_jax.family.family import Family

SHOWN = 5  # names in an error


def one_domain(state_dict: Mapping[str, Any]) -> int:
    """Return how many domains a network has that was trained on one."""
    return 1


def counters(state_dict: Mapping[str, Any]) -> list[str]:
    """Return the names of PyTorch's counts of batches, which no network needs."""
    return [name for name in state_dict if name.endswith(COUNTER)]


class Origin(NamedTuple):
    """Networks of one origin.

    first: a pattern; a state_dict is of this origin if one of its names, as a whole, matches.
    family: makes the family: `family(state_dict)`, or with `name=` for its source domain, and with
      `domain=` where there are several.
    unused: the names of a state_dict that `family` makes no use of; it takes `domain=`, too.
    domains: how many domains a state_dict has.
    """

    first: str
    family: Callable[..., Family]
    unused: Callable[..., list[str]] = counters
    domains: Callable[[Mapping[str, Any]], int] = one_domain


ORIGINS = {
    "ResNet-26 of the original code": Origin(
        r"pre_layers_conv\.conv\.weight",
        original.family_of_original,
        original.unused,
        original.domains,
    ),
    "CIFAR ResNet": Origin(r"linear\.weight", resnet_cifar.family_of_resnet_cifar),
    "ResNet of torchvision or timm": Origin(r"layer4\.0\.conv1\.weight", resnet.family_of_resnet),
    "EfficientNet-Lite": Origin(
        r"_?conv_stem\.weight", efficientnet_lite.family_of_efficientnet_lite
    ),
}


def recognise(state_dict: Mapping[str, Any]) -> str:
    """Return the key in `ORIGINS` of a state_dict.

    Raises:
      ValueError: it is of none of them.
    """
    for words, origin in ORIGINS.items():
        if any(re.fullmatch(origin.first, name) for name in state_dict):
            return words
    names = ", ".join(map(short, list(state_dict)[:SHOWN]))
    raise ValueError(
        f"found {len(state_dict)} tensors of no known network: {names}, ...; expected "
        f"{' or '.join(ORIGINS)}."
    )
