"""Kinds that give a domain a filter of its own, made of the shared one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Folded, Trained
from radapt_jax.nn.filters import Filter


class OwnFilter(Adapter):
    """y = g * x, where g = `changed(f)`: in training, at evaluation and folded."""

    filters_apart = True

    def leaf(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """As `Adapter.leaf`, in float32 or wider: bfloat16 has no W + 0.001 W beside W."""
        wide = jnp.promote_types(self.runtime.dtype, jnp.float32)
        return super().leaf(name, shape, wide if dtype is None else dtype)

    def declared(self, f: Filter) -> dict[str, Array]:
        """Declare the adapter's variables; return their values by name."""
        raise NotImplementedError

    @classmethod
    def changed(
        cls, kernel: Float[Array, "k k c d"], own: Mapping[str, Array], options: Any
    ) -> Float[Array, "k k c d"]:
        """Return the domain's filter.

        Args:
          kernel: of the shared one.
          own: the adapter's variables by name.
          options: of the kind.
        """
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        kernel = self.changed(f.kernel, self.declared(f), self.options)
        return f._replace(kernel=kernel)(x, train=train)

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        return cls.changed(f.kernel, it.own, it.options), None
