"""The 3x3 convolution and its gradients, each computed in the way that is fast on its platform.

A parallel adapter is folded into the filter in training too: y = (f + diag α) * x is one
convolution. Its input gradient goes through the folded filter, the gradient of α is a matrix
product at the centre tap, and while f is frozen no filter gradient is computed.

On CPUs, stride-1 convolutions with many channels are computed as Winograd's F(2x2, 3x3), 16 matrix
products with 2.25 times fewer multiplications (Lavin and Gray, CVPR 2016), and large batches are
taken in parts. Input gradients of stride 2 are four small convolutions, one for
each parity of row and column, instead of one dilated one. docs/performance.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from radapt_jax.nn.apart import apart
from radapt_jax.nn.products import over_pixels

Image = Float[Array, "b h w c"]
Filter = Float[Array, "3 3 c d"]
# Where F(2x2, 3x3) pays on a CPU: fewest channels, and fewest tiles of 2x2 pixels in a batch.
CHANNELS = 128
TILES = 512
# On a CPU, a convolution whose input takes as many bytes as no cache holds is computed, as is the
# gradient of its filter, over this many images at a time, in at most this many parts.
IMAGES, PARTS, LARGE = 32, 8, 2**24
# On a CPU, XLA has a faster convolution where one side has more than NARROW channels: a filter of
# few inputs (colours) gets outputs of zeros beside its own.
INPUTS, NARROW = 4, 16
INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
FILTER = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def forward(x: Image, kernel: Filter, stride: int) -> Image:
    """Return kernel * x with padding (1, 1), for evaluation.

    The values are the same as those of `convolve`. Derivatives are JAX's own, in any mode
    (`jax.jvp`, `jax.jacfwd`) and of any order; those of `convolve` are faster, of first order only.

    Args:
      x: (b, h, w, c).
      kernel: (3, 3, c, d).
      stride: 1 or 2; 2 needs even sides.

    Returns:
      (b, h / stride, w / stride, d).
    """
    assert stride == 1 or (stride == 2 and not x.shape[1] % 2 and not x.shape[2] % 2)
    return _direct(x, kernel, 2) if stride == 2 else _unit_stride(x, kernel)


def convolve(x: Image, kernel: Filter, stride: int, alpha: Array | None = None) -> Image:
    """Return kernel * x, or (kernel + diag α) * x, with padding (1, 1), for training.

    Args:
      x: (b, h, w, c).
      kernel: (3, 3, c, d).
      stride: 1 or 2; 2 needs even sides.
      alpha: (c, d), a 1x1 filter that is added at the centre tap.

    Returns:
      (b, h / stride, w / stride, d). Gradients are reverse-mode only (`jax.grad`, `jax.vjp`).
    """
    return (_strided if stride == 2 else _plain)(x, kernel, alpha)


def centre(x: Image, stride: int) -> Image:
    """Return the pixels that the centre tap reads: with padding (1, 1), every `stride`-th one."""
    return x[:, ::stride, ::stride]


def _folded(kernel: Filter, alpha: Array | None) -> Filter:
    return kernel if alpha is None else jnp.asarray(kernel).at[1, 1].add(alpha)


def _direct(x: Image, kernel: Filter, stride: int = 1) -> Image:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _unit_stride(x: Image, kernel: Filter) -> Image:
    """Return kernel * x at stride 1, computed in the way that is fast on the platform."""
    batch, height, width, _ = x.shape
    known = isinstance(batch, int)  # symbolic in an exported program
    many = known and batch * -(-height // 2) * -(-width // 2) >= TILES
    precise = x.dtype in (jnp.float32, jnp.float64)  # bfloat16 would lose too many digits
    if many and precise and min(kernel.shape[2:]) >= CHANNELS:
        return jax.lax.platform_dependent(x, kernel, cpu=winograd, default=_direct)
    if known and precise and kernel.shape[2] <= INPUTS and kernel.shape[3] <= NARROW:
        return jax.lax.platform_dependent(x, kernel, cpu=_broadened, default=_direct)
    if known and _is_large(x):
        return jax.lax.platform_dependent(x, kernel, cpu=_by_parts, default=_direct)
    return _direct(x, kernel)


def _broadened(x: Image, kernel: Filter) -> Image:
    outputs = kernel.shape[3]
    more = ((0, 0), (0, 0), (0, 0), (0, NARROW + 1 - outputs))
    return _direct(x, jnp.pad(kernel, more))[..., :outputs]


def _is_large(x: Image) -> bool:
    return len(x) > IMAGES and x.size * x.dtype.itemsize >= LARGE


def _by_parts(x: Image, kernel: Filter) -> Image:
    return jnp.concatenate([_direct(x[part], kernel) for part in _parts(x)])


def _parts(x: Image) -> list[slice]:
    """Return the parts of a batch that are computed one after another on a CPU."""
    size = max(IMAGES, -(-len(x) // PARTS))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def winograd(x: Image, kernel: Filter) -> Image:
    """Return kernel * x at stride 1 as F(2x2, 3x3): tiles of 2x2 outputs from 4x4 inputs."""
    _, height, width, _ = x.shape
    tiles = _transform(INPUT, _transform(INPUT, _shifts(x)), axis=1)
    filters = _transform(FILTER, _transform(FILTER, [list(row) for row in kernel]), axis=1)
    products = [
        [tile @ tap for tile, tap in zip(*rows, strict=True)]
        for rows in zip(tiles, filters, strict=True)
    ]
    outputs = _transform(OUTPUT, _transform(OUTPUT, products), axis=1)
    return _interleave(outputs)[:, :height, :width]


def _interleave(phases: Sequence[Sequence[Image]]) -> Image:
    """Return the image with the given even and odd rows and columns, `phases[row][column]`."""
    rows = [jnp.stack(row, axis=3) for row in phases]  # (b, h/2, w/2, 2, d) each
    batch, high, wide, _, channels = rows[0].shape
    return jnp.stack(rows, axis=2).reshape(batch, 2 * high, 2 * wide, channels)


def _shifts(x: Image) -> list[list[Array]]:
    """Return the 4x4 pixels of all tiles, one array for each; tiles begin at every second pixel."""
    x = jnp.pad(x, ((0, 0), *((1, 1 + side % 2) for side in x.shape[1:3]), (0, 0)))
    high, wide = (side // 2 - 1 for side in x.shape[1:3])
    return [
        [
            jax.lax.slice(
                x,
                (0, row, column, 0),
                (x.shape[0], row + 2 * high - 1, column + 2 * wide - 1, x.shape[3]),
                (1, 2, 2, 1),
            )
            for column in range(4)
        ]
        for row in range(4)
    ]


def _transform(matrix: np.ndarray, grid: Sequence[Sequence[Array]], axis: int = 0) -> list[list]:
    """Multiply a small constant matrix with a grid of arrays, along the grid's rows or columns."""
    if axis == 1:
        turned = [list(column) for column in zip(*grid, strict=True)]
        return [list(row) for row in zip(*_transform(matrix, turned), strict=True)]
    return [
        [_combine(weights, [row[column] for row in grid]) for column in range(len(grid[0]))]
        for weights in matrix
    ]


def _combine(weights: np.ndarray, arrays: Sequence[Array]) -> Any:
    terms = [
        array if weight == 1 else -array if weight == -1 else array * float(weight)
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])


def _input_gradient_1(gradient: Image, kernel: Filter) -> Image:
    return _unit_stride(gradient, kernel[::-1, ::-1].swapaxes(2, 3))


def _input_gradient_2(gradient: Image, kernel: Filter) -> Image:
    """Return the input gradient at stride 2, by the parity of rows and columns.

    Output i reads the inputs 2i-1, 2i and 2i+1 by the taps 0, 1 and 2: an even input was read by
    tap 1 of one output, an odd one by tap 2 of one and tap 0 of the next.
    """
    turned = kernel.swapaxes(2, 3)
    taps = ((1,), (2, 0))
    phases = [
        [
            jax.lax.conv_general_dilated(
                gradient,
                turned[np.array(taps[row])][:, np.array(taps[column])],
                window_strides=(1, 1),
                padding=((0, row), (0, column)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for column in range(2)
        ]
        for row in range(2)
    ]
    return _interleave(phases)


def _filter_gradient(x: Image, gradient: Image, stride: int, kernel: Filter) -> Filter:
    def default(x: Image, gradient: Image) -> Filter:
        return jax.linear_transpose(lambda it: _direct(x, it, stride), kernel)(gradient)[0]

    def on_cpu(x: Image, gradient: Image) -> Filter:
        parts = _parts(x) if _is_large(x) else [slice(None)]
        found = [_filter_gradient_on_cpu(x[part], gradient[part], stride) for part in parts]
        return sum(found[1:], found[0])

    return jax.lax.platform_dependent(x, gradient, cpu=on_cpu, default=default)


def _filter_gradient_on_cpu(x: Image, gradient: Image, stride: int) -> Filter:
    """Return the filter's gradient as a convolution of x, in which channels and images change
    places, by the gradient of the output."""
    turned = apart(lambda it: it.transpose(3, 1, 2, 0), x)  # (c, h, w, b)
    by = apart(lambda it: it.transpose(1, 2, 0, 3), gradient)  # (h / stride, w / stride, b, d)
    found = jax.lax.conv_general_dilated(
        turned,
        by,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        rhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return found[:, :3, :3].transpose(1, 2, 0, 3)


def _alpha_gradient(x: Image, gradient: Image, stride: int) -> Array:
    """Return the gradient of a 1x1 filter at the centre tap: a product over all pixels."""
    return over_pixels(centre(x, stride), gradient)


def _with_gradients(
    stride: int, backward: Callable[[Image, Filter], Image]
) -> Callable[..., Image]:
    """Return (x, kernel, α or None) -> (kernel + diag α) * x with the gradients above."""

    @jax.custom_vjp
    def run(x: Image, kernel: Filter, alpha: Array | None) -> Image:
        return forward(x, _folded(kernel, alpha), stride)

    def remember(x: Image, kernel: Filter, alpha: Array | None) -> tuple[Image, Any]:
        folded = _folded(kernel, alpha)
        return forward(x, folded, stride), (x, folded, alpha)

    def pull(saved: Any, gradient: Image) -> tuple[Image, Filter, Array | None]:
        x, folded, alpha = saved
        return (
            backward(gradient, folded),
            _filter_gradient(x, gradient, stride, folded),
            None if alpha is None else _alpha_gradient(x, gradient, stride),
        )

    run.defvjp(remember, pull)
    return run


_plain = _with_gradients(1, _input_gradient_1)
_strided = _with_gradients(2, _input_gradient_2)
