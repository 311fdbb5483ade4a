"""ResNet28-RAM, a network for series adapters (residual adapter modules, NIPS 2017) from Keras.

https://github.com/astha-chem/Decathlon-Residual-Adapters-Keras has had two such networks. Both have
TensorFlow's padding, and a 1x1 convolution as the shortcut of each stage's first block.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.options import Options
from radapt_jax.models.network import Network
from radapt_jax.models.three_stages import Layers, ThreeStages
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.layers import DomainConv, DomainHead
from radapt_jax.nn.norm import DomainNorm, NormRule
from radapt_jax.utils.checks import FLAG, one_of, whole


class Version(NamedTuple):
    """What tells the two networks apart.

    Args:
      stem_channels: of the stem, at every width; None: 32 at width 1.
      relu_after_stem: whether there is one.
      strides: of the stages.
      normed: the stages, from 0, that end with a norm and a ReLU.
      use_bias: whether convolutions have biases.
      own_shortcuts: every domain has shortcuts of its own; else they are shared.
      norm: the rule of norms.
      scale: how their scales start, as a name in `nn.starts.STARTS`.
    """

    stem_channels: int | None
    relu_after_stem: bool
    strides: tuple[int, int, int]
    normed: tuple[int, ...]
    use_bias: bool
    own_shortcuts: bool
    norm: NormRule
    scale: str


VERSIONS = {
    "a": Version(
        stem_channels=None,
        relu_after_stem=False,
        strides=(2, 2, 2),
        normed=(2,),
        use_bias=True,
        own_shortcuts=True,
        norm=NormRule(epsilon=1e-3, momentum=0.99, unbiased=False),
        scale="ones",
    ),
    "b": Version(
        stem_channels=16,
        relu_after_stem=True,
        strides=(1, 2, 2),
        normed=(0, 1, 2),
        use_bias=False,
        own_shortcuts=False,
        norm=NormRule(epsilon=1e-5, momentum=0.1, unbiased=False),
        scale="uniform",
    ),
}


@dataclasses.dataclass(frozen=True)
class ResNet28RAM(ThreeStages):
    """ResNet28-RAM: 28 convolutions, those of three shortcuts included, and a head.

    Its end is a global average: over 8x8 pixels for images of 64 px in "a", of 32 px in "b". Its
    adapters are `Series(init="keras_he_normal")`, in "a" with `bias=True`.

    Args:
      width: see `ThreeStages`; stages have 64, 128 and 256 channels at width 1. The `filters` of
        the implementation are 32 times it in "a", and its k is 4 times it in "b".
      variant: "a" or "b"; see `VERSIONS`.
      blocks: in each stage; the implementation's N.
      standardise: an image is standardised by itself before the stem, (x - mean) / (std + 1e-7)
        with mean and standard deviation of all its values.

    Raises:
      ValueError: an option outside these ranges.
    """

    name: ClassVar[str] = "ram28"
    checks: ClassVar = {
        **ThreeStages.checks,
        "variant": one_of(*VERSIONS),
        "blocks": whole(1),
        "standardise": FLAG,
    }
    stem_channels: ClassVar[int] = 32
    stage_channels: ClassVar[tuple[int, ...]] = (64, 128, 256)

    variant: str = "a"
    blocks: int = 4
    standardise: bool = False

    @property
    def version(self) -> Version:
        return VERSIONS[self.variant]

    @property
    def norm(self) -> NormRule:  # type: ignore[override] # other networks have one rule
        return self.version.norm

    def start(self, path: str) -> str | None:
        """Return how a variable starts; see `Backbone.start`."""
        *_, parent, leaf = path.split("/")
        if leaf == "scale":
            return self.version.scale
        if leaf == "kernel":
            return "glorot_uniform" if parent == "head" else "keras_he_normal"
        return super().start(path)

    def network(self) -> type[Network]:
        return _Network


class _Network(Layers):
    """The network itself."""

    backbone: ResNet28RAM

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images of any size.

        Raises:
          ValueError: images that are not (b, h, w, 3).
        """
        backbone, version = self.backbone, self.backbone.version
        backbone.check_sides(images.shape)
        parts = Parts(version, self.folded_norms, self.runtime)
        stem = version.stem_channels or backbone.channels(backbone.stem_channels)
        x = _standardised(images) if backbone.standardise else images
        x = parts.conv(stem, 1, self.adapter_at(backbone.stages[0]), 0, "stem")(x, train=train)
        x = parts.norm("stem_norm")(x, train=train)
        x = nn.relu(x) if version.relu_after_stem else x
        for index, stage in enumerate(backbone.stages):
            channels = backbone.channels(backbone.stage_channels[index])
            adapters = tuple(self.adapter_at(stage, conv) for conv in backbone.convs)
            name = f"stage{index + 1}"
            x = _Stage(
                backbone.blocks, channels, version.strides[index], adapters, parts, name=name
            )(x, train=train)
            if index in version.normed:
                x = nn.relu(parts.norm(f"{name}_norm", after_conv=False)(x, train=train))
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))


@dataclasses.dataclass(frozen=True)
class Parts:
    """What such a network is made of: layers by their names, as its version has them."""

    version: Version
    folded_norms: bool
    runtime: Runtime

    def conv(
        self, features: int, stride: int, adapter: Options, position: int, name: str
    ) -> AdaptedConv:
        """Return a 3x3 convolution that can carry an adapter."""
        return AdaptedConv(
            features,
            geometry=Geometry(stride, "same"),
            use_bias=self.version.use_bias,
            adapter=adapter,
            position=position,
            norm=self.version.norm,
            runtime=self.runtime,
            name=name,
        )

    def norm(self, name: str, *, after_conv: bool = True) -> DomainNorm:
        """Return a domain norm, into which a convolution before it may have been folded."""
        folded = self.folded_norms and after_conv
        runtime, rule = self.runtime, self.version.norm
        return DomainNorm(runtime.dtype, runtime.norm_axis, folded, rule, name=name)

    def shortcut(self, features: int, stride: int) -> nn.Module:
        """Return a 1x1 convolution, shared or the domain's own."""
        made: dict[str, Any] = {
            "size": 1,
            "geometry": Geometry(stride, "same"),
            "use_bias": self.version.use_bias,
            "name": "shortcut",
        }
        if self.version.own_shortcuts:
            return DomainConv(features, dtype=self.runtime.dtype, **made)
        return AdaptedConv(features, runtime=self.runtime, **made)


class _Stage(nn.Module):
    """Blocks, the first of which has a convolution as its shortcut, and may halve the image."""

    blocks: int
    features: int
    stride: int
    adapters: tuple[Options, ...]
    parts: Parts

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        for index in range(self.blocks):
            stride = self.stride if index == 0 else 1
            x = _Block(
                self.features,
                stride,
                index == 0,
                self.adapters,
                self.parts,
                name=f"block{index + 1}",
            )(x, train=train)
        return x


class _Block(nn.Module):
    """Two adapted convolutions with norms, and a shortcut: the input, or a convolution of it."""

    features: int
    stride: int
    projected: bool
    adapters: tuple[Options, ...]
    parts: Parts

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        y = x
        for position, adapter in enumerate(self.adapters):
            stride = self.stride if position == 0 else 1
            y = y if position == 0 else nn.relu(y)
            name = f"conv{position + 1}"
            y = self.parts.conv(self.features, stride, adapter, position, name)(y, train=train)
            y = self.parts.norm(f"norm{position + 1}")(y, train=train)
        if self.projected:
            x = self.parts.shortcut(self.features, self.stride)(x, train=train)
        return nn.relu(x + y)


def _standardised(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Return images with mean 0 and standard deviation 1, each over all its values."""
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    axes = (1, 2, 3)
    mean, std = wide.mean(axes, keepdims=True), wide.std(axes, keepdims=True)
    return (wide - mean) / (std + 1e-7)
