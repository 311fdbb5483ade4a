"""Domains of one network, stacked in arrays of a fixed size: a row each, written in place.

A program that mixes domains depends on the shapes of these arrays only. So a domain is swapped by
writing a row, and nothing is compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from radapt_jax.data.domain import Domain
from radapt_jax.family.predict import pad_head, predict_mixed, statistics
from radapt_jax.models.spec import ModelSpec

OWN = ("adapters", "batch_stats")


@functools.partial(jax.jit, donate_argnums=0)
def _with_row(stacked: Any, row: Any, own: Any) -> Any:
    return jax.tree.map(lambda leaf, new: leaf.at[row].set(new), stacked, own)


class Slots:
    """Rows for domains that can be mixed; the least recently used makes room for another.

    Not safe for several threads: one of them owns it.

    Args:
      spec: the domains' network.
      params: the shared weights.
      rows: how many domains it holds.
      width: classes of the padded heads.
    """

    def __init__(self, spec: ModelSpec, params: Mapping[str, Any], rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self._params, self._model = params, spec.build(width)
        abstract = spec.abstract(width)
        shapes = {name: abstract.get(name, {}) for name in OWN}
        own = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)
        means, stds = jnp.zeros((rows, 3)), jnp.ones((rows, 3))
        self._stacked = {"own": own, "means": means, "stds": stds}
        self._held: dict[str, tuple[int, str]] = {}  # row and version; most recently used last

    def holds(self, name: str, version: str) -> bool:
        """Whether this version of a domain has a row."""
        return self._held.get(name, (0, ""))[1] == version

    def hold(
        self,
        domain: Domain,
        version: str,
        variables: Mapping[str, Any],
        needed: Iterable[str] = (),
    ) -> None:
        """Write a domain into its row, or into a free one, or that of a domain not needed now.

        Raises:
          ValueError: it has more classes than the heads here, or every row is needed.
        """
        if domain.num_classes > self.width:
            raise ValueError(f"found {domain.num_classes} classes; expected {self.width} at most.")
        row = self._row_for(domain.name, set(needed))
        adapters = pad_head(variables["adapters"], self.width)
        mean, std = statistics(domain)
        own = {"adapters": adapters, "batch_stats": variables["batch_stats"]}
        new = {"own": own, "means": mean, "stds": std}
        self._stacked = _with_row(self._stacked, np.int32(row), new)
        self._held[domain.name] = row, version

    def forget(self, name: str) -> None:
        """Give a domain's row to others; no effect if it has none."""
        self._held.pop(name, None)

    def predict(self, images: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return probabilities (n, width) of uint8 images (n, h, w, 3), each of a domain held."""
        for name in dict.fromkeys(names):
            self._held[name] = self._held.pop(name)
        which = np.array([self._held[name][0] for name in names], np.int32)
        return self.run(images, which)

    def run(self, images: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return probabilities (n, width) of images by the rows `which` (n,)."""
        it = self._stacked
        found = predict_mixed(
            self._model, self._params, it["own"], which, images, it["means"], it["stds"]
        )
        return np.asarray(found)

    def _row_for(self, name: str, needed: set[str]) -> int:
        if name in self._held:
            return self._held.pop(name)[0]
        if free := set(range(self.rows)) - {row for row, _ in self._held.values()}:
            return min(free)
        for other in self._held:
            if other not in needed:
                return self._held.pop(other)[0]
        raise ValueError(f"found {len(needed)} domains at once; expected {self.rows} at most.")
