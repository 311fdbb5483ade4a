"""Keeps freed memory for the next training step, and gives back what compilers leave.

XLA takes the memory of a step from the C library and gives it back after the step. By default
glibc returns it to the system, which has to hand out, and clear, every page anew in the next step:
a fifth of the time of a small network's step (docs/performance.md). A compilation, on the other
hand, leaves a few hundred MB free that are never needed again.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import jax

# Of glibc's malloc.h. M_MMAP_THRESHOLD 512 MiB: only larger blocks have a mapping of their own,
# which their release ends. M_TRIM_THRESHOLD -1: the heap does not shrink by itself. M_ARENA_MAX 1:
# there is one heap, as others always shrink.
SETTINGS = ((-3, 2**29), (-1, -1), (-8, 1))
COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = 1.0  # seconds of a compilation that leaves much behind


def keep_freed_memory() -> bool:
    """Let this process keep the memory that steps free; return whether the C library is glibc.

    It counts from here on: call it once, before JAX has run anything. `train.py` and `eval.py` do,
    and so `radapt train` and `radapt eval`. Where GLIBC_TUNABLES sets something of glibc.malloc,
    nothing is changed, and False is returned.
    """
    if sys.platform != "linux" or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False

    def give_back(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILED and duration_secs > LONG:
            library.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(give_back)
    return all(library.mallopt(*setting) for setting in SETTINGS)
