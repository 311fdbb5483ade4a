"""One domain as one file: safetensors, with the domain's facts and checksums in its metadata.

The folders of its images are left out, since the file is meant to be passed on. Nothing is pickled.
Variables that are binary take a bit a value, and those of a domain that is rounded a few.
Reading checks the facts, then shapes and dtypes, then every value.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import safetensors.numpy

from radapt_jax.family import packing
from radapt_jax.family.card import card_text, parse_card
from radapt_jax.family.member import Member
from radapt_jax.models.registry import Backbones
from radapt_jax.utils import files, trees
from radapt_jax.utils.files import check_file_place
from radapt_jax.version import __version__

KEY = "radapt_jax"
DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}


def write(member: Member, path: str | Path) -> None:
    """Write a domain to a safetensors file, replacing one that is there.

    Raises:
      OSError: nothing can be written there; a file that is there stays unchanged.
      ValueError: the domain is said to be rounded, and its values are not.
    """
    path = Path(path)
    check_file_place(path)
    files.write_atomically(path, _contents(member))


def size(member: Member) -> int:
    """Return the bytes of a domain's file, without writing it.

    Raises:
      ValueError: the domain is said to be rounded, and its values are not.
    """
    return len(_contents(member))


def digest(member: Member) -> str:
    """Return the sha256 of all facts of a domain as its file has them, that of its variables too.

    Of the file itself it would not do: safetensors writes its metadata in any order.
    """
    return _digest(_card(member))


def _card(member: Member) -> str:
    if member.data is not None:
        member = dataclasses.replace(member, data=member.data.without_place())
    return card_text({**member.card(), "version": __version__})


def _contents(member: Member) -> bytes:
    card = _card(member)
    metadata = {KEY: card, "sha256": _digest(card)}
    return safetensors.numpy.save(packing.packed(member), metadata)


def read_card(path: str | Path) -> dict[str, Any]:
    """Return the facts in a domain's file, without reading its arrays.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no safetensors file, holds no domain, or its facts are damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"found no file {path}.")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except Exception as error:
        raise ValueError(f"{path} is no safetensors file, or is cut short: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} holds no radapt_jax domain; expected {KEY!r} in its metadata.")
    if _digest(metadata[KEY]) != metadata.get("sha256"):
        raise ValueError(
            f"{path} is damaged: its facts do not match their checksum. Get the file again."
        )
    return parse_card(metadata[KEY], str(path))


def read(path: str | Path, backbones: Backbones | None = None) -> Member:
    """Read a domain from a safetensors file.

    Args:
      path: of the file.
      backbones: your own networks, by name.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds no domain, or its facts, shapes, dtypes and values do not agree.
    """
    card = read_card(path)
    empty = Member.from_card(card, str(path), backbones=backbones)
    with safetensors.safe_open(path, "numpy") as file:
        found = {}
        for name in file.keys():  # noqa: SIM118, it is no dict
            part = file.get_slice(name)
            dtype = DTYPES.get(part.get_dtype(), "uint8")
            found[name] = jax.ShapeDtypeStruct(tuple(part.get_shape()), dtype)
        expected = trees.flatten(empty.abstract())
        trees.check_like(found, packing.as_stored(empty, expected, found), str(path))
        stored = {name: file.get_tensor(name) for name in found}
        variables = trees.unflatten(packing.unpacked(empty, expected, stored))
    member = dataclasses.replace(empty, variables=variables)
    return member.verified(card["sha256"], str(path))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
