"""ResNet-26, the backbone of both papers (CVPR 2018, section 3.2)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.models.network import Network, make_norm
from radapt_jax.models.three_stages import Layers, ThreeStages
from radapt_jax.nn.layers import DomainHead


class ResNet26(ThreeStages):
    """ResNet-26 (CVPR 2018, section 3.2): 25 convolutions of 3x3 and a head.

    It takes images (b, h, w, 3) whose sides are multiples of 8.

    Args:
      width: channel multiplier, a multiple of 1/32; at width 1 the stem has 32 channels, and the
        stages 64, 128 and 256.

    Raises:
      ValueError: another width.
    """

    name: ClassVar[str] = "resnet26"
    multiple_of: ClassVar[int] = 8  # three stages halve the image
    stem_channels: ClassVar[int] = 32
    stage_channels: ClassVar[tuple[int, ...]] = (64, 128, 256)
    blocks: ClassVar[int] = 4

    def network(self) -> type[Network]:
        return _Network


class _Network(Layers):
    """The network itself."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images.

        Raises:
          ValueError: images that are not (b, h, w, 3) with sides that are multiples of 8.
        """
        x = self.through_stem(images, train=train)
        for index in range(len(self.backbone.stages)):
            x = self.stage(index, 2, _pooled)(x, train=train)
        x = nn.relu(make_norm(self.runtime, False, "norm")(x, train=train))
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))


def _pooled(x: Float[Array, "b h w c"], features: int) -> Float[Array, "b h2 w2 d"]:
    """2x2 average pooling, with zero channels appended after the real ones."""
    x = nn.avg_pool(x, (2, 2), strides=(2, 2))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
