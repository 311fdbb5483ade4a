"""Batches: which images a step sees, where each is cropped and whether it is mirrored.

All of this is drawn on the host, from the seed and the step alone: a batch is the same wherever the
pixels are kept and however many devices share it, and a resumed run sees the same batches as one
that was never stopped. With several processes, each draws the whole batch and cuts only the windows
of its own devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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

    With several processes, each gets the rows of its own devices.

    Args:
      pixels: of the training images.
      domain: says how images are cropped and mirrored.
      batch_size: images over all devices.
      seed, step: decide which images and windows they are.
      devices: how many there are, over all processes.
      parts: in how many parts the step computes the batch; a part holds the same images for any
        number of devices.
      host: see `rows`.
    """
    mine = rows(batch_size, devices, parts, host)
    drawn = train_views(pixels.split, domain, batch_size, seed, step)
    views = Views(*(array[mine.reshape(-1)] for array in drawn))
    batch = {**pixels.cut(views), "label": pixels.split.targets[views.positions]}
    batch["row"] = mine.reshape(-1)
    return _by_device(batch, len(mine))


def eval_batches(
    pixels: Pixels,
    domain: Domain,
    batch_size: int,
    devices: int,
    crops: int = 1,
    host: tuple[int, int] = (0, 1),
    see: Callable[[np.ndarray], Views] | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield batches of every image once, in order, each with its count of real images.

    The last batch is padded at its end. The views of an image are next to one another in "image"
    and "flip". With several processes, each gets its own rows; see `rows`.

    Args:
      pixels: `pixels.HostPixels` or `pixels.DevicePixels`.
      domain: says how images are cropped.
      batch_size: images over all devices.
      devices: how many there are, over all processes.
      crops: views of each image; see `views.eval_views`.
      host: see `rows`.
      see: gives other views of the images at some positions.

    Raises:
      ValueError: another number of crops than 1, 5 or 10.
    """
    length, mine = len(pixels.split), rows(batch_size, devices, host=host)
    for start in range(0, length, batch_size):
        real = np.arange(start, min(start + batch_size, length))
        chosen = np.pad(real, (0, batch_size - len(real)), mode="edge")[mine.reshape(-1)]
        views = see(chosen) if see else eval_views(pixels.split, domain, chosen, crops)
        batch = {**pixels.cut(views), "label": pixels.split.targets[chosen]}
        yield len(real), _by_device(batch, len(mine))


def rows(
    batch_size: int, devices: int, parts: int = 1, host: tuple[int, int] = (0, 1)
) -> np.ndarray:
    """Return which rows of a batch go to each device of a process.

    Shape: (devices of the process, batch_size / devices).

    Args:
      batch_size: images over all devices.
      devices: how many there are, over all processes; those of one process are next to one another.
      parts: in how many parts the batch is computed.
      host: which process this is, and how many there are.
    """
    dealt = np.arange(batch_size).reshape(parts, devices, -1).swapaxes(0, 1)
    index, count = host
    return np.split(dealt.reshape(devices, -1), count)[index]


def _by_device(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Split the leading axis over devices: (b, ...) to (devices, b / devices, ...)."""
    return {name: array.reshape(devices, -1, *array.shape[1:]) for name, array in batch.items()}
