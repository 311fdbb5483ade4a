"""Folding: compute g = f + diag(α) explicitly, so that an adapted network is a plain one.

The shared filters are kept, never changed and never recovered by subtraction, so that they are
the same bits after any number of swaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from radapt_jax import trees
from radapt_jax.layers import NORM_EPSILON
from radapt_jax.models import ModelSpec


def fold(
    params: trees.Tree, adapters: trees.Tree, batch_stats: trees.Tree, *, fold_norm: bool = False
) -> dict[str, Any]:
    """Fold a domain's adapters into the shared filters, for evaluation.

    Works on plain trees of any adapter kind, and tells the kind from the variables:

    - parallel: g = f + α at the centre tap; low-rank: the same with α = β γᵀ;
    - series: y = u + α norm(u) is linear in u at evaluation. Its matrix goes into the filter, its
      constant into the running mean of the domain norm that follows.

    Args:
      params, adapters, batch_stats: the collections of one domain.
      fold_norm: fold the domain norms that follow convolutions into the filters, too; what is
        left of such a norm is a bias.

    Returns:
      `params`, `adapters` and `batch_stats` of `ModelSpec(adapter="none")`, or with `fold_norm`
      of `ModelSpec(adapter="none", folded_norms=True)`.
    """
    filters, own = trees.flatten(params), trees.flatten(adapters)
    stats = trees.flatten(batch_stats)
    kept = {path: leaf for path, leaf in own.items() if "/adapter/" not in path}
    kept_stats = {path: leaf for path, leaf in stats.items() if "/adapter/" not in path}
    folded = {}
    for path, kernel in filters.items():
        if not path.endswith("/kernel"):
            continue  # a shared β
        conv = path.removesuffix("/kernel")
        norm = _norm_after(conv)
        new = jnp.asarray(kernel)
        if f"{conv}/adapter/norm/scale" in own:
            new, constant = _fold_series(new, *_series_parts(conv, own, stats))
            kept_stats[f"{norm}/mean"] = kept_stats[f"{norm}/mean"] - constant
        elif (alpha := _alpha(conv, filters, own)) is not None:
            new = new.at[1, 1].add(alpha)
        if fold_norm:
            new, kept[f"{norm}/bias"] = _fold_norm(new, norm, kept, kept_stats)
            del kept[f"{norm}/scale"], kept_stats[f"{norm}/mean"], kept_stats[f"{norm}/var"]
        folded[path] = new
    return {
        "params": trees.unflatten(folded),
        "adapters": trees.unflatten(kept),
        "batch_stats": trees.unflatten(kept_stats),
    }


def _norm_after(conv: str) -> str:
    """Return the path of the domain norm that follows a convolution."""
    return "stem_norm" if conv == "stem" else conv.replace("conv", "norm")


def _alpha(conv: str, filters: Mapping[str, Any], own: Mapping[str, Any]) -> Array | None:
    """Return the dense matrix of a parallel or low-rank adapter; None where there is none."""
    if f"{conv}/adapter/gamma" in own:
        beta = own.get(f"{conv}/adapter/beta", filters.get(f"{conv}/adapter/beta"))
        return _product(jnp.asarray(beta), own[f"{conv}/adapter/gamma"])
    return own.get(f"{conv}/adapter/kernel")


def _product(a: Array, b: Array) -> Array:
    """A matrix product in full float32; the default is shorter on GPUs and TPUs."""
    return jnp.matmul(a, b, precision="highest")


def _series_parts(conv: str, own: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[Array, ...]:
    """Return α, and the slope and the offset of the norm inside a series adapter."""
    inner = f"{conv}/adapter/norm"
    slope = own[f"{inner}/scale"] / jnp.sqrt(stats[f"{inner}/var"] + NORM_EPSILON)
    offset = own[f"{inner}/bias"] - stats[f"{inner}/mean"] * slope
    return own[f"{conv}/adapter/kernel"], slope, offset


def _fold_series(
    kernel: Float[Array, "3 3 i o"], alpha: Array, slope: Array, offset: Array
) -> tuple[Float[Array, "3 3 i o"], Float[Array, " o"]]:
    """u + (slope u + offset) α = u (I + diag(slope) α) + offset α."""
    return kernel + _product(kernel, slope[:, None] * alpha), _product(offset, alpha)


def _fold_norm(
    kernel: Array, norm: str, own: Mapping[str, Any], stats: Mapping[str, Any]
) -> tuple[Array, Array]:
    """Return the filter with the norm's slope in it, and the bias that is left."""
    slope = own[f"{norm}/scale"] / jnp.sqrt(stats[f"{norm}/var"] + NORM_EPSILON)
    return kernel * slope, own[f"{norm}/bias"] - stats[f"{norm}/mean"] * slope


@dataclasses.dataclass(frozen=True)
class FoldedVariables:
    """A folded domain, and the shared weights it was folded from.

    `variables` are those of a plain network, `spec.build(...)`.
    """

    spec: ModelSpec
    variables: dict[str, Any]
    shared: Mapping[str, Any]

    def unfold(self) -> Mapping[str, Any]:
        """Return the shared weights, the very arrays that were folded: nothing is subtracted."""
        return self.shared
