"""Backbones by name, and the description of a network that is saved beside its weights."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.models.resnet26 import CONVS, STAGES, ResNet26, resnet26
from radapt_jax.values import FLAG, TEXT, Kind, check_all, number, one_of, several, whole

BACKBONES: Mapping[str, Callable[..., ResNet26]] = {"resnet26": resnet26}
SHARE, RANK = number("(0, 1]"), whole(1)
KINDS = {
    "backbone": one_of(*BACKBONES),
    "width": number("(0, 64]"),
    "adapter": TEXT,
    "stages": several(TEXT),
    "convs": several(TEXT),
    "dropout": several(number("[0, 1)"), 2),
    "adapter_init": TEXT,
    "ranks": Kind(
        f"{SHARE.words}, or {RANK.words} for each convolution",
        lambda found: (
            all(map(RANK.holds, found.values()))
            if isinstance(found, Mapping)
            else SHARE.holds(found)
        ),
    ),
    "folded_norms": FLAG,
}

__all__ = ["BACKBONES", "ModelSpec", "ResNet26", "resnet26"]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which network a domain's variables belong to, class count apart. Fields as in `resnet26`."""

    backbone: str = "resnet26"
    width: float = 1.0
    adapter: str = "none"
    stages: tuple[str, ...] = STAGES
    convs: tuple[str, ...] = CONVS
    dropout: tuple[float, float] = (0.0, 0.0)
    adapter_init: str = "zeros"
    ranks: float | Mapping[str, int] = 0.5
    folded_norms: bool = False

    def __post_init__(self) -> None:
        check_all(vars(self), KINDS)

    def build(self, num_classes: int, **runtime: Any) -> ResNet26:
        """Return the network; `runtime` holds dtype, axis_name, sync_norm and fold."""
        options = dataclasses.asdict(self)
        return BACKBONES[options.pop("backbone")](num_classes, **options, **runtime)

    def abstract(self, num_classes: int) -> dict[str, Any]:
        """Return the shapes and dtypes of all three collections, without computing anything."""
        one = _abstract(json.dumps(self.to_json(), sort_keys=True))

        def widen(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*leaf.shape[:-1], num_classes), leaf.dtype)

        head = jax.tree.map(widen, one["adapters"]["head"])
        return {**one, "adapters": {**one["adapters"], "head": head}}

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> ModelSpec:
        lists = {key: tuple(facts[key]) for key in ("stages", "convs", "dropout")}
        return cls(**{**facts, **lists})


@functools.lru_cache(maxsize=64)
def _abstract(spec: str) -> dict[str, Any]:
    """Trace a network of one class, from its `to_json` as text; a tenth of a second or more."""
    model = ModelSpec.from_json(json.loads(spec)).build(1)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), images)
