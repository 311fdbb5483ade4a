"""Low-rank convolutions beside the shared ones: LoRA for filters (Hu et al. 2021; LoCon).

y = f * x + scale γ * (β * x), with β a convolution of the filter's own size to r channels and γ a
1x1 convolution to d: the update of the filter, as a matrix of k² c rows and d columns, has rank r
(arXiv 2106.09685, section 4, for convolutions).

A step costs 3 r (k² c + d) multiply-adds a pixel more than the frozen network's, so that it does
without the filter's gradient, k² c d, which pays for ranks below about d / 3. Where the convolution
has groups, β is the same for all of them, and its product with γ is added to the filter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Leaf, Site, product
from radapt_jax.adapters.low_rank import Ranked, WithRank
from radapt_jax.nn.filters import Filter
from radapt_jax.nn.layers import ChannelDropout
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils.checks import number, several


@dataclasses.dataclass(frozen=True)
class ConvLora(Ranked):
    """Options of low-rank convolutions.

    Args:
      init, decay, budget: see `Ranked`; `init` is of γ, and β starts as LoRA's, over its inputs.
      ranks: see `Ranked`; a number by default, as is usual for LoRA.
      scale: of the product.
      dropout: probability that a channel of the input is dropped in training, for first
        convolutions of a block (and the stem) and for second ones; in [0, 1).
    """

    kind: ClassVar[str] = "conv_lora"
    checks: ClassVar = {
        **Ranked.checks,
        "scale": number("(0, inf)"),
        "dropout": several(number("[0, 1)"), 2),
    }
    training_only: ClassVar = (*Ranked.training_only, "dropout")

    ranks: int | float | Mapping[str, int] = 4
    scale: float = 1.0
    dropout: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class JointConvLora(ConvLora):
    """Options of the same with β shared by all domains of a family."""

    kind: ClassVar[str] = "conv_lora_joint"


class ConvLoraAdapter(WithRank):
    """y = f * x + scale γ * (β * x); "beta" is (k² c, r), "gamma" (r, d)."""

    Options = ConvLora
    leaves: ClassVar = {"beta": Leaf(start="keras_he_normal"), "gamma": Leaf()}
    factors = ("beta", "gamma")
    compresses = "conv_lora"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        options, site = self.options, self.site(f)
        rank = self.rank(options, site)
        beta = self.leaf("beta", (self.rows(site), rank))
        gamma = options.scale * self.leaf("gamma", (rank, site.outputs))
        if site.groups > 1:
            update = (beta @ gamma).reshape(f.kernel.shape)
            return f._replace(kernel=f.kernel + update)(x, train=train)
        rate, axis = options.dropout[self.position], self.runtime.axis_name
        read = ChannelDropout(rate, axis, name="dropout")(x, train=train)
        down = Filter(beta.reshape(*f.kernel.shape[:3], rank), None, f.geometry)
        return f(x, train=train) + down(read, train=train) @ gamma

    @staticmethod
    def rows(site: Site) -> int:
        """Return how many numbers of its input one output reads."""
        return site.size * site.size * site.inputs

    @classmethod
    def highest_rank(cls, site: Site) -> int:
        return cls.rows(site) if cls.shares() else min(cls.rows(site), site.outputs)

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
        """g = f + scale β γᵀ, as filters."""
        update = options.scale * product(own["beta"], own["gamma"])
        return f.kernel + update.reshape(f.kernel.shape), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        per_rank = site.outputs if cls.shares() else cls.rows(site) + site.outputs
        return cls.rank(options, site) * per_rank

    @classmethod
    def matrix(cls, own: Mapping[str, Array], options: Any) -> Any:
        """Return scale β γᵀ, (k² c, d)."""
        return None if cls.shares() else options.scale * product(own["beta"], own["gamma"])


class JointConvLoraAdapter(ConvLoraAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = JointConvLora
    leaves: ClassVar = {
        **ConvLoraAdapter.leaves,
        "beta": Leaf("filters", shared=True, start="keras_he_normal"),
    }
