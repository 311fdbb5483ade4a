"""Parallel adapters, a 1x1 convolution beside the shared one (CVPR 2018, section 3.1.2)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import EXACT_DTYPES, Folded, Leaf, Site, Trained
from radapt_jax.adapters.dropout import Dropped, WithDropout
from radapt_jax.nn.filters import Filter, grouped_product, with_alpha


@dataclasses.dataclass(frozen=True)
class Parallel(Dropped):
    """Options of parallel adapters; see `Dropped`."""

    kind: ClassVar[str] = "parallel"


class Beside(WithDropout):
    """y = f * x + α * x with α a product of matrices: what parallel and low-rank adapters share."""

    def beside(self, x: Array, f: Filter, factors: Sequence[Array], train: bool) -> Array:
        """Return f * x + α * x.

        In training α is folded into the filter, unless its input is dropped out, the computation
        is in bfloat16, or `runtime.fold` is off. At evaluation the factors are applied in turn.
        """
        runtime, groups = self.runtime, f.geometry.groups
        if groups > 1:  # factors mix the channels of a group, and are small: one matrix
            factors = [functools.reduce(jnp.matmul, factors)]
        if train and runtime.fold and runtime.dtype in EXACT_DTYPES and self.rate == 0:
            return f(x, train=train, alpha=functools.reduce(jnp.matmul, factors))
        read = self.dropped(f.centre(x), train)
        filtered = f(x, train=train)
        for factor in factors:
            read = grouped_product(read, factor, groups)
        return filtered + read


class ParallelAdapter(Beside):
    """y = f * x + α * x, with α a 1x1 convolution of c to d channels.

    Where the convolution has groups, so has α: beside a depthwise convolution it is diagonal, one
    number a channel.
    """

    Options = Parallel
    leaves: ClassVar = {"kernel": Leaf()}

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        alpha = self.leaf("kernel", f.kernel.shape[-2:])
        return self.beside(x, f, [alpha], train)

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """g = f + α at the centre tap (CVPR 2018, section 3.1.2)."""
        return with_alpha(f.kernel, it.own["kernel"]), None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return site.inputs * site.outputs

    @classmethod
    def matrix(cls, own: Mapping[str, Array], options: Any) -> Any:
        """Return α, (c, d)."""
        return own["kernel"]

    @classmethod
    def read(cls, x: Array, f: Filter) -> Any:
        """Return the pixels of x at the centre tap."""
        return f.centre(x)
