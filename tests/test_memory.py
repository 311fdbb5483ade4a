"""What freed memory costs a training step, and a user's own settings."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
PROGRAM = """
import functools, json, resource, sys
import jax, jax.numpy as jnp
from radapt_jax.utils.memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
convolve = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


@jax.jit
def run(x):
    x = jnp.broadcast_to(x, (32, 64, 64, 8))
    for channels in (8, 32, 32):  # each gives a block of 16 MiB
        x = convolve(x, jnp.ones((1, 1, channels, 32)))
    return x[::8].sum()


x = jnp.ones((1, 64, 64, 8))
counts = []
for _ in range(30):
    run(x).block_until_ready()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
pages = sorted(after - before for before, after in zip(counts[3:], counts[4:]))
print(json.dumps({"kept": kept, "pages": pages[len(pages) // 2]}))
"""


def pages(how, **environment):
    """Return what a process says of the memory pages that it was handed out for a run.

    It is the median of 26 runs: in some, a block is freed so late that the next run takes another.
    """
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.skipif(not GLIBC, reason="of glibc")
def test_freed_memory_is_used_again():
    """Runs with blocks of 16 MiB take thousands of pages by default, and none when kept."""
    default, kept = pages("default"), pages("keep")
    assert kept["kept"] is True
    assert default["pages"] > 2000
    assert kept["pages"] < default["pages"] / 5


@pytest.mark.skipif(not GLIBC, reason="of glibc")
def test_a_users_settings_stay():
    found = pages("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert found["kept"] is False
    assert found["pages"] > 2000
