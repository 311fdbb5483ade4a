"""Series adapters, after the shared convolution (NIPS 2017, equation 3; CVPR 2018, 3.1.1)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import EXACT_DTYPES, Adapter, Folded, Leaf, Site, Trained
from radapt_jax.adapters.options import Options
from radapt_jax.nn.filters import Filter, grouped_product
from radapt_jax.nn.norm import DomainNorm
from radapt_jax.utils.checks import FLAG


@dataclasses.dataclass(frozen=True)
class Series(Options):
    """Options of series adapters.

    Args:
      init: see `Options`.
      bias: whether the adapter's 1x1 convolution has a bias, which starts at 0.
    """

    kind: ClassVar[str] = "series"
    checks: ClassVar = {**Options.checks, "bias": FLAG}

    bias: bool = False


class SeriesAdapter(Adapter):
    """y = u + α * norm(u) with u = f * x; α is (d, d), and the norm inside is the adapter's.

    In training this is one product, u (I + diag(s) α) plus a constant (nn.normed_product).
    With the option `bias`, y has one more term for each channel.
    Where the convolution has groups, α has the same: beside a depthwise convolution it is diagonal.
    """

    Options = Series
    leaves: ClassVar = {
        "kernel": Leaf(),
        "bias": Leaf(start="zeros"),
        "norm/scale": Leaf("norms"),
        "norm/bias": Leaf("norms"),
    }

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        u = f(x, train=train)
        outputs, groups = u.shape[-1], f.geometry.groups
        alpha = self.leaf("kernel", (outputs // groups, outputs))
        norm = DomainNorm(self.runtime.dtype, self.runtime.norm_axis, rule=self.norm, name="norm")
        whole = self.runtime.dtype in EXACT_DTYPES and groups == 1
        if train and whole and not self.is_initializing():
            y = norm(u, train=True, through=alpha)
        else:
            y = u + grouped_product(norm(u, train=train), alpha, groups)
        return y + self.leaf("bias", (outputs,)) if self.options.bias else y

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """u + α (slope u + offset) = u (I + diag(slope) α) + offset α: linear at evaluation.

        A bias of the adapter is added to the constant.
        """
        own, stats = it.own, it.stats
        slope = own["norm/scale"] / jnp.sqrt(stats["norm/var"] + it.norm.epsilon)
        offset = own["norm/bias"] - stats["norm/mean"] * slope
        if f.bias is not None:
            offset = offset + slope * f.bias

        def through(rows: Array) -> Array:
            with jax.default_matmul_precision("highest"):
                return grouped_product(rows, own["kernel"], f.geometry.groups)

        return f.kernel + through(slope * f.kernel), through(offset) + own.get("bias", 0)

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        vectors = 3 if options.bias else 2
        return site.outputs * site.outputs // site.groups + vectors * site.outputs
