"""Cut, mirror and normalise on the device, inside the compiled step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8, UInt32


def normalise(images: UInt8[Array, "b h w 3"], mean: Any, std: Any) -> Float[Array, "b h w 3"]:
    """Map uint8 [0, 255] to float32 with the domain's mean and std, which are for [0, 1]."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def network_input(
    batch: Mapping[str, Array],
    mean: Any,
    std: Any,
    resident: UInt32[Array, " n"] | None = None,
    size: int = 0,
) -> Float[Array, "b s s 3"]:
    """Return a batch as the network sees it.

    Args:
      batch: "flip" and either "image", cut on the host, or "begin" and "stride", to be cut here
        (see `batches.HostPixels` and `resident.DevicePixels`).
      mean, std: of the domain, (3,), for values in [0, 1].
      resident: the pixels of all images, where they are kept on the device.
      size: side of the windows that are cut from them.
    """
    if resident is None:
        images = batch["image"]
    else:
        images = cut(resident, batch["begin"], batch["stride"], size)
    flips = batch["flip"][:, None, None, None]
    images = jnp.where(flips, images[:, :, ::-1], images)
    return normalise(images, jnp.asarray(mean), jnp.asarray(std))


def cut(
    resident: UInt32[Array, " n"], begins: Int[Array, " b"], strides: Int[Array, " b"], size: int
) -> UInt8[Array, "b s s 3"]:
    """Cut windows from pixels that lie one after another, a word each: red, green, blue, 0.

    Args:
      begins: the pixel at the top left of each window.
      strides: width in pixels of the image that it is in.
    """
    rows, columns = jnp.arange(size)[:, None], jnp.arange(size)
    places = begins[:, None, None] + rows * strides[:, None, None] + columns
    words = resident[places]
    channels = [(words >> shift).astype(jnp.uint8) for shift in (0, 8, 16)]
    return jnp.stack(channels, axis=-1)
