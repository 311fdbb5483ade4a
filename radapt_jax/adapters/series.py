"""Series adapters, after the shared convolution (NIPS 2017, equation 3; CVPR 2018, 3.1.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Leaf, Options, product
from radapt_jax.nn.norm import NORM_EPSILON, DomainNorm


@dataclasses.dataclass(frozen=True)
class Series(Options):
    """Options of series adapters; see `Options`."""

    kind: ClassVar[str] = "series"


class SeriesAdapter(Adapter):
    """y = u + α * norm(u) with u = f * x; α is (d, d), and the norm inside is the adapter's."""

    Options = Series
    leaves: ClassVar = {
        "kernel": Leaf(),
        "norm/scale": Leaf("norms", start="ones"),
        "norm/bias": Leaf("norms", start="zeros"),
    }

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        u = self.filtered(x, kernel, train=train)
        alpha = self.leaf("kernel", (self.features, self.features))
        norm = DomainNorm(self.runtime.dtype, self.runtime.norm_axis, name="norm")
        return u + norm(u, train=train) @ alpha

    @classmethod
    def fold(cls, kernel: Array, own: Mapping[str, Array], stats: Mapping[str, Array]) -> Any:
        """u + α (slope u + offset) = u (I + diag(slope) α) + offset α: linear at evaluation."""
        slope = own["norm/scale"] / jnp.sqrt(stats["norm/var"] + NORM_EPSILON)
        offset = own["norm/bias"] - stats["norm/mean"] * slope
        alpha = own["kernel"]
        return kernel + product(kernel, slope[:, None] * alpha), product(offset, alpha)

    @classmethod
    def parameters(cls, inputs: int, outputs: int, options: Any, conv: str) -> int:
        return outputs * outputs + 2 * outputs
