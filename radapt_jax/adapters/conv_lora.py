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

from radapt_jax.adapters.base import Folded, Leaf, Site, Trained, product
from radapt_jax.adapters.dropout import Dropped, WithDropout
from radapt_jax.adapters.factors import Factored, Ranked, with_shared_beta
from radapt_jax.adapters.ranks import Ranks
from radapt_jax.nn.filters import Filter
from radapt_jax.utils.checks import number


@dataclasses.dataclass(frozen=True)
class ConvLora(Ranked, Dropped):
    """Options of low-rank convolutions.

    Args:
      init, decay, budget: see `Ranked`; `init` is of γ, and β starts as LoRA's, over its inputs.
      dropout: see `Dropped`.
      ranks: see `Ranked`; a number by default, as is usual for LoRA.
      scale: of the product.
    """

    kind: ClassVar[str] = "conv_lora"
    checks: ClassVar = {**Dropped.checks, **Ranked.checks, "scale": number("(0, inf)")}
    training_only: ClassVar = Dropped.training_only

    ranks: Ranks = 4
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class JointConvLora(ConvLora):
    """Options of the same with β shared by all domains of a family."""

    kind: ClassVar[str] = "conv_lora_joint"


class ConvLoraAdapter(WithDropout, Factored):
    """y = f * x + scale γ * (β * x); "beta" is (k² c, r), "gamma" (r, d)."""

    Options = ConvLora
    leaves: ClassVar = {**Factored.leaves, "beta": Leaf(start="keras_he_normal")}
    compresses = "conv_lora"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        beta, gamma = self.pair(f).values()
        gamma = self.options.scale * gamma
        if f.geometry.groups > 1:
            update = (beta @ gamma).reshape(f.kernel.shape)
            if train and self.rate > 0:
                apart = Filter(update, None, f.geometry)
                return f(x, train=train) + apart(self.dropped(x, train), train=train)
            return f._replace(kernel=f.kernel + update)(x, train=train)
        down = Filter(beta.reshape(*f.kernel.shape[:3], -1), None, f.geometry)
        return f(x, train=train) + down(self.dropped(x, train), train=train) @ gamma

    @classmethod
    def rows(cls, site: Site) -> int:
        return site.size * site.size * site.inputs

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """g = f + scale β γᵀ, as filters."""
        return f.kernel + _update(it.own, it.options).reshape(f.kernel.shape), None

    @classmethod
    def matrix(cls, own: Mapping[str, Array], options: Any) -> Any:
        """Return scale β γᵀ, (k² c, d)."""
        return None if cls.shares() else _update(own, options)


class JointConvLoraAdapter(ConvLoraAdapter):
    """The same with β in `params`: one for all domains of a family."""

    Options = JointConvLora
    leaves: ClassVar = with_shared_beta(ConvLoraAdapter.leaves)


def _update(own: Mapping[str, Array], options: Any) -> Array:
    return options.scale * product(own["beta"], own["gamma"])
