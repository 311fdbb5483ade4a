"""Folding: compute the filters of an adapted network explicitly, so that it is a plain one.

The shared filters are kept, never changed and never recovered by subtraction, so that they are
the same bits after any number of swaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from radapt_jax.adapters.base import is_adapters, of_adapter
from radapt_jax.models.spec import ModelSpec
from radapt_jax.nn.norm import NORM_EPSILON
from radapt_jax.utils import trees


def fold(
    spec: ModelSpec, variables: Mapping[str, Any], *, fold_norm: bool = False
) -> dict[str, Any]:
    """Fold a domain's adapters into the shared filters, for evaluation.

    Every kind folds in its own way; see `fold` of the kinds in `radapt_jax.adapters`. A constant
    that is left goes into the running mean of the domain norm that follows.

    Args:
      spec: the domain's network.
      variables: its `params`, `adapters` and `batch_stats`, or parts of them.
      fold_norm: fold the domain norms that follow convolutions into the filters, too; what is
        left of such a norm is a bias.

    Returns:
      `params`, `adapters` and `batch_stats` of `folded_spec(spec, fold_norm=fold_norm)`.
    """
    filters, own, stats = (trees.flatten(variables[name]) for name in trees.COLLECTIONS)
    plain = [
        {path: leaf for path, leaf in leaves.items() if not is_adapters(path)}
        for leaves in (filters, own, stats)
    ]
    new_filters, kept, kept_stats = plain
    for conv, norm in spec.backbone.convolutions():
        path = f"{conv}/kernel"
        if path not in filters:
            continue
        new = jnp.asarray(filters[path])
        adapter = {**of_adapter(filters, conv), **of_adapter(own, conv)}
        if adapter:
            new, constant = spec.kind.fold(new, adapter, of_adapter(stats, conv))
            if constant is not None:
                kept_stats[f"{norm}/mean"] = kept_stats[f"{norm}/mean"] - constant
        if fold_norm:
            new, kept[f"{norm}/bias"] = _fold_norm(new, norm, kept, kept_stats)
            del kept[f"{norm}/scale"], kept_stats[f"{norm}/mean"], kept_stats[f"{norm}/var"]
        new_filters[path] = new
    return {
        name: trees.unflatten(leaves) for name, leaves in zip(trees.COLLECTIONS, plain, strict=True)
    }


def folded_spec(spec: ModelSpec, *, fold_norm: bool = False) -> ModelSpec:
    """Return the plain network that a folded domain is."""
    return ModelSpec(spec.backbone, folded_norms=fold_norm)


def _fold_norm(
    kernel: Array, norm: str, own: Mapping[str, Any], stats: Mapping[str, Any]
) -> tuple[Array, Array]:
    """Return the filter with the norm's slope in it, and the bias that is left."""
    slope = own[f"{norm}/scale"] / jnp.sqrt(stats[f"{norm}/var"] + NORM_EPSILON)
    return kernel * slope, own[f"{norm}/bias"] - stats[f"{norm}/mean"] * slope
