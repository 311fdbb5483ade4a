"""Features: what a network hands to its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from radapt_jax.data.augment import normalise


def through_head(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a domain's variables with a head that changes nothing; its classes are channels."""
    channels = variables["adapters"]["head"]["kernel"].shape[0]
    head = {"kernel": jnp.eye(channels), "bias": jnp.zeros(channels)}
    return {**variables, "adapters": {**variables["adapters"], "head": head}}


def head_input(
    model: Any, variables: Any, images: Array, mean: Any, std: Any
) -> Float[Array, "b c"]:
    """Return the features of images (b, h, w, 3), float32; uint8 images are normalised first.

    Args:
      model: built for as many classes as there are channels.
      variables: see `through_head`.
      images, mean, std: as for `predict.probabilities`.
    """
    if images.dtype == jnp.uint8:
        images = normalise(images, mean, std)
    with jax.default_matmul_precision("highest"):  # the product with 1 must not round
        return model.apply(variables, images, train=False)


features = jax.jit(head_input, static_argnames="model")
