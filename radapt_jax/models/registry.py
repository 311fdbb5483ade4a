"""Backbones by name; one that is added here is known everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.models.backbone import Backbone
from radapt_jax.models.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
    EfficientNetLite3,
    EfficientNetLite4,
)
from radapt_jax.models.ram28 import ResNet28RAM
from radapt_jax.models.resnet import ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.resnet_cifar import ResNet20, ResNet32, ResNet44, ResNet56, ResNet110

Known = type[Backbone] | Backbone
Backbones = Mapping[str, Known]
BACKBONES: dict[str, type[Backbone]] = {
    "resnet26": ResNet26,
    "resnet20": ResNet20,
    "resnet32": ResNet32,
    "resnet44": ResNet44,
    "resnet56": ResNet56,
    "resnet110": ResNet110,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "resnet152": ResNet152,
    "ram28": ResNet28RAM,
    "efficientnet_lite0": EfficientNetLite0,
    "efficientnet_lite1": EfficientNetLite1,
    "efficientnet_lite2": EfficientNetLite2,
    "efficientnet_lite3": EfficientNetLite3,
    "efficientnet_lite4": EfficientNetLite4,
}


def option_names(name: str) -> list[str]:
    """Return the names of a backbone's options.

    Raises:
      ValueError: an unknown backbone.
    """
    return _options(_found(name, BACKBONES))


def make_backbone(name: str, *, backbones: Backbones | None = None, **chosen: Any) -> Backbone:
    """Return a backbone, options that are not chosen at their defaults.

    Args:
      name: in `BACKBONES`, or in `backbones`.
      backbones: networks of one's own, by name: classes, or backbones as they are.
      chosen: its options.

    Raises:
      ValueError: an unknown backbone, or an option that it does not have or allow.
    """
    made = _found(name, {**BACKBONES, **(backbones or {})})
    options = _options(made)
    if unknown := sorted(set(chosen) - set(options)):
        raise ValueError(f"found options {unknown} for {name}; expected some of {options}.")
    if isinstance(made, Backbone):
        return dataclasses.replace(made, **chosen) if chosen else made
    return made(**chosen)


def backbone_from_json(facts: Mapping[str, Any], backbones: Backbones | None = None) -> Backbone:
    """Undo `Backbone.to_json`."""
    chosen: dict[str, Any] = {
        name: tuple(it) if isinstance(it, list) else it for name, it in facts.items()
    }
    return make_backbone(chosen.pop("name"), backbones=backbones, **chosen)


def _options(made: Known) -> list[str]:
    """Return the names of the options that a card holds."""
    if isinstance(made, Backbone):
        return [name for name in made.to_json() if name != "name"]
    return [field.name for field in dataclasses.fields(made)]


def _found(name: str, known: Backbones) -> Known:
    if name not in known:
        raise ValueError(
            f"found backbone {name!r}; expected one of {list(known)}. A network of your own is "
            "given by name: Family.load(dir, backbones={...})."
        )
    return known[name]
