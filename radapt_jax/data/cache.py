"""Decoded images as uint8 in memory-mapped files: decoded once, and read fast from then on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import mmap
import zipfile
from pathlib import Path

import numpy as np

from radapt_jax.data.build_cache import build, check_unreadable, gather
from radapt_jax.data.domain import Resizing
from radapt_jax.data.images import MAX_ASPECT
from radapt_jax.data.sources.source import Source

log = logging.getLogger(__name__)
FORMAT = 3
DAMAGE = (ValueError, LookupError, TypeError, OSError, EOFError, zipfile.BadZipFile)
INDEX = ("offsets", "extents", "labels", "ids", "names", "sums")  # arrays of `Split`
RESIDENT_LIMIT = 1 << 30  # bytes of a file that may be resident in memory
AROUND = 1 << 16  # bytes that the kernel maps around a page that is read


class MappedPixels:
    """The pixels of a cache, mapped into memory.

    A large file does not fill the memory: pages are released once many have been read (they stay
    in the kernel's file cache).
    """

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.values = np.frombuffer(self._map, np.uint8)
        self._read = 0

    def count(self, images: int, size: int) -> None:
        """Note that `images` of `size` bytes each were read, and release pages if that is many."""
        self._read += images * (size + AROUND)
        if self._read > RESIDENT_LIMIT and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0


class MemoryPixels:
    """Pixels of decoded images that are kept in memory, uint8 (bytes,)."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def count(self, images: int, size: int) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Split:
    """Some of a split's decoded images, uncropped, of one shape or of many.

    Args:
      pixels: all images one after another.
      offsets: int64 (n,), where image i starts in `pixels`.
      extents: int32 (n, 2), height and width of image i in pixels.
      labels: int32 (n,); -1 if unknown.
      ids: int64 (n,), the challenge's number of image i; -1 if it has none.
      names: uint64 (n,), the hashed name of image i; see `holdout.hashed`.
      sums: float64 (n, 2, 3), sums of pixels and of their squares, by image and channel.
      unread: ids of the images of the split that cannot be read.
      index: int (len,), which of the n images belong to this split, in order.
    """

    pixels: MappedPixels | MemoryPixels
    offsets: np.ndarray
    extents: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    names: np.ndarray
    sums: np.ndarray
    unread: tuple[int, ...]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def subset(self, positions: np.ndarray) -> Split:
        """Return the images at these positions of the split, int (m,)."""
        return dataclasses.replace(self, index=self.index[positions])

    def without(self, positions: np.ndarray) -> Split:
        """Return the images at all other positions."""
        return self.subset(np.setdiff1d(np.arange(len(self)), positions))

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """Labels of this split's images, int32 (len,)."""
        return self.labels[self.index]

    @property
    def own_names(self) -> np.ndarray:
        """Hashed names of this split's images, uint64 (len,)."""
        return self.names[self.index]

    @property
    def labelled(self) -> bool:
        """Whether all labels are known."""
        return bool((self.targets >= 0).all())

    @property
    def digest(self) -> str:
        """A sha256 that changes when images of this split do, or labels."""
        parts = (self.own_names, self.targets, self.extents[self.index], self.sums[self.index])
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    @property
    def left_out(self) -> int:
        """How many images of a whole split cannot be read; 0 for a part of a split."""
        return len(self.unread) if len(self.index) == len(self.labels) else 0

    def image(self, position: int) -> np.ndarray:
        """Return an uncropped image, uint8 (h, w, 3); a view of the file."""
        which = self.index[position]
        start, (height, width) = self.offsets[which], self.extents[which]
        return self.pixels.values[start : start + height * width * 3].reshape(height, width, 3)

    def crops(self, positions: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
        """Return windows of images, uint8 (b, size, size, 3).

        Args:
          positions: int (b,), which image of the split.
          starts: int (b, 2), top and left of the window in it, in pixels.
          size: side of the window, in pixels.
        """
        chosen = self.index[positions]
        begins = self.offsets[chosen] + 3 * (starts[:, 0] * self.extents[chosen, 1] + starts[:, 1])
        found = np.empty((len(chosen), size, size, 3), np.uint8)
        values, row = self.pixels.values, 3 * size
        windows = zip(begins.tolist(), (3 * self.extents[chosen, 1]).tolist(), strict=True)
        for out, (begin, stride) in zip(found, windows, strict=True):
            end = begin + (size - 1) * stride + row
            np.copyto(
                out.reshape(size, row),
                np.ndarray((size, row), np.uint8, values[begin:end], strides=(stride, 1)),
            )
        self.pixels.count(len(chosen), found[0].size)
        return found

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel over all pixels, scaled to [0, 1]."""
        pixels = self.extents[self.index].astype(np.float64).prod(1).sum()
        mean, square = self.sums[self.index].sum(0) / pixels
        std = np.sqrt(np.maximum(square - mean**2, 1.0))  # at least one grey level
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def load_split(
    source: Source,
    split: str,
    resizing: Resizing,
    cache_dir: Path,
    max_unreadable: float = 0.0,
) -> Split:
    """Return a split of a source of images, decoded and resized; from the cache if it is there.

    Args:
      source: of the images.
      split: "train", "val" or "test", or several joined by "+".
      resizing: how images are resized.
      cache_dir: folder of all caches.
      max_unreadable: share of images that may be unreadable, in [0, 1]; those are left out.

    Raises:
      KeyError: the source has no such split.
      OSError: the cache cannot be written.
      ValueError: more images than that cannot be read (the first is named), the split is empty, a
        label is out of range, only some labels are known, or the cache is damaged.
    """
    key = f"{FORMAT} {MAX_ASPECT} {source.key} {split} {resizing.resize} {resizing.squash}"
    if resizing.interpolation != "bicubic":  # which all were before there was a choice
        key += f" {resizing.interpolation}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = cache_dir / f"{source.name}-{split}-{resizing.resize}-{digest}"
    if not (folder / "done.json").is_file():
        build(source, split, resizing, folder, max_unreadable)
    unreadable, arrays, pixels = _read(folder)
    check_unreadable(source.name, split, len(arrays["labels"]), unreadable, max_unreadable)
    if unreadable:
        log.warning(
            "%s: %d images of %s cannot be read, and are left out. The first: %s",
            source.name,
            len(unreadable),
            split,
            unreadable[0][0],
        )
    unread = tuple(image_id for _, image_id in unreadable)
    return Split(pixels, **arrays, unread=unread, index=np.arange(len(arrays["labels"])))


def decode_split(source: Source, split: str, resizing: Resizing, *, bar: bool = False) -> Split:
    """Return a split of a source, decoded and resized into memory; nothing is written.

    Args:
      bar: show a progress bar.

    Raises:
      ValueError: an image cannot be read, the split is empty, or a label is out of range.
    """
    pixels: list[np.ndarray] = []
    arrays, unreadable = gather(source, split, resizing, pixels.append, bar=bar)
    if unreadable:
        raise ValueError(
            f"domain {source.name!r}: {len(unreadable):,} images of {split} cannot be read; mend "
            f"them or leave them out. The first: {unreadable[0][0]}"
        )
    held = MemoryPixels(np.concatenate(pixels))
    return Split(held, **arrays, unread=(), index=np.arange(len(arrays["labels"])))


def _read(folder: Path) -> tuple[list, dict[str, np.ndarray], MappedPixels]:
    """Return a cache's unreadable images (problem and id), its index and its pixels.

    Raises:
      ValueError: it is damaged.
    """
    try:
        unreadable = json.loads((folder / "done.json").read_bytes())["unreadable"]
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in INDEX}
        pixels = MappedPixels(folder / "pixels.u8")
        expected = int(arrays["offsets"][-1] + 3 * arrays["extents"][-1].prod())
        if len(pixels.values) != expected:
            raise ValueError(f"found {len(pixels.values):,} bytes of pixels, expected {expected:,}")
    except DAMAGE as error:
        raise ValueError(
            f"{folder} is damaged: {error}. Delete the folder; the next run builds it again."
        ) from error
    return unreadable, arrays, pixels
