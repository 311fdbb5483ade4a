"""ResNet-26, the backbone of both papers (CVPR 2018, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float

from radapt_jax import adapters
from radapt_jax.adapters import AdaptedConv
from radapt_jax.layers import DomainHead, DomainNorm

STAGES = ("early", "mid", "late")
CONVS = ("first", "second")
STEM_CHANNELS = 32
STAGE_CHANNELS = (64, 128, 256)
BLOCKS = 4  # in each stage


class Block(nn.Module):
    """Two adapted convolutions with norms, and a shortcut.

    Where the block halves the image, the shortcut is 2x2 average pooling, with zero channels
    appended after the real ones.
    """

    features: int
    stride: int
    adapters: tuple[str, str]
    dropout: tuple[float, float]
    shared: dict[str, Any]  # of both convolutions: initializer, dtype, axis names
    folded_norms: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        def conv(position: int, stride: int) -> AdaptedConv:
            return AdaptedConv(
                self.features,
                stride,
                self.adapters[position],
                self.dropout[position],
                name=f"conv{position + 1}",
                **self.shared,
            )

        def norm(name: str) -> DomainNorm:
            return DomainNorm(
                self.shared["dtype"], self.shared["norm_axis"], self.folded_norms, name=name
            )

        y = conv(0, self.stride)(x, train=train)
        y = nn.relu(norm("norm1")(y, train=train))
        y = conv(1, 1)(y, train=train)
        y = norm("norm2")(y, train=train)
        if self.stride == 2:
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
        return nn.relu(y + x)


class Stage(nn.Module):
    """Four blocks, the first with stride 2."""

    features: int
    adapters: tuple[str, str]
    dropout: tuple[float, float]
    shared: dict[str, Any]
    folded_norms: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        for index in range(BLOCKS):
            block = Block(
                self.features,
                2 if index == 0 else 1,
                self.adapters,
                self.dropout,
                self.shared,
                self.folded_norms,
                name=f"block{index + 1}",
            )
            x = block(x, train=train)
        return x


class ResNet26(nn.Module):
    """The network itself; make one with `resnet26`, which checks its arguments."""

    num_classes: int
    adapter: str
    width: float
    stages: tuple[str, ...]
    convs: tuple[str, ...]
    dropout: tuple[float, float]
    adapter_init: str
    dtype: Any
    axis_name: str | None = None
    sync_norm: bool = False
    ranks: adapters.Ranks = 0.5
    folded_norms: bool = False
    fold: bool = True

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images.

        Raises:
          ValueError: images that are not (b, h, w, 3) with sides that are multiples of 8.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] % 8 or images.shape[2] % 8:
            raise ValueError(
                f"found images of shape {images.shape}; expected (batch, height, width, 3) with "
                "sides that are multiples of 8, because three stages halve the image."
            )
        norm_axis = self.axis_name if self.sync_norm else None
        shared = {
            "initializer": self.adapter_init,
            "dtype": self.dtype,
            "axis_name": self.axis_name,
            "norm_axis": norm_axis,
            "ranks": self.ranks,
            "fold": self.fold,
        }
        x = AdaptedConv(
            scaled(STEM_CHANNELS, self.width),
            1,
            self.adapter if "early" in self.stages else "none",
            self.dropout[0],
            name="stem",
            **shared,
        )(images, train=train)
        x = DomainNorm(self.dtype, norm_axis, self.folded_norms, name="stem_norm")(x, train=train)
        for index, (stage, channels) in enumerate(zip(STAGES, STAGE_CHANNELS, strict=True)):
            first, second = (
                self.adapter if stage in self.stages and conv in self.convs else "none"
                for conv in CONVS
            )
            x = Stage(
                scaled(channels, self.width),
                (first, second),
                self.dropout,
                shared,
                self.folded_norms,
                name=f"stage{index + 1}",
            )(x, train=train)
        x = nn.relu(DomainNorm(self.dtype, norm_axis, name="norm")(x, train=train))
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))


def scaled(channels: int, width: float) -> int:
    return round(channels * width)


def resnet26(
    num_classes: int,
    *,
    adapter: str = "parallel",
    width: float = 1.0,
    stages: Sequence[str] = STAGES,
    convs: Sequence[str] = CONVS,
    dropout: tuple[float, float] = (0.0, 0.0),
    adapter_init: str = "zeros",
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
    sync_norm: bool = False,
    ranks: adapters.Ranks = 0.5,
    folded_norms: bool = False,
    fold: bool = True,
) -> ResNet26:
    """ResNet-26 with residual adapters (CVPR 2018, section 3.2): 25 convolutions and a head.

    `model.init(key, images, train=False)` makes the collections `params` (shared 3x3 filters),
    `adapters` (the domain's adapters, norms and head) and `batch_stats`;
    `model.apply(variables, images, train=...)` takes float images (b, h, w, 3), normalised, with
    sides that are multiples of 8, and returns logits (b, num_classes).

    Args:
      num_classes: outputs of the domain's head.
      adapter: "none", "series" (y = u + α norm(u), u = f * x), "parallel" (y = f * x + α * x),
        "low_rank" (parallel with α = β γᵀ) or "joint" (the same with β shared, in `params`).
      width: channel multiplier; the stem's 32 channels times it must be a whole number.
      stages: which of "early" (with the stem), "mid" and "late" carry adapters.
      convs: which convolutions of a block do, "first" and "second"; the stem is not in a block.
      dropout: probability that a channel of the adapter's input is dropped in training, for first
        (and stem) and second convolutions; parallel adapters only. Needs the rng "dropout".
      adapter_init: "zeros" (the adapted network starts as the backbone) or "he_normal".
      dtype: of the computation; variables, statistics and logits stay in float32 or wider.
      axis_name: the mapped axis over which training splits a batch, if any.
      sync_norm: take batch statistics over all devices of `axis_name`.
      ranks: of low-rank and joint adapters: a share of the full rank, or ranks by convolution
        ("stem", "stage1/block1/conv1", ...); those that are not in it carry no adapter.
      folded_norms: norms after convolutions are folded into them but for a bias (radapt_jax.fold);
        evaluation only.
      fold: compute parallel adapters in training through the folded filter, where that is exact;
        off where domains are mapped over, since each would need a filter of its own.

    Raises:
      ValueError: an unknown option, a width without whole channels, or dropout without parallel
        adapters.
    """
    _check_choice("adapter", (adapter,), adapters.KINDS)
    _check_choice("stages", tuple(stages), STAGES)
    _check_choice("convs", tuple(convs), CONVS)
    _check_choice("adapter_init", (adapter_init,), tuple(adapters.INITS))
    if num_classes < 1:
        raise ValueError(f"found num_classes {num_classes}; expected at least 1.")
    channels = STEM_CHANNELS * width
    if channels < 1 or abs(channels - round(channels)) > 1e-6:
        nearest = max(round(channels), 1) / STEM_CHANNELS
        raise ValueError(
            f"found width {width}, which gives the stem {channels:g} channels; expected a "
            f"multiple of 1/{STEM_CHANNELS}, such as {nearest:g}."
        )
    if len(dropout) != 2 or not all(0.0 <= rate < 1.0 for rate in dropout):
        raise ValueError(f"found dropout {dropout}; expected two probabilities in [0, 1).")
    if any(dropout) and adapter not in adapters.PARALLEL_KINDS:
        raise ValueError(
            f"found dropout {dropout} with adapter {adapter!r}; dropout acts on the input of "
            "parallel adapters. Use adapter='parallel' or dropout=(0.0, 0.0)."
        )
    if sync_norm and axis_name is None:
        raise ValueError("sync_norm needs axis_name, the mapped axis to synchronise over.")
    return ResNet26(
        num_classes,
        adapter,
        float(width),
        tuple(stages),
        tuple(convs),
        (float(dropout[0]), float(dropout[1])),
        adapter_init,
        dtype,
        axis_name,
        sync_norm,
        FrozenDict(ranks) if isinstance(ranks, Mapping) else float(ranks),
        folded_norms,
        fold,
    )


def _check_choice(what: str, found: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [choice for choice in found if choice not in known]
    if unknown:
        raise ValueError(f"found {what} {unknown}; expected some of {list(known)}.")
