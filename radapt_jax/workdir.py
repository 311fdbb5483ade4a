"""One process a workdir: the one that trains holds its lock. Reading needs none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

from radapt_jax.files import write_atomically

LOCK = ".lock"
HOLDER = ".lock.json"  # apart, because older filelocks empty the file that they cannot lock


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Keep other processes from training in a workdir.

    The folder is made if need be, and removed if nothing has been written to it in the end. The
    kernel gives the lock back when the process ends, however it ends.

    Raises:
      BlockingIOError: another process holds it; the message tells which. Nothing is changed then.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    lock, holder = filelock.FileLock(workdir / LOCK), workdir / HOLDER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(
            f"{workdir} is in use: {_told(holder)} trains there.\n"
            "Wait until it has ended, stop it, or use another --workdir."
        ) from None
    try:
        write_atomically(holder, json.dumps(_facts(), indent=1) + "\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        if workdir.is_dir() and os.listdir(workdir) == [LOCK]:
            (workdir / LOCK).unlink()
            workdir.rmdir()
        lock.release()


def _facts() -> dict[str, str | int]:
    now = datetime.datetime.now().astimezone()
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": now.isoformat(" ", "seconds"),
        "command": shlex.join(sys.argv),
    }


def _told(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text())
        return "process {pid} on {host}, since {since} ({command}),".format(**facts)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
