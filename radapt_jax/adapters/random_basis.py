"""Parallel adapters on random matrices that a seed fixes, so that no domain stores them.

The baseline for a β that is learned (`low_rank.JointAdapter`): α = β γᵀ with β random and γ
trained. The form of VeRA (Kopiczko, Blankevoort and Asano 2023, arXiv 2310.11454, equation 2)
draws γ too, and trains one vector on either side of it: α = β diag(inner) γᵀ diag(outer).

A step costs what it costs with low-rank adapters.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Leaf, Site, product
from radapt_jax.adapters.low_rank import LowRank, WithRank
from radapt_jax.adapters.parallel import Beside
from radapt_jax.nn.filters import Filter, with_alpha
from radapt_jax.nn.norm import NormRule
from radapt_jax.nn.starts import STARTS, Start, constant, vector
from radapt_jax.utils.checks import number, whole


@dataclasses.dataclass(frozen=True)
class RandomBasis(LowRank):
    """Options of low-rank adapters whose β is random.

    Args:
      init, decay, ranks, budget, dropout: see `LowRank`; ranks up to c.
      seed: of the random matrices; domains with the same seed share them.
    """

    kind: ClassVar[str] = "random_basis"
    checks: ClassVar = {**LowRank.checks, "seed": whole(0)}

    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Vera(RandomBasis):
    """Options of the form of VeRA.

    Args:
      init: of the vector on the outputs; the paper's is "zeros".
      decay, ranks, budget, dropout, seed: see `RandomBasis`.
      inner: what the vector on the ranks starts from; the paper's is 0.1.
    """

    kind: ClassVar[str] = "vera"
    checks: ClassVar = {**RandomBasis.checks, "inner": number("(-inf, inf)")}
    training_only: ClassVar = (*RandomBasis.training_only, "inner")

    ranks: int | float | Mapping[str, int] = 1.0
    inner: float = 0.1


def drawn(shape: tuple[int, int], seed: int, conv: str, name: str) -> np.ndarray:
    """Return a random matrix of a convolution, the same on every platform, as float32.

    Each input row has variance 2 / columns, as a β that is trained starts.
    """
    stream = np.random.default_rng([seed, zlib.crc32(f"{conv}/{name}".encode())])
    return STARTS["he_normal"].draw(stream, shape).astype(np.float32)


class RandomBasisAdapter(Beside, WithRank):
    """y = f * x + β γᵀ * x; β (c, r) is random, γᵀ (r, d) the domain's."""

    Options = RandomBasis
    leaves: ClassVar = {"gamma": Leaf()}

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        options, site = self.options, self.site(f)
        gamma = self.leaf("gamma", (self.rank(options, site), site.outputs))
        beta = jnp.asarray(self.basis(options, site), self.runtime.dtype)
        return self.beside(x, f, [beta, gamma], train)

    @classmethod
    def basis(cls, options: Any, site: Site) -> np.ndarray:
        """Return β of one convolution, (c, r)."""
        return drawn((site.inputs, cls.rank(options, site)), options.seed, site.conv, "beta")

    @classmethod
    def highest_rank(cls, site: Site) -> int:
        return site.inputs

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
        beta = jnp.asarray(cls.basis(options, Site.of(conv, f)))
        return with_alpha(f.kernel, product(beta, own["gamma"])), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return cls.rank(options, site) * site.outputs


class VeraAdapter(RandomBasisAdapter):
    """y = f * x + β diag(inner) γᵀ diag(outer) * x, with β and γᵀ random.

    The vectors "inner" (r,) and "outer" (d,) are the domain's.
    """

    Options = Vera
    leaves: ClassVar = {"inner": Leaf(decays=False), "outer": Leaf()}

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        options, site = self.options, self.site(f)
        inner = self.leaf("inner", (self.rank(options, site),))
        outer = self.leaf("outer", (site.outputs,))
        beta, gamma = (
            jnp.asarray(it, self.runtime.dtype)
            for it in (self.basis(options, site), self.mixing(options, site))
        )
        return self.beside(x, f, [beta * inner, gamma * outer], train)

    @classmethod
    def mixing(cls, options: Any, site: Site) -> np.ndarray:
        """Return the random γᵀ of one convolution, (r, d)."""
        return drawn((cls.rank(options, site), site.outputs), options.seed, site.conv, "gamma")

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
        """g = f + β diag(inner) γᵀ diag(outer) at the centre tap."""
        site = Site.of(conv, f)
        beta, gamma = map(jnp.asarray, (cls.basis(options, site), cls.mixing(options, site)))
        return with_alpha(f.kernel, product(beta * own["inner"], gamma * own["outer"])), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return cls.rank(options, site) + site.outputs

    @classmethod
    def start(cls, leaf: str, options: Any) -> Start:
        return constant(options.inner) if leaf == "inner" else vector(STARTS[options.init])
