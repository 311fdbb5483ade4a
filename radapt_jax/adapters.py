"""The adapters, one class a kind, and the shared convolution that carries one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.layers import ChannelDropout, DomainNorm, domain_variable, he_normal

KINDS = ("none", "series", "parallel")
INITS = {
    "zeros": nn.initializers.zeros,  # the adapted network starts as the backbone
    "he_normal": he_normal,  # as in the original code
}


class ParallelAdapter(nn.Module):
    """α * x, a 1x1 convolution beside a shared one (Rebuffi et al., CVPR 2018, section 3.1.2).

    `__call__(x, train=...)` takes the input of the shared convolution, (b, h, w, c), and returns
    what is added to its output, (b, h/stride, w/stride, features).
    """

    features: int
    stride: int = 1
    dropout: float = 0.0
    initializer: str = "zeros"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        shape = (x.shape[-1], self.features)
        kernel = domain_variable(self, "adapters", "kernel", INITS[self.initializer], shape).value
        # With stride 2 and padding (1, 1), the centre tap of a 3x3 filter reads every second
        # pixel from the first on, and so does a 1x1 filter.
        x = x[:, :: self.stride, :: self.stride]
        x = ChannelDropout(self.dropout, self.axis_name, name="dropout")(x, train=train)
        return x @ kernel.astype(self.dtype)


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

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        kernel = self.param("kernel", he_normal, (3, 3, x.shape[-1], self.features), jnp.float32)
        x = x.astype(self.dtype)
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.adapter == "parallel":
            parallel = ParallelAdapter(
                self.features,
                self.stride,
                self.dropout,
                self.initializer,
                self.dtype,
                self.axis_name,
                name="adapter",
            )
            return y + parallel(x, train=train)
        if self.adapter == "series":
            series = SeriesAdapter(self.initializer, self.dtype, self.norm_axis, name="adapter")
            return series(y, train=train)
        return y
