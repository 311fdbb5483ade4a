"""Whether a folder or a file can be written to, found before the work whose results go there."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_writable(folder: Path, advice: str) -> None:
    """Raise OSError unless files can be written to `folder`, or to where it is to be made.

    Nothing is left there. `advice` is the end of the message.
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
