"""Which images a step sees, and which windows of them: the same for every number of devices."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from radapt_jax.data.cache import Split
from radapt_jax.data.domain import Domain

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
