"""What a file holds of a variable that is rounded, byte by byte, and back."""

from __future__ import annotations

import functools

import numpy as np

from radapt_jax.family.rounding import (
    HALF,
    WHOLE,
    Form,
    SmallFloats,
    columns_of,
    small_floats,
)

FIVE = 5  # bytes before small floats: `low`, and `drop`


def packed(value: np.ndarray, form: Form) -> np.ndarray:
    """Return a variable that `rounding.rounded` gave as a file has it; `unpacked` undoes it.

    That is float32, float16, or bytes: the steps in bfloat16, then the level of each value, counted
    from the lowest, n bits each, the lowest bit first. Of small floats it is `low` (32 bits),
    `drop`, and the codes.

    Raises:
      ValueError: the values are not those of `rounded`.
    """
    if form.bits == WHOLE:
        return value
    if form.bits == HALF:
        made = value.astype(np.float16)
    elif form.floats:
        found = small_floats(value)
        head = np.array([found.low], "<u4").view(np.uint8)
        made = np.concatenate([head, np.array([found.drop], np.uint8), found.codes.reshape(-1)])
    else:
        made = _in_columns(value.reshape(-1, columns_of(form, value.shape)), form)
    if not np.array_equal(unpacked(made, value.shape, form), value):
        raise ValueError(
            f"found values of shape {value.shape} that are not rounded to {form.bits} bits; round "
            "the domain again: Member.rounded."
        )
    return made


def _in_columns(columns: np.ndarray, form: Form) -> np.ndarray:
    top = np.float32(form.top)
    steps = np.abs(columns).max(0, initial=0) / top
    ratio = columns / np.where(steps > 0, steps, 1)
    levels = np.rint(np.clip(ratio, -top, top) + top).astype(np.int16)
    lines = (levels.reshape(-1, 1) >> np.arange(form.bits)) & 1
    halves = steps.astype("<f4").view("<u2")[1::2].copy()  # of float32, the bfloat16 half
    return np.concatenate([halves.view(np.uint8), np.packbits(lines.astype(bool))])


def unpacked(stored: np.ndarray, shape: tuple[int, ...], form: Form) -> np.ndarray:
    """Return a variable as float32 from what `packed` made of it."""
    bits = form.bits
    if bits >= HALF:
        return stored.astype(np.float32)
    if form.floats:
        low = int(stored[:4].copy().view("<u4")[0])
        return SmallFloats(stored[FIVE:], low, int(stored[4])).values.reshape(shape)
    columns, size = columns_of(form, shape), int(np.prod(shape))
    words = np.zeros(2 * columns, "<u2")
    words[1::2] = stored[: 2 * columns].copy().view("<u2")
    levels = _wholes(stored[2 * columns :], size, bits) - np.float32(form.top)
    return (levels.reshape(-1, columns) * words.view("<f4")).reshape(shape)


def _wholes(stored: np.ndarray, size: int, bits: int) -> np.ndarray:
    """Return whole numbers of so many bits each, float32 (size,)."""
    if 8 % bits == 0:
        return _in_a_byte(bits)[stored].reshape(-1)[:size]
    return _bit_by_bit(stored, size, bits)


def _bit_by_bit(stored: np.ndarray, size: int, bits: int) -> np.ndarray:
    lines = np.unpackbits(stored, count=size * bits).reshape(size, bits)
    return (lines @ (1 << np.arange(bits)).astype(np.uint8)).astype(np.float32)


@functools.cache
def _in_a_byte(bits: int) -> np.ndarray:
    """Return the whole numbers in each of the 256 bytes, (256, 8 / bits)."""
    every = np.arange(256, dtype=np.uint8)
    return _bit_by_bit(every, 256 * 8 // bits, bits).reshape(256, -1)


def size_of(shape: tuple[int, ...], form: Form) -> int:
    """Return how many bytes `packed` makes of a variable."""
    size = int(np.prod(shape))
    if form.bits >= HALF:
        return size * form.bits // 8
    if form.floats:
        return FIVE + size
    return 2 * columns_of(form, shape) + -(-size * form.bits // 8)
