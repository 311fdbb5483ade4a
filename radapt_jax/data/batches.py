"""Which images a step sees, where each is cropped and whether it is mirrored, and their batches.

All of it is drawn on the host, from the seed and the step alone: a batch is the same wherever the
pixels are kept and however many devices share it, and a resumed run sees what it would have seen.
Of several processes each draws all of it, and cuts the windows of its own devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from radapt_jax.data.domain import Domain
from radapt_jax.data.pixels import Pixels
from radapt_jax.data.views import Views, eval_views, train_views

Batch = Mapping[str, Any]  # arrays by name, each with a leading axis of devices


def train_batch(
    pixels: Pixels,
    domain: Domain,
    batch_size: int,
    seed: int,
    step: int,
    devices: int,
    parts: int = 1,
    host: tuple[int, int] = (0, 1),
) -> dict[str, np.ndarray]:
    """Return the batch of one step, every array (devices, batch_size / devices, ...).

    Of several processes each gets what its own devices need.

    Args:
      pixels: of the training images.
      parts: as of `step.update`; all devices together have the same images in a part, however
        many they are.
      host: see `rows`.
    """
    mine = rows(batch_size, devices, parts, host)
    drawn = train_views(pixels.split, domain, batch_size, seed, step)
    views = Views(*(array[mine.reshape(-1)] for array in drawn))
    batch = {**pixels.cut(views), "label": pixels.split.targets[views.positions]}
    return _by_device(batch, len(mine))


def eval_batches(
    pixels: Pixels,
    domain: Domain,
    batch_size: int,
    devices: int,
    crops: int = 1,
    host: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield every image once, in order: how many there are in a batch, and the batch.

    The last batch is padded; its first rows are the real ones. Each image has its views one after
    another in "image" and "flip". Of several processes each gets its own rows; see `rows`.
    """
    length, mine = len(pixels.split), rows(batch_size, devices, host=host)
    for start in range(0, length, batch_size):
        real = np.arange(start, min(start + batch_size, length))
        chosen = np.pad(real, (0, batch_size - len(real)), mode="edge")[mine.reshape(-1)]
        views = eval_views(pixels.split, domain, chosen, crops)
        batch = {**pixels.cut(views), "label": pixels.split.targets[chosen]}
        yield len(real), _by_device(batch, len(mine))


def rows(
    batch_size: int, devices: int, parts: int = 1, host: tuple[int, int] = (0, 1)
) -> np.ndarray:
    """Return which rows of a batch go to each device, (devices, batch_size / devices).

    Args:
      host: which process asks, and how many there are; each gets the rows of its own devices, which
        are next to one another.
    """
    dealt = np.arange(batch_size).reshape(parts, devices, -1).swapaxes(0, 1)
    index, count = host
    return np.split(dealt.reshape(devices, -1), count)[index]


def _by_device(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Split the leading axis over devices: (b, ...) to (devices, b / devices, ...)."""
    return {name: array.reshape(devices, -1, *array.shape[1:]) for name, array in batch.items()}
