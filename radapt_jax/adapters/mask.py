"""Binary masks on the shared filters: Piggyback, and its affine form.

W' = m W with one bit for each weight, m = [score > threshold] (Mallya, Davis and Lazebnik 2018,
arXiv 1801.06519). The affine form is W' = k0 + k1 W + k2 m + k3 W m with four numbers a layer
(Mancini, Ricci, Caputo and Rota Bulò 2018, arXiv 1805.11119).

Scores are real while they are trained, and get the gradient of their bits unchanged (a straight-
through estimator): the filter's gradient times what the bit multiplies. A step therefore costs a
filter gradient more than one of parallel adapters, k² c d multiply-adds a pixel. A trained domain
keeps the bits alone: scores of 0 and 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array

from radapt_jax.adapters.base import Leaf, Site
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.own_filter import OwnFilter
from radapt_jax.nn.filters import Filter
from radapt_jax.nn.starts import Start, constant
from radapt_jax.utils.checks import number

IDENTITY = (0.0, 1.0, 0.0, 0.0)  # k0 to k3 of W' = W


@dataclasses.dataclass(frozen=True)
class Mask(Options):
    """Options of masks; the defaults are Piggyback's.

    Args:
      decay: see `Options`; scores have none unless it says so. `init` has no part in masks.
      threshold: a weight is kept where its score is above; in [0, 1).
      scores: what all scores start from. Above the threshold, all weights are kept at the start.
    """

    kind: ClassVar[str] = "mask"
    checks: ClassVar = {
        **Options.checks,
        "threshold": number("[0, 1)"),
        "scores": number("(-inf, inf)"),
    }
    training_only: ClassVar = (*Options.training_only, "scores")

    threshold: float = 0.005
    scores: float = 0.01


@dataclasses.dataclass(frozen=True)
class AffineMask(Mask):
    """Options of affine masks; as `Mask`."""

    kind: ClassVar[str] = "affine_mask"


def binary(scores: Array, threshold: float) -> Array:
    """Return 1 where scores are above the threshold, else 0; its gradient is taken as 1."""
    kept = (scores > threshold).astype(scores.dtype)
    return kept + (scores - jax.lax.stop_gradient(scores))


class MaskAdapter(OwnFilter):
    """y = (m W) * x with m of the filter's shape; "scores" tell m."""

    Options = Mask
    leaves: ClassVar = {"scores": Leaf(decays=False, binary=True)}

    def declared(self, f: Filter) -> dict[str, Array]:
        return {"scores": self.leaf("scores", f.kernel.shape)}

    @classmethod
    def mask(cls, kernel: Array, own: Mapping[str, Array], options: Any) -> Array:
        """Return m, of the filter's shape and dtype."""
        return binary(own["scores"], options.threshold).astype(kernel.dtype)

    @classmethod
    def changed(cls, kernel: Array, own: Mapping[str, Array], options: Any) -> Array:
        """W' = m W."""
        return cls.mask(kernel, own, options) * kernel

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return -(-site.size * site.size * site.inputs * site.outputs // 32)

    @classmethod
    def bits(cls, leaf: str, value: Array, options: Any) -> Array:
        return value > options.threshold

    @classmethod
    def start(cls, leaf: str, options: Any) -> Start:
        return constant(options.scores)


class AffineMaskAdapter(MaskAdapter):
    """y = (k0 + k1 W + k2 m + k3 W m) * x with a mask m and numbers k0 to k3, "scales"."""

    Options = AffineMask
    leaves: ClassVar = {**MaskAdapter.leaves, "scales": Leaf(decays=False)}

    def declared(self, f: Filter) -> dict[str, Array]:
        return {**super().declared(f), "scales": self.leaf("scales", (len(IDENTITY),))}

    @classmethod
    def changed(cls, kernel: Array, own: Mapping[str, Array], options: Any) -> Array:
        """W' = k0 + k1 W + k2 m + k3 W m."""
        k, mask = own["scales"], cls.mask(kernel, own, options)
        return k[0] + k[1] * kernel + (k[2] + k[3] * kernel) * mask

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return super().parameters(options, site) + len(IDENTITY)

    @classmethod
    def start(cls, leaf: str, options: Any) -> Start:
        return constant(np.array(IDENTITY)) if leaf == "scales" else super().start(leaf, options)
