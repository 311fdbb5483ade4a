"""Variables of a domain rounded to a few bits, so that its file is small.

Matrices are rounded symmetrically, with one step for each output channel (a column): v ≈ q s, s in
bfloat16. With 4 and 8 bits, q is whole and between -(2^(n-1) - 1) and 2^(n-1) - 1. With 2 and 3
bits a level fewer would be felt: there q is one of all 2^n numbers ±1/2, ±3/2, ... The step is the
one of the least squared error among shares of the largest value; some values are then cut off.
Vectors are rounded to float16, or on demand as one column to 8 bits; variances, whose ratios
matter, to floats of 8 bits then. What is rounded is kept as the float32 values that this comes to,
exactly, so that all that is done with a domain is done with one that is rounded; only its file is
smaller. `codes` has what files hold.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from radapt_jax.adapters.base import is_adapters
from radapt_jax.utils.checks import FLAG, Kind, check, check_all

WIDTHS = (2, 3, 4, 8, 16, 32)
HALF, WHOLE = 16, 32  # float16, and as it is
OF_ADAPTERS = (2, 3, 4, 8, WHOLE)  # what a domain can be rounded to
SHARES = np.linspace(0.4, 1, 61)  # of the largest value, at which values are cut off
LOW_SHARES = np.linspace(0.2, 1, 81)  # the same with an even number of levels
MOST_EVEN = 3  # bits with an even number of levels
SHORTEST = 8  # values of a vector that have a step together
MANTISSA, MOST_CODES = 23, 255  # bits of float32; codes of 8 bits beside 0
LARGEST = float(np.finfo(np.float16).max)


def bits_among(widths: tuple[int, ...]) -> Kind:
    """Return the kind of a number of bits that is one of some."""
    words = f"one of {list(widths)} bits"
    return Kind(words, lambda found: type(found) is int and found in widths)


BITS = bits_among(WIDTHS)


class Form(NamedTuple):
    """How a variable is rounded: to so many bits, in columns with a step each or as one column.

    With 8 bits, one that is `positive` becomes floats with an exponent that they share. Levels are
    multiples of the step, or halfway between them where there is an `even` number.
    """

    bits: int
    is_vector: bool = False
    positive: bool = False
    even: bool = False

    @property
    def floats(self) -> bool:
        return self.positive and self.bits < HALF

    @property
    def top(self) -> float:
        """The largest level, in steps; levels are this, one less, and so on to its negative."""
        return 2 ** (self.bits - 1) - (0.5 if self.even else 1)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """How many bits a value has in a domain's file: 2, 3, 4, 8, 16 (float16) or 32 (as it is).

    Args:
      adapters: of matrices of adapters, α, β and γ.
      head: of the head's matrix.
      vectors: of norms, statistics and biases; 8, 16 or 32. With 8, networks whose norms
        differ much by channel, such as EfficientNets, say something else (docs/compression.md).
      even: whether 2 and 3 bits stand for 4 and 8 levels. Files of earlier versions had 3 and 7.

    Raises:
      ValueError: another number of bits, or `even` is not a truth value.
    """

    adapters: int = 4
    head: int = 8
    vectors: int = 16
    even: bool = True

    def __post_init__(self) -> None:
        kinds = {**dict.fromkeys(("adapters", "head", "vectors"), BITS), "even": FLAG}
        check_all(vars(self), kinds, "rounding: ")
        if self.vectors < 8:
            raise ValueError(f"rounding: found vectors {self.vectors}; expected 8, 16 or 32 bits.")

    def form_of(self, path: str, shape: tuple[int, ...]) -> Form:
        """Return the form of one variable, from its path, collection first, and its shape.

        A domain's own copy of the filters stays as it is. Columns so short that steps would take
        more than they save are float16, and so are an adapter's vectors of a few values, such as
        the four numbers of an affine mask, of which each changes all weights.
        """
        if path.startswith("params/"):
            return Form(WHOLE)
        if len(shape) < 2:
            variance = path.startswith("batch_stats/") and path.endswith("/var")
            form, size = Form(self.vectors, True, variance), int(np.prod(shape))
            if is_adapters(path) and not variance and size < SHORTEST:
                return Form(max(form.bits, HALF))
            return _long_enough(form, size)
        wanted = self.adapters if is_adapters(path) else self.head
        form = Form(wanted, even=self.even and wanted <= MOST_EVEN)
        return _long_enough(form, int(np.prod(shape[:-1])))


def _long_enough(form: Form, rows: int) -> Form:
    too_short = form.bits < HALF and rows * form.bits + HALF >= rows * HALF
    return Form(HALF) if too_short else form


def rounded(value: Any, form: Form) -> np.ndarray:
    """Return a variable, (..., columns), rounded to a form, as float32.

    Raises:
      ValueError: a value is NaN, infinite or too large for float16, or a positive one is not.
    """
    value, bits = np.asarray(value, np.float32), form.bits
    if bits == WHOLE:
        return value
    if form.floats:
        return small_floats(value).values
    if not np.isfinite(value).all():
        raise ValueError(
            "found values that are infinite or NaN, which have no rounded form; expected finite "
            "ones. The training of this domain has failed: train it again."
        )
    if bits == HALF:
        if np.abs(value).max(initial=0) > LARGEST:
            raise ValueError(
                f"found a value of {np.abs(value).max():g}; float16 ends at {LARGEST:g}. Keep "
                "these variables as they are: 32 bits."
            )
        return value.astype(np.float16).astype(np.float32)
    columns = value.reshape(-1, columns_of(form, value.shape))
    return np.asarray(nearest(columns, form)).reshape(value.shape)


def columns_of(form: Form, shape: tuple[int, ...]) -> int:
    """Return how many columns of a variable have a step each."""
    return 1 if form.is_vector else shape[-1]


def rounding_of(bits: int) -> Rounding | None:
    """Return what a domain is rounded to whose adapters have so many bits; None: it is not.

    Raises:
      ValueError: another number than 2, 3, 4, 8 or 32.
    """
    check("bits", bits, bits_among(OF_ADAPTERS))
    return None if bits == WHOLE else Rounding(bits)


class SmallFloats(NamedTuple):
    """Floats of 8 bits: the upper bits of float32 from `low` on, of which `drop` are left out.

    Code 0 is 0, and code q is the float32 whose bits are (q - 1 + low) 2^drop.
    """

    codes: np.ndarray
    low: int
    drop: int

    @property
    def values(self) -> np.ndarray:
        words = (self.codes.astype(np.int64) - 1 + self.low) << self.drop
        found = words.astype(np.uint32).view(np.float32)
        return np.where(self.codes == 0, np.float32(0), found)


def small_floats(value: np.ndarray) -> SmallFloats:
    """Return the nearest floats of 8 bits, with as many digits as the range of the values allows.

    Raises:
      ValueError: a value is negative, infinite or NaN.
    """
    if not (np.isfinite(value) & (value >= 0)).all():
        raise ValueError("found variances that are negative, infinite or NaN; expected others.")
    words, there = value.astype("<f4").view("<u4").astype(np.int64), value > 0
    if not there.any():
        return SmallFloats(np.zeros(value.shape, np.uint8), 0, 0)
    for drop in range(MANTISSA + 1):
        codes = (words + (1 << drop >> 1)) >> drop
        low = int(codes[there].min())
        if codes.max() - low < MOST_CODES:
            break
    return SmallFloats(np.where(there, codes - low + 1, 0).astype(np.uint8), low, drop)


@functools.partial(jax.jit, static_argnames="form")
def nearest(columns: Float[Array, "rows d"], form: Form) -> Float[Array, "rows d"]:
    """Return a matrix rounded to fewer than 16 bits, each column with the step that is best for it.

    Of steps that are as good, it is the largest.
    """
    top = form.top
    columns = jnp.asarray(columns, jnp.float32)
    largest = jnp.abs(columns).max(0, initial=0)
    unit = jnp.where(largest > 0, largest, 1)  # whose square may be too small for float32

    def better(best: tuple[Array, Array], share: Array) -> tuple[tuple[Array, Array], None]:
        error, found = best
        # To bfloat16 and back; XLA may leave out casts that undo one another.
        steps = jax.lax.reduce_precision(share * largest / top, 8, 7)
        ratio = columns / jnp.where(steps > 0, steps, 1)
        level = jnp.floor(ratio) + 0.5 if form.even else jnp.rint(ratio)
        near = jnp.clip(level, -top, top) * steps
        lost = jnp.square((columns - near) / unit).sum(0)
        found = jnp.where(lost < error, near, found)
        return (jnp.minimum(error, lost), found), None

    start = (jnp.full(columns.shape[1:], jnp.inf, jnp.float32), jnp.zeros_like(columns))
    shares = LOW_SHARES if form.even else SHARES
    (_, found), _ = jax.lax.scan(better, start, jnp.asarray(shares[::-1], jnp.float32))
    return jnp.where(found == 0, 0, found)  # no -0, which files have not
