"""Compiled programs, of which a process can hold only so many.

XLA maps memory for every program that it compiles for a CPU, JAX keeps the programs for as long as
the process lives, and Linux allows a process 65,530 maps (vm.max_map_count).
"""

from __future__ import annotations

import gc
from pathlib import Path

import jax

MAPS = Path("/proc/self/maps")
MOST = 6_000  # maps, above which programs are dropped


def make_room() -> None:
    """Drop compiled programs where the process holds many; to be called before one is added.

    Those that are used again are compiled again, or read from the compilation cache. Nothing is
    done where the system does not tell how many maps there are.
    """
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST:
        jax.clear_caches()
        gc.collect()
