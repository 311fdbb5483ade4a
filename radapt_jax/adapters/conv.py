"""The shared convolution that carries a domain's adapter."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import NAME, Runtime
from radapt_jax.adapters.none import NoAdapter, PlainConv
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import kind_of
from radapt_jax.nn.filters import Filter
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.norm import NormRule
from radapt_jax.nn.starts import he_normal


class AdaptedConv(nn.Module):
    """A shared convolution (`params`) with an optional adapter of the domain (`adapters`).

    `__call__(x, train=...)` maps (b, h, w, c) to (b, h2, w2, features).

    Args:
      features: outputs.
      size: side of the filter, in pixels.
      geometry: its stride, padding and groups.
      use_bias: whether the convolution has a bias, shared as the filter is.
      adapter: the adapter's options, which tell its kind.
      position: of the convolution in its block, 0 for the first, 1 for later ones.
      norm: the network's rule for norms, for adapters that have one inside.
      runtime: how it is computed.
    """

    features: int
    size: int = 3
    geometry: Geometry = Geometry()
    use_bias: bool = False
    adapter: Options = NoAdapter()
    position: int = 0
    norm: NormRule = NormRule()
    runtime: Runtime = Runtime()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        inputs = x.shape[-1] // self.geometry.groups
        dtype = self.runtime.dtype
        kernel = self.param("kernel", he_normal, (self.size, self.size, inputs, self.features))
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        kind = kind_of(self.adapter)
        if not kind.serves(self.adapter, "/".join(self.path)):
            kind = PlainConv
        adapter = kind(self.position, self.adapter, self.norm, self.runtime, name=NAME)
        f = Filter(kernel, bias, self.geometry)
        return adapter(x.astype(dtype), f, train=train)
