"""x + norm(x) α as one product, with its gradient in closed form: a series adapter in training.

With the statistics of x known, batch norm is one factor and one constant a channel, and
y = x + (s x + c) α = x + x diag(s) α + c α. So x is read for its statistics and for one product,
and what the norm gives is neither written nor remembered. The gradient takes two products, xᵀ g and
g (diag(s) α)ᵀ; all else it needs of the pixels follows from these.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jaxtyping import Array, Float

from radapt_jax.nn.batch_norm import statistics
from radapt_jax.nn.products import over_pixels

Normed = tuple[Float[Array, "b h w c"], Float[Array, " c"], Float[Array, " c"]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normed_product(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    alpha: Float[Array, "c c"],
    axis_name: str | None,
    epsilon: float,
) -> Normed:
    """Return x + norm(x) α, and the batch statistics of x: mean and biased variance.

    No gradient flows through the returned statistics.

    Args:
      x: (b, h, w, c), float32 or wider; in bfloat16 the sum would round α away.
      scale, bias: of the norm, (c,).
      alpha: (c, c).
      axis_name: take the statistics over all devices of this axis.
      epsilon: added to the variance.
    """
    return _forward(x, scale, bias, alpha, axis_name, epsilon)[0]


def _forward(
    x: Array, scale: Array, bias: Array, alpha: Array, axis_name: str | None, epsilon: float
) -> tuple[Normed, Any]:
    mean, var = statistics(x, axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = inverse * scale
    constant = bias - factor * mean
    # Not x (I + ...): products on GPUs and TPUs round their factors, and with them the identity.
    y = x + (x @ (factor[:, None] * alpha) + constant @ alpha)
    return (y, mean, var), (x, scale, alpha, mean, inverse, constant)


def _backward(axis_name: str | None, epsilon: float, saved: Any, gradients: Any) -> Any:
    x, scale, alpha, mean, inverse, constant = saved
    gradient, factor = gradients[0], inverse * scale
    product = over_pixels(x, gradient)
    total = gradient.sum((0, 1, 2))
    # Sums over pixels of h = g αᵀ, the gradient of what the norm gives, and of h times norm's z.
    of_bias = alpha @ total
    of_scale = inverse * ((alpha * product).sum(1) - mean * of_bias)
    of_alpha = factor[:, None] * product + constant[:, None] * total
    pixels = x.size // x.shape[-1]
    slope, moment = of_bias / pixels, of_scale / pixels
    if axis_name is not None:
        slope, moment = jax.lax.pmean((slope, moment), axis_name)
    along = factor * inverse * moment
    through = gradient @ (factor[:, None] * alpha).T
    back = gradient + through - x * along + (along * mean - factor * slope)
    return back, of_scale, of_bias, of_alpha


normed_product.defvjp(_forward, _backward)
