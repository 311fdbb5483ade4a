"""The state_dict in a checkpoint file: names and arrays, wherever in the file they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from radapt_jax.convert.pickled import Stub, short
from radapt_jax.convert.torch_file import read_torch

PLACES = ("state_dict", "model", "net")  # of a checkpoint that holds more than the network
MOST_MODULES = 100_000
DEEPEST = 100  # modules within one another
LONGEST = 1000  # characters of a module's name


def state_dict_of(path: str | Path) -> dict[str, np.ndarray]:
    """Return the names and arrays of the network in a PyTorch or safetensors file.

    They are the file itself, what it has under "state_dict", "model" or "net", or those of a whole
    network there. A "module." before all names is dropped; bfloat16 becomes float32.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no such file, is damaged, or has no such names and arrays. Nothing of the
        file is executed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"found no file {path}.")
    with open(path, "rb") as file:
        safe = file.read(9)[8:] == b"{"  # behind the length of its facts
    found: Any = _read_safetensors(path) if safe else read_torch(path)
    for place in PLACES:
        if isinstance(found, dict) and isinstance(found.get(place), dict | Stub):
            found = found[place]
    try:
        state = dict(_leaves(found)) if isinstance(found, Stub) else found
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    others = [name for name, leaf in state.items() if not isinstance(leaf, np.ndarray)]
    if others or not state or not all(isinstance(name, str) for name in state):
        shown = ", ".join(
            short(name) if isinstance(name, str) else type(name).__name__
            for name in list(others or state)[:5]
        )
        raise ValueError(
            f"{path}: found no tensors under {shown or 'any name'}; expected a state_dict, the "
            f"file itself or under {', '.join(PLACES)}, or a whole network there."
        )
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): leaf for name, leaf in state.items()}
    return state


def _read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    try:
        found = safetensors.numpy.load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error
    return {
        name: leaf.astype(np.float32) if leaf.dtype.name == "bfloat16" else leaf
        for name, leaf in found.items()
    }


def _leaves(network: Stub) -> Iterator[tuple[str, Any]]:
    """Yield names and tensors of a network object, in the order of PyTorch's state_dict.

    Raises:
      ValueError: it is not made as a torch.nn.Module is, or has no end.
    """
    below: list[tuple[tuple[str, ...], Stub]] = [((), network)]
    seen = 0
    while below:
        path, module = below.pop()
        seen += 1
        if len(path) > DEEPEST or seen > MOST_MODULES:
            raise ValueError(f"found more than {DEEPEST} modules within one another, or too many.")
        left_out = module.state.get("_non_persistent_buffers_set")
        left_out = left_out if isinstance(left_out, set) else set()
        for part in ("_parameters", "_buffers"):
            for name, leaf in _entries(module, part):
                if leaf is not None and (part == "_parameters" or name not in left_out):
                    yield ".".join((*path, name)), leaf
        children = [(name, it) for name, it in _entries(module, "_modules") if it is not None]
        for name, child in reversed(children):
            if not isinstance(child, Stub):
                raise ValueError(f"found a module {short(name)!r} that is {type(child).__name__}.")
            below.append(((*path, name), child))


def _entries(module: Stub, part: str) -> list[tuple[str, Any]]:
    found = module.state.get(part)
    if not isinstance(found, dict):
        raise ValueError(f"found no {part} in {module.kind}; expected a torch.nn.Module.")
    for name in found:
        if not isinstance(name, str) or len(name) > LONGEST:
            raise ValueError(f"found a name in {part} of {module.kind} that is none.")
    return list(found.items())
