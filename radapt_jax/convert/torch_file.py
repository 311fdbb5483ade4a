"""PyTorch checkpoint files as plain containers of NumPy arrays, without PyTorch.

Two formats: a zip file (since PyTorch 1.6), and pickles followed by raw storages. Nothing of a file
is executed, whatever it names: see `pickled`. Sizes that a file declares are compared with the
bytes that it has before room is made for them.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from radapt_jax.convert import pickled
from radapt_jax.convert.pickled import Calls, Global
from radapt_jax.convert.storages import DTYPES, Storages

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STUBS = ("torch.nn.modules", "torch.nn.parallel")
# Of a class or function of any other module a stub is made: networks are of a module of the user's.
NO_STUBS = {
    *sys.stdlib_module_names,
    *("__builtin__", "copy_reg", "cPickle", "commands", "exceptions", "urllib2"),  # Python 2's
    *("torch", "numpy", "jax", "jaxlib", "flax", "__torch__"),
}
NO_STUBS -= {"__main__"}
MOST_SIDES = 32


def read_torch(path: str | Path) -> dict[str, Any]:
    """Return what a PyTorch file holds: containers, numbers, text and NumPy arrays.

    Objects of classes, such as a whole network, become `pickled.Stub`s with their state. Arrays are
    read-only, and share memory where the tensors did; bfloat16 becomes float32.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no such file, it is damaged, or it holds or refers to something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"found no file {path}.")
    content = Path(path).read_bytes()
    with refusing(path):
        found = _read_zip(content) if content[:2] == b"PK" else _read_legacy(content)
        if not isinstance(found, dict | pickled.Stub):
            raise ValueError(f"found {type(found).__name__}; expected a dict, or a network.")
        return found if isinstance(found, dict) else {"net": found}


@contextlib.contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Let errors in reading name the file, and say that nothing of it was run.

    Raises:
      ValueError: any error that damaged files lead to.
    """
    of_zip = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, struct.error)
    try:
        yield
    except (ValueError, OverflowError, *of_zip) as error:
        said = str(error).removesuffix(".")
        raise ValueError(f"{path}: {said}. Nothing of the file was executed.") from error


def _read_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("found a zip file without one data.pkl; expected that of torch.save.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise ValueError("found a TorchScript program; expected a file of torch.save.")
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values())
        total = sum(entry.file_size for entry in entries.values())
        if packed or total > len(content):
            raise ValueError(
                f"found entries of {total:,} bytes in all, {'packed' if packed else 'stored'} in "
                f"{len(content):,}; expected them stored as they are."
            )

        def entry_of(name: str) -> bytes:
            if folder + name not in entries:
                raise ValueError(f"found no entry {pickled.short(name)!r}; the file is not whole.")
            return archive.read(entries[folder + name])

        order = entry_of("byteorder") if f"{folder}byteorder" in entries else b"little"
        if order.strip() not in (b"little", b"big"):
            raise ValueError("found a byteorder that is neither little nor big.")
        storages = Storages(
            len(content),
            "<" if order.strip() == b"little" else ">",
            lambda key: entry_of(f"data/{key}"),
        )
        return pickled.read(io.BytesIO(entry_of("data.pkl")), _calls(storages))


def _read_legacy(content: bytes) -> Any:
    stream = io.BytesIO(content)
    nothing = Calls({}, lambda _: False, lambda _: False, _no_object)
    try:
        magic = pickled.read(stream, nothing)
    except ValueError as error:
        raise ValueError(f"found no file of torch.save: {error}") from error
    if magic != MAGIC:
        raise ValueError("found a pickle without PyTorch's mark; expected a file of torch.save.")
    if (version := pickled.read(stream, nothing)) != PROTOCOL:
        shown = version if isinstance(version, int) else type(version).__name__
        raise ValueError(f"found protocol {shown}; expected {PROTOCOL}.")
    pickled.read(stream, nothing)  # sizes of types on the machine that wrote; storages do not vary
    storages = Storages(len(content), "<")
    found = pickled.read(stream, _calls(storages))
    storages.fill_in_order(pickled.read(stream, nothing), content, stream.tell())
    return found


def _calls(storages: Storages) -> Calls:
    """Return what a pickle may refer to whose tensors are views of these storages."""
    known: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _dict,
        "builtins.set": _set,
        "__builtin__.set": _set,
        "torch.Size": _size,
        "torch.device": _device,
        "torch._utils._rebuild_tensor": lambda *facts: tensor(*facts[:4]),
        "torch._utils._rebuild_tensor_v2": lambda *facts: tensor(*facts[:4]),
        "torch._utils._rebuild_parameter": _parameter,
        "torch.nn.parameter.Parameter": _parameter,  # before PyTorch 0.4
        # Modules hold it before PyTorch 1.3, and it says nothing about them.
        "torch.nn.backends.thnn._get_thnn_function_backend": lambda: None,
    }
    return Calls(known, _is_stub, _is_storage, storages.of_id)


def _is_stub(name: Global) -> bool:
    if f"{name.module}.".startswith(tuple(f"{package}." for package in STUBS)):
        return True
    return name.module.split(".")[0] not in NO_STUBS and "." not in name.name


def _is_storage(name: Global) -> bool:
    return name.module == "torch" and name.name in DTYPES


def _no_object(_: Any) -> Any:
    raise ValueError("found an object outside of a pickle where there is none.")


def _dict(pairs: Any = ()) -> dict[str | int, Any]:
    """Return a dict; Python 2 gave its items at once, later versions set them one by one."""
    listed = isinstance(pairs, list | tuple)
    if not listed or not all(isinstance(it, list | tuple) and len(it) == 2 for it in pairs):
        raise ValueError("found an OrderedDict of no pairs; expected keys with values.")
    return {pickled.key(key): value for key, value in pairs}


def _set(members: Any = ()) -> set[str | int]:
    if not isinstance(members, list | tuple):
        raise ValueError(f"found a set of {type(members).__name__}; expected a list of members.")
    return set(map(pickled.key, members))


def _device(kind: Any, index: Any = 0) -> str:
    if not isinstance(kind, str) or type(index) is not int:
        raise ValueError("found a torch.device that is none.")
    return f"{kind}:{index}"


def _size(sides: Any) -> tuple[int, ...]:
    return _numbers(sides, "sides")


def _parameter(data: Any, *_: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise ValueError(f"found a parameter of {type(data).__name__}; expected a tensor.")
    return data


def _numbers(found: Any, what: str) -> tuple[int, ...]:
    """Return whole numbers from 0 on."""
    whole = type(found) is tuple and all(type(n) is int and 0 <= n < 2**62 for n in found)
    if not whole or len(found) > MOST_SIDES:
        raise ValueError(f"found {what} of a tensor that are not whole numbers from 0.")
    return found


def tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """Return a tensor as a read-only view of its storage.

    Raises:
      ValueError: a value lies outside of it, there are more than it has, or these are no numbers.
    """
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ValueError(f"found a tensor in {type(storage).__name__}; expected a storage.")
    (offset,) = _numbers((offset,), "offset")
    shape, strides = _numbers(shape, "sides"), _numbers(strides, "strides")
    if len(shape) != len(strides):
        raise ValueError(f"found {len(strides)} strides for {len(shape)} sides of a tensor.")
    count = math.prod(shape)
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    if count == 0:
        return np.zeros(shape, storage.dtype)
    if last >= len(storage) or count > len(storage):
        raise ValueError(
            f"found a tensor of {count:,} values up to place {last:,} in a storage of "
            f"{len(storage):,}; expected it to lie within."
        )
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
