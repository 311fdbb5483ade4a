"""Compiled programs: kept on disk for the next start, and limited in number in a process.

XLA maps memory for every program that it compiles for a CPU, JAX keeps programs as long as the
process lives, and Linux allows a process 65,530 maps (vm.max_map_count).
"""

from __future__ import annotations

import gc
from pathlib import Path

import jax

MAPS = Path("/proc/self/maps")
KEPT = Path("~/.cache/radapt_jax/xla")
MOST = 6_000  # maps; above this, programs are dropped


def make_room() -> None:
    """Drop compiled programs if the process holds many; call this before one is added.

    A program that is used again is compiled again, or read from the compilation cache. Does
    nothing on systems that do not say how many maps a process has.
    """
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST:
        jax.clear_caches()
        gc.collect()


def keep_programs() -> None:
    """Keep compiled programs on disk, in `KEPT`, unless JAX is told to keep them elsewhere."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(KEPT.expanduser()))
