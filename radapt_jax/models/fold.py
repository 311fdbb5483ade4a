"""Folding: compute the filters of an adapted network explicitly, so that it is a plain one.

The shared filters are kept, never changed and never recovered by subtraction, so that they are
the same bits after any number of swaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from radapt_jax.adapters.base import is_adapters, of_adapter
from radapt_jax.models.spec import ModelSpec
from radapt_jax.nn.filters import Filter
from radapt_jax.nn.geometry import Geometry
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
    rule = spec.backbone.norm
    for conv, norm, groups in spec.backbone.convolutions():
        path = f"{conv}/kernel"
        if path not in filters:
            continue
        new = jnp.asarray(filters[path])
        adapter = {**of_adapter(filters, conv), **of_adapter(own, conv)}
        if adapter:
            f = Filter(new, filters.get(f"{conv}/bias"), Geometry(groups=groups))
            new, constant = spec.kind.fold(f, adapter, of_adapter(stats, conv), rule)
            if constant is not None:
                kept_stats[f"{norm}/mean"] = kept_stats[f"{norm}/mean"] - constant
        if fold_norm:
            slope = kept[f"{norm}/scale"] / jnp.sqrt(kept_stats[f"{norm}/var"] + rule.epsilon)
            new = new * slope
            kept[f"{norm}/bias"] = kept[f"{norm}/bias"] - kept_stats[f"{norm}/mean"] * slope
            if f"{conv}/bias" in filters:
                new_filters[f"{conv}/bias"] = filters[f"{conv}/bias"] * slope
            del kept[f"{norm}/scale"], kept_stats[f"{norm}/mean"], kept_stats[f"{norm}/var"]
        new_filters[path] = new
    return {
        name: trees.unflatten(leaves) for name, leaves in zip(trees.COLLECTIONS, plain, strict=True)
    }


def folded_spec(spec: ModelSpec, *, fold_norm: bool = False) -> ModelSpec:
    """Return the plain network that a folded domain is."""
    return ModelSpec(spec.backbone, folded_norms=fold_norm)
