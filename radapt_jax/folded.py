"""A domain as a plain network, its adapters folded into the filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from radapt_jax import serving
from radapt_jax.data.images import preprocess
from radapt_jax.domains import Domain
from radapt_jax.fuse import FoldedVariables
from radapt_jax.programs import make_room
from radapt_jax.values import check, whole


class FoldedDomain:
    """A domain folded into a plain network: adapters cost nothing any more.

    Args:
      domain: its facts.
      weights: its folded variables.
    """

    def __init__(self, domain: Domain, weights: FoldedVariables) -> None:
        self.domain = domain
        self.weights = weights
        make_room()
        self._model = weights.spec.build(domain.num_classes)

    def preprocess(self, images: Any) -> np.ndarray:
        """Return images as `predict` takes them; see `Family.preprocess`."""
        return preprocess(images, self.domain)

    def predict(self, images: Any, *, batch_size: int = 256) -> np.ndarray:
        """Return class probabilities (n, classes), as `Family.predict` does for this domain."""
        check("batch_size", batch_size, whole(1))
        images = serving.check_images(images, [self.domain])
        if len(images) == 0:
            return np.zeros((0, self.domain.num_classes), np.float32)
        return serving.predict_all(
            self._model, self.weights.variables, images, self.domain, batch_size
        )

    def unfold(self) -> Any:
        """Return the shared weights, bit for bit: the arrays that were folded, never changed."""
        return self.weights.unfold()
