"""Domains kept as folders or tar files of images.

Three layouts are read, in place:

    <dir>/<name>/<split>/<class>/<image>            a folder
    <dir>/<name>.tar[.gz]                           the same inside one tar file
    <dir>/<name>/<split>.tar[.gz]                   one tar file a split, of <class>/<image>

Folders below a class belong to it; names that begin with a dot are passed over, whatever they name.
An optional `<dir>/<name>/meta.json` with "class_names" names classes whose folders are numbers.
Tar files are read in place: nothing is extracted, and links and devices in them are passed over.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from radapt_jax.data.archives import files_of, readable
from radapt_jax.data.images import MAX_BYTES
from radapt_jax.data.sources import SPLITS, Example, Source

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
            f"{listing}). Say where the images are: --config.data.dir=DIR with "
            "DIR/<domain>/<split>/<class>/<image>, or choose another --config.data.source."
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
    """One image file: its path below the split, and where it lies (in a tar file or on its own)."""

    __slots__ = ("archive", "name", "path", "stamp")

    def __init__(self, name: str, path: str, archive: Path | None, stamp: str) -> None:
        self.name, self.path, self.archive, self.stamp = name, path, archive, stamp

    @property
    def label(self) -> str:
        """The class: the first folder of the name."""
        return self.name.split("/")[0]


def _first_tar(folder: Path, stem: str) -> Path | None:
    candidates = (folder / f"{stem}{suffix}" for suffix in TAR_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _is_visible(*names: str) -> bool:
    return not any(name.startswith(".") for name in names)


def _list_split(folder: Path, split: str) -> list[_File]:
    for alias in SPLIT_NAMES[split]:
        if (folder / alias).is_dir():
            paths = sorted((folder / alias).iterdir())
            classes = [path for path in paths if path.is_dir() and _is_visible(path.name)]
            return [file for path in classes for file in _list_class(path)]
        if archive := _first_tar(folder, alias):
            return _list_split_archive(archive, split)
    return []


def _list_class(folder: Path) -> list[_File]:
    """List the images of one class; say what is left out, and refuse a class without images."""
    place = folder.resolve()
    files = list(_files_below(folder, {place, *place.parents}))
    images = [file for file in files if file.is_file() and _is_image(file.name)]
    if others := sorted({file.name for file in files} - {file.name for file in images}):
        log.warning("%s: %d entries are no images, such as %s", folder, len(others), others[0])
    if not images:
        raise ValueError(
            f"{folder} is a class without images; expected files of {sorted(SUFFIXES)} in it."
        )
    return [
        _File(
            Path(file.path).relative_to(folder.parent).as_posix(),
            file.path,
            None,
            _stamp(file.stat()),
        )
        for file in images
    ]


def _files_below(folder: Path, seen: set[Path]) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder and in those below it, sorted; links to `seen` ones are left."""
    with os.scandir(folder) as listed:
        entries = sorted((it for it in listed if _is_visible(it.name)), key=lambda it: it.name)
    yield from (entry for entry in entries if not entry.is_dir())
    for entry in entries:
        if not entry.is_dir():
            continue
        place = Path(entry.path).resolve()
        if place in seen:
            log.warning("%s leads to a folder that is read already; passed over.", entry.path)
            continue
        seen.add(place)
        yield from _files_below(Path(entry.path), seen)


def _list_archive(archive: Path) -> dict[str, list[_File]]:
    """List `<split>/<class>/<image>` of one tar file; leading folders are allowed."""
    ours = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    stamp, paths = _stamp(archive.stat()), _list_tar(archive)
    places = {
        parts: [place for place, part in enumerate(parts[:-2]) if part in ours] for parts in paths
    }
    # Classes and leading folders may be called as splits are: train tells how deep to look.
    trains = [at for parts, all_at in places.items() for at in all_at if ours[parts[at]] == "train"]
    depth = min(trains, default=0)
    found: dict[str, list[_File]] = {split: [] for split in SPLITS}
    for parts, name in paths.items():
        if places[parts]:
            at = depth if depth in places[parts] else places[parts][0]
            file = _File("/".join(parts[at + 1 :]), name, archive, stamp)
            found[ours[parts[at]]].append(file)
    return found


def _list_split_archive(archive: Path, split: str) -> list[_File]:
    """List `<class>/<image>` of a split's tar file; leading folders that all share are allowed."""
    stamp, paths = _stamp(archive.stat()), _list_tar(archive)
    shared = _shared(parts[:-1] for parts in paths)
    is_class = shared and shared[-1] not in SPLIT_NAMES[split]
    if is_class and any(len(parts) == len(shared) + 1 for parts in paths):
        shared = shared[:-1]
    names = {parts[len(shared) :]: name for parts, name in paths.items()}
    return [
        _File("/".join(parts), name, archive, stamp)
        for parts, name in names.items()
        if len(parts) > 1
    ]


def _list_tar(archive: Path) -> dict[tuple[str, ...], str]:
    """List the images of a tar file that lie in some folder: the parts of their paths, and these.

    Names that begin with a dot are passed over, but those of leading folders that all share.
    """
    with readable(archive), tarfile.open(archive) as tar:
        names = [member.name for member in files_of(tar) if _is_image(member.name)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{archive} holds {twice[0]} more than once; expected it once.")
    paths = {PurePosixPath(name).parts: name for name in names}
    leading = len(_shared(parts[:-1] for parts in paths))
    return {
        parts: name
        for parts, name in paths.items()
        if len(parts) > 1 and _is_visible(*parts[leading:])
    }


def _shared(folders: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the leading folders that all have."""
    listed = list(folders)
    if not listed:
        return ()
    first, last = min(listed), max(listed)  # whatever these two share, all in between do
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(part for part, _ in same)


def _stamp(stat) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _read(files: list[_File], index: dict[str, int]) -> Iterator[Example]:
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
