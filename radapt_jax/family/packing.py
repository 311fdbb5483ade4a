"""How the variables of a domain are packed in a file: bits, few bits a value, float16, or as is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from radapt_jax.family import rounding
from radapt_jax.family.bits import is_binary
from radapt_jax.family.member import Member

BYTES = np.dtype(np.uint8)


def packed(member: Member, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a member's variables by path as its file has them.

    Binary ones are uint8, eight values a byte, unless they are neither 0 nor 1 (scores of a member
    that was made by hand).

    Raises:
      ValueError: the member is said to be rounded, and its values are not.
    """

    def form(path: str, leaf: np.ndarray) -> np.ndarray:
        if is_binary(member.spec, path) and np.isin(leaf, (0, 1)).all():
            return np.packbits(leaf.astype(bool))
        return rounding.packed(leaf, _bits(member, path, leaf))

    return {path: form(path, leaf) for path, leaf in leaves.items()}


def as_stored(
    member: Member, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the shapes and dtypes that a member's variables should have in a file.

    Args:
      member: as its card describes it.
      expected: shapes and dtypes of its variables.
      found: those in the file. Binary variables may be bits or not.
    """

    def form(path: str, leaf: Any) -> Any:
        size, bits = int(np.prod(leaf.shape)), _bits(member, path, leaf)
        if is_binary(member.spec, path) and path in found and found[path].dtype == BYTES:
            return jax.ShapeDtypeStruct((-(-size // 8),), BYTES)
        if bits < rounding.HALF:
            return jax.ShapeDtypeStruct((rounding.size_of(leaf.shape, bits),), BYTES)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if bits > rounding.HALF else np.float16)

    return {path: form(path, leaf) for path, leaf in expected.items()}


def unpacked(
    member: Member, expected: Mapping[str, Any], stored: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return a member's variables by path from what `packed` made of them."""

    def form(path: str, leaf: Any) -> np.ndarray:
        array, size = stored[path], int(np.prod(leaf.shape))
        if is_binary(member.spec, path) and array.dtype == BYTES:
            return np.unpackbits(array, count=size).reshape(leaf.shape).astype(leaf.dtype)
        bits = _bits(member, path, leaf)
        return array if bits == rounding.WHOLE else rounding.unpacked(array, leaf.shape, bits)

    return {path: form(path, leaf) for path, leaf in expected.items()}


def _bits(member: Member, path: str, leaf: Any) -> int:
    if member.rounding is None or is_binary(member.spec, path):
        return rounding.WHOLE
    return member.rounding.bits_of(path, tuple(leaf.shape))
