"""The product of two images over their pixels: the gradient of a 1x1 filter."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from radapt_jax.nn.apart import apart


def over_pixels(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w d"]
) -> Float[Array, "c d"]:
    """Return xᵀ g, summed over all pixels of all images.

    Args:
      x: (b, h, w, c).
      gradient: (b, h, w, d).
    """
    return jax.lax.platform_dependent(x, gradient, cpu=_apart, default=_product)


def _apart(x: Array, gradient: Array) -> Array:
    return apart(_product, x, gradient)


def _product(x: Array, gradient: Array) -> Array:
    """Return (gᵀ x)ᵀ: XLA reads both as they lie, and copies neither."""
    flat, flat_gradient = (it.reshape(-1, it.shape[-1]) for it in (x, gradient))
    return jax.lax.dot_general(flat_gradient, flat, (((0,), (0,)), ((), ()))).T
