"""ResNet-26, the backbone of both papers (CVPR 2018, section 3.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Options, Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.registry import make_options
from radapt_jax.models.backbone import Backbone, Convolution, Placement
from radapt_jax.nn.layers import DomainHead
from radapt_jax.nn.norm import DomainNorm
from radapt_jax.utils.checks import number

STEM_CHANNELS = 32
STAGE_CHANNELS = (64, 128, 256)
BLOCKS = 4  # in each stage
CONVS = 2  # in each block


@dataclasses.dataclass(frozen=True)
class ResNet26(Backbone):
    """ResNet-26 (CVPR 2018, section 3.2): 25 convolutions of 3x3 and a head.

    Args:
      width: channel multiplier; the stem's 32 channels times it must be a whole number.

    Raises:
      ValueError: another width.
    """

    name: ClassVar[str] = "resnet26"
    stages: ClassVar[tuple[str, ...]] = ("early", "mid", "late")  # the stem goes with early
    convs: ClassVar[tuple[str, ...]] = ("first", "second")  # of a block; the stem is in none
    multiple_of: ClassVar[int] = 8  # three stages halve the image
    checks: ClassVar = {"width": number("(0, 64]")}

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "width", float(self.width))
        channels = STEM_CHANNELS * self.width
        if channels < 1 or abs(channels - round(channels)) > 1e-6:
            nearest = max(round(channels), 1) / STEM_CHANNELS
            raise ValueError(
                f"found width {self.width}, which gives the stem {channels:g} channels; expected "
                f"a multiple of 1/{STEM_CHANNELS}, such as {nearest:g}."
            )

    def channels(self, wide: int) -> int:
        """Return how many of `wide` channels there are at this width."""
        return round(wide * self.width)

    def build(
        self,
        num_classes: int,
        adapter: Options,
        placement: Placement,
        *,
        folded_norms: bool,
        runtime: Runtime,
    ) -> nn.Module:
        return _Network(self, num_classes, adapter, placement, folded_norms, runtime)

    def convolutions(self) -> tuple[Convolution, ...]:
        blocks = (
            f"stage{stage + 1}/block{block + 1}"
            for stage in range(len(STAGE_CHANNELS))
            for block in range(BLOCKS)
        )
        inside = (
            Convolution(f"{block}/conv{conv + 1}", f"{block}/norm{conv + 1}")
            for block in blocks
            for conv in range(CONVS)
        )
        return (Convolution("stem", "stem_norm"), *inside)


class _Block(nn.Module):
    """Two adapted convolutions with norms, and a shortcut.

    Where the block halves the image, the shortcut is 2x2 average pooling, with zero channels
    appended after the real ones.
    """

    features: int
    stride: int
    adapters: tuple[Options, Options]
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        y = x
        for position, stride in enumerate((self.stride, 1)):
            conv = AdaptedConv(
                self.features,
                stride,
                self.adapters[position],
                position,
                self.runtime,
                name=f"conv{position + 1}",
            )
            norm = _norm(self.runtime, self.folded_norms, f"norm{position + 1}")
            y = norm(conv(y if position == 0 else nn.relu(y), train=train), train=train)
        if self.stride == 2:
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
        return nn.relu(y + x)


class _Stage(nn.Module):
    """Four blocks, the first with stride 2."""

    features: int
    adapters: tuple[Options, Options]
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        for index in range(BLOCKS):
            block = _Block(
                self.features,
                2 if index == 0 else 1,
                self.adapters,
                self.folded_norms,
                self.runtime,
                name=f"block{index + 1}",
            )
            x = block(x, train=train)
        return x


class _Network(nn.Module):
    """The network itself."""

    backbone: ResNet26
    num_classes: int
    adapter: Options
    placement: Placement
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images.

        Raises:
          ValueError: images that are not (b, h, w, 3) with sides that are multiples of 8.
        """
        backbone, runtime = self.backbone, self.runtime
        backbone.check_sides(images.shape)
        early = backbone.stages[0]
        stem = AdaptedConv(
            backbone.channels(STEM_CHANNELS),
            adapter=self._adapter_at(early),
            runtime=runtime,
            name="stem",
        )
        x = _norm(runtime, self.folded_norms, "stem_norm")(stem(images, train=train), train=train)
        for index, (stage, wide) in enumerate(zip(backbone.stages, STAGE_CHANNELS, strict=True)):
            first, second = (self._adapter_at(stage, conv) for conv in backbone.convs)
            channels = backbone.channels(wide)
            name = f"stage{index + 1}"
            block = _Stage(channels, (first, second), self.folded_norms, runtime, name=name)
            x = block(x, train=train)
        x = nn.relu(_norm(runtime, False, "norm")(x, train=train))
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))

    def _adapter_at(self, stage: str, conv: str | None = None) -> Options:
        """Return the options of one convolution; the stem is in no block."""
        placed = stage in (self.placement.stages or ())
        placed = placed and (conv is None or conv in (self.placement.convs or ()))
        return self.adapter if placed else NoAdapter()


def _norm(runtime: Runtime, folded: bool, name: str) -> DomainNorm:
    return DomainNorm(runtime.dtype, runtime.norm_axis, folded, name=name)


def resnet26(
    num_classes: int,
    adapter: Options | str = "parallel",
    *,
    width: float = 1.0,
    stages: Sequence[str] | None = None,
    convs: Sequence[str] | None = None,
    **runtime: Any,
) -> nn.Module:
    """Return a ResNet-26 with residual adapters, for those who need no family.

    `model.init(key, images, train=False)` makes the collections `params` (shared 3x3 filters),
    `adapters` (the domain's adapters, norms and head) and `batch_stats`;
    `model.apply(variables, images, train=...)` takes float images (b, h, w, 3), normalised, with
    sides that are multiples of 8, and returns logits (b, num_classes).

    Args:
      num_classes: outputs of the domain's head.
      adapter: a kind ("none", "series", "parallel", "low_rank", "joint", ...), or its options, such
        as `Parallel(init="he_normal")`.
      width: see `ResNet26`.
      stages: which of "early" (with the stem), "mid" and "late" carry adapters; None: all.
      convs: which convolutions of a block do, "first" and "second"; None: both.
      runtime: fields of `adapters.base.Runtime`, such as dtype.

    Raises:
      ValueError: an unknown name, or a width without whole channels.
    """
    backbone = ResNet26(width)
    options = make_options(adapter) if isinstance(adapter, str) else adapter
    placement = Placement(
        None if stages is None else tuple(stages), None if convs is None else tuple(convs)
    )
    return backbone.build(
        num_classes,
        options,
        backbone.placed(placement),
        folded_norms=False,
        runtime=Runtime(**runtime),
    )
