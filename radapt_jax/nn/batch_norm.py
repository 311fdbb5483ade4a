"""Batch norm as a function, with its gradient in closed form."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    axis_name: str | None = None,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Return x normalised by its own statistics, and those statistics: mean and biased variance.

    The gradient is the closed form (Ioffe and Szegedy, 2015, section 3), computed in one pass of
    sums and one over the pixels; no gradient flows through the returned statistics.

    Args:
      x: (b, h, w, c), of any float type; sums are in float32 or wider.
      scale, bias: (c,).
      axis_name: take the statistics over all devices of this axis.
      epsilon: added to the variance.
    """
    return _batch_norm_forward(x, scale, bias, axis_name, epsilon)[0]


def _batch_norm_forward(
    x: Array, scale: Array, bias: Array, axis_name: str | None, epsilon: float
) -> Any:
    wide = widened(x)
    mean, var = statistics(x, axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (wide - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _batch_norm_backward(axis_name: str | None, epsilon: float, saved: Any, gradients: Any) -> Any:
    x, scale, mean, inverse = saved
    gradient = widened(gradients[0])
    normed = (widened(x) - mean) * inverse
    slope, moment = average(gradient), average(gradient * normed)
    pixels = x.size // x.shape[-1]
    ours = (pixels * moment, pixels * slope)  # of scale and bias, on this device
    if axis_name is not None:
        slope, moment = jax.lax.pmean((slope, moment), axis_name)
    back = (gradient - slope - normed * moment) * (inverse * scale)
    return (back.astype(x.dtype), *(it.astype(scale.dtype) for it in ours))


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def statistics(
    x: Float[Array, "b h w c"], axis_name: str | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Return the mean and the biased variance of each channel, in float32 or wider (two passes)."""
    wide = widened(x)
    mean = average(wide, axis_name)
    return mean, average(jnp.square(wide - mean), axis_name)


def widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def average(x: Float[Array, "b h w c"], axis_name: str | None = None) -> Float[Array, " c"]:
    """Average over all axes but channels (and over devices).

    Over images first, then over pixels: short sums in float32 lose fewer digits.
    """
    mean = x.mean(0).mean((0, 1))
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)
