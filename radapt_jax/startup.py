"""What a command does before anything else: logs, and the compilation cache."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags
from absl import logging as absl_logging

from radapt_jax import command_line
from radapt_jax.experiment.failures import DomainsFailed
from radapt_jax.train.signals import Stopped
from radapt_jax.utils import distributed

USER_ERRORS = (ValueError, KeyError, OSError, FloatingPointError, MemoryError, DomainsFailed)


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run an absl main: our log lines only, errors of the user's as one message, exit code 1;
    a mistyped flag as one line; a stop by SIGTERM or SIGINT with exit code 143 or 130.

    With --verbosity=1, an error comes with its traceback. Of several processes the main one alone
    logs what is no error.

    XLA's compiled programs are kept in ~/.cache/radapt_jax/xla (or JAX_COMPILATION_CACHE_DIR), so
    that the next start of the same program takes seconds less.

    Args:
      main: gets what is left of the command line; its module defines the flags that --help names.
      argv: the program's name and its arguments; default: sys.argv.
    """
    for flag in flags.FLAGS.get_key_flags_for_module(main.__module__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path("~/.cache/radapt_jax/xla").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache))

    def guarded(argv: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells each save in ten lines
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(lambda record: record.levelno >= logging.ERROR or distributed.is_main())
        ours = logging.getLogger("radapt_jax")
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
        try:
            main(argv)
        except Stopped as stopped:
            distributed.stop(str(stopped), stopped.code)
        except Exception as error:
            wordy = flags.FLAGS["verbosity"].present and flags.FLAGS.verbosity > 0
            if wordy or not isinstance(error, USER_ERRORS):
                if not distributed.several():
                    raise
                traceback.print_exc()
            message = error.args[0] if isinstance(error, KeyError) else error
            distributed.stop(f"error: {message}")

    app.run(guarded, argv, flags_parser=command_line.parse)
