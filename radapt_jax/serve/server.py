"""Runs a server: uvicorn, one process, one loop; stopped by SIGTERM once all are answered."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import prometheus_client
import uvicorn

from radapt_jax.serve.app import create_app
from radapt_jax.serve.service import Service

SHORTEST_TOKEN = 16  # characters
BACKLOG = 2048  # connections that wait to be taken
STOPPING = 60  # seconds that answers under way may take after SIGTERM

log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, so that nobody else has it; `run` listens.

    Until then, connections are refused: who asks whether the server is ready is not left waiting.
    A port of 0 is any that is free.

    Raises:
      ValueError: no such port.
      OSError: the address cannot be listened on.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"found --port {port}; expected 0 (any that is free) to 65535.")
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(
            f"found no way to listen at {host}:{port}: {error.strerror or error}. Another server "
            "may be there: name another --port (0: any that is free) or --host."
        ) from error
    return bound


def run(service: Service, bound: socket.socket, *, token: str | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Then no more connections are taken, what waits is answered, and the process ends.

    Args:
      service: what is served.
      bound: from `bind`; closed at the end.
      token: what PUT and DELETE must bring; None: they are refused.

    Raises:
      ValueError: a domain is damaged, so that nothing can be answered.
    """
    failures: list[BaseException] = []

    def give_up(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    prometheus_client.disable_created_metrics()
    config = uvicorn.Config(
        create_app(service, token, give_up),
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=service.limits.connections + 1,  # uvicorn refuses the last of these
        timeout_graceful_shutdown=STOPPING,
    )
    host, port = bound.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    changes = "with the token" if token else "not possible, as there is no token"
    log.info("%d domains at %s; changes %s", len(service.facts), where, changes)
    server = uvicorn.Server(config)
    server.run([bound])
    if failures:
        raise failures[0]


def read_token(path: str | Path | None) -> str | None:
    """Return the token in a file, without the spaces around it; None if there is no file to read.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is too short, or has other signs than HTTP allows.
    """
    if path is None:
        return None
    token = Path(path).read_text().strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{path}: found a token of {len(token)} characters; expected {SHORTEST_TOKEN} or more, "
            "all ASCII. For one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token
