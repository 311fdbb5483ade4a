"""Low-rank parallel adapters, α = β γᵀ, alone or with β shared (CVPR 2018, section 3.4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Leaf, Site, product
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.parallel import Beside, Parallel
from radapt_jax.adapters.ranks import RANKS, Ranks, rank_of, ranks_within
from radapt_jax.nn.filters import Filter, with_alpha
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils.checks import whole


@dataclasses.dataclass(frozen=True)
class Ranked(Options):
    """Options of all kinds that have a rank.

    Args:
      init, decay: see `Options`; `init` is of γ, and β starts as "he_normal".
      ranks: a whole number for all convolutions, limited to the full rank; a share of the full
        rank, min(c, d), as a float in (0, 1]; or ranks by convolution ("stem",
        "stage1/block1/conv1", ...), and those that are not in it carry no adapter.
      budget: parameters of all of a domain's adapters, heads apart: instead of `ranks`, the largest
        share of the full rank that it covers, the same everywhere; 0: as `ranks` says.
    """

    checks: ClassVar = {**Options.checks, "ranks": RANKS, "budget": whole(0)}

    ranks: Ranks = 0.5
    budget: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.ranks, Mapping):
            object.__setattr__(self, "ranks", FrozenDict(self.ranks))


@dataclasses.dataclass(frozen=True)
class LowRank(Ranked, Parallel):
    """Options of low-rank adapters.

    Args:
      init, decay, ranks, budget: see `Ranked`.
      dropout: see `Parallel`.
    """

    kind: ClassVar[str] = "low_rank"
    checks: ClassVar = {**Parallel.checks, **Ranked.checks}
    training_only: ClassVar = Parallel.training_only


@dataclasses.dataclass(frozen=True)
class Joint(LowRank):
    """Options of low-rank adapters whose β all domains of a family share; as `LowRank`."""

    kind: ClassVar[str] = "joint"


class WithRank(Adapter):
    """What kinds that have a rank share: which it is, and what a budget comes to."""

    @classmethod
    def full_rank(cls, site: Site) -> int:
        """Return the full rank of one domain's adapter."""
        return min(site.inputs, site.outputs)

    @classmethod
    def highest_rank(cls, site: Site) -> int:
        """Return the highest rank there can be; a β for several domains has up to c."""
        return site.inputs if cls.shares() else cls.full_rank(site)

    @classmethod
    def rank(cls, options: Any, site: Site) -> int:
        """Return the rank of one convolution's adapter.

        Raises:
          ValueError: see `rank_of`.
        """
        return rank_of(options.ranks, site.conv, cls.full_rank(site), cls.highest_rank(site))

    @classmethod
    def serves(cls, options: Any, conv: str) -> bool:
        return not isinstance(options.ranks, Mapping) or conv in options.ranks

    @classmethod
    def settled(cls, options: Any, sites: Callable[[], Sequence[Site]]) -> Any:
        """Return options with ranks by convolution in place of a budget.

        Raises:
          ValueError: the budget does not cover rank 1 everywhere.
        """
        options = super().settled(options, sites)
        if not options.budget:
            return options
        places = sites()

        def cost(ranks: Mapping[str, int]) -> int:
            at = dataclasses.replace(options, ranks=ranks, budget=0)
            return sum(cls.parameters(at, site) for site in places)

        full = {site.conv: cls.full_rank(site) for site in places}
        found = ranks_within(options.budget, full, cost)
        return dataclasses.replace(options, ranks=found, budget=0)


class LowRankAdapter(Beside, WithRank):
    """y = f * x + β γᵀ * x; β (c, r) and γᵀ (r, d) are the domain's."""

    Options = LowRank
    leaves: ClassVar = {"beta": Leaf(start="he_normal"), "gamma": Leaf()}
    factors = ("beta", "gamma")
    compresses = "parallel"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        site = self.site(f)
        rank = self.rank(self.options, site)
        beta = self.leaf("beta", (site.inputs, rank))
        gamma = self.leaf("gamma", (rank, site.outputs))
        return self.beside(x, f, [beta, gamma], train)

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
        """g = f + β γᵀ at the centre tap."""
        return with_alpha(f.kernel, product(own["beta"], own["gamma"])), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        per_rank = site.outputs if cls.shares() else site.inputs + site.outputs
        return cls.rank(options, site) * per_rank


class JointAdapter(LowRankAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = Joint
    leaves: ClassVar = {
        **LowRankAdapter.leaves,
        "beta": Leaf("filters", shared=True, start="he_normal"),
    }
