"""How the variables of a domain are laid out in a file: by path, or in one array if rounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from radapt_jax.family import codes
from radapt_jax.family.bits import is_binary
from radapt_jax.family.member import Member
from radapt_jax.family.rounding import HALF, WHOLE, Form
from radapt_jax.utils import trees

BYTES = np.dtype(np.uint8)
PACKED = "packed"  # name of the one array of a rounded domain; before, files had one for each path
Arrays = Mapping[str, np.ndarray]


def packed(member: Member) -> dict[str, np.ndarray]:
    """Return a member's variables by path as its file has them.

    Those of a rounded member are the bytes of all, one after another, sorted by path: names and
    shapes follow from its card. Binary ones are uint8, eight values a byte, unless they are neither
    0 nor 1 (scores of a member that was made by hand, and is not rounded).

    Raises:
      ValueError: the member is said to be rounded, and its values are not.
    """
    found = {}
    for path, leaf in trees.flatten(trees.to_numpy(member.variables)).items():
        if is_binary(member.spec, path) and np.isin(leaf, (0, 1)).all():
            found[path] = np.packbits(leaf.astype(bool))
        elif is_binary(member.spec, path) and member.rounding is not None:
            raise ValueError(
                f"domain {member.domain.name!r} is said to be rounded, and {path} holds other "
                "values than 0 and 1; expected bits. Round it: `Member.rounded`."
            )
        else:
            found[path] = codes.packed(leaf, _form(member, path, leaf))
    if member.rounding is None:
        return found
    parts = [np.ascontiguousarray(it).reshape(-1).view(np.uint8) for it in found.values()]
    return {PACKED: np.concatenate(parts)}


def as_stored(
    member: Member, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the shapes and dtypes that a member's variables should have in a file, by path.

    Args:
      member: as its card describes it.
      expected: shapes and dtypes of its variables.
      found: those in the file. Binary variables may be bits or not.
    """
    if PACKED in found:
        size = sum(_bytes(member, path, leaf) for path, leaf in expected.items())
        return {PACKED: jax.ShapeDtypeStruct((size,), BYTES)}

    def stored(path: str, leaf: Any) -> Any:
        form = _form(member, path, leaf)
        is_bits = is_binary(member.spec, path) and path in found and found[path].dtype == BYTES
        if is_bits or form.bits < HALF:
            return jax.ShapeDtypeStruct((_bytes(member, path, leaf),), BYTES)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if form.bits > HALF else np.float16)

    return {path: stored(path, leaf) for path, leaf in expected.items()}


def unpacked(member: Member, expected: Mapping[str, Any], stored: Arrays) -> dict[str, np.ndarray]:
    """Return a member's variables by path from what `packed` made of them."""
    if PACKED in stored:
        stored = _apart(member, expected, stored[PACKED])

    def leaf_of(path: str, leaf: Any) -> np.ndarray:
        array, size = stored[path], int(np.prod(leaf.shape))
        if is_binary(member.spec, path) and array.dtype == BYTES:
            return np.unpackbits(array, count=size).reshape(leaf.shape).astype(leaf.dtype)
        form = _form(member, path, leaf)
        return array if form.bits == WHOLE else codes.unpacked(array, tuple(leaf.shape), form)

    return {path: leaf_of(path, leaf) for path, leaf in expected.items()}


def _apart(member: Member, expected: Mapping[str, Any], whole: np.ndarray) -> Arrays:
    """Return the variables of a rounded member, each in its bytes, from those of all."""
    found, at = {}, 0
    for path, leaf in sorted(expected.items()):
        size, form = _bytes(member, path, leaf), _form(member, path, leaf)
        part = whole[at : at + size]
        at += size
        if form.bits >= HALF and not is_binary(member.spec, path):
            dtype = np.float16 if form.bits == HALF else leaf.dtype
            part = part.copy().view(dtype).reshape(leaf.shape)
        found[path] = part
    return found


def _bytes(member: Member, path: str, leaf: Any) -> int:
    """Return how many bytes a variable takes, a binary one as bits."""
    if is_binary(member.spec, path):
        return -(-int(np.prod(leaf.shape)) // 8)
    return codes.size_of(tuple(leaf.shape), _form(member, path, leaf))


def _form(member: Member, path: str, leaf: Any) -> Form:
    if member.rounding is None or is_binary(member.spec, path):
        return Form(WHOLE)
    return member.rounding.form_of(path, tuple(leaf.shape))
