"""The shared convolution that carries a domain's adapter."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import NAME, Options, Runtime
from radapt_jax.adapters.none import NoAdapter, PlainConv
from radapt_jax.adapters.registry import kind_of
from radapt_jax.nn.starts import he_normal


class AdaptedConv(nn.Module):
    """A shared 3x3 convolution (`params`) with an optional adapter of the domain (`adapters`).

    Padding is (1, 1) at every stride, there is no bias. `__call__(x, train=...)` maps
    (b, h, w, c) to (b, h/stride, w/stride, features).

    Args:
      features: outputs.
      stride: 1 or 2.
      adapter: the adapter's options, which tell its kind.
      position: of the convolution in its block, from 0.
      runtime: how it is computed.
    """

    features: int
    stride: int = 1
    adapter: Options = NoAdapter()
    position: int = 0
    runtime: Runtime = Runtime()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        kind = kind_of(self.adapter)
        if not kind.serves(self.adapter, "/".join(self.path)):
            kind = PlainConv
        adapter = kind(
            self.features, self.stride, self.position, self.adapter, self.runtime, name=NAME
        )
        dtype = self.runtime.dtype
        return adapter(x.astype(dtype), kernel.astype(dtype), train=train)
