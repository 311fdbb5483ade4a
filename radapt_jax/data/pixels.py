"""Where a split's decoded images are kept: in the memory of the devices, or on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from radapt_jax.data.cache import Split
from radapt_jax.data.views import Views

SHARE = 0.5  # share of a device's memory that images may take
MOST = 2**31 - 1  # pixels; an int32 counts them


class Pixels(Protocol):
    """A split's images, of which windows are cut: `HostPixels` or `DevicePixels`.

    `resident` are the pixels on the devices, which the compiled steps take; None: there are none.
    """

    split: Split
    resident: Any

    def cut(self, views: Views) -> dict[str, np.ndarray]:
        """Return the part of a batch that says where images come from, by name."""
        ...


class DevicePixels:
    """Pixels that stay on the devices, so that a batch is only a few numbers for each image.

    A pixel takes 4 bytes. Batches and results are those of `HostPixels`, bit for bit.

    Args:
      split: the images.
      put: copies an array to all devices, as `distributed.replicate` does.
      devices: these devices.

    Raises:
      ValueError: the images do not fit.
    """

    def __init__(
        self, split: Split, put: Callable[[Any], Any], devices: Sequence[jax.Device]
    ) -> None:
        extents = split.extents[split.index].astype(np.int64)
        sizes = extents.prod(1)
        pixels = int(sizes.sum())
        room = min([_room(device) // 4 for device in devices] + [MOST])
        if pixels > room:
            raise ValueError(
                f"{len(split):,} images of {pixels:,} pixels in all do not fit on the device: "
                f"found room for {room:,} pixels of 4 bytes (in half of its memory, and 2^31 at "
                "most). Leave them on the host: --config.data.on_device=False."
            )
        begins = np.cumsum(sizes) - sizes
        words = np.zeros((pixels, 4), np.uint8)
        for position, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
            words[begin : begin + size, :3] = split.image(position).reshape(-1, 3)
        self.split = split
        self.resident = put(words.view("<u4").reshape(-1))
        self._begins, self._widths = begins.astype(np.int32), extents[:, 1].astype(np.int32)

    def cut(self, views: Views) -> dict[str, np.ndarray]:
        """Return "begin" and "stride", int32 (b,), and "flip", bool (b,); see `augment.cut`."""
        widths = self._widths[views.positions]
        begins = self._begins[views.positions] + views.starts[:, 0] * widths + views.starts[:, 1]
        return {"begin": begins, "stride": widths, "flip": views.flips}


def _room(device: jax.Device) -> int:
    """Return how many more bytes of images a device can hold; `4 * MOST` if it does not say."""
    memory = device.memory_stats() or {}
    if "bytes_limit" not in memory:
        return 4 * MOST
    return max(int(SHARE * memory["bytes_limit"]) - memory.get("bytes_in_use", 0), 0)


class HostPixels:
    """Pixels that stay in the cache; windows are cut on the host and travel with the batch.

    Args:
      split: the images.
      size: side of the windows in pixels.
    """

    resident: Any = None

    def __init__(self, split: Split, size: int) -> None:
        self.split, self._size = split, size

    def cut(self, views: Views) -> dict[str, np.ndarray]:
        """Return "image", uint8 (b, size, size, 3), not mirrored yet, and "flip", bool (b,)."""
        images = self.split.crops(views.positions, views.starts, self._size)
        return {"image": images, "flip": views.flips}
