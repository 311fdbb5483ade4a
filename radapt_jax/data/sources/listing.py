"""Lists the image files of a domain by split and class, in folders and in tar files."""

from __future__ import annotations

import itertools
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from radapt_jax.data.sources.source import SPLITS
from radapt_jax.data.tar import files_of, readable

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


class File:
    """One image file, on its own or in a tar file.

    Args:
      name: its path below the split, `<class>/.../<image>`.
      path: where it is, on disk or inside the tar file.
      archive: the tar file, if it is in one.
      stamp: changes when the file, or the tar file, does.
    """

    __slots__ = ("archive", "name", "path", "stamp")

    def __init__(self, name: str, path: str, archive: Path | None, stamp: str) -> None:
        self.name, self.path, self.archive, self.stamp = name, path, archive, stamp

    @property
    def label(self) -> str:
        """The class: the first folder of the name."""
        return self.name.split("/")[0]


def first_tar(folder: Path, stem: str) -> Path | None:
    """Return the tar file of this name in a folder, if there is one."""
    candidates = (folder / f"{stem}{suffix}" for suffix in TAR_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _is_visible(*names: str) -> bool:
    return not any(name.startswith(".") and name != ".." for name in names)


def list_split(folder: Path, split: str) -> list[File]:
    """List the images of a split in a domain's folder: in a folder or a tar file of its own.

    Raises:
      ValueError: a class without images, or a damaged tar file.
    """
    for alias in SPLIT_NAMES[split]:
        if (folder / alias).is_dir():
            paths = sorted((folder / alias).iterdir())
            classes = [path for path in paths if path.is_dir() and _is_visible(path.name)]
            return [file for path in classes for file in _list_class(path)]
        if archive := first_tar(folder, alias):
            return _list_split_archive(archive, split)
    return []


def _list_class(folder: Path) -> list[File]:
    """List the images of one class; log what is skipped, and refuse a class without images."""
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
        File(
            Path(file.path).relative_to(folder.parent).as_posix(),
            file.path,
            None,
            _stamp(file.stat()),
        )
        for file in images
    ]


def _files_below(folder: Path, seen: set[Path]) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder and below it, sorted; links to `seen` folders are skipped."""
    with os.scandir(folder) as listed:
        entries = sorted((it for it in listed if _is_visible(it.name)), key=lambda it: it.name)
    yield from (entry for entry in entries if not entry.is_dir())
    for entry in entries:
        if not entry.is_dir():
            continue
        place = Path(entry.path).resolve()
        if place in seen:
            log.warning("%s leads to a folder that is read already; skipped.", entry.path)
            continue
        seen.add(place)
        yield from _files_below(Path(entry.path), seen)


def list_archive(archive: Path) -> dict[str, list[File]]:
    """List the images `<split>/<class>/<image>` of a tar file; leading folders are allowed.

    Raises:
      ValueError: the tar file is damaged, or holds a name twice.
    """
    ours = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    stamp, paths = _stamp(archive.stat()), _list_tar(archive)
    places = {
        parts: [place for place, part in enumerate(parts[:-2]) if part in ours] for parts in paths
    }
    # Classes and leading folders may have names of splits: the depth of train decides.
    trains = [at for parts, all_at in places.items() for at in all_at if ours[parts[at]] == "train"]
    depth = min(trains, default=0)
    found: dict[str, list[File]] = {split: [] for split in SPLITS}
    for parts, name in paths.items():
        if places[parts]:
            at = depth if depth in places[parts] else places[parts][0]
            file = File("/".join(parts[at + 1 :]), name, archive, stamp)
            found[ours[parts[at]]].append(file)
    return found


def _list_split_archive(archive: Path, split: str) -> list[File]:
    """List `<class>/<image>` of a split's tar file; leading folders common to all are allowed."""
    stamp, paths = _stamp(archive.stat()), _list_tar(archive)
    shared = _shared(parts[:-1] for parts in paths)
    is_class = shared and shared[-1] not in SPLIT_NAMES[split]
    if is_class and any(len(parts) == len(shared) + 1 for parts in paths):
        shared = shared[:-1]
    names = {parts[len(shared) :]: name for parts, name in paths.items()}
    return [
        File("/".join(parts), name, archive, stamp)
        for parts, name in names.items()
        if len(parts) > 1
    ]


def _list_tar(archive: Path) -> dict[tuple[str, ...], str]:
    """Return the images of a tar file that are in a folder: the parts of each path, and the path.

    Names that begin with a dot are skipped, except for leading folders that all images share.
    """
    with readable(archive), tarfile.open(archive) as tar:
        names = [member.name for member in files_of(tar) if _is_image(member.name)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{archive} holds {twice[0]} more than once; expected it once. Pack it again."
        )
    paths = {PurePosixPath(name).parts: name for name in names}
    leading = len(_shared(parts[:-1] for parts in paths))
    return {
        parts: name
        for parts, name in paths.items()
        if len(parts) > 1 and _is_visible(*parts[leading:])
    }


def _shared(folders: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the leading folders that all of them have in common."""
    listed = list(folders)
    if not listed:
        return ()
    first, last = min(listed), max(listed)  # what these two share, all in between share too
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(part for part, _ in same)


def _stamp(stat) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns}"
