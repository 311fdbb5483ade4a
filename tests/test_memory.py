"""What freed memory costs a training step, and a user's own settings."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
PROGRAM = """
import json, resource, sys
import jax, jax.numpy as jnp
from radapt_jax.utils.memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
run = jax.jit(lambda x: jnp.sort(jnp.cumsum(x[:, None] + x[None], 1).ravel())[::1000].sum())
x = jnp.ones(1500)
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
    """A run of 9 MB and more takes thousands of pages by default, and none when kept."""
    default, kept = pages("default"), pages("keep")
    assert kept["kept"] is True
    assert default["pages"] > 2000
    assert kept["pages"] < default["pages"] / 5


@pytest.mark.skipif(not GLIBC, reason="of glibc")
def test_a_users_settings_stay():
    found = pages("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert found["kept"] is False
    assert found["pages"] > 2000
