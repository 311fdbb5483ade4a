"""Variables of a domain rounded to a few bits, so that its file is small.

Matrices are rounded symmetrically, with one step for each output channel (a column): v ≈ q s with
whole q from -(2^(n-1) - 1) to 2^(n-1) - 1 and s in bfloat16. The step is the one of the least
squared error among shares of the largest value; some values are then cut off. Vectors are rounded
to float16. What is rounded is kept as the float32 values that q s come to, exactly, so that all
that is done with a domain is done with one that is rounded; only its file is smaller.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from radapt_jax.adapters.base import is_adapters
from radapt_jax.utils.checks import Kind, check_all

WIDTHS = (2, 3, 4, 8, 16, 32)
BITS = Kind(f"one of {list(WIDTHS)} bits", lambda found: type(found) is int and found in WIDTHS)
HALF, WHOLE = 16, 32  # float16, and as it is
SHARES = np.linspace(0.4, 1, 61)  # of the largest value, at which values are cut off
LARGEST = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """How many bits a value has in a domain's file: 2, 3, 4, 8, 16 (float16) or 32 (as it is).

    Args:
      adapters: of matrices of adapters, α, β and γ.
      head: of the head's matrix.
      vectors: of norms, statistics and biases; 16 or 32.

    Raises:
      ValueError: another number of bits.
    """

    adapters: int = 4
    head: int = 8
    vectors: int = HALF

    def __post_init__(self) -> None:
        check_all(vars(self), dict.fromkeys(("adapters", "head", "vectors"), BITS), "rounding: ")
        if self.vectors < HALF:
            raise ValueError(f"rounding: found vectors {self.vectors}; expected 16 or 32 bits.")

    def bits_of(self, path: str, shape: tuple[int, ...]) -> int:
        """Return the bits of one variable, from its path, collection first, and its shape.

        A domain's own copy of the filters stays as it is. Columns so short that steps would take
        more than they save are float16.
        """
        if path.startswith("params/"):
            return WHOLE
        if len(shape) < 2:
            return self.vectors
        wanted = self.adapters if is_adapters(path) else self.head
        rows = int(np.prod(shape[:-1]))
        too_short = wanted < HALF and rows * wanted + HALF >= rows * HALF
        return HALF if too_short else wanted


def rounded(value: Any, bits: int) -> np.ndarray:
    """Return a variable, (..., columns), rounded to so many bits, as float32.

    Raises:
      ValueError: a value is too large for float16.
    """
    value = np.asarray(value, np.float32)
    if bits == WHOLE:
        return value
    if bits == HALF:
        if np.abs(value).max(initial=0) > LARGEST:
            raise ValueError(
                f"found a value of {np.abs(value).max():g}; float16 ends at {LARGEST:g}. Keep "
                "these variables as they are: 32 bits."
            )
        return value.astype(np.float16).astype(np.float32)
    columns = value.reshape(-1, value.shape[-1])
    return np.asarray(nearest(columns, bits)).reshape(value.shape)


@functools.partial(jax.jit, static_argnames="bits")
def nearest(columns: Float[Array, "rows d"], bits: int) -> Float[Array, "rows d"]:
    """Return a matrix rounded to fewer than 16 bits, each column with the step that is best for it.

    Of steps that are as good, it is the largest.
    """
    levels = levels_of(bits)
    columns = jnp.asarray(columns, jnp.float32)
    largest = jnp.abs(columns).max(0, initial=0)
    unit = jnp.where(largest > 0, largest, 1)  # whose square may be too small for float32

    def better(best: tuple[Array, Array], share: Array) -> tuple[tuple[Array, Array], None]:
        error, found = best
        steps = (share * largest / levels).astype(jnp.bfloat16).astype(jnp.float32)
        ratio = columns / jnp.where(steps > 0, steps, 1)
        near = jnp.clip(jnp.rint(ratio), -levels, levels) * steps
        lost = jnp.square((columns - near) / unit).sum(0)
        found = jnp.where(lost < error, near, found)
        return (jnp.minimum(error, lost), found), None

    start = (jnp.full(columns.shape[1:], jnp.inf, jnp.float32), jnp.zeros_like(columns))
    (_, found), _ = jax.lax.scan(better, start, jnp.asarray(SHARES[::-1], jnp.float32))
    return jnp.where(found == 0, 0, found)  # no -0, which q has not


def levels_of(bits: int) -> int:
    """Return the largest whole number that so many bits hold beside its negative."""
    return 2 ** (bits - 1) - 1


def _wholes(columns: np.ndarray, steps: np.ndarray, levels: int) -> np.ndarray:
    ratio = columns / np.where(steps > 0, steps, 1)
    return np.clip(np.rint(ratio), -levels, levels) * (steps > 0)


def packed(value: np.ndarray, bits: int) -> np.ndarray:
    """Return a variable that `rounded` gave as a file has it; `unpacked` undoes it bit for bit.

    That is float32, float16, or bytes: the steps in bfloat16, then q + 2^(n-1) - 1 of all values, n
    bits each, the lowest bit first.

    Raises:
      ValueError: the values are not those of `rounded`.
    """
    if bits == WHOLE:
        return value
    if bits == HALF:
        made = value.astype(np.float16)
    else:
        levels = levels_of(bits)
        columns = value.reshape(-1, value.shape[-1])
        steps = np.abs(columns).max(0, initial=0) / np.float32(levels)
        wholes = _wholes(columns, steps, levels).astype(np.int16) + levels
        lines = (wholes.reshape(-1, 1) >> np.arange(bits)) & 1
        halves = steps.astype("<f4").view("<u2")[1::2].copy()  # of float32, the bfloat16 half
        made = np.concatenate([halves.view(np.uint8), np.packbits(lines.astype(bool))])
    if not np.array_equal(unpacked(made, value.shape, bits), value):
        raise ValueError(
            f"found values of shape {value.shape} that are not rounded to {bits} bits; round the "
            "domain again: Member.rounded."
        )
    return made


def unpacked(stored: np.ndarray, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Return a variable as float32 from what `packed` made of it."""
    if bits >= HALF:
        return stored.astype(np.float32)
    columns, size = shape[-1], int(np.prod(shape))
    words = np.zeros(2 * columns, "<u2")
    words[1::2] = stored[: 2 * columns].view("<u2")
    lines = np.unpackbits(stored[2 * columns :], count=size * bits).reshape(size, bits)
    wholes = (lines.astype(np.int16) << np.arange(bits)).sum(1) - levels_of(bits)
    values = wholes.reshape(-1, columns).astype(np.float32) * words.view("<f4")
    return values.reshape(shape).astype(np.float32)


def size_of(shape: tuple[int, ...], bits: int) -> int:
    """Return how many bytes `packed` makes of a variable."""
    size = int(np.prod(shape))
    return size * bits // 8 if bits >= HALF else 2 * shape[-1] + -(-size * bits // 8)
