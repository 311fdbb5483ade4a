"""Which images a step sees, and which windows of them, whatever the number of devices."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from radapt_jax.data.cache import Split
from radapt_jax.data.domain import Domain

CROPS = (1, 5, 10)  # the centre; also the four corners; also all five mirrored


class Views(NamedTuple):
    """What the network sees: windows of images, some mirrored."""

    positions: np.ndarray  # int (b,), which image of the split
    starts: np.ndarray  # int32 (b, 2), top and left of the window in pixels
    flips: np.ndarray  # bool (b,)


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def train_positions(length: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Return the positions of the images that one step trains on, int (batch_size,).

    All epochs, each shuffled anew, form one endless stream of images that is cut into batches:
    every batch is full, and every epoch sees every image once.

    Args:
      length: images in the split.
      batch_size: images in a batch.
      seed: of the shuffling.
      step: which step, from 0.
    """
    stream = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(stream, length)
    parts = [
        _permutation(seed, int(epoch), length)[places[epochs == epoch]]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


def train_views(split: Split, domain: Domain, batch_size: int, seed: int, step: int) -> Views:
    """Return the views of one training step, cropped and mirrored as the domain says."""
    positions = train_positions(len(split), batch_size, seed, step)
    draws = np.random.default_rng([seed, step, 1]).random((batch_size, 3))
    return _drawn(split, domain, positions, draws)


def kept_views(
    split: Split, domain: Domain, positions: np.ndarray, seed: int, number: int
) -> Views:
    """Return view `number` of images, of those that a training sees again and again.

    Number 0 is the centre, as in evaluation; the others are cropped and mirrored as in training.
    """
    if number == 0:
        return eval_views(split, domain, positions)
    draws = np.random.default_rng([seed, number, 2]).random((len(split), 3))
    return _drawn(split, domain, positions, draws[positions])


def views_differ(domain: Domain) -> bool:
    """Tell whether training sees more of an image than its centre."""
    return domain.crop == "random" or domain.flip


def _drawn(split: Split, domain: Domain, positions: np.ndarray, draws: np.ndarray) -> Views:
    """Return windows of images from three numbers in [0, 1) for each: top, left, mirrored."""
    room = split.extents[split.index[positions]] - domain.size
    if domain.crop == "random":
        starts = np.floor(draws[:, :2] * (room + 1)).astype(np.int32)
    else:
        starts = room // 2
    return Views(positions, starts, (draws[:, 2] < 0.5) & domain.flip)


def eval_views(split: Split, domain: Domain, positions: np.ndarray, crops: int = 1) -> Views:
    """Return the views of images in evaluation; those of one image are next to one another.

    Args:
      split: the images.
      domain: says how they are cropped.
      positions: int (n,), which images of the split.
      crops: 1 (the centre), 5 (also the corners) or 10 (also mirrored, if the domain's images are
        mirrored in training).

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
