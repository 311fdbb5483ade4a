"""Opens datasets that tensorflow-datasets prepared as array_record files, without TensorFlow."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from radapt_jax.data.sources.source import DIR_FLAGS, Example, Source

SPLIT_NAMES = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}


def open_tfds(name: str, data_dir: str | Path, *, dataset: str | None = None) -> Source:
    """Return the images of a prepared dataset that has an image and a class label feature.

    Args:
      name: of the domain.
      data_dir: the `data_dir` of tensorflow-datasets.
      dataset: "name" or "name/config", followed by ":version" unless it is the newest; default:
        `name`.

    Raises:
      FileNotFoundError: no dataset of that name is prepared there; nothing is downloaded.
      ValueError: the metadata are damaged, the files are not array_record, there is no split
        "train", or not exactly one image and one label feature.
    """
    import tensorflow_datasets as tfds

    folder = _version_folder(dataset or name, Path(data_dir).expanduser())
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be read: {error} ({type(error).__name__}). Its metadata are damaged: "
            "prepare it again."
        ) from error
    file_format = builder.info.file_format
    if file_format is None or file_format.value != "array_record":
        raise ValueError(
            f"{folder} holds {file_format.value if file_format else 'unknown'} files; expected "
            "array_record. Prepare it again: download_and_prepare(file_format='array_record')."
        )
    image, label = _features(builder, folder)
    splits = {
        ours: next(split for split in theirs if split in builder.info.splits)
        for ours, theirs in SPLIT_NAMES.items()
        if any(split in builder.info.splits for split in theirs)
    }
    if "train" not in splits:
        raise ValueError(f"{folder} has splits {list(builder.info.splits)}; expected 'train'.")
    readers = {
        ours: functools.partial(_read, builder, theirs, image, label)
        for ours, theirs in splits.items()
    }
    stamp = (folder / "dataset_info.json").stat()
    key = f"tfds {folder} {stamp.st_mtime_ns} {stamp.st_size}"
    return Source(name, tuple(builder.info.features[label].names), readers, key)


def _version_folder(dataset: str, data_dir: Path) -> Path:
    path, _, version = dataset.partition(":")
    base = data_dir / path
    numbered = [
        folder
        for folder in (base.iterdir() if base.is_dir() else ())
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / "dataset_info.json").is_file()
    ]
    newest_last = sorted(numbered, key=lambda folder: tuple(map(int, folder.name.split("."))))
    chosen = [folder for folder in newest_last if not version or folder.name == version]
    if not chosen:
        there = ", ".join(folder.name for folder in newest_last) or "nothing prepared"
        raise FileNotFoundError(
            f"tensorflow-datasets {dataset!r}: expected {base}/{version or '<version>'}/"
            f"dataset_info.json, found {there}. Prepare it first with file_format='array_record', "
            f"or say where it is: {DIR_FLAGS}."
        )
    return chosen[-1]


def _features(builder: Any, folder: Path) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    images = ["image"] if "image" in images else images
    labels = ["label"] if "label" in labels else labels
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"{folder} has image features {images} and label features {labels}; expected one of "
            "each (or ones named 'image' and 'label')."
        )
    return images[0], labels[0]


def _read(builder: Any, split: str, image: str, label: str) -> Iterator[Example]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    pictures = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    undecoded = {key: tfds.decode.SkipDecoding() for key in pictures}
    numbered = "image_id" in features and _is_integer(features["image_id"])
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    for index, record in enumerate(builder.as_data_source(split=split, decoders=undecoded)):
        number = int(record["image_id"]) if numbered else -1
        where = f"{builder.name}{config} {split} {index}" + (
            f", image {number}" if numbered else ""
        )
        target, encoded = int(record[label]), record[image]
        # Preparing a dataset again may reorder its records, so the index is no name.
        name = str(number) if numbered else f"{target} {hashlib.sha256(encoded).hexdigest()}"
        yield Example(where, target, encoded, number, name)


def _is_integer(feature: Any) -> bool:
    kind = feature.np_dtype
    return feature.shape == () and isinstance(kind, type | np.dtype) and np.dtype(kind).kind in "iu"
