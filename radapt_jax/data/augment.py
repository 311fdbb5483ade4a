"""Crop, flip and normalise on the device, inside the compiled step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from radapt_jax.domains import Domain


def normalise(images: UInt8[Array, "b h w 3"], mean: Any, std: Any) -> Float[Array, "b h w 3"]:
    """Map uint8 [0, 255] to float32 with the domain's mean and std, which are for [0, 1]."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def eval_images(
    images: UInt8[Array, "b H W 3"], extents: Int[Array, "b 2"], domain: Domain
) -> Float[Array, "b s s 3"]:
    """Return the normalised centre crop of each image, `domain.size` pixels square."""
    crops = _crop(images, (extents - domain.size) // 2, domain.size)
    return normalise(crops, jnp.array(domain.mean), jnp.array(domain.std))


def train_images(
    key: Array,
    images: UInt8[Array, "b H W 3"],
    extents: Int[Array, "b 2"],
    positions: Int[Array, " b"],
    domain: Domain,
) -> Float[Array, "b s s 3"]:
    """Return randomly cropped and flipped images, normalised.

    Image i draws from `key` and `positions[i]`, its place in the global batch: what it becomes
    depends neither on the other images nor on how many devices share the batch.
    """
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
    room = extents - domain.size
    if domain.crop == "random":
        starts = jnp.minimum(jnp.floor(draws[:, :2] * (room + 1)).astype(jnp.int32), room)
    else:
        starts = room // 2
    crops = _crop(images, starts, domain.size)
    if domain.flip:
        mirrored = draws[:, 2] < 0.5
        crops = jnp.where(mirrored[:, None, None, None], crops[:, :, ::-1], crops)
    return normalise(crops, jnp.array(domain.mean), jnp.array(domain.std))


def _crop(images: Array, starts: Array, size: int) -> Array:
    if images.shape[1:3] == (size, size):
        return images

    def cut(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*start, jnp.zeros_like(start[0])), (size, size, 3))

    return jax.vmap(cut)(images, starts)
