"""Modulation adapters, which scale the shared filters (Iakovleva, Alahari and Verbeek, 2023).

W'[o, i] = A[o, i] W[o, i]: one factor for each pair of output and input, for all positions of the
filter (arXiv 2307.08528). The variables hold A - 1, so that zero is the backbone, which weight
decay pulls to.

The gradient of A is the filter's gradient times the filter, summed over positions: a step costs a
filter gradient more than one of parallel adapters, k² c d multiply-adds a pixel. Factors of A
would save that only by r more convolutions with the filter itself, which is more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Array

from radapt_jax.adapters.base import Leaf, Site, product
from radapt_jax.adapters.factors import Factored, Ranked, with_shared_beta
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.own_filter import OwnFilter
from radapt_jax.nn.filters import Filter


@dataclasses.dataclass(frozen=True)
class Modulation(Options):
    """Options of modulation adapters; see `Options`."""

    kind: ClassVar[str] = "modulation"


@dataclasses.dataclass(frozen=True)
class LowRankModulation(Ranked):
    """Options of modulation adapters with A = 1 + β γᵀ; see `Ranked`."""

    kind: ClassVar[str] = "modulation_low_rank"


@dataclasses.dataclass(frozen=True)
class JointModulation(LowRankModulation):
    """Options of the same with β shared by all domains of a family."""

    kind: ClassVar[str] = "modulation_joint"


class ModulationAdapter(OwnFilter):
    """y = (A W) * x with A of (c, d); "kernel" is A - 1."""

    Options = Modulation
    leaves: ClassVar = {"kernel": Leaf()}

    def declared(self, f: Filter) -> dict[str, Array]:
        return {"kernel": self.leaf("kernel", f.kernel.shape[-2:])}

    @classmethod
    def changed(cls, kernel: Array, own: Mapping[str, Array], options: Any) -> Array:
        """W' = A W."""
        return kernel + kernel * own["kernel"]

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return site.inputs * site.outputs

    @classmethod
    def matrix(cls, own: Mapping[str, Array], options: Any) -> Any:
        """Return A - 1, (c, d)."""
        return own["kernel"]


class LowRankModulationAdapter(OwnFilter, Factored):
    """y = ((1 + β γᵀ) W) * x; β (c, r) and γᵀ (r, d) are the domain's."""

    Options = LowRankModulation
    compresses = "modulation"

    def declared(self, f: Filter) -> dict[str, Array]:
        return self.pair(f)

    @classmethod
    def changed(cls, kernel: Array, own: Mapping[str, Array], options: Any) -> Array:
        """W' = (1 + β γᵀ) W."""
        return kernel + kernel * product(own["beta"], own["gamma"])


class JointModulationAdapter(LowRankModulationAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = JointModulation
    leaves: ClassVar = with_shared_beta(LowRankModulationAdapter.leaves)
