"""Images changed at random in shape and colour, on the device (as in RandAugment).

Cubuk, Zoph, Shlens and Le, "RandAugment: practical automated data augmentation with a reduced
search space", 2020, table 6 and section 3: a few operations, each drawn with equal chances, at one
strength for all. Here the strength is the highest one, every amount is drawn below it, and
histogram equalisation is left out. The operations of shape are computed as one, so that an image is
sampled once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, UInt8

AT_ONCE = 2  # operations on an image
APART = 1 << 29  # keeps what is drawn here apart from dropout and mixup
Image = Float[Array, "h w 3"]  # values in [0, 1]
GREY = np.array((0.299, 0.587, 0.114))  # luma of ITU-R BT.601, as in Pillow


def _turn(amount: Array) -> Array:
    """Up to 30 degrees."""
    angle = jnp.pi / 6 * amount
    cos, sin, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    return jnp.array(((cos, -sin, zero), (sin, cos, zero), (zero, zero, zero + 1)))


def _entry(row: int, column: int, most: float) -> Callable[[Array], Array]:
    """Return what changes one entry of the identity, by `most` at the highest amount."""
    return lambda amount: jnp.eye(3).at[row, column].add(most * amount)


# From an amount in [-1, 1] to where a pixel comes from: a 3x3 matrix on (y, x, 1), with y and x
# counted from the centre, in halves of the image.
SHAPES = (
    _turn,
    _entry(0, 1, 0.3),  # shear
    _entry(1, 0, 0.3),
    _entry(0, 2, 0.6),  # shift, by up to 0.3 of the image
    _entry(1, 2, 0.6),
)


def _away_from(other: Callable[[Image], Array]) -> Callable[[Image, Array], Image]:
    """Return what moves an image towards another, or away from it: by 0.1 to 1.9 times its own."""

    def changed(image: Image, amount: Array) -> Image:
        there = other(image)
        return jnp.clip(there + (1 + 0.9 * amount) * (image - there), 0, 1)

    return changed


def _grey(image: Image) -> Array:
    return (image * GREY).sum(-1, keepdims=True)


def _smooth(image: Image) -> Array:
    """Each pixel with its neighbours, of which it weighs five times as much."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = (padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return (sum(windows) + 4 * image) / 13


def _inverted_above(image: Image, amount: Array) -> Image:
    """Invert what is brighter than 1 - |amount| (solarise)."""
    return jnp.where(image > 1 - jnp.abs(amount), 1 - image, image)


def _of_few_levels(image: Image, amount: Array) -> Image:
    """Keep 8 to 4 bits of a value (posterise)."""
    levels = 2 ** (8 - jnp.round(4 * jnp.abs(amount)))
    return jnp.floor(jnp.minimum(image * levels, levels - 1)) / (levels - 1)


def _stretched(image: Image, amount: Array) -> Image:
    """Stretch each channel to the whole range, whatever the amount."""
    low, high = image.min((0, 1)), image.max((0, 1))
    return jnp.where(high > low, (image - low) / jnp.maximum(high - low, 1e-6), image)


# From an image and an amount in [-1, 1] to an image.
COLOURS = (
    _away_from(jnp.zeros_like),  # brightness
    _away_from(lambda image: _grey(image).mean()),  # contrast
    _away_from(_grey),  # colour
    _away_from(_smooth),  # sharpness
    _inverted_above,
    _of_few_levels,
    _stretched,
)
OPERATIONS = 1 + len(SHAPES) + len(COLOURS)  # the first one does nothing


def distorted(
    images: UInt8[Array, "b h w 3"], strength: float, key: Array, rows: Int[Array, " b"]
) -> Float[Array, "b h w 3"]:
    """Return images, each changed by two operations drawn for it, float32 with values in [0, 255].

    Args:
      images: of one device.
      strength: the highest amount of an operation, in (0, 1]; 1 turns by up to 30 degrees.
      key: of the step.
      rows: which rows of the whole batch these images are, so that what happens to an image does
        not depend on the number of devices.
    """
    key = jax.random.fold_in(key, APART)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
    return 255 * jax.vmap(functools.partial(_distorted, strength))(images / jnp.float32(255), keys)


def _distorted(strength: float, image: Image, key: Array) -> Image:
    which, how_much = jax.random.split(key)
    chosen = jax.random.randint(which, (AT_ONCE,), 0, OPERATIONS)
    amounts = strength * jax.random.uniform(how_much, (AT_ONCE,), minval=-1)
    image = _moved(image, chosen, amounts)
    same = [lambda image, amount: image] * (1 + len(SHAPES))
    for operation, amount in zip(chosen, amounts, strict=True):
        image = jax.lax.switch(operation, [*same, *COLOURS], image, amount)
    return image


def _moved(image: Image, chosen: Array, amounts: Array) -> Image:
    """Return the image after its operations of shape; edges are repeated beyond themselves."""
    whence = jnp.eye(3)
    for operation, amount in zip(chosen, amounts, strict=True):
        matrices = jnp.stack([jnp.eye(3), *(matrix(amount) for matrix in SHAPES)])
        matrix = matrices[jnp.where(operation <= len(SHAPES), operation, 0)]
        whence = jnp.matmul(whence, matrix, precision=jax.lax.Precision.HIGHEST)
    height, width, _ = image.shape
    centre = jnp.array((height - 1, width - 1)) / 2
    half = jnp.array((height, width)) / 2
    grid = jnp.stack(jnp.mgrid[:height, :width], axis=-1)
    places = jnp.append((grid - centre) / half, jnp.ones((height, width, 1)), axis=-1)
    found = (places[..., None, :] * whence).sum(-1)[..., :2] * half + centre  # without rounding
    sample = functools.partial(map_coordinates, order=1, mode="nearest")
    return jax.vmap(sample, in_axes=(2, None), out_axes=2)(image, list(jnp.moveaxis(found, -1, 0)))
