"""Opens domains that are folders or tar files of images.

There are three layouts:

    <dir>/<name>/<split>/<class>/<image>            a folder
    <dir>/<name>.tar[.gz]                           the same inside one tar file
    <dir>/<name>/<split>.tar[.gz]                   a tar file for each split, of <class>/<image>

Folders below a class belong to it. Files and folders whose names begin with a dot are skipped.
An optional `<dir>/<name>/meta.json` with "class_names" names classes whose folders are numbers.
Tar files are read in place: nothing is extracted, and links and devices in them are skipped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from radapt_jax.data.images import MAX_BYTES
from radapt_jax.data.sources.listing import File, first_tar, list_archive, list_split
from radapt_jax.data.sources.source import DIR_FLAGS, SPLITS, Example, Source
from radapt_jax.data.tar import files_of, readable


def open_folder(name: str, root: str | Path) -> Source:
    """Return the images of domain `name` under `root`; reads only file names here, no images.

    Raises:
      FileNotFoundError: there is neither a folder nor a tar file of that name.
      ValueError: there are no training images, a class has no images or none in train, a tar file
        is damaged, or meta.json cannot be read.
    """
    root = Path(root).expanduser()
    folder = root / name
    archive = first_tar(root, name)
    if folder.is_dir():
        members = {split: list_split(folder, split) for split in SPLITS}
    elif archive is not None:
        members = list_archive(archive)
    else:
        there = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        listing = ", ".join(there[:20]) if there else "nothing"
        raise FileNotFoundError(
            f"domain {name!r}: found neither {folder}/ nor {folder}.tar[.gz] ({root} holds "
            f"{listing}). Say where DIR/<domain>/<split>/<class>/<image> are: {DIR_FLAGS}; or "
            "train with another --config.data.source."
        )
    found = {split: files for split, files in members.items() if files}
    if "train" not in found:
        raise ValueError(
            f"domain {name!r}: found no training images in {folder if archive is None else archive}"
            "; expected train/<class>/<image> (or train.tar.gz with <class>/<image>)."
        )
    folders = sorted({file.label for file in found["train"]}, key=_numbers_first)
    for split, files in found.items():
        if extra := sorted({file.label for file in files} - set(folders)):
            raise ValueError(
                f"domain {name!r}: split {split!r} has classes without training images: "
                f"{extra[:5]}. Every class needs images in train."
            )
    index = {label: position for position, label in enumerate(folders)}
    readers: dict[str, Callable[[], Iterator[Example]]] = {
        split: functools.partial(_read, files, index) for split, files in found.items()
    }
    return Source(name, _class_names(folder, folders), readers, _key(found))


def _read(files: list[File], index: dict[str, int]) -> Iterator[Example]:
    if files[0].archive is None:
        for file in files:
            with open(file.path, "rb") as opened:
                image = opened.read(MAX_BYTES + 1)
                yield Example(file.path, index[file.label], image, name=file.name)
        return
    archive = files[0].archive
    wanted = {file.path: file for file in files}
    with readable(archive), tarfile.open(archive) as tar:  # front to back: gzip cannot be sought
        for member in files_of(tar):
            if member.name in wanted:
                stream = tar.extractfile(member)
                assert stream is not None, "plain files have content"
                where, file = f"{archive}:{member.name}", wanted[member.name]
                image = stream.read(MAX_BYTES + 1)
                yield Example(where, index[file.label], image, name=file.name)


def _numbers_first(label: str) -> tuple[int, int, str]:
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


def _class_names(folder: Path, folders: list[str]) -> tuple[str, ...]:
    meta = folder / "meta.json"
    if meta.is_file() and all(label.isdecimal() for label in folders):
        names = _read_names(meta)
        if int(folders[-1]) < len(names):
            return tuple(names[int(label)] for label in folders)
    return tuple(folders)


def _read_names(meta: Path) -> list[str]:
    try:
        names = json.loads(meta.read_bytes()).get("class_names", [])
        if not isinstance(names, list):
            raise TypeError(f"class_names is {names!r}")
        return [str(name) for name in names]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{meta} cannot be read: {error}. Expected a JSON object with a list 'class_names'; "
            "repair or remove it."
        ) from error


def _key(splits: dict[str, list[File]]) -> str:
    digest = hashlib.sha256()
    for split, files in splits.items():
        for file in files:
            where = f"{file.archive}:{file.path}" if file.archive else file.path
            line = f"{split} {file.label} {where} {file.stamp}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
