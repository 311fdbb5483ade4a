"""The storages of a PyTorch file: flat arrays that its tensors are views of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from radapt_jax.convert.pickled import Global, short

DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
Order = Literal["<", ">"]
SIZE = 8  # bytes that say how many values follow


@dataclasses.dataclass(frozen=True)
class _Storage:
    kind: str
    array: np.ndarray  # zeros until it is filled

    def fill(self, raw: bytes | memoryview, order: Order) -> None:
        """Take the values from their bytes."""
        found = np.frombuffer(raw, np.dtype(DTYPES[self.kind]).newbyteorder(order))
        if self.kind == "BFloat16Storage":
            self.array[:] = (found.astype(np.uint32) << 16).view(np.float32)
        else:
            self.array[:] = found != 0 if self.kind == "BoolStorage" else found


class Storages:
    """The storages of a file, made when a pickle first refers to them.

    Args:
      room: the bytes of the file: all storages together are no larger.
      order: of the bytes of a value, "<" or ">".
      read: the bytes of a storage by its key; without it, `fill_in_order` is called later.
    """

    def __init__(self, room: int, order: Order, read: Callable[[str], bytes] | None = None) -> None:
        self._room = room
        self._order = order
        self._read = read
        self._found: dict[str, _Storage] = {}

    def of_id(self, found: Any) -> Any:
        """Return the array of an id such as ("storage", FloatStorage, "0", "cpu", 432).

        Files from before the zip format add a view, and refer to the classes of networks in the
        same way, with their source text, which is passed over.

        Raises:
          ValueError: an id of another form, or of a storage larger than the file.
        """
        match found:
            case ("module", Global() as kind, str() | None, str() | None):
                return kind
            case ("storage", Global("torch", name), str(key), str() | None, int(size), *view):
                if name in DTYPES and type(size) is int and size >= 0 and len(view) <= 1:
                    array = self._open(key, name, size).array
                    return _view(array, view[0]) if view and view[0] is not None else array
        raise ValueError(
            "found an id of another form; expected (storage, its class, key, device, size)."
        )

    def _open(self, key: str, kind: str, size: int) -> _Storage:
        if key in self._found:
            storage = self._found[key]
            if (storage.kind, len(storage.array)) != (kind, size):
                raise ValueError(f"found two descriptions of storage {short(key)!r}.")
            return storage
        itemsize = np.dtype(DTYPES[kind]).itemsize
        if size * itemsize > self._room:
            raise ValueError(
                f"found storage {short(key)!r} of {size:,} values of {itemsize} bytes; expected "
                f"no more than the {self._room:,} bytes that the file has left."
            )
        self._room -= size * itemsize
        raw = self._read(key) if self._read is not None else None
        if raw is not None and len(raw) != size * itemsize:
            raise ValueError(
                f"found {len(raw):,} bytes in storage {short(key)!r}; expected {size:,} values of "
                f"{itemsize} bytes."
            )
        dtype = {"BFloat16Storage": "f4", "BoolStorage": "?"}.get(kind, DTYPES[kind])
        storage = _Storage(kind, np.zeros(size, dtype))
        if raw is not None:
            storage.fill(raw, self._order)
        self._found[key] = storage
        return storage

    def fill_in_order(self, keys: Any, content: bytes, start: int) -> None:
        """Fill all storages from `content`: each its number of values, then these.

        Raises:
          ValueError: other storages than the pickle referred to, or other sizes, or a cut file.
        """
        known = type(keys) is list and all(type(key) is str for key in keys)
        if not known or len(set(keys)) != len(keys) or set(keys) != set(self._found):
            raise ValueError("found other storages in the list of keys than tensors refer to.")
        place = memoryview(content)
        for key in keys:
            storage = self._found[key]
            size = int.from_bytes(place[start : start + SIZE], "little", signed=True)
            begin = start + SIZE
            start = begin + len(storage.array) * np.dtype(DTYPES[storage.kind]).itemsize
            if start > len(content) or size != len(storage.array):
                raise ValueError(
                    f"found storage {short(key)!r} cut or of {size:,} values; expected "
                    f"{len(storage.array):,}, up to byte {start:,} of {len(content):,}."
                )
            storage.fill(place[begin:start], self._order)
        if start != len(content):
            raise ValueError(f"found {len(content) - start:,} bytes behind the last storage.")


def _view(array: np.ndarray, facts: Any) -> np.ndarray:
    """Return a part of a storage; `facts` are its key, its offset and its size."""
    match facts:
        case (str(), int(offset), int(size)) if offset >= 0 and size >= 0:
            if offset + size <= len(array):
                return array[offset : offset + size]
    raise ValueError("found a view of a storage that is not within it.")
