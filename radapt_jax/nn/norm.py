"""Batch norm of one domain.

Stock `nn.BatchNorm` writes to `params`. Here `params` holds shared weights only, so whatever a
domain owns is declared in `adapters` and `batch_stats` (see `domain_variable`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.nn.batch_norm import batch_norm, widened
from radapt_jax.nn.layers import domain_variable
from radapt_jax.nn.normed_product import normed_product


class NormRule(NamedTuple):
    """How a network's batch norms compute; the defaults are PyTorch's.

    Args:
      epsilon: added to the variance.
      momentum: share of a running statistic that a step keeps; PyTorch calls 0.9 a momentum of 0.1.
      unbiased: the running variance is the unbiased one; batches are normalised by the biased one.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    unbiased: bool = True


class DomainNorm(nn.Module):
    """Batch norm of one domain: scale and bias in `adapters`, statistics in `batch_stats`.

    Statistics are taken in two passes in float32 or wider; `rule` says what follows from them.
    With `axis_name`, the batch statistics are those of all devices. With `folded`, the scale and
    statistics are in the filter before the norm (see models.fold) and only the bias is left; such
    a norm cannot be trained.

    In training, a norm called with a matrix `through`, α (c, c), returns x + norm(x) α instead.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    folded: bool = False
    rule: NormRule = NormRule()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool, through: Float[Array, "c c"] | None = None
    ) -> Float[Array, "b h w c"]:
        shape = (x.shape[-1],)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        bias = domain_variable(self, "adapters", "bias", zeros, shape)
        if self.folded:
            if train:
                raise ValueError("this network is folded, for evaluation; train the unfolded one.")
            return x + bias.value.astype(self.dtype)
        scale = domain_variable(self, "adapters", "scale", ones, shape)
        running_mean = domain_variable(self, "batch_stats", "mean", zeros, shape)
        running_var = domain_variable(self, "batch_stats", "var", ones, shape)

        if train and not self.is_initializing():
            rest = (self.axis_name, self.rule.epsilon)
            if through is None:
                y, mean, var = batch_norm(x, scale.value, bias.value, *rest)
            else:
                y, mean, var = normed_product(x, scale.value, bias.value, through, *rest)
            devices = jax.lax.axis_size(self.axis_name) if self.axis_name else 1
            count = devices * x.size // x.shape[-1]
            keep = self.rule.momentum
            if self.rule.unbiased:
                var = var * (count / max(count - 1, 1))
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * var
            return y.astype(self.dtype)
        wide = widened(x)
        factor = jax.lax.rsqrt(running_var.value + self.rule.epsilon) * scale.value
        return ((wide - running_mean.value) * factor + bias.value).astype(self.dtype)
