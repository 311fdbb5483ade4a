"""Initial values of variables: Linen initialisers, and the same distributions drawn with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Array

Shape = tuple[int, ...]

# PyTorch's default for a linear layer: uniform within +-1/sqrt(inputs).
head_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# He et al. 2015 over the outputs, as the original code initialises every convolution.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Start(NamedTuple):
    """One distribution, drawn from a JAX key or from a NumPy generator."""

    initializer: Callable[..., Array]
    draw: Callable[[np.random.Generator, Shape], np.ndarray]


def _draw_head(stream: np.random.Generator, shape: Shape) -> np.ndarray:
    bound = 1 / np.sqrt(shape[0])
    return stream.uniform(-bound, bound, shape)


def _draw_he_normal(stream: np.random.Generator, shape: Shape) -> np.ndarray:
    fan_out = shape[-1] * np.prod(shape[:-2], dtype=int)
    return stream.normal(0.0, np.sqrt(2 / fan_out), shape)


STARTS = {
    "zeros": Start(nn.initializers.zeros, lambda _, shape: np.zeros(shape)),
    "ones": Start(nn.initializers.ones, lambda _, shape: np.ones(shape)),
    "he_normal": Start(he_normal, _draw_he_normal),
    "head": Start(head_init, _draw_head),
}
