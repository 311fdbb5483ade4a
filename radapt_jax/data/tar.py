"""Reads tar files in place; nothing is extracted."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def readable(archive: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into a ValueError that names it."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"{archive} cannot be read: {error}. It is damaged: delete it and fetch it again."
        ) from error


def files_of(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the plain files of a tar: no folders, links or devices.

    Raises:
      tarfile.ReadError: it has no end mark. `tarfile` itself treats any damage as the end.
    """
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # a gigabyte for ImageNet's archive
        if member.isfile():
            yield member
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it has no end mark after {tar.offset:,} bytes")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None, "plain files have content"
    data = stream.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} has {len(data):,} of {member.size:,} bytes")
    return data
