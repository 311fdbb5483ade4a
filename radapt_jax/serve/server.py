"""Runs a server: uvicorn, one process, one loop; stopped by SIGTERM once all are answered."""

from __future__ import annotations

import logging
from pathlib import Path

import prometheus_client
import uvicorn

from radapt_jax.serve.app import create_app
from radapt_jax.serve.service import Service

SHORTEST_TOKEN = 16  # characters
STOPPING = 60  # seconds that answers under way may take after SIGTERM

log = logging.getLogger(__name__)


def run(service: Service, *, host: str, port: int, token: str | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Then no more connections are taken, what waits is answered, and the process ends.

    Raises:
      OSError: the address cannot be listened on.
      ValueError: a domain is damaged, so that nothing can be answered.
    """
    failures: list[BaseException] = []

    def give_up(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    prometheus_client.disable_created_metrics()
    config = uvicorn.Config(
        create_app(service, token, give_up),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=service.limits.connections,
        timeout_graceful_shutdown=STOPPING,
    )
    listening = config.bind_socket()
    where = f"http://{host}:{listening.getsockname()[1]}"
    changes = "with the token" if token else "not possible, as there is no token"
    log.info("%d domains at %s; changes %s", len(service.facts), where, changes)
    server = uvicorn.Server(config)
    server.run([listening])
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
