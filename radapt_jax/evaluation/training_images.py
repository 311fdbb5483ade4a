"""Training images of a domain in batches, as its network takes them, without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Array, Float, Int

from radapt_jax.data import augment, batches
from radapt_jax.data.cache import Split, decode_split
from radapt_jax.data.domain import Domain
from radapt_jax.data.pixels import HostPixels
from radapt_jax.data.sources.arrays import open_arrays
from radapt_jax.utils.checks import check, whole

IMAGES, BATCH = 1024, 128


def split_of(domain: Domain, images: Any, labels: Sequence[Any] | None = None) -> Split:
    """Return images in memory as a split of a domain.

    Args:
      domain: says how they are resized, and which classes there are.
      images: as `radapt_jax.fit` takes them.
      labels: likewise; None: not known, and all are of the first class.

    Raises:
      ValueError: images that cannot be read, or labels that are no classes of the domain.
    """
    listed = list(images)
    known = np.zeros(len(listed), int) if labels is None else labels
    source = open_arrays(domain.name, {"train": (listed, known)}, domain.classes)
    return decode_split(source, "train", domain.resizing)


def training_batches(
    domain: Domain, split: Split, count: int, batch_size: int
) -> Iterator[tuple[Float[Array, "b s s 3"], Int[Array, " b"]]]:
    """Yield normalised images with their labels, cropped and mirrored at random as in training.

    Args:
      domain: says how.
      split: the images.
      count: how many in all, rounded down to whole batches; each is seen again where there are
        fewer.
      batch_size: images in a batch.

    Raises:
      ValueError: no images, or less than one batch.
    """
    check("batch_size", batch_size, whole(1))
    check("count", count, whole(batch_size))
    pixels = HostPixels(split, domain.size)
    for index in range(count // batch_size):
        batch = batches.train_batch(pixels, domain, batch_size, 0, index, devices=1)
        seen = {key: it[0] for key, it in batch.items()}
        yield augment.network_input(seen, domain.mean, domain.std), seen["label"]


class InBatches(TypedDict):
    """What `training_batches` takes beside the images."""

    count: int
    batch_size: int


def in_batches(count: int) -> InBatches:
    """Return how about so many images are looked at: in usual batches, or in one that is smaller.

    Args:
      count: at least 1.
    """
    batch = min(BATCH, count)
    return {"count": count // batch * batch, "batch_size": batch}
