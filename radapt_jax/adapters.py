"""The adapters, one class a kind, and the shared convolution that carries one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.convolution import centre, convolve, forward
from radapt_jax.layers import ChannelDropout, DomainNorm, domain_variable, he_normal

KINDS = ("none", "series", "parallel", "low_rank", "joint")
# In bfloat16 a small α would be rounded away in f + α: there it is applied apart.
FOLDED_DTYPES = (jnp.float32, jnp.float64)
PARALLEL_KINDS = ("parallel", "low_rank", "joint")
LOW_RANK_KINDS = ("low_rank", "joint")
Ranks = float | Mapping[str, int]  # a share of the full rank, or a rank by convolution
INITS = {
    "zeros": nn.initializers.zeros,  # the adapted network starts as the backbone
    "he_normal": he_normal,  # as in the original code
}


class ParallelAdapter(nn.Module):
    """f * x + α * x, α a 1x1 convolution beside the shared f (CVPR 2018, section 3.1.2).

    `__call__(x, kernel, train=...)` takes the input of the shared convolution, (b, h, w, c), and
    its filter, and returns (b, h/stride, w/stride, features). In training α is folded into the
    filter, unless its input is dropped out, the computation is in bfloat16, or `fold` is off.
    """

    features: int
    stride: int = 1
    dropout: float = 0.0
    initializer: str = "zeros"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    fold: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        shape = (x.shape[-1], self.features)
        alpha = domain_variable(self, "adapters", "kernel", INITS[self.initializer], shape).value
        return _beside(self, x, kernel, [alpha], train)


class LowRankAdapter(nn.Module):
    """A parallel adapter of low rank, α = β γᵀ (CVPR 2018, section 3.4).

    γ is the domain's. So is β, unless `joint`: then all domains share it, and it is in `params`.
    `__call__` as in `ParallelAdapter`; at evaluation the two factors are applied in turn.
    """

    features: int
    rank: int
    joint: bool
    stride: int = 1
    dropout: float = 0.0
    initializer: str = "zeros"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    fold: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        shape = (x.shape[-1], self.rank)
        if self.joint:
            beta = self.param("beta", he_normal, shape, jnp.float32)
        else:
            beta = domain_variable(self, "adapters", "beta", he_normal, shape).value
        init = INITS[self.initializer]
        gamma = domain_variable(self, "adapters", "gamma", init, (self.rank, self.features)).value
        return _beside(self, x, kernel, [beta, gamma], train)


def _beside(
    adapter: ParallelAdapter | LowRankAdapter,
    x: Array,
    kernel: Array,
    factors: Sequence[Array],
    train: bool,
) -> Array:
    """Return f * x + α * x, with α the product of `factors`."""
    factors = [factor.astype(adapter.dtype) for factor in factors]
    fold = adapter.fold and adapter.dtype in FOLDED_DTYPES
    if train and fold and adapter.dropout == 0:
        return convolve(x, kernel, adapter.stride, functools.reduce(jnp.matmul, factors))
    read = centre(x, adapter.stride)
    read = ChannelDropout(adapter.dropout, adapter.axis_name, name="dropout")(read, train=train)
    filtered = (convolve if train else forward)(x, kernel, adapter.stride)
    return filtered + functools.reduce(jnp.matmul, factors, read)


def rank_of(ranks: Ranks, conv: str, inputs: int, outputs: int) -> int:
    """Return the rank of one convolution's adapter: at least 1, at most the full rank.

    Args:
      ranks: a share of the full rank, min(inputs, outputs), or ranks by convolution (those that
        are not in it carry no low-rank adapter).
      conv: its path, such as "stage1/block1/conv1".

    Raises:
      ValueError: a share outside (0, 1], or no rank, or one out of range, for this convolution.
    """
    full = min(inputs, outputs)
    if isinstance(ranks, Mapping):
        if not 1 <= ranks.get(conv, 0) <= full:
            raise ValueError(
                f"found rank {ranks.get(conv)} for the adapter of {conv}; expected 1 to {full}."
            )
        return ranks[conv]
    if not 0 < ranks <= 1:
        raise ValueError(f"found ranks {ranks}; expected a share of the full rank in (0, 1].")
    return max(int(ranks * full + 0.5), 1)


class SeriesAdapter(nn.Module):
    """u + α * norm(u), after a shared convolution (NIPS 2017, equation 3; CVPR 2018, 3.1.1).

    The norm inside belongs to the adapter. `__call__(u, train=...)` keeps the shape (b, h, w, c).
    """

    initializer: str = "zeros"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, u: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        shape = (u.shape[-1], u.shape[-1])
        kernel = domain_variable(self, "adapters", "kernel", INITS[self.initializer], shape).value
        normed = DomainNorm(self.dtype, self.axis_name, name="norm")(u, train=train)
        return u + normed @ kernel.astype(self.dtype)


class AdaptedConv(nn.Module):
    """A shared 3x3 convolution (`params`) with an optional adapter of the domain (`adapters`).

    Padding is (1, 1) at every stride, there is no bias. `__call__(x, train=...)` maps
    (b, h, w, c) to (b, h/stride, w/stride, features).
    """

    features: int
    stride: int = 1
    adapter: str = "none"
    dropout: float = 0.0
    initializer: str = "zeros"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    norm_axis: str | None = None
    ranks: Ranks = 0.5
    fold: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        kernel = self.param("kernel", he_normal, (3, 3, x.shape[-1], self.features), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.adapter == "parallel":
            parallel = ParallelAdapter(
                self.features,
                self.stride,
                self.dropout,
                self.initializer,
                self.dtype,
                self.axis_name,
                self.fold,
                name="adapter",
            )
            return parallel(x, kernel, train=train)
        conv = "/".join(self.path)
        adapted = not isinstance(self.ranks, Mapping) or conv in self.ranks
        if self.adapter in LOW_RANK_KINDS and adapted:
            rank = rank_of(self.ranks, conv, x.shape[-1], self.features)
            low_rank = LowRankAdapter(
                self.features,
                rank,
                self.adapter == "joint",
                self.stride,
                self.dropout,
                self.initializer,
                self.dtype,
                self.axis_name,
                self.fold,
                name="adapter",
            )
            return low_rank(x, kernel, train=train)
        y = (convolve if train else forward)(x, kernel, self.stride)
        if self.adapter == "series":
            series = SeriesAdapter(self.initializer, self.dtype, self.norm_axis, name="adapter")
            return series(y, train=train)
        return y
