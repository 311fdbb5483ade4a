"""What the commands of all studies have in common: where images and rows are, and how it starts."""

from pathlib import Path

import jax
import machine
from machine import ROOT

from radapt_jax.utils.memory import keep_freed_memory
from transfer.measure import measure


def add_flags(parser, out):
    """Add the flags of every study; `out` names its file of rows."""
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "decathlon_like")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/radapt_jax").expanduser())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / out)
    machine.add_flags(parser)


def keep_programs(cache):
    """Keep compiled programs in a folder, so that seeds share them, and freed memory."""
    keep_freed_memory()
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))


def go(study, arguments):
    """Measure what the file of a study lacks."""
    keep_programs(arguments.cache)
    measure(study, arguments.out, arguments.cache, machine.facts(), arguments.allow_dirty)
