"""Dropout of an adapter's input: the option, and what kinds that have it share."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter
from radapt_jax.adapters.options import Options
from radapt_jax.nn.layers import ChannelDropout
from radapt_jax.utils.checks import number, several


@dataclasses.dataclass(frozen=True)
class Dropped(Options):
    """Options of kinds whose input can be dropped out.

    Args:
      init, decay: see `Options`.
      dropout: probability that a channel of the adapter's input is dropped in training, for first
        convolutions of a block (and the stem) and for second ones; in [0, 1). Needs the rng
        "dropout".
    """

    checks: ClassVar = {**Options.checks, "dropout": several(number("[0, 1)"), 2)}
    training_only: ClassVar = (*Options.training_only, "dropout")

    dropout: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dropout", tuple(map(float, self.dropout)))


class WithDropout(Adapter):
    """What kinds whose input can be dropped out share."""

    @property
    def rate(self) -> float:
        """Probability that a channel of the input is dropped in training."""
        return self.options.dropout[self.position]

    def dropped(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Return the input of the adapter, of which channels are dropped in training."""
        layer = ChannelDropout(self.rate, self.runtime.axis_name, name="dropout")
        return layer(x, train=train)
