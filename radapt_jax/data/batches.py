"""Which images a step sees, and the batches of an evaluation."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from radapt_jax.data.cache import Split


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def train_positions(length: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Return the positions (batch_size,) of the images that step `step` trains on.

    The images of epoch after epoch, each in an order of its own, form one endless stream, cut
    into batches: every batch is full, and every epoch sees every image once. A function of its
    arguments alone, so that a resumed run sees what it would have seen.
    """
    stream = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(stream, length)
    parts = [
        _permutation(seed, int(epoch), length)[places[epochs == epoch]]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


def train_batch(
    split: Split, batch_size: int, seed: int, step: int, devices: int
) -> dict[str, np.ndarray]:
    """Return the batch of one step, every array (devices, batch_size / devices, ...)."""
    chosen = train_positions(len(split), batch_size, seed, step)
    images, extents = split.gather(chosen)
    batch = {
        "image": images,
        "extent": extents,
        "label": split.targets[chosen],
        "position": np.arange(batch_size, dtype=np.int32),
    }
    return shard(batch, devices)


def eval_batches(split: Split, batch_size: int, devices: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield every image once; the last batch is padded, and "mask" is 0.0 where it is."""
    for start in range(0, len(split), batch_size):
        real = np.arange(start, min(start + batch_size, len(split)))
        chosen = np.pad(real, (0, batch_size - len(real)), mode="edge")
        images, extents = split.gather(chosen)
        mask = (np.arange(batch_size) < len(real)).astype(np.float32)
        batch = {
            "image": images,
            "extent": extents,
            "label": split.targets[chosen],
            "mask": mask,
        }
        yield shard(batch, devices)


def shard(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Split the leading axis over devices: (b, ...) to (devices, b / devices, ...)."""
    return {
        name: array.reshape(devices, array.shape[0] // devices, *array.shape[1:])
        for name, array in batch.items()
    }
