"""Variables of adapters that are binary: counted in bits, kept as 0 and 1, packed in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from radapt_jax.adapters.base import NAME, is_adapters
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

BITS = 32  # that count as one parameter


def _leaf_of(spec: ModelSpec, path: str) -> str:
    """Return the name of a variable that is binary; "": it is none."""
    leaf = path.partition(f"/{NAME}/")[2] if is_adapters(path) else ""
    return leaf if leaf in spec.kind.leaves and spec.kind.leaves[leaf].binary else ""


def count(spec: ModelSpec, leaves: Mapping[str, Any]) -> int:
    """Return the parameters of variables by path, of which 32 bits are one."""
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in leaves.items()}
    return sum(-(-size // BITS) if _leaf_of(spec, path) else size for path, size in sizes.items())


def kept(spec: ModelSpec, variables: trees.Variables) -> dict[str, Any]:
    """Return what a domain keeps of its variables: of those that are binary, 0 and 1."""

    def settled(path: str, leaf: Any) -> Any:
        name = _leaf_of(spec, path)
        if not name:
            return leaf
        return np.asarray(spec.kind.bits(name, leaf, spec.adapter)).astype(leaf.dtype)

    leaves = trees.flatten(variables)
    if not any(_leaf_of(spec, path) for path in leaves):
        return dict(variables)
    own = trees.unflatten({path: settled(path, leaf) for path, leaf in leaves.items()})
    return {name: own.get(name, {}) for name in variables}


def packed(spec: ModelSpec, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return variables for a file: those that are binary as uint8, eight values a byte.

    Scores that are neither 0 nor 1 (of a member that was made by hand) stay as they are.
    """

    def is_packed(path: str, leaf: np.ndarray) -> bool:
        return bool(_leaf_of(spec, path)) and bool(np.isin(leaf, (0, 1)).all())

    return {
        path: np.packbits(leaf.astype(bool)) if is_packed(path, leaf) else leaf
        for path, leaf in leaves.items()
    }


def as_stored(spec: ModelSpec, path: str, leaf: Any, found: Any) -> Any:
    """Return the shape and dtype that a variable should have in a file.

    Args:
      spec: the domain's network.
      path: of the variable.
      leaf: its shape and dtype in the network.
      found: those in the file; None: it is not there. Where there can be bits, uint8 are bits.
    """
    if found is None or found.dtype != np.uint8 or not _leaf_of(spec, path):
        return leaf
    return jax.ShapeDtypeStruct((-(-int(np.prod(leaf.shape)) // 8),), np.uint8)


def unpacked(array: np.ndarray, leaf: Any) -> np.ndarray:
    """Return a variable of a file with the shape and dtype of `leaf`."""
    if array.dtype == leaf.dtype:
        return array
    size = int(np.prod(leaf.shape))
    return np.unpackbits(array, count=size).reshape(leaf.shape).astype(leaf.dtype)
