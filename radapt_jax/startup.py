"""What a command does before anything else: logs, and the compilation cache."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from absl import app, flags

from radapt_jax import command_line
from radapt_jax.experiment.failures import DomainsFailed
from radapt_jax.train.signals import Stopped
from radapt_jax.utils import distributed
from radapt_jax.utils.logs import log_to_stderr
from radapt_jax.utils.memory import keep_freed_memory
from radapt_jax.utils.programs import keep_programs

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
    keep_freed_memory()
    keep_programs()

    def guarded(argv: list[str]) -> None:
        log_to_stderr()
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
