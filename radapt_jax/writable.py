"""Whether a folder can be written to, found before the work whose results go there."""

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
