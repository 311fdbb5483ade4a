"""Features: what a network hands to its head."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.data.augment import normalise
from radapt_jax.nn.layers import DomainHead


def head_input(
    model: Any, variables: Any, images: Array, mean: Any, std: Any
) -> Float[Array, "b c"]:
    """Return the features of images (b, h, w, 3), float32; uint8 images are normalised first."""
    if images.dtype == jnp.uint8:
        images = normalise(images, mean, std)
    taken: list[Array] = []

    def take(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, DomainHead) and context.method_name == "__call__":
            taken.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(take):
        model.apply(variables, images, train=False)
    (found,) = taken
    return found.astype(jnp.float32)


features = jax.jit(head_input, static_argnames="model")
