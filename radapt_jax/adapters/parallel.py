"""Parallel adapters, a 1x1 convolution beside the shared one (CVPR 2018, section 3.1.2)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Leaf, Options
from radapt_jax.nn.conv import centre, convolve
from radapt_jax.nn.layers import ChannelDropout
from radapt_jax.utils.checks import number, several

# In bfloat16 a small α would be rounded away in f + α: there it is applied apart.
FOLDED_DTYPES = (jnp.float32, jnp.float64)


@dataclasses.dataclass(frozen=True)
class Parallel(Options):
    """Options of parallel adapters.

    Args:
      init: see `Options`.
      dropout: probability that a channel of the adapter's input is dropped in training, for first
        convolutions of a block (and the stem) and for second ones; in [0, 1). Needs the rng
        "dropout".
    """

    kind: ClassVar[str] = "parallel"
    checks: ClassVar = {**Options.checks, "dropout": several(number("[0, 1)"), 2)}
    training_only: ClassVar = (*Options.training_only, "dropout")

    dropout: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dropout", tuple(map(float, self.dropout)))


class Beside(Adapter):
    """y = f * x + α * x with α a product of matrices: what parallel and low-rank adapters share."""

    def beside(self, x: Array, kernel: Array, factors: Sequence[Array], train: bool) -> Array:
        """Return f * x + α * x.

        In training α is folded into the filter, unless its input is dropped out, the computation
        is in bfloat16, or `runtime.fold` is off. At evaluation the factors are applied in turn.
        """
        runtime, rate = self.runtime, self.options.dropout[self.position]
        if train and runtime.fold and runtime.dtype in FOLDED_DTYPES and rate == 0:
            return convolve(x, kernel, self.stride, functools.reduce(jnp.matmul, factors))
        read = centre(x, self.stride)
        read = ChannelDropout(rate, runtime.axis_name, name="dropout")(read, train=train)
        filtered = self.filtered(x, kernel, train=train)
        return filtered + functools.reduce(jnp.matmul, factors, read)


class ParallelAdapter(Beside):
    """y = f * x + α * x, with α a 1x1 convolution of c to d channels."""

    Options = Parallel
    leaves: ClassVar = {"kernel": Leaf()}
    dense = "kernel"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        alpha = self.leaf("kernel", (x.shape[-1], self.features))
        return self.beside(x, kernel, [alpha], train)

    @classmethod
    def fold(cls, kernel: Array, own: Mapping[str, Array], stats: Mapping[str, Array]) -> Any:
        """g = f + α at the centre tap (CVPR 2018, section 3.1.2)."""
        return kernel.at[1, 1].add(own["kernel"]), None

    @classmethod
    def parameters(cls, inputs: int, outputs: int, options: Any, conv: str) -> int:
        return inputs * outputs
