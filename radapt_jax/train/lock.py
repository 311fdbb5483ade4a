"""One process a workdir: the one that writes there holds its lock. Reading needs none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from radapt_jax.utils import distributed
from radapt_jax.utils.files import write_atomically

LOCK = ".lock"
HOLDER = ".lock.json"  # apart, because older filelocks empty the file that they cannot lock
PATIENCE = 30  # seconds that a network file system may take to show a new file


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Keep other processes from writing to a workdir.

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
            f"{workdir} is in use: {_told(holder)} writes there.\n"
            "Wait until it has ended, stop it, or use another workdir."
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


def check_shared(workdir: Path) -> None:
    """Check that this process sees the workdir that process 0 holds.

    Raises:
      FileNotFoundError: it does not.
    """
    holder = workdir / HOLDER
    written = distributed.by_main(holder.read_text)
    deadline = time.monotonic() + PATIENCE
    while not holder.is_file() or holder.read_text() != written:
        if time.monotonic() > deadline:
            raise FileNotFoundError(
                f"{workdir} is another folder than that of process 0 (no such {HOLDER} there). "
                "Expected a file system that all hosts share: set --workdir to a folder on one."
            )
        time.sleep(0.5)


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
