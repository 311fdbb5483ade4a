"""A shared filter of any shape, with gradients that do without what is frozen.

3x3 filters padded by one pixel go through `nn.conv`, which is fast on its platform; all others
through `Geometry.apply`. As there, α of a parallel adapter is folded into the filter in training,
and its gradient is a product at the centre tap.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from radapt_jax.nn import conv
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.products import over_pixels


class Filter(NamedTuple):
    """A shared convolution f: called with an image, it returns f * x.

    Args:
      kernel: (k, k, c / groups, d); it may be wider than images, so that small changes count.
      bias: (d,), added to every output; None: there is none.
      geometry: how the filter moves.
    """

    kernel: Float[Array, "k k c_g d"]
    bias: Float[Array, " d"] | None = None
    geometry: Geometry = Geometry()

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool, alpha: Array | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        """Return f * x, or (f + diag α) * x, computed in the dtype of x.

        Args:
          x: (b, h, w, c).
          train: gradients are written by hand, for reverse mode alone, and take no time for what is
            frozen; else they are JAX's own, in any mode and of any order.
          alpha: (c / groups, d), added at the centre tap.
        """
        kernel = self.kernel.astype(x.dtype)
        if self._is_fast(x):
            stride = self.geometry.stride
            if train:
                y = conv.convolve(x, kernel, stride, alpha)
            else:
                y = conv.forward(x, with_alpha(kernel, alpha), stride)
        elif train:
            y = _trained(x, kernel, alpha, self.geometry)
        else:
            y = self.geometry.apply(x, with_alpha(kernel, alpha))
        return y if self.bias is None else y + self.bias

    def centre(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Return the pixels that the centre tap reads, one an output."""
        return self.geometry.centre(x, self.kernel.shape[0])

    def _is_fast(self, x: Array) -> bool:
        """Tell whether `nn.conv` knows this filter: 3x3, padded by 1, stride 1, or 2 if even."""
        geometry, sides = self.geometry, x.shape[1:3]
        if self.kernel.shape[0] != 3 or geometry.dilation != 1 or geometry.groups != 1:
            return False
        if any(geometry.pads(3, side) != (1, 1) for side in sides):
            return False
        even = not any(side % 2 for side in sides)
        return geometry.stride == 1 or (geometry.stride == 2 and even)


def with_alpha(kernel: Array, alpha: Array | None) -> Array:
    """Return a filter with a 1x1 filter (c / groups, d) added at its centre tap."""
    if alpha is None:
        return kernel
    middle = kernel.shape[0] // 2
    return jnp.asarray(kernel).at[middle, middle].add(alpha)


def as_filter(kernel: Array, axes: int) -> Array:
    """Return a layer's kernel as that of a filter; a dense layer is a filter of one pixel.

    Args:
      kernel: (k, k, c / groups, d) of a convolution, or (inputs ..., outputs ...).
      axes: how many of its axes are inputs; 0: it is a convolution's.
    """
    if axes == 0:
        return kernel
    return kernel.reshape(1, 1, math.prod(kernel.shape[:axes]), -1)


def without_groups(kernel: Float[Array, "k k c_g d"], groups: int) -> Float[Array, "k k c d"]:
    """Return the filter without groups that computes what one with groups does: zeros elsewhere.

    XLA takes some hundred times as long on CPUs for the gradients of a convolution of many small
    groups.
    """
    size, _, inputs, outputs = kernel.shape
    of_group = jnp.repeat(jnp.eye(groups, dtype=kernel.dtype), outputs // groups, axis=1)
    spread = of_group[None, None, :, None] * kernel[:, :, None]
    return spread.reshape(size, size, groups * inputs, outputs)


def grouped_product(
    x: Float[Array, "... c"], matrix: Float[Array, "c_g d"], groups: int
) -> Float[Array, "... d"]:
    """Return x times a matrix; with groups, each group of outputs reads its group of inputs only.

    Args:
      x: (..., c).
      matrix: (c / groups, d).
      groups: that divide c and d.
    """
    if groups == 1:
        return x @ matrix
    if groups == x.shape[-1] == matrix.shape[-1]:
        return x * matrix[0]
    split = x.reshape(*x.shape[:-1], groups, -1)
    blocks = matrix.reshape(matrix.shape[0], groups, -1)
    return jnp.einsum("...gc,cgd->...gd", split, blocks).reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _trained(x: Array, kernel: Array, alpha: Array | None, geometry: Geometry) -> Array:
    return geometry.apply(x, with_alpha(kernel, alpha))


def _remember(x: Array, kernel: Array, alpha: Array | None, geometry: Geometry) -> Any:
    folded = with_alpha(kernel, alpha)
    return geometry.apply(x, folded), (x, folded, alpha)


def _pull(geometry: Geometry, saved: Any, gradient: Array) -> tuple[Array, Array, Array | None]:
    x, folded, alpha = saved
    (of_filter,) = jax.linear_transpose(lambda it: geometry.apply(x, it), folded)(gradient)
    return (
        _input_gradient(x, folded, geometry, gradient),
        of_filter,
        None if alpha is None else _alpha_gradient(x, folded, geometry, gradient),
    )


_trained.defvjp(_remember, _pull)


def _input_gradient(x: Array, kernel: Array, geometry: Geometry, gradient: Array) -> Array:
    """Return the gradient of x; of a depthwise filter, by one more depthwise convolution.

    That is the turned filter on the gradient with zeros between its pixels.
    """
    if geometry.groups != x.shape[-1] or geometry.groups != kernel.shape[-1]:
        (found,) = jax.linear_transpose(lambda it: geometry.apply(it, kernel), x)(gradient)
        return found
    size, stride = kernel.shape[0], geometry.stride
    pads = [(0, 0, 0)]
    for side, outputs in zip(x.shape[1:3], gradient.shape[1:3], strict=True):
        reach = (size - 1) * geometry.dilation
        low = reach - geometry.pads(size, side)[0]
        pads.append((low, side + reach - low - (outputs - 1) * stride - 1, stride - 1))
    spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), [*pads, (0, 0, 0)])
    turned = geometry._replace(stride=1, padding="valid")
    return turned.apply(spread, kernel[::-1, ::-1])


def _alpha_gradient(x: Array, kernel: Array, geometry: Geometry, gradient: Array) -> Array:
    """Return the gradient of a 1x1 filter at the centre tap: a product over all pixels."""
    read = geometry.centre(x, kernel.shape[0])
    groups = geometry.groups
    if groups == 1:
        return over_pixels(read, gradient)
    if groups == x.shape[-1] == kernel.shape[-1]:
        return jnp.einsum("bhwd,bhwd->d", read, gradient)[None]
    inputs = read.reshape(*read.shape[:3], groups, -1)
    outputs = gradient.reshape(*gradient.shape[:3], groups, -1)
    return jnp.einsum("bhwgc,bhwgd->cgd", inputs, outputs).reshape(kernel.shape[2], -1)
