"""Parallel adapters on random matrices that a seed fixes, so that no domain stores them.

The baseline for a β that is learned (`low_rank.JointAdapter`): α = β γᵀ with β random and γ
trained. The form of VeRA (Kopiczko, Blankevoort and Asano 2023, arXiv 2310.11454, equation 2)
draws γ too, and trains one vector on either side of it: α = β diag(inner) γᵀ diag(outer).

A step costs what it costs with low-rank adapters.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Folded, Leaf, Site, Trained, product
from radapt_jax.adapters.factors import WithRank
from radapt_jax.adapters.low_rank import LowRank
from radapt_jax.adapters.parallel import Beside
from radapt_jax.adapters.ranks import Ranks
from radapt_jax.nn.filters import Filter, with_alpha
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

    ranks: Ranks = 1.0
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

    @classmethod
    def shapes(cls, options: Any, site: Site) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the variables by name."""
        return {"gamma": (cls.rank(options, site), site.outputs)}

    @classmethod
    def matrices(cls, own: Mapping[str, Array], options: Any, site: Site) -> list[Array]:
        """Return β (c, r) and γᵀ (r, d), from the variables."""
        return [jnp.asarray(cls.basis(options, site), own["gamma"].dtype), own["gamma"]]

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        options, site = self.options, self.site(f)
        shapes = self.shapes(options, site)
        own = {name: self.leaf(name, shape) for name, shape in shapes.items()}
        return self.beside(x, f, self.matrices(own, options, site), train)

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """g = f + β γᵀ at the centre tap."""
        factors = cls.matrices(it.own, it.options, Site.of(it.conv, f))
        return with_alpha(f.kernel, product(*factors)), None

    @classmethod
    def basis(cls, options: Any, site: Site) -> np.ndarray:
        """Return the random β of one convolution, (c, r)."""
        return drawn((site.inputs, cls.rank(options, site)), options.seed, site.conv, "beta")

    @classmethod
    def highest_rank(cls, site: Site) -> int:
        return site.inputs

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return sum(map(math.prod, cls.shapes(options, site).values()))


class VeraAdapter(RandomBasisAdapter):
    """y = f * x + β diag(inner) γᵀ diag(outer) * x, with β and γᵀ random.

    The vectors "inner" (r,) and "outer" (d,) are the domain's.
    """

    Options = Vera
    leaves: ClassVar = {"inner": Leaf(decays=False), "outer": Leaf()}

    @classmethod
    def shapes(cls, options: Any, site: Site) -> dict[str, tuple[int, ...]]:
        return {"inner": (cls.rank(options, site),), "outer": (site.outputs,)}

    @classmethod
    def matrices(cls, own: Mapping[str, Array], options: Any, site: Site) -> list[Array]:
        """Return β diag(inner), (c, r), and γᵀ diag(outer), (r, d)."""
        drawn_ones = cls.basis(options, site), cls.mixing(options, site)
        vectors = own["inner"], own["outer"]
        pairs = zip(drawn_ones, vectors, strict=True)
        return [jnp.asarray(matrix, vector.dtype) * vector for matrix, vector in pairs]

    @classmethod
    def mixing(cls, options: Any, site: Site) -> np.ndarray:
        """Return the random γᵀ of one convolution, (r, d)."""
        return drawn((cls.rank(options, site), site.outputs), options.seed, site.conv, "gamma")

    @classmethod
    def start(cls, leaf: str, options: Any) -> Start:
        return constant(options.inner) if leaf == "inner" else vector(STARTS[options.init])
