"""Kinds with a rank, and those whose variables are factors β and γ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from flax.core import FrozenDict
from jaxtyping import Array

from radapt_jax.adapters.base import Adapter, Leaf, Site
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.ranks import RANKS, Ranks, rank_of, ranks_within
from radapt_jax.nn.filters import Filter
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


class WithRank(Adapter):
    """What kinds that have a rank share: which it is, and what a budget comes to."""

    @classmethod
    def full_rank(cls, site: Site) -> int:
        """Return the full rank of one domain's adapter."""
        return min(site.inputs, site.outputs)

    @classmethod
    def highest_rank(cls, site: Site) -> int:
        """Return the highest rank there can be."""
        raise NotImplementedError

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


class Factored(WithRank):
    """What kinds share whose variables are β (rows, r) and γᵀ (r, d)."""

    leaves: ClassVar = {"beta": Leaf(start="he_normal"), "gamma": Leaf()}
    factors = ("beta", "gamma")

    @classmethod
    def rows(cls, site: Site) -> int:
        """Return the rows of β: what one output reads of its input."""
        return site.inputs

    @classmethod
    def highest_rank(cls, site: Site) -> int:
        """Return the highest rank there can be; a β for several domains has up to its rows."""
        rows = cls.rows(site)
        return rows if cls.shares() else min(rows, site.outputs)

    def pair(self, f: Filter) -> dict[str, Array]:
        """Declare β and γᵀ; return their values by name."""
        site = self.site(f)
        rank = self.rank(self.options, site)
        shapes = {"beta": (self.rows(site), rank), "gamma": (rank, site.outputs)}
        return {name: self.leaf(name, shape) for name, shape in shapes.items()}

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        per_rank = site.outputs if cls.shares() else cls.rows(site) + site.outputs
        return cls.rank(options, site) * per_rank


def with_shared_beta(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Return the variables of a factored kind with β in `params`: one for all domains."""
    return {**leaves, "beta": leaves["beta"]._replace(label="filters", shared=True)}
