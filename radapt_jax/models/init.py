"""Initial variables drawn with NumPy, as the backbone and the adapter kind say.

`model.init` knows no other starts than ResNet-26's, and compiling its random numbers takes XLA
seconds on a CPU. Shapes from `jax.eval_shape` and NumPy draws take a fraction of one, and give the
same values on every platform.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from radapt_jax.adapters.base import is_adapters, leaf_of
from radapt_jax.models.spec import ModelSpec
from radapt_jax.nn.starts import STARTS, Start
from radapt_jax.utils import trees


def initial_variables(
    spec: ModelSpec, num_classes: int, seed: int, given: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return fresh `params`, `adapters` and `batch_stats` as NumPy arrays.

    Every variable has a random stream of its own, keyed by seed and path: shared filters do not
    depend on the adapter kind or on the class count.

    Args:
      spec: the network.
      num_classes: of its head.
      seed: of all that is drawn.
      given: variables by collection and path that are not drawn, but are these.
    """

    abstract = trees.flatten(spec.abstract(num_classes))
    starts = {path: _start(spec, path) for path in abstract if path not in given}
    own = spec.backbone.initial(seed) if None in starts.values() else {}

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path in given:
            return np.array(given[path])
        if (start := starts[path]) is None:
            return np.array(own[path])
        stream = np.random.default_rng([seed, zlib.crc32(path.encode())])
        return start.draw(stream, shape)

    return trees.collections(
        {path: draw(path, leaf.shape).astype(leaf.dtype) for path, leaf in abstract.items()}
    )


def _start(spec: ModelSpec, path: str) -> Start | None:
    """Return how a variable starts; None: as `Backbone.initial` says.

    Norms in adapters start as all norms do.
    """
    collection, *modules, _ = path.split("/")
    if is_adapters(path) and collection != "batch_stats" and modules[-1] != "norm":
        return spec.kind.start(leaf_of(path), spec.adapter)
    named = spec.backbone.start(path)
    return None if named is None else STARTS[named]
