"""Batch norm of one domain, with its gradient in closed form.

Stock `nn.BatchNorm` writes to `params`. Here `params` holds shared weights only, so whatever a
domain owns is declared in `adapters` and `batch_stats` (see `domain_variable`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.nn.layers import domain_variable


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
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    folded: bool = False
    rule: NormRule = NormRule()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
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
            y, mean, var = batch_norm(x, scale.value, bias.value, self.axis_name, self.rule.epsilon)
            devices = jax.lax.axis_size(self.axis_name) if self.axis_name else 1
            count = devices * x.size // x.shape[-1]
            keep = self.rule.momentum
            if self.rule.unbiased:
                var = var * (count / max(count - 1, 1))
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * var
            return y.astype(self.dtype)
        wide = _wide(x)
        factor = jax.lax.rsqrt(running_var.value + self.rule.epsilon) * scale.value
        return ((wide - running_mean.value) * factor + bias.value).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    axis_name: str | None = None,
    epsilon: float = NormRule().epsilon,
) -> tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Return x normalised by its own statistics, and those statistics: mean and biased variance.

    The gradient is the closed form (Ioffe and Szegedy, 2015, section 3), computed in one pass of
    sums and one over the pixels; no gradient flows through the returned statistics.

    Args:
      x: (b, h, w, c), of any float type; sums are in float32 or wider.
      scale, bias: (c,).
      axis_name: take the statistics over all devices of this axis.
      epsilon: added to the variance.
    """
    return _batch_norm_forward(x, scale, bias, axis_name, epsilon)[0]


def _batch_norm_forward(
    x: Array, scale: Array, bias: Array, axis_name: str | None, epsilon: float
) -> Any:
    wide = _wide(x)
    mean = _average(wide, axis_name)
    var = _average(jnp.square(wide - mean), axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (wide - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _batch_norm_backward(axis_name: str | None, epsilon: float, saved: Any, gradients: Any) -> Any:
    x, scale, mean, inverse = saved
    gradient = _wide(gradients[0])
    normed = (_wide(x) - mean) * inverse
    slope, moment = _average(gradient), _average(gradient * normed)
    pixels = x.size // x.shape[-1]
    ours = (pixels * moment, pixels * slope)  # of scale and bias, on this device
    if axis_name is not None:
        slope, moment = jax.lax.pmean((slope, moment), axis_name)
    back = (gradient - slope - normed * moment) * (inverse * scale)
    return (back.astype(x.dtype), *(it.astype(scale.dtype) for it in ours))


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _average(x: Float[Array, "b h w c"], axis_name: str | None = None) -> Float[Array, " c"]:
    """Average over all axes but channels (and over devices).

    One axis at a time, since short sums in float32 lose fewer digits.
    """
    mean = x.mean(2).mean(1).mean(0)
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)
