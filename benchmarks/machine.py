"""What a measured figure is of: the device, the version of JAX and the commit. What is refused.

A row names its device and its commit, so a benchmark ends before it measures anything where the
device is not the one that was asked for, or where the code is not the commit's.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
WRITTEN = ("benchmarks/*.csv", "docs", "README.md")  # by the benchmarks and their tables


def add_flags(parser):
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu", "tpu"),
        help="end with an error unless JAX runs on this (default: whatever it runs on)",
    )
    parser.add_argument(
        "--allow-dirty",
        action="store_true",
        help="measure an edited tree too, to try something out; its rows say so",
    )


def check(arguments):
    """End with exit code 1 where the device or the code is not what a row would say."""
    if not arguments.allow_dirty:
        check_tree()
    if arguments.device is not None:
        check_device(arguments.device)


def check_tree():
    way_out = "--allow-dirty measures all the same, and marks the rows."
    if commit() == "unknown":
        raise SystemExit(
            f"error: found no commit at {ROOT}; expected a clone made by git, since a row names "
            f"the commit it is of.\nMeasure in a clone; {way_out}"
        )
    if edited := edits():
        shown = "\n".join(edited[:10] + (["..."] if len(edited) > 10 else []))
        raise SystemExit(
            f"error: found edited files:\n{shown}\nexpected those of the commit, which a row "
            f"names.\nCommit or stash the edits; {way_out}"
        )


def check_device(expected):
    found = backend()
    if found != expected:
        raise SystemExit(
            f"error: found JAX running on {found}; expected {expected} (--device).\n"
            "Measure on a machine that has one, with a JAX built for it: "
            "pip install -e '.[cuda]' for NVIDIA GPUs (make bench-gpu does), '.[tpu]' for TPUs."
        )


def backend():
    """Return what JAX runs on; asked in another process, since who asks may hold the device."""
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        said = run.stderr.strip().splitlines() or ["no message"]
        raise SystemExit(f"error: JAX finds no device to run on: {said[-1]}")
    return run.stdout.strip()


def facts():
    """Return columns for a CSV file."""
    device = jax.devices()[0].device_kind
    return {
        "device": f"{device}, {os.cpu_count()} cores, {platform.machine()}",
        "jax": jax.__version__,
        "commit": commit(),
    }


def commit():
    """Return the commit, with "-dirty" where code was edited since; "unknown" without git."""
    found = _git("rev-parse", "--short", "HEAD")
    if not found:
        return "unknown"
    return f"{found}-dirty" if edits() else found


def edits():
    """Return a line of `git status` for every edited file; none for what measuring writes."""
    written = [f":(top,exclude){name}" for name in WRITTEN]
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
    return status.splitlines()


def _git(*arguments):
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:  # git is not installed
        return ""
    return run.stdout.rstrip()
