"""Backbones by name, and the description of a network that is saved beside its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.models.resnet26 import CONVS, STAGES, ResNet26, resnet26

BACKBONES: Mapping[str, Callable[..., ResNet26]] = {"resnet26": resnet26}

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
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"found backbone {self.backbone!r}; expected one of {sorted(BACKBONES)}."
            )
        if not 0 < self.width <= 64:
            raise ValueError(f"found width {self.width}; expected a channel multiplier up to 64.")
        if isinstance(self.ranks, Mapping):
            known = all(isinstance(rank, int) for rank in self.ranks.values())
        else:
            known = isinstance(self.ranks, int | float)
        if not known:
            raise TypeError(f"found ranks {self.ranks!r}; expected a share, or integers by name.")

    def build(self, num_classes: int, **runtime: Any) -> ResNet26:
        """Return the network; `runtime` holds dtype, axis_name, sync_norm and fold."""
        options = dataclasses.asdict(self)
        return BACKBONES[options.pop("backbone")](num_classes, **options, **runtime)

    def abstract(self, num_classes: int) -> dict[str, Any]:
        """Return the shapes and dtypes of all three collections, without computing anything."""
        model = self.build(num_classes)
        images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        return jax.eval_shape(
            lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> ModelSpec:
        lists = {key: tuple(facts[key]) for key in ("stages", "convs", "dropout")}
        return cls(**{**facts, **lists})
