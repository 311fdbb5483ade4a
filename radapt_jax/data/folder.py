"""Domains kept as folders or tar files of images.

Three layouts are read, in place:

    <dir>/<name>/<split>/<class>/<image>            a folder
    <dir>/<name>.tar[.gz]                           the same inside one tar file
    <dir>/<name>/<split>.tar[.gz]                   one tar file a split, of <class>/<image>

An optional `<dir>/<name>/meta.json` with "class_names" names classes whose folders are numbers.
Tar files are read in place: nothing is extracted, and links and devices in them are passed over.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from radapt_jax.data.archives import files_of, readable
from radapt_jax.data.images import MAX_BYTES
from radapt_jax.data.sources import DIR_FLAGS, SPLITS, Example, Source

log = logging.getLogger(__name__)

SUFFIXES = {
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
}
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}


def open_folder(name: str, root: str | Path) -> Source:
    """Return the source of domain `name` under `root`; only names are read here, no image.

    Raises:
      FileNotFoundError: there is neither a folder nor a tar file of that name.
      ValueError: no training images, a class without images or that only val or test has, a
        damaged tar file, or a meta.json that cannot be read.
    """
    root = Path(root).expanduser()
    folder = root / name
    archive = _first_tar(root, name)
    if folder.is_dir():
        members = {split: _list_split(folder, split) for split in SPLITS}
    elif archive is not None:
        members = _list_archive(archive)
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


class _File:
    """One image file: its class folder, and where it lies (in a tar file or on its own)."""

    __slots__ = ("archive", "label", "path", "stamp")

    def __init__(self, label: str, path: str, archive: Path | None, stamp: str) -> None:
        self.label, self.path, self.archive, self.stamp = label, path, archive, stamp


def _first_tar(folder: Path, stem: str) -> Path | None:
    candidates = (folder / f"{stem}{suffix}" for suffix in TAR_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _is_image(path: str | PurePosixPath) -> bool:
    path = PurePosixPath(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _list_split(folder: Path, split: str) -> list[_File]:
    for alias in SPLIT_NAMES[split]:
        if (folder / alias).is_dir():
            classes = sorted(path for path in (folder / alias).iterdir() if path.is_dir())
            return [file for path in classes for file in _list_class(path)]
        if archive := _first_tar(folder, alias):
            return [file for _, file in _list_tar(archive)]
    return []


def _list_class(folder: Path) -> list[_File]:
    """List the images of one class; say what is left out, and refuse a class without images."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    images = [path for path in paths if path.is_file() and _is_image(path.name)]
    if others := sorted(set(paths) - set(images)):
        log.warning("%s: %d entries are no images, such as %s", folder, len(others), others[0].name)
    if not images:
        raise ValueError(
            f"{folder} is a class without images; expected files of {sorted(SUFFIXES)} right in it."
        )
    return [_File(folder.name, str(path), None, _stamp(path.stat())) for path in images]


def _list_archive(archive: Path) -> dict[str, list[_File]]:
    """List `<split>/<class>/<image>` of one tar file; a leading folder is allowed."""
    ours = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    found: dict[str, list[_File]] = {split: [] for split in SPLITS}
    for parts, file in _list_tar(archive):
        if len(parts) >= 3 and parts[-3] in ours:
            found[ours[parts[-3]]].append(file)
    return found


def _list_tar(archive: Path) -> list[tuple[tuple[str, ...], _File]]:
    """List the images of a tar file that lie in some folder, with the parts of their paths."""
    stamp = _stamp(archive.stat())
    with readable(archive), tarfile.open(archive) as tar:
        names = [member.name for member in files_of(tar) if _is_image(member.name)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{archive} holds {twice[0]} more than once; expected it once.")
    paths = [(PurePosixPath(name).parts, name) for name in names]
    return [
        (parts, _File(parts[-2], name, archive, stamp)) for parts, name in paths if len(parts) > 1
    ]


def _stamp(stat) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _read(files: list[_File], index: dict[str, int]) -> Iterator[Example]:
    if files[0].archive is None:
        for file in files:
            with open(file.path, "rb") as stream:
                yield Example(file.path, index[file.label], stream.read(MAX_BYTES + 1))
        return
    archive = files[0].archive
    wanted = {file.path: index[file.label] for file in files}
    with readable(archive), tarfile.open(archive) as tar:  # front to back: gzip cannot be sought
        for member in files_of(tar):
            if member.name in wanted:
                image = tar.extractfile(member)
                assert image is not None, "plain files have content"
                where = f"{archive}:{member.name}"
                yield Example(where, wanted[member.name], image.read(MAX_BYTES + 1))


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
            "mend or remove it."
        ) from error


def _key(splits: dict[str, list[_File]]) -> str:
    digest = hashlib.sha256()
    for split, files in splits.items():
        for file in files:
            where = f"{file.archive}:{file.path}" if file.archive else file.path
            line = f"{split} {file.label} {where} {file.stamp}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
