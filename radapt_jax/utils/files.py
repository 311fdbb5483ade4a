"""Writing files: after a kill or on a full disk, a file is the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def located(path: str | Path) -> Path:
    """Return a path that a user wrote, made absolute and with `~` expanded."""
    return Path(path).expanduser().absolute()


def write_synced(path: Path, content: str | bytes) -> None:
    """Write a file, and return once it is on the disk."""
    data = content.encode() if isinstance(content, str) else content
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file; one that is there is replaced in a single move.

    Raises:
      OSError: it cannot be written; the message says what to do.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write files; once all are on the disk, move them into place in the given order.

    Raises:
      OSError: one cannot be written; the message says what to do.
    """
    beside = {path: path.with_name(f".{path.name}.new") for path in contents}
    try:
        for path, content in contents.items():
            with saving(path):
                write_synced(beside[path], content)
        for path, new in beside.items():
            with saving(path):
                os.replace(new, path)
    finally:
        for new in beside.values():
            new.unlink(missing_ok=True)


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an error while writing `path` into one that says that nothing is lost, and what to do.

    Raises:
      OSError: in place of any exception raised inside.
    """
    try:
        yield
    except Exception as error:
        raise OSError(
            f"{path} could not be saved; whatever was saved before is intact.\n  {error}\n"
            "Make room there (or fix what the line above says), then start the same command again."
        ) from error


def remove(folder: Path) -> None:
    """Remove a folder. A kill meanwhile may leave `.<name>.old`, but never half of the folder."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def check_writable(folder: Path, advice: str) -> None:
    """Raise OSError unless files can be written to `folder`, or to where it will be made.

    Leaves nothing there. The message ends with `advice`.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        problem = error.strerror or error
        raise OSError(f"{folder} cannot be written to ({there}: {problem}). {advice}") from error


def check_file_place(path: Path) -> None:
    """Raise OSError unless a file can be written at `path`, or can replace the one that is there.

    A device such as /dev/null is refused: it would be replaced by a file.
    """
    if (path.exists() and not path.is_file()) or not path.parent.is_dir():
        raise OSError(f"found no place for a file at {path}; expected a file name in a folder.")
    check_writable(path.parent, "Name another file.")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as text; no rows if there is no file.

    A last row that was cut short when the process was killed is left out.
    """
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))
