"""`radapt serve`: a family behind one address."""

from __future__ import annotations

import argparse
import importlib.util
import os
from dataclasses import fields

from radapt_jax.serve.limits import MOST, WAIT, Limits
from radapt_jax.utils.checks import check, whole
from radapt_jax.utils.logs import log_to_stderr
from radapt_jax.utils.memory import keep_freed_memory
from radapt_jax.utils.programs import keep_programs

NEEDED = ("fastapi", "fastapi_offline", "uvicorn", "python_multipart", "prometheus_client")
TOKEN = "RADAPT_TOKEN_FILE"  # in the environment, where there is no --token_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("workdir", help="of a run, or where a family was saved")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (%(default)s)")
    parser.add_argument(
        "--token_file",
        default=os.environ.get(TOKEN),
        help=f"with the token that PUT and DELETE must bring; default: that of {TOKEN}, or none, "
        "and they are refused",
    )
    parser.add_argument("--at_most", type=int, help="domains in memory; default: all of them")
    parser.add_argument(
        "--wait",
        type=float,
        default=1000 * WAIT,
        help="ms that images wait for others (%(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, default=MOST, help="most images of a batch (%(default)s)"
    )
    parser.add_argument(
        "--apart", action="store_true", help="compute each domain apart, whatever is faster"
    )
    for field in fields(Limits):
        what = f"limit, see docs/service.md ({field.default:,})"
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=what)


def serve(arguments: argparse.Namespace) -> None:
    """Serve a family until SIGTERM.

    Raises:
      ValueError: the extra is not installed, an argument is out of range, or a domain is damaged.
      OSError: there is no family, or the address cannot be listened on.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"found no {', '.join(missing)}; serving needs an extra: "
            "pip install -e '.[serve]' in a clone."
        )
    from radapt_jax.serve.server import bind, read_token, run
    from radapt_jax.serve.service import Service

    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    if not 0 <= arguments.wait <= 1000:
        raise ValueError(f"found --wait {arguments.wait}; expected 0 to 1000 ms.")
    check("--batch", arguments.batch, whole(1))
    token = read_token(arguments.token_file)
    bound = bind(arguments.host, arguments.port)  # before minutes of loading
    log_to_stderr()
    keep_freed_memory()
    keep_programs()
    service = Service(
        arguments.workdir,
        limits=limits,
        wait=arguments.wait / 1000,
        batch=arguments.batch,
        mix=not arguments.apart,
        at_most=arguments.at_most,
    )
    run(service, bound, token=token)
