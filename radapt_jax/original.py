"""Import of networks trained with the original PyTorch code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from radapt_jax import trees

_NORM = {
    "weight": ("adapters", "scale"),
    "bias": ("adapters", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def _layer(name: str) -> tuple[str, str]:
    """Return the conv's and the norm's path of `pre_layers_conv` or `layer1.0.conv2.1`."""
    if name == "pre_layers_conv":
        return "stem", "stem_norm"
    match = re.fullmatch(r"layer([123])\.([0-3])\.conv(?:(1)|(2)\.1)", name)
    if match is None:
        raise ValueError(f"found layer {name!r}, which is not one of the original network's.")
    stage, block = match[1], int(match[2]) + 1
    conv = match[3] or match[4]
    return f"stage{stage}/block{block}/conv{conv}", f"stage{stage}/block{block}/norm{conv}"


def _place(name: str, domain: int) -> tuple[str, str] | None:
    """Return collection and path of an original name; None for another domain's or a counter."""
    if name.endswith("num_batches_tracked"):
        return None
    if match := re.fullmatch(r"linears\.(\d+)\.(weight|bias)", name):
        leaf = "kernel" if match[2] == "weight" else "bias"
        return ("adapters", f"head/{leaf}") if int(match[1]) == domain else None
    if match := re.fullmatch(r"end_bns\.(\d+)\.0\.(\w+)", name):
        collection, leaf = _NORM[match[2]]
        return (collection, f"norm/{leaf}") if int(match[1]) == domain else None
    if match := re.fullmatch(r"(.+)\.parallel_conv\.(\d+)\.conv\.weight", name):
        path = f"{_layer(match[1])[0]}/adapter/kernel"
        return ("adapters", path) if int(match[2]) == domain else None
    if match := re.fullmatch(r"(.+)\.bns\.(\d+)\.0\.conv\.1\.weight", name):
        path = f"{_layer(match[1])[0]}/adapter/kernel"
        return ("adapters", path) if int(match[2]) == domain else None
    if match := re.fullmatch(r"(.+)\.bns\.(\d+)\.0\.conv\.0\.(\w+)", name):
        collection, leaf = _NORM[match[3]]
        path = f"{_layer(match[1])[0]}/adapter/norm/{leaf}"
        return (collection, path) if int(match[2]) == domain else None
    # Series adapters sit before the domain norm in one Sequential: `bns.0.1` instead of `bns.0`.
    if match := re.fullmatch(r"(.+?)\.bns\.(\d+)(?:\.1)?\.(\w+)", name):
        collection, leaf = _NORM[match[3]]
        return (collection, f"{_layer(match[1])[1]}/{leaf}") if int(match[2]) == domain else None
    if match := re.fullmatch(r"(.+)\.conv\.weight", name):
        return "params", f"{_layer(match[1])[0]}/kernel"
    raise ValueError(f"found variable {name!r}, which is not one of the original network's.")


def _arrange(path: str, array: np.ndarray) -> np.ndarray:
    """Turn OIHW into HWIO, and 1x1 filters and linear layers into (in, out) matrices."""
    if not path.endswith("kernel"):
        return array
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def import_original(state_dict: Mapping[str, Any], domain: int = 0) -> dict[str, Any]:
    """Map a state_dict of the original code to `params`, `adapters` and `batch_stats`.

    Works for networks without adapters, with series adapters (an inner norm each) and with
    parallel adapters; names as in https://github.com/srebuffi/residual_adapters.

    Args:
      state_dict: original names to arrays (NumPy, or anything `np.asarray` takes; for PyTorch
        tensors call `.numpy()` first). A leading "module." is dropped.
      domain: index of the domain whose adapters, norms and head are taken.

    Returns:
      Variables for `resnet26(...).apply`, as NumPy arrays of the given dtypes.

    Raises:
      ValueError: a name that the original network does not have, or no such domain.
    """
    leaves: dict[str, np.ndarray] = {}
    for name, value in state_dict.items():
        place = _place(name.removeprefix("module."), domain)
        if place is not None:
            collection, path = place
            leaves[f"{collection}/{path}"] = np.ascontiguousarray(_arrange(path, np.asarray(value)))
    if "adapters/head/kernel" not in leaves:
        heads = sorted(name for name in state_dict if name.endswith("weight") and "linears" in name)
        raise ValueError(f"found no domain {domain} in the state_dict; its heads are {heads}.")
    return trees.unflatten(leaves)
