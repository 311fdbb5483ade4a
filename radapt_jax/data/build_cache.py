"""Builds a cache of decoded images: in parallel, once, and either completely or not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import joblib
import numpy as np
import tqdm

from radapt_jax.data.domain import Resizing
from radapt_jax.data.holdout import HASHES, hashed
from radapt_jax.data.images import decode
from radapt_jax.data.sources.source import Example, Source
from radapt_jax.utils import distributed
from radapt_jax.utils.files import check_writable

log = logging.getLogger(__name__)
CHUNK = 64  # images decoded by one job
FEW = 64  # chunks decoded before processes are started
WINDOW = 4  # chunks for each core that may wait to be written
MOST_CORES = 16  # each decoding process takes 0.2 GiB


class Decoded(NamedTuple):
    """Some decoded images, and what is wrong with those that cannot be read."""

    pixels: np.ndarray  # uint8, one image after another
    labels: np.ndarray  # int32 (n,)
    ids: np.ndarray  # int64 (n,)
    names: np.ndarray  # uint64 (n,), hashed
    extents: np.ndarray  # int32 (n, 2)
    sums: np.ndarray  # float64 (n, 2, 3), of pixels and of their squares, by channel
    unreadable: list[tuple[str, int]]  # problem, image id


def build(
    source: Source, split: str, resizing: Resizing, folder: Path, max_unreadable: float
) -> None:
    """Decode a split into a temporary folder, then rename it: a killed build leaves no cache.

    If several processes want the same cache, one builds it and the others wait.

    Args:
      source: of the images.
      split: as in `cache.load_split`.
      resizing: how images are resized.
      folder: where the cache goes.
      max_unreadable: share of the images that may be unreadable, in [0, 1].

    Raises:
      OSError: nothing can be written there.
      ValueError: see `cache.load_split`.
    """
    flags = "--config.data.cache=DIR (train.py) or --cache=DIR (eval.py)"
    check_writable(folder.parent, f"Keep decoded images elsewhere: {flags}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("%s: another process decodes %s; waiting for it.", source.name, split)
        held = lock.acquire()
    with held:
        if (folder / "done.json").is_file():
            return
        building = folder.parent / f".{folder.name}.new"
        _clear(folder.parent, building)
        building.mkdir()
        try:
            facts = _fill(building, source, split, resizing)
            check_unreadable(
                source.name, split, facts["images"], facts["unreadable"], max_unreadable
            )
            (building / "done.json").write_text(json.dumps(facts, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _clear(cache_dir: Path, ours: Path) -> None:
    """Remove the folders that killed builds left behind."""
    for leftover in cache_dir.glob(".*.new"):
        if leftover == ours:  # this process holds its lock
            shutil.rmtree(leftover)
            continue
        lock = filelock.FileLock(leftover.with_suffix(".lock"))
        with contextlib.suppress(OSError), lock.acquire(timeout=0):
            shutil.rmtree(leftover, ignore_errors=True)


def check_unreadable(
    name: str, split: str, images: int, unreadable: Sequence[Sequence], share: float
) -> None:
    """Raise ValueError if more than `share` of a split's images cannot be read.

    Args:
      name: of the domain, for the message.
      split: its name, for the message.
      images: how many can be read.
      unreadable: problem and image id of each of the others.
      share: between 0 and 1.
    """
    if len(unreadable) > share * (images + len(unreadable)):
        raise ValueError(
            f"domain {name!r}: {len(unreadable):,} of {images + len(unreadable):,} images of "
            f"{split} cannot be read; at most {share:.2%} may be. The first: {unreadable[0][0]}\n"
            "Repair or remove them, or train without them: --config.data.max_unreadable=SHARE."
        )


def _fill(building: Path, source: Source, split: str, resizing: Resizing) -> dict:
    """Write the pixels and the index of a split; return the facts that go into done.json."""
    with open(building / "pixels.u8", "wb") as file:
        index, unreadable = gather(source, split, resizing, file.write)
    np.savez(building / "index.npz", allow_pickle=False, **index)
    return {
        "source": source.key,
        "split": split,
        "resize": resizing.resize,
        "images": len(index["labels"]),
        "unreadable": unreadable,
    }


def gather(
    source: Source,
    split: str,
    resizing: Resizing,
    write: Callable[[np.ndarray], Any],
    *,
    bar: bool = True,
) -> tuple[dict[str, np.ndarray], list[tuple[str, int]]]:
    """Decode a split; return the index of `Split` and the images that cannot be read.

    Args:
      source, split, resizing: see `cache.load_split`.
      write: takes the pixels, some images at a time.
      bar: show a progress bar.
    """
    readers = [source.splits[part] for part in split.split("+")]
    examples = itertools.chain.from_iterable(read() for read in readers)
    parts = []
    with tqdm.tqdm(
        desc=f"decoding {source.name} {split}",
        unit=" images",
        leave=False,
        mininterval=1.0,
        disable=not (bar and distributed.is_main()),
    ) as shown:
        for part in _decoded(_checked(examples, source), resizing):
            write(part.pixels)
            parts.append(part._replace(pixels=np.empty(0, np.uint8)))
            shown.update(len(part.labels) + len(part.unreadable))
    if not parts:
        raise ValueError(f"domain {source.name!r}: split {split!r} holds no image.")
    index = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("labels", "ids", "names", "extents", "sums")
    }
    unknown = int((index["labels"] < 0).sum())
    if 0 < unknown < len(index["labels"]):
        raise ValueError(
            f"domain {source.name!r}: {unknown:,} of {len(index['labels']):,} images of {split} "
            "have the label -1; expected labels for all images of a split, or for none. Label "
            "them, or take them out."
        )
    if not len(index["labels"]):
        raise ValueError(
            f"domain {source.name!r}: none of {sum(len(part.unreadable) for part in parts):,} "
            f"images of {split} can be read; repair or replace them. The first: "
            f"{parts[0].unreadable[0][0]}"
        )
    sizes = index["extents"].astype(np.int64).prod(1) * 3
    index["offsets"] = np.cumsum(sizes) - sizes
    return index, [problem for part in parts for problem in part.unreadable]


def _checked(examples: Iterable[Example], source: Source) -> Iterator[Example]:
    """Yield the examples; raise ValueError if a label is out of range."""
    for example in examples:
        if not -1 <= example.label < len(source.classes):
            raise ValueError(
                f"{example.where}: found label {example.label}; expected 0 to "
                f"{len(source.classes) - 1} (domain {source.name!r} has {len(source.classes)} "
                "classes)."
            )
        yield example


def _decoded(examples: Iterable[Example], resizing: Resizing) -> Iterator[Decoded]:
    """Decode on all cores, in order, a few chunks ahead of the reader.

    Threads decode the first images, since they start at once; processes decode the rest, since
    they share no interpreter lock.
    """
    cores = min(joblib.cpu_count(), MOST_CORES)
    chunks = _in_parts(iter(examples), CHUNK)
    for backend, some in (("threading", itertools.islice(chunks, FEW)), ("loky", chunks)):
        # max_nbytes: no temporary files. In windows, since joblib does not wait for its reader.
        with joblib.Parallel(cores, backend=backend, batch_size=1, max_nbytes=None) as parallel:
            for window in _in_parts(some, WINDOW * cores):
                yield from parallel(joblib.delayed(_decode)(chunk, resizing) for chunk in window)


def _in_parts(stream: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while part := list(itertools.islice(stream, size)):
        yield part


def _decode(examples: list[Example], resizing: Resizing) -> Decoded:
    images, readable, unreadable = [], [], []
    for example in examples:
        try:
            images.append(decode(example.image, *resizing))
            readable.append(example)
        except ValueError as error:
            unreadable.append((f"{example.where}: {error}", example.image_id))
    return Decoded(
        pixels=np.concatenate([image.reshape(-1) for image in images] or [np.empty(0, np.uint8)]),
        labels=np.array([example.label for example in readable], np.int32),
        ids=np.array([example.image_id for example in readable], np.int64),
        names=np.array([hashed(example.name or example.where) for example in readable], HASHES),
        extents=np.array([image.shape[:2] for image in images], np.int32).reshape(-1, 2),
        sums=np.array([_sums(image) for image in images]).reshape(-1, 2, 3),
        unreadable=unreadable,
    )


def _sums(image: np.ndarray) -> np.ndarray:
    """Return the sums of pixels and of their squares by channel, float64 (2, 3)."""
    rows = image.reshape(len(image), -1).astype(np.float32)  # exact below 2^24, up to 258 rows
    columns = np.stack([np.einsum("ij->j", rows), np.einsum("ij,ij->j", rows, rows)])
    return columns.reshape(2, -1, 3).sum(1, dtype=np.float64)
