"""Factors in the place of dense adapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from radapt_jax.adapters.base import NAME
from radapt_jax.adapters.registry import of_kind
from radapt_jax.compress.svd import Matrices
from radapt_jax.family.member import Member
from radapt_jax.utils import trees


def placed(leaves: Mapping[str, Matrices]) -> dict[str, np.ndarray]:
    """Return `{leaf: {convolution: matrix}}` as adapters' variables by path."""
    return {
        f"{conv}/{NAME}/{leaf}": np.asarray(matrix)
        for leaf, matrices in leaves.items()
        for conv, matrix in matrices.items()
    }


def with_leaves(
    tree: trees.Tree, leaves: Mapping[str, Any], *, drop: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a collection with `leaves` added, and without those whose paths end in `drop`."""
    kept = {path: leaf for path, leaf in trees.flatten(tree).items() if not path.endswith(drop)}
    return trees.unflatten({**kept, **leaves})


def with_factors(
    member: Member, kind: str, ranks: Mapping[str, int], leaves: Mapping[str, Matrices]
) -> Member:
    """Return a member with factors, `{leaf: {convolution: matrix}}`, in place of dense adapters."""
    adapters = with_leaves(
        member.variables["adapters"],
        placed(leaves),
        drop=tuple(f"/{NAME}/{leaf}" for leaf in member.spec.kind.leaves),
    )
    options = of_kind(member.spec.adapter, kind, ranks=ranks)
    return dataclasses.replace(
        member.changed(adapters=adapters),
        spec=dataclasses.replace(member.spec, adapter=options),
        method=kind,
        shared=None,
        results={},
    )
