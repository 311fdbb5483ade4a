"""What a measured figure is of: the device, the version of JAX and the commit."""

import os
import platform
import subprocess
from pathlib import Path

import jax


def facts():
    """Return columns for a CSV file; the commit says where the code was changed since."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    device = jax.devices()[0].device_kind
    return {
        "device": f"{device}, {os.cpu_count()} cores, {platform.machine()}",
        "jax": jax.__version__,
        "commit": git.stdout.strip(),
    }
