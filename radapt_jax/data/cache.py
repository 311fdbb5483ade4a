"""Decoded images, kept as uint8 in memory-mapped files: decode once, read fast ever after."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tqdm

from radapt_jax.data.images import decode
from radapt_jax.data.sources import Example, Source

FORMAT = 1
CHUNK = 512  # images that are decoded ahead


class Unlabelled(ValueError):
    """A split whose labels are -1, as those of a challenge's test images."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Some of a split's decoded images, whole (not cropped), of one shape or of many.

    Args:
      pixels: uint8, all images of the cache one after another.
      offsets: where image i starts in `pixels`.
      extents: int32 (n, 2), height and width of image i.
      labels: int32 (n,).
      sums: float64 (n, 2, 3), sum of pixels and of their squares, by image and channel.
      index: which of the n images belong to this split, in order.
    """

    pixels: np.ndarray
    offsets: np.ndarray
    extents: np.ndarray
    labels: np.ndarray
    sums: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def subset(self, positions: np.ndarray) -> Split:
        return dataclasses.replace(self, index=self.index[positions])

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """Labels of this split's images, int32 (len,)."""
        return self.labels[self.index]

    @functools.cached_property
    def canvas(self) -> tuple[int, int]:
        """The height and width that hold every image of the cache."""
        height, width = self.extents.max(0)
        return int(height), int(width)

    @functools.cached_property
    def _uniform(self) -> bool:
        return bool((self.extents == self.canvas).all())

    def gather(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images, uint8 (b, H, W, 3) with H, W = `canvas`, and extents, int32 (b, 2).

        An image smaller than the canvas lies at its top left; the rest is zero.
        """
        chosen = self.index[positions]
        extents = self.extents[chosen]
        height, width = self.canvas
        if self._uniform:
            return self.pixels.reshape(-1, height, width, 3)[chosen], extents
        images = np.zeros((len(chosen), height, width, 3), np.uint8)
        for row, (start, (h, w)) in enumerate(zip(self.offsets[chosen], extents, strict=True)):
            images[row, :h, :w] = self.pixels[start : start + h * w * 3].reshape(h, w, 3)
        return images, extents

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation by channel over all pixels, in [0, 1]."""
        pixels = self.extents[self.index].astype(np.float64).prod(1).sum()
        mean, square = self.sums[self.index].sum(0) / pixels
        std = np.sqrt(np.maximum(square - mean**2, 1.0))  # at least one grey level
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def load_split(source: Source, split: str, resize: int, squash: bool, cache_dir: Path) -> Split:
    """Return a split of a source, decoded and resized; from the cache where it is there.

    Raises:
      ValueError: an image cannot be read (its name is in the message), or the split is empty.
    """
    key = f"{FORMAT} {source.key} {split} {resize} {squash}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = cache_dir / f"{source.name}-{split}-{resize}-{digest}"
    if not (folder / "done.json").is_file():
        _build(source, split, resize, squash, folder)
    arrays = np.load(folder / "index.npz")
    labels, extents = arrays["labels"], arrays["extents"]
    size = int(arrays["offsets"][-1] + 3 * extents[-1].prod())
    pixels = np.memmap(folder / "pixels.u8", np.uint8, mode="r", shape=(size,))
    index = np.arange(len(labels))
    return Split(pixels, arrays["offsets"], extents, labels, arrays["sums"], index)


def _build(source: Source, split: str, resize: int, squash: bool, folder: Path) -> None:
    """Decode into a folder beside the final one and rename it: a killed build leaves no cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        labels, extents, sums = [], [], []
        with open(building / "pixels.u8", "wb") as file:
            examples = tqdm.tqdm(
                _decoded(source.splits[split](), resize, squash),
                desc=f"decoding {source.name} {split}",
                unit=" images",
                leave=False,
                mininterval=1.0,
            )
            for example, image in examples:
                _check_label(example, source)
                file.write(np.ascontiguousarray(image).tobytes())
                wide = image.reshape(-1, 3).astype(np.float64)
                labels.append(example.label)
                extents.append(image.shape[:2])
                sums.append((wide.sum(0), np.square(wide).sum(0)))
        if not labels:
            raise ValueError(f"domain {source.name!r}: split {split!r} holds no image.")
        sizes = np.array(extents, np.int64).prod(1) * 3
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        np.savez(
            building / "index.npz",
            labels=np.array(labels, np.int32),
            extents=np.array(extents, np.int32),
            offsets=offsets[:-1],
            sums=np.array(sums),
        )
        facts = {"source": source.key, "split": split, "images": len(labels), "resize": resize}
        (building / "done.json").write_text(json.dumps(facts, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check_label(example: Example, source: Source) -> None:
    if example.label == -1:
        raise Unlabelled(f"{example.where}: found label -1; this split has no labels.")
    if not 0 <= example.label < len(source.classes):
        raise ValueError(
            f"{example.where}: found label {example.label}; expected 0 to "
            f"{len(source.classes) - 1} (domain {source.name!r} has {len(source.classes)} classes)."
        )


def _decoded(
    examples: Iterable[Example], resize: int, squash: bool
) -> Iterator[tuple[Example, np.ndarray]]:
    """Decode in threads (Pillow releases the interpreter lock), in order, a chunk ahead."""

    def work(example: Example) -> np.ndarray:
        try:
            return decode(example.image, resize, squash)
        except ValueError as error:
            raise ValueError(f"{example.where}: {error}") from error

    stream = iter(examples)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        while chunk := list(itertools.islice(stream, CHUNK)):
            yield from zip(chunk, pool.map(work, chunk), strict=True)
