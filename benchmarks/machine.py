"""What a measured figure is of: the device, the version of JAX and the commit."""

import os
import platform
import subprocess
from pathlib import Path

import jax


def facts():
    """Return columns for a CSV file; the commit is "dirty" where code was changed since."""
    commit = _git("rev-parse", "--short", "HEAD")
    figures = (":(top,exclude)*.csv", ":(top,exclude)*.png")  # written by the measuring itself
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *figures)
    device = jax.devices()[0].device_kind
    return {
        "device": f"{device}, {os.cpu_count()} cores, {platform.machine()}",
        "jax": jax.__version__,
        "commit": f"{commit}-dirty" if changed else commit,
    }


def _git(*arguments):
    folder = Path(__file__).parent
    run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    return run.stdout.strip()
