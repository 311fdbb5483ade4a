"""Variables of adapters that are binary: counted in bits, and kept as 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from radapt_jax.adapters.base import leaf_of
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

BITS = 32  # that count as one parameter


def is_binary(spec: ModelSpec, path: str) -> bool:
    """Tell whether a variable is binary, from its path."""
    found = spec.kind.leaves.get(leaf_of(path))
    return found is not None and found.binary


def count(spec: ModelSpec, leaves: Mapping[str, Any]) -> int:
    """Return the parameters of variables by path, of which 32 bits are one."""
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in leaves.items()}
    return sum(-(-size // BITS) if is_binary(spec, path) else size for path, size in sizes.items())


def kept(spec: ModelSpec, variables: trees.Variables) -> dict[str, Any]:
    """Return what a domain keeps of its variables: of those that are binary, 0 and 1."""

    def settled(path: str, leaf: Any) -> Any:
        if not is_binary(spec, path):
            return leaf
        return np.asarray(spec.kind.bits(leaf_of(path), leaf, spec.adapter)).astype(leaf.dtype)

    leaves = trees.flatten(variables)
    if not any(is_binary(spec, path) for path in leaves):
        return dict(variables)
    own = trees.unflatten({path: settled(path, leaf) for path, leaf in leaves.items()})
    return {name: own.get(name, {}) for name in variables}
