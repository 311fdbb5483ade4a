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
for _ in range(3):
    run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    run(x).block_until_ready()
after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(json.dumps({"kept": kept, "pages": (after - before) / 5}))
"""


def pages(how, **environment):
    """Return what a process says of the memory pages that it was handed out for each run."""
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
    """A run of 9 MB and more takes thousands of pages by default, and next to none when kept."""
    default, kept = pages("default"), pages("keep")
    assert kept["kept"] is True
    assert default["pages"] > 2000
    assert kept["pages"] < default["pages"] / 5


@pytest.mark.skipif(not GLIBC, reason="of glibc")
def test_a_users_settings_stay():
    found = pages("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert found["kept"] is False
    assert found["pages"] > 2000
