"""Initial variables drawn with NumPy.

`model.init` draws the same distributions, but compiling its random numbers takes XLA seconds on a
CPU; shapes from `jax.eval_shape` and NumPy draws take a fraction of one, and give the same values
on every platform.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from radapt_jax import trees
from radapt_jax.models import ModelSpec


def initial_variables(spec: ModelSpec, num_classes: int, seed: int) -> dict[str, Any]:
    """Return fresh `params`, `adapters` and `batch_stats` as NumPy arrays.

    Every variable has a random stream of its own, keyed by seed and path: shared filters do not
    depend on the adapter kind or on the class count.
    """

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        stream = np.random.default_rng([seed, zlib.crc32(path.encode())])
        _, *modules, leaf = path.split("/")
        if leaf in ("scale", "var"):
            return np.ones(shape)
        if leaf in ("bias", "mean"):
            return np.zeros(shape)
        if modules[-1] == "head":
            bound = 1 / np.sqrt(shape[0])
            return stream.uniform(-bound, bound, shape)
        if modules[-1] == "adapter" and spec.adapter_init == "zeros" and leaf != "beta":
            return np.zeros(shape)
        fan_out = shape[-1] * np.prod(shape[:-2], dtype=int)
        return stream.normal(0.0, np.sqrt(2 / fan_out), shape)

    abstract = trees.flatten(spec.abstract(num_classes))
    return trees.unflatten(
        {path: draw(path, leaf.shape).astype(leaf.dtype) for path, leaf in abstract.items()}
    )
