"""Layers of one domain: a convolution, the head, and channel dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.nn.filters import Filter
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.starts import he_normal, head_init


def domain_variable(
    module: nn.Module,
    collection: str,
    name: str,
    init: Callable[..., Array],
    shape: tuple[int, ...],
) -> nn.Variable:
    """Declare a float32 variable of one domain, and check the shape of the one passed to `apply`.

    Linen's `self.variable` accepts any shape; an adapter of another width would then fail far from
    the cause, or broadcast silently.

    Raises:
      ValueError: the variable passed to `apply` does not have this shape.
    """
    variable = module.variable(
        collection, name, lambda: init(module.make_rng("params"), shape, jnp.float32)
    )
    if variable.value.shape != shape:
        path = "/".join((*module.path, name))
        raise ValueError(
            f"{collection}/{path}: found shape {variable.value.shape}, expected {shape}. "
            "These variables belong to another network: check width, adapter kind and classes."
        )
    return variable


class DomainConv(nn.Module):
    """A convolution of one domain: images (b, h, w, c) to (b, h2, w2, features).

    Its variables are in the collection `adapters`. Name it `shortcut`: by that name it is trained
    as adapters are.

    Args:
      features: outputs.
      size: side of the filter, in pixels.
      geometry: its stride, padding and groups.
      use_bias: whether it has a bias.
      dtype: of the computation.
    """

    features: int
    size: int = 1
    geometry: Geometry = Geometry()
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        inputs = x.shape[-1] // self.geometry.groups
        shape = (self.size, self.size, inputs, self.features)
        kernel = domain_variable(self, "adapters", "kernel", he_normal, shape)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            found = domain_variable(self, "adapters", "bias", zeros, (self.features,))
            bias = found.value.astype(self.dtype)
        f = Filter(kernel.value, bias, self.geometry)
        return f(x.astype(self.dtype), train=train)


class DomainHead(nn.Module):
    """The linear classifier of one domain: features (b, c) to logits (b, k), float32 or wider.

    Its variables are in the collection `adapters`.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b k"]:
        shape = (x.shape[-1], self.num_classes)
        kernel = domain_variable(self, "adapters", "kernel", head_init, shape)
        bias = domain_variable(self, "adapters", "bias", nn.initializers.zeros, (self.num_classes,))
        return classified(x, kernel.value, bias.value)


def classified(
    x: Float[Array, "b c"], kernel: Float[Array, "c k"], bias: Float[Array, " k"]
) -> Float[Array, "b k"]:
    """Return the logits of features, in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, kernel.dtype)) @ kernel + bias


class ChannelDropout(nn.Module):
    """Zero whole channels of an image with probability `rate`; scale the others by 1/(1 - rate).

    The mask is drawn for the global batch and each device takes its own rows, so it does not
    depend on the number of devices. Uses the rng stream "channels" if there is one, else "dropout".
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        if not train or self.rate == 0.0:
            return x
        batch, channels = x.shape[0], x.shape[-1]
        devices = jax.lax.axis_size(self.axis_name) if self.axis_name else 1
        shape = (devices, batch, 1, 1, channels)
        stream = "channels" if self.has_rng("channels") else "dropout"
        keep = jax.random.bernoulli(self.make_rng(stream), 1 - self.rate, shape)
        mine = keep[jax.lax.axis_index(self.axis_name) if self.axis_name else 0]
        return jnp.where(mine, x / (1 - self.rate), jnp.zeros_like(x))
