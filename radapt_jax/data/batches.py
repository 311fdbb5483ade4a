"""Which images a step sees, where each is cropped and whether it is mirrored, and their batches.

All of it is drawn on the host, from the seed and the step alone: a batch is the same wherever the
pixels are kept and however many devices share it, and a resumed run sees what it would have seen.
Of several processes each draws all of it, and cuts the windows of its own devices.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from radapt_jax.data.cache import Split
from radapt_jax.domains import Domain

CROPS = (1, 5, 10)  # the centre; with the four corners; and all of them mirrored


class Views(NamedTuple):
    """What the network is to see: windows of images, some mirrored."""

    positions: np.ndarray  # (b,), which image of the split
    starts: np.ndarray  # int32 (b, 2), top and left of the window
    flips: np.ndarray  # bool (b,)


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def train_positions(length: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Return the positions (batch_size,) of the images that step `step` trains on.

    The images of epoch after epoch, each in an order of its own, form one endless stream, cut
    into batches: every batch is full, and every epoch sees every image once.
    """
    stream = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(stream, length)
    parts = [
        _permutation(seed, int(epoch), length)[places[epochs == epoch]]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


def train_views(split: Split, domain: Domain, batch_size: int, seed: int, step: int) -> Views:
    """Return the views of one training step, cropped and mirrored as the domain wants it."""
    positions = train_positions(len(split), batch_size, seed, step)
    room = split.extents[split.index[positions]] - domain.size
    draws = np.random.default_rng([seed, step, 1]).random((batch_size, 3))
    if domain.crop == "random":
        starts = np.floor(draws[:, :2] * (room + 1)).astype(np.int32)
    else:
        starts = room // 2
    return Views(positions, starts, (draws[:, 2] < 0.5) & domain.flip)


def eval_views(split: Split, domain: Domain, positions: np.ndarray, crops: int = 1) -> Views:
    """Return the views by which images are judged, those of one image after another.

    Args:
      crops: 1 (the centre), 5 (and the corners) or 10 (and mirrored, if the domain is).

    Raises:
      ValueError: another number of crops.
    """
    if crops not in CROPS:
        raise ValueError(f"found {crops} crops; expected one of {CROPS}.")
    room = split.extents[split.index[positions]] - domain.size
    places = [room // 2]
    if crops > 1:
        places += [room * np.array(corner) for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    mirrored = crops == 10 and domain.flip
    flips = np.repeat([False, True] if mirrored else [False], len(places))
    starts = np.stack(places * (2 if mirrored else 1), axis=1)
    return Views(
        np.repeat(positions, len(flips)),
        starts.reshape(-1, 2).astype(np.int32),
        np.tile(flips, len(positions)),
    )


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


def train_batch(
    pixels: Any,
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
      pixels: `HostPixels` or `resident.DevicePixels`.
      parts: as of `update.update`; all devices together have the same images in a part, however
        many they are.
      host: see `rows`.
    """
    mine = rows(batch_size, devices, parts, host)
    drawn = train_views(pixels.split, domain, batch_size, seed, step)
    views = Views(*(array[mine.reshape(-1)] for array in drawn))
    batch = {**pixels.cut(views), "label": pixels.split.targets[views.positions]}
    return _by_device(batch, len(mine))


def eval_batches(
    pixels: Any,
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
