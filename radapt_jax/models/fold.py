"""Folding: compute the filters of an adapted network explicitly, so that it is a plain one.

The shared filters are kept, never changed and never recovered by subtraction, so that they are
the same bits after any number of swaps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.adapters.base import Trained, is_adapters, of_adapter
from radapt_jax.models.backbone import Convolution
from radapt_jax.models.spec import ModelSpec
from radapt_jax.nn.filters import Filter, as_filter
from radapt_jax.nn.geometry import Geometry
from radapt_jax.utils import trees


def fold(
    spec: ModelSpec, variables: Mapping[str, Any], *, fold_norm: bool = False
) -> dict[str, Any]:
    """Fold a domain's adapters into the shared filters, for evaluation.

    Every kind folds in its own way; see `fold` of the kinds in `radapt_jax.adapters`. A constant
    that is left goes into the convolution's bias, or, if it has none, into the running mean of the
    domain norm that follows.

    Args:
      spec: the domain's network.
      variables: its `params`, `adapters` and `batch_stats`, or parts of them.
      fold_norm: fold the domain norms that follow convolutions into the filters, too; what is
        left of such a norm is a bias.

    Returns:
      `params`, `adapters` and `batch_stats` of `folded_spec(spec, fold_norm=fold_norm)`.

    Raises:
      ValueError: a constant is left where there is neither a bias nor such a norm, or the kind
        cannot be folded.
    """
    filters, own, stats = (trees.flatten(variables[name]) for name in trees.COLLECTIONS)
    plain = [
        {path: leaf for path, leaf in leaves.items() if not is_adapters(path)}
        for leaves in (filters, own, stats)
    ]
    new_filters, kept, kept_stats = plain
    for conv in spec.backbone.convolutions():
        path, norm = conv.path, conv.norm
        kernel, bias = filters.get(f"{path}/kernel"), filters.get(f"{path}/bias")
        if kernel is None:
            continue
        new = as_filter(jnp.asarray(kernel), conv.axes)
        adapter = {**of_adapter(filters, path), **of_adapter(own, path)}
        if adapter:
            f = Filter(
                new, None if bias is None else bias.reshape(-1), Geometry(groups=conv.groups)
            )
            own_stats, rule = of_adapter(stats, path), spec.backbone.norm
            new, constant = spec.kind.fold(f, Trained(adapter, own_stats, spec.adapter, rule, path))
            if constant is not None and bias is not None:
                new_filters[f"{path}/bias"] = bias = bias + constant.reshape(bias.shape)
            elif constant is not None:
                _check_norm(conv, spec)
                kept_stats[f"{norm}/mean"] = kept_stats[f"{norm}/mean"] - constant
        if fold_norm and norm is not None:
            epsilon = spec.backbone.rule_of(norm).epsilon
            slope = kept[f"{norm}/scale"] / jnp.sqrt(kept_stats[f"{norm}/var"] + epsilon)
            new = new * slope
            kept[f"{norm}/bias"] = kept[f"{norm}/bias"] - kept_stats[f"{norm}/mean"] * slope
            if bias is not None:
                new_filters[f"{path}/bias"] = bias * slope.reshape(bias.shape)
            del kept[f"{norm}/scale"], kept_stats[f"{norm}/mean"], kept_stats[f"{norm}/var"]
        new_filters[f"{path}/kernel"] = new.reshape(kernel.shape)
    return {
        name: trees.unflatten(leaves) for name, leaves in zip(trees.COLLECTIONS, plain, strict=True)
    }


@functools.lru_cache(maxsize=64)
def can_fold(spec: ModelSpec) -> bool:
    """Tell whether adapters can be folded: their kind can, and every constant has a place."""
    if not spec.kind.foldable:
        return False
    try:
        jax.eval_shape(functools.partial(fold, spec), spec.abstract(1))
    except ValueError:
        return False
    return True


def _check_norm(conv: Convolution, spec: ModelSpec) -> None:
    """Raise ValueError where a constant that is left after folding has no place."""
    if conv.norm is None:
        raise ValueError(
            f"found {spec.adapter.kind} adapters on {conv.path}, which has no bias and no batch "
            "norm that takes its output alone; expected either, for the constant that is left when "
            "they are folded. Predict without folding, give the layer a bias, or train parallel "
            "adapters."
        )


def folded_spec(spec: ModelSpec, *, fold_norm: bool = False) -> ModelSpec:
    """Return the plain network that a folded domain is."""
    return ModelSpec(spec.backbone, folded_norms=fold_norm)
