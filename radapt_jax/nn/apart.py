"""Functions that stay functions of their own in a compiled program."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array


def apart(function: Callable[..., Array], *arrays: Array) -> Array:
    """Return function(*arrays), compiled apart from what is around it; for CPUs.

    There XLA fuses what computes an array with what reorders it. Where the backward pass reads an
    activation in another order, the forward pass would write it twice, and keep both. A function
    that is compiled apart reads the one array there is, when it is needed.

    A convolution must not be in it: XLA's is about a hundred times slower in there.
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(function)(*arrays)
