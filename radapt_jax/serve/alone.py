"""Domains computed on their own: folded into a plain network, where they can be."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from radapt_jax.family.predict import pad_head, predict, statistics
from radapt_jax.models.fold import can_fold, fold, folded_spec
from radapt_jax.serve.facts import Facts, Key

MOST_BYTES = 1 << 29  # of folded domains in memory: each is as large as the backbone


class Alone:
    """Plain networks of the most recently used domains, all computed by the same programs.

    Not safe for several threads: one of them owns it.

    Args:
      key: the network and the side of the domains.
      width: classes of the padded heads.
    """

    def __init__(self, key: Key, width: int) -> None:
        self._spec, self.width = key.spec, width
        self._folds = can_fold(key.spec)
        self._model = (folded_spec(key.spec) if self._folds else key.spec).build(width)
        self._made: collections.OrderedDict[str, tuple[str, Any]] = collections.OrderedDict()

    def holds(self, facts: Facts) -> bool:
        """Whether this version of a domain is ready to be computed."""
        return self._made.get(facts.name, ("",))[0] == facts.version

    def hold(self, facts: Facts, variables: Mapping[str, Any]) -> None:
        """Make a domain ready, in place of the one that was not used for longest."""
        made = fold(self._spec, variables) if self._folds else dict(variables)
        made["adapters"] = pad_head(made["adapters"], self.width)
        self._made[facts.name] = facts.version, jax.block_until_ready(made)
        self._made.move_to_end(facts.name)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(made))
        while len(self._made) > max(1, MOST_BYTES // size):
            self._made.popitem(last=False)

    def forget(self, name: str) -> None:
        """Let a domain go; no effect if it is not there."""
        self._made.pop(name, None)

    def predict(self, images: np.ndarray, *, facts: Facts, names: object = ()) -> np.ndarray:
        """Return probabilities (n, width) of uint8 images (n, h, w, 3) of a domain held.

        `names`, one of each image, are all the domain's own.
        """
        self._made.move_to_end(facts.name)
        _, variables = self._made[facts.name]
        return np.asarray(predict(self._model, variables, images, *statistics(facts.domain)))
