"""Training through the rounding of adapters, with gradients that pass straight through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from radapt_jax.family.bits import is_binary
from radapt_jax.family.rounding import HALF, WHOLE, Rounding, nearest
from radapt_jax.models.spec import ModelSpec

Weights = dict[str, Array]  # by path, collection first


def through_rounding(spec: ModelSpec, bits: int) -> Callable[[Weights], Weights]:
    """Return what a network's weights are computed with, where adapters have so many bits.

    The adapters' matrices that are rounded in a domain's file are rounded here by the same rule,
    and the loss is differentiated at the rounded values as if they were the weights themselves
    (the straight-through estimator; Bengio, Léonard and Courville, arXiv 1308.3432). The head and
    vectors, whose rounding is finer, stay as they are, and so do variables that domains share.

    Args:
      spec: the network.
      bits: of a value; 32: nothing is rounded.
    """
    if bits == WHOLE:
        return lambda weights: weights
    rounding = Rounding(bits)

    def is_rounded(path: str, leaf: Any) -> bool:
        collection, _, inside = path.partition("/")
        if collection != "adapters" or inside.startswith("head/") or is_binary(spec, path):
            return False
        form = rounding.form_of(path, tuple(leaf.shape))
        return form.bits < HALF and not form.is_vector

    def rounded(weights: Weights) -> Weights:
        return {
            path: _straight(leaf, bits) if is_rounded(path, leaf) else leaf
            for path, leaf in weights.items()
        }

    return rounded


def _straight(weight: Array, bits: int) -> Array:
    columns = jax.lax.stop_gradient(weight).reshape(-1, weight.shape[-1])
    near = nearest(columns, bits).reshape(weight.shape).astype(weight.dtype)
    return near + (weight - jax.lax.stop_gradient(weight))
