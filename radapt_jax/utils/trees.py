"""Paths, counts, fingerprints and comparisons of variable trees (nested dicts of arrays)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

Tree = Mapping[str, Any]
Variables = Mapping[str, Any]  # collections of a network by name, trees of arrays
COLLECTIONS = ("params", "adapters", "batch_stats")


def flatten(tree: Tree) -> dict[str, Any]:
    """Return `{"stage1/block1/conv1/kernel": leaf}`, sorted by path."""
    return dict(sorted(traverse_util.flatten_dict(dict(tree), sep="/").items()))


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested dict of `{path: leaf}`; undoes `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def collections(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the collections of a network of `{collection/path: leaf}`; some may be empty."""
    return {**{name: {} for name in COLLECTIONS}, **unflatten(leaves)}


def split(tree: Tree, keep: Callable[[str], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a tree into flat dicts by path: leaves for which `keep(path)` holds, and the rest."""
    leaves = flatten(tree)
    kept = {path: leaf for path, leaf in leaves.items() if keep(path)}
    return kept, {path: leaf for path, leaf in leaves.items() if path not in kept}


def count(tree: Tree) -> int:
    """Return the number of values in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(tree).values())


def fingerprint(tree: Tree) -> str:
    """Return the sha256 (hex) of all paths, dtypes, shapes and values, whatever their order."""
    digest = hashlib.sha256()
    for path, leaf in flatten(tree).items():
        array = np.asarray(leaf)
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{path} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(little_endian).tobytes())
    return digest.hexdigest()


def to_numpy(tree: Tree) -> dict[str, Any]:
    """Return the tree with every leaf copied to a NumPy array of its own."""
    return {
        key: to_numpy(it) if isinstance(it, Mapping) else np.array(it) for key, it in tree.items()
    }


def _describe(leaf: Any) -> str:
    return f"{tuple(leaf.shape)} {np.dtype(leaf.dtype).name}"


def check_like(found: Tree, expected: Tree, what: str) -> None:
    """Raise ValueError unless both trees have the same paths, shapes and dtypes.

    Reads only `.shape` and `.dtype` of the leaves, so leaves may be abstract. The message, which
    begins with `what`, shows both sides of up to five differences.
    """
    found_leaves, expected_leaves = flatten(found), flatten(expected)
    differences = []
    for path in sorted(found_leaves.keys() | expected_leaves.keys()):
        here = _describe(found_leaves[path]) if path in found_leaves else "missing"
        there = _describe(expected_leaves[path]) if path in expected_leaves else "nothing"
        if here != there:
            differences.append(f"  {path}: found {here}, expected {there}")
    if differences:
        more = f"\n  ... and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ValueError(
            f"{what} does not fit this network ({len(differences)} variables differ):\n"
            + "\n".join(differences[:5])
            + more
            + "\nUse the width, adapter kind and class count it was trained with."
        )
