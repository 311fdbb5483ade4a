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

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Leaf, Site, product
from radapt_jax.adapters.low_rank import Ranked, WithRank
from radapt_jax.adapters.options import Options
from radapt_jax.nn.filters import Filter
from radapt_jax.nn.norm import NormRule


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


def _scaled(kernel: Array, excess: Array) -> Array:
    """Return the filter (k, k, c, d) times 1 + excess, (c, d)."""
    return kernel + kernel * excess


class ModulationAdapter(Adapter):
    """y = (A W) * x with A of (c, d); "kernel" is A - 1."""

    Options = Modulation
    leaves: ClassVar = {"kernel": Leaf()}
    filters_apart = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        excess = self.leaf("kernel", f.kernel.shape[-2:])
        return f._replace(kernel=_scaled(f.kernel, excess))(x, train=train)

    @classmethod
    def fold(
        cls,
        f: Filter,
        own: Mapping[str, Array],
        stats: Mapping[str, Array],
        norm: NormRule,
        options: Any,
        conv: str,
    ) -> Any:
        """W' = A W."""
        return _scaled(f.kernel, own["kernel"]), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return site.inputs * site.outputs

    @classmethod
    def matrix(cls, own: Mapping[str, Array], options: Any) -> Any:
        """Return A - 1, (c, d)."""
        return own["kernel"]


class LowRankModulationAdapter(WithRank):
    """y = ((1 + β γᵀ) W) * x; β (c, r) and γᵀ (r, d) are the domain's."""

    Options = LowRankModulation
    leaves: ClassVar = {"beta": Leaf(start="he_normal"), "gamma": Leaf()}
    filters_apart = True
    factors = ("beta", "gamma")
    compresses = "modulation"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        site = self.site(f)
        rank = self.rank(self.options, site)
        beta = self.leaf("beta", (site.inputs, rank))
        gamma = self.leaf("gamma", (rank, site.outputs))
        return f._replace(kernel=_scaled(f.kernel, beta @ gamma))(x, train=train)

    @classmethod
    def fold(
        cls,
        f: Filter,
        own: Mapping[str, Array],
        stats: Mapping[str, Array],
        norm: NormRule,
        options: Any,
        conv: str,
    ) -> Any:
        """W' = (1 + β γᵀ) W."""
        return _scaled(f.kernel, product(own["beta"], own["gamma"])), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        per_rank = site.outputs if cls.shares() else site.inputs + site.outputs
        return cls.rank(options, site) * per_rank


class JointModulationAdapter(LowRankModulationAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = JointModulation
    leaves: ClassVar = {
        **LowRankModulationAdapter.leaves,
        "beta": Leaf("filters", shared=True, start="he_normal"),
    }
