"""What backbones are built of: a width, and a network that knows where its adapters are."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from flax import linen as nn

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.options import Options
from radapt_jax.models.backbone import Backbone, Placement
from radapt_jax.nn.norm import DomainNorm, NormRule
from radapt_jax.utils.checks import Kind, number

WIDTH = number("(0, 64]")


@dataclasses.dataclass(frozen=True)
class Widened(Backbone):
    """A backbone with a channel multiplier.

    Args:
      width: channel multiplier; the stem's channels times it must be a whole number.

    Class attributes:
      stem_channels, stage_channels: at width 1.

    Raises:
      ValueError: another width.
    """

    checks: ClassVar[dict[str, Kind]] = {"width": WIDTH}
    stem_channels: ClassVar[int]
    stage_channels: ClassVar[tuple[int, ...]]

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "width", float(self.width))
        channels = self.stem_channels * self.width
        if channels < 1 or abs(channels - round(channels)) > 1e-6:
            nearest = max(round(channels), 1) / self.stem_channels
            raise ValueError(
                f"found width {self.width}, which gives the stem {channels:g} channels; expected "
                f"a multiple of 1/{self.stem_channels}, such as {nearest:g}."
            )

    @abc.abstractmethod
    def network(self) -> type[Network]:
        """Return the class that computes it."""

    def build(
        self,
        num_classes: int,
        adapter: Options,
        placement: Placement,
        *,
        folded_norms: bool,
        runtime: Runtime,
    ) -> nn.Module:
        return self.network()(self, num_classes, adapter, placement, folded_norms, runtime)

    def channels(self, wide: int) -> int:
        """Return how many of `wide` channels there are at this width."""
        return round(wide * self.width)


class Network(nn.Module):
    """The fields of a network; a subclass puts its layers together."""

    backbone: Backbone
    num_classes: int
    adapter: Options
    placement: Placement
    folded_norms: bool
    runtime: Runtime

    def adapter_at(self, stage: str, conv: str | None = None) -> Options:
        """Return the options of one convolution; one that is in no block goes by its stage."""
        return self.adapter if self.placement.has(stage, conv) else NoAdapter()


def make_norm(
    runtime: Runtime, folded: bool, name: str, rule: NormRule = Backbone.norm
) -> DomainNorm:
    """Return a domain norm; `folded`: into the convolution before it, but for a bias."""
    return DomainNorm(runtime.dtype, runtime.norm_axis, folded, rule, name=name)
