"""What is put into a Linen network from outside, call by call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import NAME, Runtime
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import kind_of
from radapt_jax.models.own.layers import LAYERS, NORMS, Layer, first
from radapt_jax.nn.filters import Filter, as_filter
from radapt_jax.nn.layers import classified
from radapt_jax.nn.norm import NormRule


@dataclasses.dataclass(frozen=True)
class Interceptor:
    """An interceptor for `nn.intercept_methods`: adapters, domain norms and head.

    Args:
      layers: that carry an adapter, by path.
      adapter: its options.
      norm: the rule of norms inside adapters.
      folded: paths of the norms of which only a bias is left.
      head: path of the classifier.
      classifier: kernel and bias of the domain's; None: the network's own is called.
      train: batch norms take the statistics of the batch.
      runtime: how it is computed.
    """

    layers: Mapping[str, Layer]
    adapter: Options
    norm: NormRule
    folded: frozenset[str]
    head: str
    classifier: Mapping[str, Array] | None
    train: bool
    runtime: Runtime

    def __call__(self, next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, (*LAYERS, *NORMS)):
            return next_fun(*args, **kwargs)
        path = "/".join(module.path)
        x, more, named = first(args, kwargs)
        if path == self.head and self.classifier is not None:
            return classified(x, **self.classifier)
        if path in self.folded and not module.is_initializing():
            dtype = self._dtype(module, x)
            return x.astype(dtype) + module.get_variable("params", "bias").astype(dtype)
        if path in self.layers:
            if module.is_initializing():
                next_fun(*args, **kwargs)  # which makes kernel and bias, as the network says
            return self._adapted(module, self.layers[path], x)
        changes: dict[str, Any] = {}
        if self.runtime.dtype != jnp.float32:
            changes["dtype"] = self.runtime.dtype
        if isinstance(module, nn.BatchNorm):
            changes |= {
                "use_running_average": not self.train,
                "axis_name": self.runtime.norm_axis,
            }
            more, named = more[1:], {k: it for k, it in named.items() if k == "mask"}
        return _called(next_fun, module, changes, x, *more, **named)

    def _dtype(self, module: Any, x: Array) -> Any:
        """Return what a layer computes in: as the network says, unless told otherwise."""
        if self.runtime.dtype != jnp.float32:
            return self.runtime.dtype
        return module.dtype or jnp.promote_types(x.dtype, module.param_dtype)

    def _adapted(self, module: Any, layer: Layer, x: Array) -> Array:
        """Return what a layer and its adapter make of x; dense layers are 1x1 filters."""
        dtype = self._dtype(module, x)
        kernel = module.get_variable("params", "kernel")
        bias = module.get_variable("params", "bias")
        f = Filter(
            as_filter(kernel, layer.axes),
            None if bias is None else bias.astype(dtype).reshape(-1),
            layer.geometry,
        )
        runtime = dataclasses.replace(self.runtime, dtype=dtype)
        own_scope = module.scope.rewound()  # a layer may be called more than once
        carrier = _Carrier(self.adapter, self.norm, runtime, parent=own_scope)
        x = x.astype(dtype)
        if layer.axes == 0:
            return carrier(x, f, train=self.train)
        lead, features = x.shape[: -layer.axes], kernel.shape[layer.axes :]
        pixels = x.reshape(x.shape[0], -1, 1, f.kernel.shape[2])
        return carrier(pixels, f, train=self.train).reshape(*lead, *features)


class _Carrier(nn.Module):
    """An adapter in the place of a layer, whose variables are beside the layer's own."""

    adapter: Options
    norm: NormRule
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], f: Filter, *, train: bool) -> Array:
        kind = kind_of(self.adapter)
        return kind(0, self.adapter, self.norm, self.runtime, name=NAME)(x, f, train=train)


def _called(next_fun: Any, module: Any, changes: Mapping[str, Any], *args: Any, **kwargs: Any):
    """Call a module of which some fields are others for as long as the call takes."""
    before = {name: getattr(module, name) for name in changes}
    for name, value in changes.items():
        object.__setattr__(module, name, value)
    try:
        return next_fun(*args, **kwargs)
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)
