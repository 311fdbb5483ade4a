"""ResNets for CIFAR's images: 20, 32, 44, 56 and 110 layers (He et al. 2015, section 4.2)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.models.network import Network
from radapt_jax.models.three_stages import Layers, ThreeStages
from radapt_jax.nn.layers import DomainHead


class CifarResNet(ThreeStages):
    """A ResNet of 6n + 2 layers: n blocks in each stage (He et al. 2015, section 4.2).

    Args, Raises: see `ThreeStages`; the stem has 16 channels at width 1.
    """

    multiple_of: ClassVar[int] = 4  # two stages halve the image
    stem_channels: ClassVar[int] = 16
    stage_channels: ClassVar[tuple[int, ...]] = (16, 32, 64)
    blocks: ClassVar[int]

    def network(self) -> type[Network]:
        return _Network


class ResNet20(CifarResNet):
    """20 layers; see `CifarResNet`."""

    name: ClassVar[str] = "resnet20"
    blocks: ClassVar[int] = 3


class ResNet32(CifarResNet):
    """32 layers; see `CifarResNet`."""

    name: ClassVar[str] = "resnet32"
    blocks: ClassVar[int] = 5


class ResNet44(CifarResNet):
    """44 layers; see `CifarResNet`."""

    name: ClassVar[str] = "resnet44"
    blocks: ClassVar[int] = 7


class ResNet56(CifarResNet):
    """56 layers; see `CifarResNet`."""

    name: ClassVar[str] = "resnet56"
    blocks: ClassVar[int] = 9


class ResNet110(CifarResNet):
    """110 layers; see `CifarResNet`."""

    name: ClassVar[str] = "resnet110"
    blocks: ClassVar[int] = 18


DEPTHS: tuple[type[CifarResNet], ...] = (ResNet20, ResNet32, ResNet44, ResNet56, ResNet110)


class _Network(Layers):
    """The network itself."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images.

        Raises:
          ValueError: images that are not (b, h, w, 3) with sides that are multiples of 4.
        """
        x = nn.relu(self.through_stem(images, train=train))
        for index, stride in enumerate((1, 2, 2)):
            x = self.stage(index, stride, _subsampled)(x, train=train)
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))


def _subsampled(x: Float[Array, "b h w c"], features: int) -> Float[Array, "b h2 w2 d"]:
    """Every second pixel, with zero channels: half before the real ones, half behind them."""
    missing = features - x.shape[-1]
    before = missing // 2
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (before, missing - before)))
