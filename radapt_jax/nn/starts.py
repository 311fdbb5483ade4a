"""Initial values of variables: Linen initialisers, and the same distributions drawn with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

Shape = tuple[int, ...]

# PyTorch's default for a linear layer: uniform within +-1/sqrt(inputs).
head_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# He et al. 2015 over the outputs, as the original code initialises every convolution.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
TRUNCATED = 0.87962566103423978  # standard deviation of a normal distribution cut off at 2
UNIFORM = 0.05  # Keras's bound for "uniform"


class Start(NamedTuple):
    """One distribution, drawn from a JAX key or from a NumPy generator."""

    initializer: Callable[..., Array]
    draw: Callable[[np.random.Generator, Shape], np.ndarray]


def constant(value: float | np.ndarray) -> Start:
    """Return the start at one value, a number or an array of the variable's shape."""
    return Start(
        lambda key, shape, dtype=jnp.float32: jnp.broadcast_to(jnp.asarray(value, dtype), shape),
        lambda stream, shape: np.broadcast_to(value, shape),
    )


def vector(start: Start) -> Start:
    """Return the start of a vector (d,) as that of a matrix (1, d)."""
    return Start(
        lambda key, shape, dtype=jnp.float32: start.initializer(key, (1, *shape), dtype)[0],
        lambda stream, shape: start.draw(stream, (1, *shape))[0],
    )


def _draw_head(stream: np.random.Generator, shape: Shape) -> np.ndarray:
    bound = 1 / np.sqrt(shape[0])
    return stream.uniform(-bound, bound, shape)


def _draw_he_normal(stream: np.random.Generator, shape: Shape) -> np.ndarray:
    fan_out = shape[-1] * np.prod(shape[:-2], dtype=int)
    return stream.normal(0.0, np.sqrt(2 / fan_out), shape)


def _draw_keras_he_normal(stream: np.random.Generator, shape: Shape) -> np.ndarray:
    drawn = stream.normal(size=shape)
    while (far := np.abs(drawn) > 2).any():
        drawn[far] = stream.normal(size=far.sum())
    return drawn * np.sqrt(2 / np.prod(shape[:-1], dtype=int)) / TRUNCATED


def _draw_glorot_uniform(stream: np.random.Generator, shape: Shape) -> np.ndarray:
    pixels = np.prod(shape[:-2], dtype=int)
    bound = np.sqrt(6 / (pixels * (shape[-2] + shape[-1])))
    return stream.uniform(-bound, bound, shape)


# "keras_he_normal" is He et al. 2015 over the inputs, cut off at two standard deviations.
STARTS = {
    "zeros": Start(nn.initializers.zeros, lambda _, shape: np.zeros(shape)),
    "ones": Start(nn.initializers.ones, lambda _, shape: np.ones(shape)),
    "he_normal": Start(he_normal, _draw_he_normal),
    "head": Start(head_init, _draw_head),
    "keras_he_normal": Start(nn.initializers.he_normal(), _draw_keras_he_normal),
    "glorot_uniform": Start(nn.initializers.glorot_uniform(), _draw_glorot_uniform),
    "uniform": Start(
        lambda key, shape, dtype=jnp.float32: jax.random.uniform(
            key, shape, dtype, -UNIFORM, UNIFORM
        ),
        lambda stream, shape: stream.uniform(-UNIFORM, UNIFORM, shape),
    ),
}
