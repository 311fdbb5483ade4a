"""What residual networks of a stem and three stages of 3x3 convolutions have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Options, Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.models.backbone import Backbone, Convolution, Placement
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.norm import DomainNorm
from radapt_jax.utils.checks import number

Shortcut = Callable[[Float[Array, "b h w c"], int], Float[Array, "b h2 w2 d"]]


@dataclasses.dataclass(frozen=True)
class ThreeStages(Backbone):
    """A stem and three stages of blocks with two 3x3 convolutions each.

    Args:
      width: channel multiplier; the stem's channels times it must be a whole number.

    Class attributes:
      stem_channels, stage_channels: at width 1.
      blocks: in each stage.

    Raises:
      ValueError: another width.
    """

    stages: ClassVar[tuple[str, ...]] = ("early", "mid", "late")  # the stem goes with early
    convs: ClassVar[tuple[str, ...]] = ("first", "second")  # of a block; the stem is in none
    checks: ClassVar = {"width": number("(0, 64]")}
    stem_channels: ClassVar[int]
    stage_channels: ClassVar[tuple[int, ...]]
    blocks: ClassVar[int]

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

    def channels(self, wide: int) -> int:
        """Return how many of `wide` channels there are at this width."""
        return round(wide * self.width)

    def convolutions(self) -> tuple[Convolution, ...]:
        blocks = (
            f"stage{stage + 1}/block{block + 1}"
            for stage in range(len(self.stages))
            for block in range(self.blocks)
        )
        inside = (
            Convolution(f"{block}/conv{conv + 1}", f"{block}/norm{conv + 1}")
            for block in blocks
            for conv in range(len(self.convs))
        )
        return (Convolution("stem", "stem_norm"), *inside)


class Layers(nn.Module):
    """The fields of such a network, and its layers; a subclass puts them together."""

    backbone: ThreeStages
    num_classes: int
    adapter: Options
    placement: Placement
    folded_norms: bool
    runtime: Runtime

    def through_stem(self, images: Array, *, train: bool) -> Float[Array, "b h w c"]:
        """Return what the stem and its norm make of images.

        Raises:
          ValueError: images that the backbone cannot take; see `Backbone.check_sides`.
        """
        self.backbone.check_sides(images.shape)
        stem = AdaptedConv(
            self.backbone.channels(self.backbone.stem_channels),
            adapter=self._adapter_at(self.backbone.stages[0]),
            runtime=self.runtime,
            name="stem",
        )
        norm = make_norm(self.runtime, self.folded_norms, "stem_norm")
        return norm(stem(images, train=train), train=train)

    def stage(self, index: int, stride: int, shortcut: Shortcut) -> nn.Module:
        """Return a stage, from 0; see `Block`."""
        backbone = self.backbone
        stage = backbone.stages[index]
        first, second = (self._adapter_at(stage, conv) for conv in backbone.convs)
        return Stage(
            backbone.blocks,
            backbone.channels(backbone.stage_channels[index]),
            stride,
            shortcut,
            (first, second),
            self.folded_norms,
            self.runtime,
            name=f"stage{index + 1}",
        )

    def _adapter_at(self, stage: str, conv: str | None = None) -> Options:
        """Return the options of one convolution; the stem is in no block."""
        placed = stage in (self.placement.stages or ())
        placed = placed and (conv is None or conv in (self.placement.convs or ()))
        return self.adapter if placed else NoAdapter()


class Stage(nn.Module):
    """Blocks, the first of which may halve the image."""

    blocks: int
    features: int
    stride: int
    shortcut: Shortcut
    adapters: tuple[Options, Options]
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        for index in range(self.blocks):
            block = Block(
                self.features,
                self.stride if index == 0 else 1,
                self.shortcut,
                self.adapters,
                self.folded_norms,
                self.runtime,
                name=f"block{index + 1}",
            )
            x = block(x, train=train)
        return x


class Block(nn.Module):
    """Two adapted convolutions with norms, and a shortcut.

    Where the block halves the image, `shortcut(x, features)` halves its input and gives it more
    channels; elsewhere the shortcut is the input itself.
    """

    features: int
    stride: int
    shortcut: Shortcut
    adapters: tuple[Options, Options]
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        y = x
        for position, stride in enumerate((self.stride, 1)):
            conv = AdaptedConv(
                self.features,
                geometry=Geometry(stride),
                adapter=self.adapters[position],
                position=position,
                runtime=self.runtime,
                name=f"conv{position + 1}",
            )
            norm = make_norm(self.runtime, self.folded_norms, f"norm{position + 1}")
            y = norm(conv(y if position == 0 else nn.relu(y), train=train), train=train)
        return nn.relu(y + (x if self.stride == 1 else self.shortcut(x, self.features)))


def make_norm(runtime: Runtime, folded: bool, name: str) -> DomainNorm:
    """Return a domain norm; `folded`: into the convolution before it, but for a bias."""
    return DomainNorm(runtime.dtype, runtime.norm_axis, folded, name=name)
