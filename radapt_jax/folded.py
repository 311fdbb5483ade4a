"""A domain as a plain network, its adapters folded into the filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from radapt_jax import serving
from radapt_jax.domains import Domain
from radapt_jax.fuse import FoldedVariables


class FoldedDomain:
    """A domain folded into a plain network: adapters cost nothing any more.

    Args:
      domain: its facts.
      weights: its folded variables.
    """

    def __init__(self, domain: Domain, weights: FoldedVariables) -> None:
        self.domain = domain
        self.weights = weights
        self._model = weights.spec.build(domain.num_classes)

    def predict(self, images: Any) -> np.ndarray:
        """Return class probabilities (n, classes), as `Family.predict` does for this domain."""
        images = serving.check_images(images, [self.domain])
        if len(images) == 0:
            return np.zeros((0, self.domain.num_classes), np.float32)
        mean, std = serving.statistics(self.domain)
        return np.asarray(serving.predict(self._model, self.weights.variables, images, mean, std))

    def unfold(self) -> Any:
        """Return the shared weights, bit for bit: the arrays that were folded, never changed."""
        return self.weights.unfold()
