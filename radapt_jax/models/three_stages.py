"""What residual networks of a stem and three stages of 3x3 convolutions have in common."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.options import Options
from radapt_jax.models.backbone import Convolution
from radapt_jax.models.network import Network, Widened, make_norm
from radapt_jax.nn.geometry import Geometry

Shortcut = Callable[[Float[Array, "b h w c"], int], Float[Array, "b h2 w2 d"]]


class ThreeStages(Widened):
    """A stem and three stages of blocks with two 3x3 convolutions each.

    Args, Class attributes, Raises: see `Widened`.
    """

    stages: ClassVar[tuple[str, ...]] = ("early", "mid", "late")  # the stem goes with early
    convs: ClassVar[tuple[str, ...]] = ("first", "second")  # of a block; the stem is in none

    @property
    @abc.abstractmethod
    def blocks(self) -> int:
        """Blocks in each stage."""

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


class Layers(Network):
    """The layers of such a network; a subclass puts them together."""

    backbone: ThreeStages

    def through_stem(self, images: Array, *, train: bool) -> Float[Array, "b h w c"]:
        """Return what the stem and its norm make of images.

        Raises:
          ValueError: images that the backbone cannot take; see `Backbone.check_sides`.
        """
        self.backbone.check_sides(images.shape)
        stem = AdaptedConv(
            self.backbone.channels(self.backbone.stem_channels),
            adapter=self.adapter_at(self.backbone.stages[0]),
            runtime=self.runtime,
            name="stem",
        )
        norm = make_norm(self.runtime, self.folded_norms, "stem_norm")
        return norm(stem(images, train=train), train=train)

    def stage(self, index: int, stride: int, shortcut: Shortcut) -> nn.Module:
        """Return a stage, from 0; see `Block`."""
        backbone = self.backbone
        stage = backbone.stages[index]
        first, second = (self.adapter_at(stage, conv) for conv in backbone.convs)
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
