"""Our own log lines, as a command shows them."""

from __future__ import annotations

import logging

from absl import logging as absl_logging

from radapt_jax.utils import distributed


def log_to_stderr() -> None:
    """Write our log lines to stderr, those of the main process alone, and of others warnings only.

    Errors are written by every process.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells each save in ten lines
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: record.levelno >= logging.ERROR or distributed.is_main())
    ours = logging.getLogger("radapt_jax")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
