"""Cut, mirror and normalise on the device, inside the compiled step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt8, UInt32

from radapt_jax.data.distort import distorted
from radapt_jax.data.domain import Domain


def normalise(images: Shaped[Array, "b h w 3"], mean: Any, std: Any) -> Float[Array, "b h w 3"]:
    """Return images of values in [0, 255] as float32, normalised with mean and std for [0, 1]."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def renormalised(
    images: Float[Array, "b h w 3"], domain: Domain, other: Domain
) -> Float[Array, "b h w 3"]:
    """Return images that are normalised for a domain as they are normalised for another one."""
    if (domain.mean, domain.std) == (other.mean, other.std):
        return images
    mean, std, found, scale = map(jnp.asarray, (domain.mean, domain.std, other.mean, other.std))
    return (images * std + (mean - found)) / scale


def network_input(
    batch: Mapping[str, Array],
    mean: Any,
    std: Any,
    resident: UInt32[Array, " n"] | None = None,
    size: int = 0,
    distortion: float = 0.0,
    key: Any = None,
) -> Float[Array, "b s s 3"]:
    """Return a batch as the network sees it, float32 (b, size, size, 3).

    Args:
      batch: "flip", and either "image", cut on the host, or "begin" and "stride", to be cut here
        (see `pixels.HostPixels` and `pixels.DevicePixels`).
      mean, std: of the domain, (3,), for values in [0, 1].
      resident: the pixels of all images, if they are kept on the device.
      size: side of the windows cut from them, in pixels.
      distortion: strength of changes of shape and colour, in [0, 1]; see `distort.distorted`.
      key: of the step, and "row" in the batch, where images are distorted.
    """
    if resident is None:
        images = batch["image"]
    else:
        images = cut(resident, batch["begin"], batch["stride"], size)
    flips = batch["flip"][:, None, None, None]
    images = jnp.where(flips, images[:, :, ::-1], images)
    if distortion:
        images = distorted(images, distortion, key, batch["row"])
    return normalise(images, jnp.asarray(mean), jnp.asarray(std))


def cut(
    resident: UInt32[Array, " n"], begins: Int[Array, " b"], strides: Int[Array, " b"], size: int
) -> UInt8[Array, "b s s 3"]:
    """Return windows cut from the pixels of all images, uint8 (b, size, size, 3).

    Args:
      resident: one pixel after another, a word each: red, green, blue, 0.
      begins: index of the pixel at the top left of each window.
      strides: width of the image that the window is in, in pixels.
      size: side of the windows, in pixels.
    """
    rows, columns = jnp.arange(size)[:, None], jnp.arange(size)
    places = begins[:, None, None] + rows * strides[:, None, None] + columns
    words = resident[places]
    channels = [(words >> shift).astype(jnp.uint8) for shift in (0, 8, 16)]
    return jnp.stack(channels, axis=-1)
