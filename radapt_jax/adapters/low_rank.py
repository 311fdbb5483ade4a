"""Low-rank parallel adapters, α = β γᵀ, alone or with β shared (CVPR 2018, section 3.4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Leaf, product
from radapt_jax.adapters.parallel import Beside, Parallel
from radapt_jax.nn.filters import Filter, with_alpha
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils.checks import Kind, number, whole

Ranks = float | Mapping[str, int]  # a share of the full rank, or a rank by convolution
SHARE, RANK = number("(0, 1]"), whole(1)
RANKS = Kind(
    f"{SHARE.words}, or {RANK.words} for each convolution",
    lambda found: (
        all(map(RANK.holds, found.values())) if isinstance(found, Mapping) else SHARE.holds(found)
    ),
)


@dataclasses.dataclass(frozen=True)
class LowRank(Parallel):
    """Options of low-rank adapters.

    Args:
      init, dropout: see `Parallel`; `init` is of γ, and β starts as "he_normal".
      ranks: a share of the full rank, min(c, d), in (0, 1]; or ranks by convolution ("stem",
        "stage1/block1/conv1", ...), and those that are not in it carry no adapter.
    """

    kind: ClassVar[str] = "low_rank"
    checks: ClassVar = {**Parallel.checks, "ranks": RANKS}

    ranks: Ranks = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.ranks, Mapping):
            object.__setattr__(self, "ranks", FrozenDict(self.ranks))


@dataclasses.dataclass(frozen=True)
class Joint(LowRank):
    """Options of low-rank adapters whose β all domains of a family share; as `LowRank`."""

    kind: ClassVar[str] = "joint"


class LowRankAdapter(Beside):
    """y = f * x + β γᵀ * x; β (c, r) and γᵀ (r, d) are the domain's."""

    Options = LowRank
    leaves: ClassVar = {"beta": Leaf(start="he_normal"), "gamma": Leaf()}
    factors = ("beta", "gamma")

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        inputs, outputs = f.kernel.shape[-2:]
        rank = self.rank(inputs, outputs, self.options, "/".join(self.path[:-1]))
        beta = self.leaf("beta", (inputs, rank))
        gamma = self.leaf("gamma", (rank, outputs))
        return self.beside(x, f, [beta, gamma], train)

    @classmethod
    def fold(
        cls, f: Filter, own: Mapping[str, Array], stats: Mapping[str, Array], norm: NormRule
    ) -> Any:
        """g = f + β γᵀ at the centre tap."""
        return with_alpha(f.kernel, product(own["beta"], own["gamma"])), None

    @classmethod
    def parameters(cls, inputs: int, outputs: int, options: Any, conv: str, groups: int = 1) -> int:
        rank = cls.rank(inputs, outputs, options, conv)
        return rank * (outputs if cls.leaves["beta"].shared else inputs + outputs)

    @classmethod
    def rank(cls, inputs: int, outputs: int, options: Any, conv: str) -> int:
        """Return the rank of one convolution's adapter.

        One domain's α has no rank beyond min(c, d); a β for several domains can have up to c.
        """
        full = min(inputs, outputs)
        return rank_of(options.ranks, conv, full, inputs if cls.leaves["beta"].shared else full)

    @classmethod
    def serves(cls, options: Any, conv: str) -> bool:
        return not isinstance(options.ranks, Mapping) or conv in options.ranks


class JointAdapter(LowRankAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = Joint
    leaves: ClassVar = {
        **LowRankAdapter.leaves,
        "beta": Leaf("filters", shared=True, start="he_normal"),
    }


def rank_of(ranks: Ranks, conv: str, full: int, most: int | None = None) -> int:
    """Return a rank for one convolution, at least 1.

    Args:
      ranks: a share of the full rank, or ranks by convolution (those that are not in it carry no
        low-rank adapter).
      conv: its path, such as "stage1/block1/conv1".
      full: the full rank of one domain's adapter, min(inputs, outputs).
      most: the most that a rank by convolution can be; default: `full`.

    Raises:
      ValueError: a share outside (0, 1], or no rank, or one out of range, for this convolution.
    """
    if isinstance(ranks, Mapping):
        most = full if most is None else most
        if not 1 <= ranks.get(conv, 0) <= most:
            raise ValueError(
                f"found rank {ranks.get(conv)} for the adapter of {conv}; expected 1 to {most}."
            )
        return ranks[conv]
    if not 0 < ranks <= 1:
        raise ValueError(f"found ranks {ranks}; expected a share of the full rank in (0, 1].")
    return max(int(ranks * full + 0.5), 1)
