"""What this process holds: XLA maps memory for each program, and Linux allows 65,530 maps."""

import ctypes
import gc
import os
from pathlib import Path

import jax

MOST_MAPS, MOST_BYTES = 15_000, 3 * 10**9
MAPS, MEMORY = Path("/proc/self/maps"), Path("/proc/self/statm")
KNOWN = MAPS.exists()
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


def maps():
    """Count the memory maps."""
    return len(MAPS.read_text().splitlines())


def resident():
    """Return the memory in use, in bytes."""
    return int(MEMORY.read_text().split()[1]) * PAGE


def check(maps, resident, where):
    """Raise AssertionError if a process holds more than the tests may take."""
    if maps >= MOST_MAPS or resident >= MOST_BYTES:
        raise AssertionError(
            f"{where}: found {maps:,} memory maps and {resident / 1e9:.2f} GB at its end; expected "
            f"fewer than {MOST_MAPS:,} and {MOST_BYTES / 1e9:g} GB. Compile fewer or smaller "
            "programs, or split the module."
        )


def give_back():
    """Give memory back that is free already: it is held by the allocator, not by a test."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def drop_programs():
    """Free all compiled programs, and give their memory back."""
    jax.clear_caches()
    give_back()
