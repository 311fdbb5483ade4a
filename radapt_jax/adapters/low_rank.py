"""Low-rank parallel adapters, α = β γᵀ, alone or with β shared (CVPR 2018, section 3.4)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Folded, Trained, product
from radapt_jax.adapters.factors import Factored, Ranked, with_shared_beta
from radapt_jax.adapters.parallel import Beside, Parallel
from radapt_jax.nn.filters import Filter, with_alpha


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


class LowRankAdapter(Beside, Factored):
    """y = f * x + β γᵀ * x; β (c, r) and γᵀ (r, d) are the domain's."""

    Options = LowRank
    compresses = "parallel"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        return self.beside(x, f, list(self.pair(f).values()), train)

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """g = f + β γᵀ at the centre tap."""
        return with_alpha(f.kernel, product(it.own["beta"], it.own["gamma"])), None


class JointAdapter(LowRankAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = Joint
    leaves: ClassVar = with_shared_beta(LowRankAdapter.leaves)
