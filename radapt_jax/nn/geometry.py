"""Where a convolution reads: stride, padding, dilation and groups, and what follows from them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = str | int  # "half", "same", "valid", or pixels on every side


class Geometry(NamedTuple):
    """How a square filter of side k moves over an image.

    Args:
      stride: pixels from one output to the next.
      padding: "half" is k // 2 zeros on every side (PyTorch's habit); "same" is TensorFlow's,
        which at stride 2 and even sides pads right and below only; "valid" is none; a number is
        so many on every side.
      dilation: pixels from one tap of the filter to the next.
      groups: into which inputs and outputs are split; as many as inputs: a depthwise convolution.
    """

    stride: int = 1
    padding: Padding = "half"
    dilation: int = 1
    groups: int = 1

    def pads(self, size: int, side: int) -> tuple[int, int]:
        """Return the zeros before and behind an image's side, in pixels, for a filter of `size`."""
        reach = (size - 1) * self.dilation + 1
        if self.padding == "same":
            missing = max((-(-side // self.stride) - 1) * self.stride + reach - side, 0)
            return missing // 2, missing - missing // 2
        known: dict[Padding, int] = {"half": reach // 2, "valid": 0}
        pad = known.get(self.padding, self.padding)
        assert isinstance(pad, int), self.padding
        return pad, pad

    def centre(self, x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
        """Return the pixels that the centre tap of a filter of `size` reads, one an output.

        That of an even filter may lie behind the image, where there are zeros.
        """
        picked, behind = [], []
        for side in x.shape[1:3]:
            low, high = self.pads(size, side)
            reach = (size - 1) * self.dilation + 1
            outputs = (side + low + high - reach) // self.stride + 1
            first = size // 2 * self.dilation - low
            assert first >= 0, "the filter is padded by more than half of it"
            end = first + (outputs - 1) * self.stride + 1
            picked.append(slice(first, end, self.stride))
            behind.append((0, max(end - side, 0)))
        if any(pad for _, pad in behind):
            x = jnp.pad(x, ((0, 0), *behind, (0, 0)))
        return x[:, picked[0], picked[1]]

    def apply(
        self, x: Float[Array, "b h w c"], kernel: Float[Array, "k k c_g d"]
    ) -> Float[Array, "b h2 w2 d"]:
        """Return kernel * x; derivatives are JAX's own.

        A depthwise convolution is a sum over its taps of shifted images, which XLA computes faster
        on CPUs, and a 1x1 convolution is a matrix product.
        """
        size = kernel.shape[0]
        if size == 1 and self.groups == 1 and self.padding in ("half", "same", "valid", 0):
            return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        pads = tuple(self.pads(size, side) for side in x.shape[1:3])
        if self.groups == x.shape[-1] == kernel.shape[-1]:
            return self._depthwise(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=pads,
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )

    def _depthwise(self, padded: Array, kernel: Array) -> Array:
        size = kernel.shape[0]
        reach = (size - 1) * self.dilation
        last = [side - 1 - reach for side in padded.shape[1:3]]
        terms = []
        for row in range(size):
            for column in range(size):
                rows, columns = (
                    slice(at * self.dilation, at * self.dilation + end + 1, self.stride)
                    for at, end in zip((row, column), last, strict=True)
                )
                terms.append(padded[:, rows, columns] * kernel[row, column, 0])
        return sum(terms[1:], terms[0])
