"""Bounds around all addresses: on bodies, and on what browsers may do with the answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from radapt_jax.serve.limits import Limits
from radapt_jax.serve.refusals import Refused, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]

# Nothing is fetched from elsewhere, and no other page can show this one.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' {styles}; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def _encoded(**allowed: str) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    headers = {**HEADERS, "Content-Security-Policy": POLICY.format(**allowed)}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


STRICT = _encoded(scripts="", styles="")
OF_DOCS = _encoded(scripts="'unsafe-inline'", styles="'unsafe-inline'")  # Swagger's page


async def body_of(request: Request, limits: Limits) -> bytes:
    """Return a request's body.

    Raises:
      Refused: it is too large, or takes too long to arrive.
    """
    with contextlib.suppress(ValueError):
        told = int(request.headers.get("content-length", "0"))
        if told > limits.body:
            raise too_large(limits.body, told)
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body:
                    raise too_large(limits.body)
                parts.append(part)
    except ClientDisconnect:  # nobody reads this answer
        raise Refused(400, f"found {size:,} bytes, then no client; expected the body.") from None
    except TimeoutError:
        raise Refused(
            408, f"found {size:,} bytes after {limits.seconds:g} s; expected the whole body."
        ) from None
    return b"".join(parts)


def around(app: App, count: Callable[[Scope, int], None]) -> App:
    """Return an app whose responses have headers that bound what a browser does with them.

    `count` is called with the scope and the status of every response.
    """

    async def wrapped(scope: Scope, receive: Any, send: Any) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        more = OF_DOCS if path.startswith("/docs") else STRICT

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *more]}
                count(scope, message["status"])
            await send(message)

        await app(scope, receive, sending)

    return wrapped
