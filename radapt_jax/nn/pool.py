"""Max pooling whose gradient is fast on CPUs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

SIZE, STRIDE, PAD = 3, 2, 1  # pixels


def max_pool(x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 c"]:
    """Return the maxima of 3x3 windows, two pixels apart; outside of the image is nothing.

    Sides are halved, and rounded up. In training the maxima are of shifted images, since XLA's own
    gradient takes several times as long on CPUs. Equal maxima share a gradient.
    """
    pads = ((PAD, PAD), (PAD, PAD))
    if not train:
        return nn.max_pool(x, (SIZE, SIZE), (STRIDE, STRIDE), pads)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    for axis in (1, 2):
        end = padded.shape[axis] - SIZE + 1
        shifted = [
            jax.lax.slice_in_dim(padded, first, end + first, STRIDE, axis) for first in range(SIZE)
        ]
        padded = functools.reduce(jnp.maximum, shifted)
    return padded
