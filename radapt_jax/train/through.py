"""Training through the rounding of adapters, with gradients that pass straight through it."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array

from radapt_jax.family.bits import is_binary
from radapt_jax.family.rounding import HALF, WHOLE, Form, Rounding, nearest
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

    def as_in_a_file(path: str, leaf: Array) -> Array:
        collection, _, inside = path.partition("/")
        if collection != "adapters" or inside.startswith("head/") or is_binary(spec, path):
            return leaf
        form = rounding.form_of(path, tuple(leaf.shape))
        return leaf if form.is_vector or form.bits >= HALF else _straight(leaf, form)

    return lambda weights: {path: as_in_a_file(path, leaf) for path, leaf in weights.items()}


def _straight(weight: Array, form: Form) -> Array:
    columns = jax.lax.stop_gradient(weight).reshape(-1, weight.shape[-1])
    near = nearest(columns, form).reshape(weight.shape).astype(weight.dtype)
    return near + (weight - jax.lax.stop_gradient(weight))
