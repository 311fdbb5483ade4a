"""A domain as a plain network, with its adapters folded into the filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from radapt_jax.data.domain import Domain
from radapt_jax.data.images import preprocess
from radapt_jax.family.predict import check_images, predict_all
from radapt_jax.models.fold import fold, folded_spec
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils.checks import check, whole
from radapt_jax.utils.programs import make_room


class FoldedDomain:
    """A domain folded into a plain network, in which adapters cost nothing.

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
        """Return images as `predict` takes them, uint8 (n, size, size, 3).

        Raises:
          FileNotFoundError: no such file.
          ValueError: an image cannot be read; see `Family.preprocess`.
        """
        return preprocess(images, self.domain)

    def predict(self, images: Any, *, batch_size: int = 256) -> np.ndarray:
        """Return class probabilities, float32 (n, classes), as `Family.predict` for this domain.

        Args:
          images: uint8 or float (n, h, w, 3); see `Family.predict`.
          batch_size: the most images that go through the network at once.

        Raises:
          ValueError: see `Family.predict`.
        """
        check("batch_size", batch_size, whole(1))
        images = check_images(images, [self.domain])
        if len(images) == 0:
            return np.zeros((0, self.domain.num_classes), np.float32)
        return predict_all(self._model, self.weights.variables, images, self.domain, batch_size)

    def unfold(self) -> Any:
        """Return the shared weights, bit for bit: the very arrays that were folded."""
        return self.weights.unfold()


@dataclasses.dataclass(frozen=True)
class FoldedVariables:
    """A folded domain, and the shared weights it was folded from.

    `variables` are those of a plain network, `spec.build(...)`.
    """

    spec: ModelSpec
    variables: dict[str, Any]
    shared: Mapping[str, Any]

    def unfold(self) -> Mapping[str, Any]:
        """Return the shared weights: the very arrays that were folded, nothing is subtracted."""
        return self.shared


def folded(spec: ModelSpec, variables: Mapping[str, Any], *, fold_norm: bool) -> FoldedVariables:
    """Return a domain's variables folded into those of a plain network; see `models.fold`.

    Raises:
      ValueError: its adapters cannot be folded.
    """
    plain = fold(spec, variables, fold_norm=fold_norm)
    return FoldedVariables(folded_spec(spec, fold_norm=fold_norm), plain, variables["params"])
