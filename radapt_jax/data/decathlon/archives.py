"""The Visual Decathlon's official archives: fetched, checked, and read in place."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import io
import json
import os
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import tqdm

from radapt_jax.data.tar import _content, files_of, readable

BLOCK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without an answer
HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/decathlon/#download"
DEVKIT = "decathlon-1.0-devkit.tar.gz"
IMAGES = "decathlon-1.0-data.tar.gz"
IMAGENET = "decathlon-1.0-data-imagenet.tar"


@dataclasses.dataclass(frozen=True)
class ArchiveFacts:
    """What identifies an archive: its size in bytes and its sha256, in hexadecimal."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.size:,} bytes, sha256 {self.sha256}"


# Sizes and checksums as listed by tensorflow-datasets, url_checksums/visual_domain_decathlon.txt.
OFFICIAL: Mapping[str, ArchiveFacts] = {
    DEVKIT: ArchiveFacts(
        23_503_205, "f86d9e128678434ff2a3a374f00eb3e2ec2267e15e53ddae5f19ff19378b5ff7"
    ),
    IMAGES: ArchiveFacts(
        406_351_554, "8eca928bda025d855c91a78db45b3b18bc322efd7b1462a041e62c27b3c83c25"
    ),
    IMAGENET: ArchiveFacts(
        6_535_075_840, "93caac18a907266f917136849c1db7bbf88dd595120af1a8eea7177138962e4a"
    ),
}


def check_archives(
    folder: Path, expected: Mapping[str, ArchiveFacts], mirror: str | None = None
) -> None:
    """Check size and sha256 of every expected archive in `folder`; fetch those that are missing.

    Args:
      folder: where the archives are.
      expected: size and sha256 by file name.
      mirror: http, https or file URL of a folder with the archives; None: fetch nothing.

    Raises:
      FileNotFoundError: an archive is missing, and no mirror is given.
      OSError: an archive cannot be fetched.
      ValueError: an archive is not the expected one, or `mirror` is not such a URL.
    """
    if mirror is not None and urllib.parse.urlsplit(mirror).scheme not in ("http", "https", "file"):
        raise ValueError(
            f"found mirror {mirror!r}; expected an http://, https:// or file:// URL of a folder "
            f"that holds {', '.join(expected)}."
        )
    missing = [name for name in expected if not (folder / name).is_file()]
    if missing and mirror is None:
        wanted = "".join(f"\n  {name}: {expected[name]}" for name in missing)
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(expected)} archives; expected{wanted}\n"
            f"Put them there (see {HOMEPAGE}), or name a folder on the web that has them: "
            "--mirror URL."
        )
    present = [name for name in expected if name not in missing]
    for name in present:
        size = (folder / name).stat().st_size
        with open(folder / name, "rb") as file:
            found = _measure(file, size, f"checking {name}")
        if found != expected[name]:
            raise _wrong(folder / name, str(found), expected[name])
    for name in missing:
        assert mirror is not None
        _download(f"{mirror.rstrip('/')}/{name}", folder / name, expected[name])


def _wrong(what: Path | str, found: str, expected: ArchiveFacts) -> ValueError:
    return ValueError(
        f"{what} is not the official archive.\n  found:    {found}\n  expected: {expected}\n"
        "It may be truncated or altered: delete it and fetch it again, by hand or with "
        "--mirror URL."
    )


def _measure(file: Any, most: int, title: str, copy: IO[bytes] | None = None) -> ArchiveFacts:
    """Hash (and copy) a stream; end early once it is longer than `most` bytes."""
    digest, size = hashlib.sha256(), 0
    with tqdm.tqdm(
        total=most, desc=title, unit="B", unit_scale=True, leave=False, mininterval=1.0
    ) as progress:
        while size <= most and (chunk := file.read(BLOCK)):
            digest.update(chunk)
            size += len(chunk)
            progress.update(len(chunk))
            if copy is not None:
                copy.write(chunk)
    return ArchiveFacts(size, digest.hexdigest())


def _download(url: str, path: Path, expected: ArchiveFacts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as copy, urllib.request.urlopen(url, timeout=TIMEOUT) as stream:
            found = _measure(stream, expected.size, f"fetching {path.name}", copy)
        if found != expected:
            longer = "more than " if found.size > expected.size else ""
            raise _wrong(url, f"{longer}{found}", expected)
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"{url} cannot be fetched: {error}. Check the URL, or put {path.name} into "
            f"{path.parent} by hand."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def read_json(archive: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return JSON files of a tar file by base name, in one pass that ends with the last of them.

    Raises:
      ValueError: the archive or a JSON file is damaged, or a file is missing.
    """
    found: dict[str, Any] = {}
    with readable(archive), tarfile.open(archive) as tar:
        for member in files_of(tar):
            name = PurePosixPath(member.name).name
            if name in names:
                data = _content(tar, member)
                try:
                    found[name] = json.loads(data)
                except ValueError as error:
                    raise ValueError(f"{archive}: {member.name} is no JSON: {error}") from error
                if len(found) == len(names):
                    return found
    raise ValueError(f"{archive} holds no {sorted(set(names) - found.keys())}.")


class Members:
    """The files of one domain's tar, found once by name and then read in any order.

    A tar inside the compressed archive is held in memory (even the largest has less than the
    archive's 406 MB); the uncompressed ImageNet tar is read in place.

    Args:
      archive: path of the outer file.
      domain: of a compressed archive, `<domain>.tar` is read; any other archive is read whole.

    Raises:
      ValueError: the archive is damaged, or lacks the domain.
    """

    def __init__(self, archive: Path, domain: str) -> None:
        self.archive, self.domain = archive, domain
        self._data = self._inner() if archive.name.endswith(".gz") else None

    def _open(self) -> IO[bytes]:
        return open(self.archive, "rb") if self._data is None else io.BytesIO(self._data)

    def _inner(self) -> bytes:
        seen = []
        with readable(self.archive), tarfile.open(self.archive) as tar:
            for member in files_of(tar):
                if PurePosixPath(member.name).name == f"{self.domain}.tar":
                    return _content(tar, member)
                seen.append(member.name)
        raise ValueError(f"{self.archive} holds no {self.domain}.tar; found {seen[:20]}.")

    def find(self, wanted: set[str]) -> dict[str, tuple[int, int]]:
        """Return offset and size in bytes of the wanted files, by their `image_key`.

        Raises:
          ValueError: the archive is damaged.
        """
        places: dict[str, tuple[int, int]] = {}
        with readable(self.archive), self._open() as file, tarfile.open(fileobj=file) as tar:
            for member in files_of(tar):
                if (key := image_key(member.name, self.domain)) in wanted:
                    places[key] = (member.offset_data, member.size)
        return places

    def read(self, places: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the contents of files, given offset and size of each in bytes.

        Raises:
          ValueError: the archive is truncated.
        """
        with self._open() as file:
            for offset, size in places:
                file.seek(offset)
                data = file.read(size)
                if len(data) != size:
                    raise ValueError(f"{self.archive} is cut short: delete it and fetch it again.")
                yield data


def image_key(path: str, domain: str) -> str:
    """Return what an annotation's file name and a tar member have in common.

    This is the path below the folder named after the domain, or else below `data`; the official
    names are `data/<domain>/<split>/...` and `<domain>/<split>/...`.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    for folder in (domain, "data"):
        if folder in parts[:-1]:
            return "/".join(parts[parts.index(folder) + 1 :])
    return "/".join(parts)
