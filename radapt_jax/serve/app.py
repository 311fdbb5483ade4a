"""The addresses of a server, as an ASGI app."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline

from radapt_jax.serve.bodies import NPY, Encoded, images_of
from radapt_jax.serve.bounded import Scope, around, body_of
from radapt_jax.serve.refusals import Refused
from radapt_jax.serve.replies import (
    Changed,
    DomainFacts,
    Domains,
    Prediction,
    Told,
    facts_of,
    prediction_of,
)
from radapt_jax.serve.service import Service
from radapt_jax.version import __version__

PAGE = Path(__file__).parent / "page"
PARTS = {"": "page.html", "page.css": "page.css", "page.js": "page.js"}
BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGES = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"images": {"type": "array", "items": BINARY["schema"]}},
            }
        },
        "application/json": {"schema": Encoded.model_json_schema()},
        NPY[0]: BINARY,
        "image/*": BINARY,
    },
}
FILE = {"required": True, "content": {"application/octet-stream": BINARY}}

log = logging.getLogger(__name__)
bearer = HTTPBearer(auto_error=False, description="the token that the server was started with")


def told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of refusals with these statuses."""
    return {status: {"model": Told} for status in statuses}


def create_app(
    service: Service,
    token: str | None = None,
    on_failure: Callable[[BaseException], None] = lambda error: None,
) -> Any:
    """Return an ASGI app that serves a family.

    Args:
      service: what is behind the addresses; the app starts and stops it.
      token: what PUT and DELETE must bring; None: they are refused.
      on_failure: is told why nothing can be answered, if the programs cannot be made.
    """

    def started(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("nothing can be answered: %s", error)
            on_failure(error)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(service.start())
        starting.add_done_callback(started)
        yield
        starting.cancel()
        await service.stop()

    app = FastAPIOffline(title="radapt_jax", version=__version__, lifespan=lifespan, redoc_url=None)
    app.exception_handler(Refused)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_query)

    async def ready() -> None:
        if not service.ready:
            raise Refused(503, "the server is starting or stopping.", {"Retry-After": "2"})

    async def allowed(
        found: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        if token is None:
            raise Refused(
                403, "domains cannot be changed here: the server was started without a token."
            )
        given = found.credentials if found else ""
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Refused(
                401,
                "found no token, or another one; expected the one the server was started with, as "
                "Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )

    @app.get("/domains", response_model=Domains)
    async def domains() -> Domains:
        """List the domains that are served."""
        return Domains(
            backbone=str(service.family.shared.backbone),
            changeable=token is not None,
            domains=[facts_of(it) for _, it in sorted(service.facts.items())],
        )

    @app.post(
        "/predict/{domain}",
        response_model=Prediction,
        responses=told(404, 408, 413, 415, 422, 429, 503),
        dependencies=[Depends(ready)],
        openapi_extra={"requestBody": IMAGES},
    )
    async def predict(
        domain: str, request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 5
    ) -> Response:
        """Classify images: a form's files, base64 in JSON, an array in NumPy's format, or one."""
        service.found(domain)
        service.check_room()
        body = await body_of(request, service.limits)
        images = await images_of(request, body, service.limits)
        found = prediction_of(await service.predict(domain, images), top)
        return Response(found.model_dump_json(), media_type="application/json")

    @app.put(
        "/domains/{name}",
        response_model=Changed,
        responses={201: {"model": Changed}, **told(401, 403, 408, 409, 413, 422, 503, 507)},
        dependencies=[Depends(allowed), Depends(ready)],
        openapi_extra={"requestBody": FILE},
    )
    async def put(name: str, request: Request, response: Response) -> Changed:
        """Serve the domain of an adapter file, in place of the one of that name if there is one."""
        body = await body_of(request, service.limits)
        facts, done = await service.put(name, body)
        response.status_code = 201 if done == "added" else 200
        return Changed(name=name, sha256=facts.version, done=done)

    @app.delete(
        "/domains/{name}",
        response_model=Changed,
        responses=told(401, 403, 404, 409, 503, 507),
        dependencies=[Depends(allowed), Depends(ready)],
    )
    async def delete(name: str) -> Changed:
        """Serve a domain no longer. Its file is kept in the workdir, in the folder `removed`."""
        facts = await service.remove(name)
        return Changed(name=name, sha256=facts.version, done="deleted")

    @app.get("/domains/{name}", response_model=DomainFacts, responses=told(404))
    async def domain(name: str) -> DomainFacts:
        """Tell what is known of a domain."""
        return facts_of(service.found(name))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", responses=told(503), dependencies=[Depends(ready)])
    async def readyz() -> dict[str, str]:
        """Tell whether predictions are answered."""
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return counts and latencies in the format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    for path, name in PARTS.items():
        _add_part(app, path, PAGE / name)

    def count(scope: Scope, status: int) -> None:
        address = getattr(scope.get("route"), "path", "other")
        service.metrics.requests.labels(address, str(status)).inc()

    return around(app, count)


def _add_part(app: FastAPI, path: str, file: Path) -> None:
    """Add a part of the page, which is read once."""
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    content, kind = file.read_bytes(), kinds[file.suffix]

    @app.get(f"/{path}", include_in_schema=False)
    async def part() -> Response:
        return Response(content, media_type=kind)


async def _refuse(_: Request, refused: Refused) -> JSONResponse:
    return JSONResponse(
        {"detail": refused.detail}, status_code=refused.status, headers=refused.headers
    )


async def _refuse_query(_: Request, wrong: RequestValidationError) -> JSONResponse:
    told = [f"{it['loc'][-1]} {it.get('input')!r:.100}: {it['msg']}" for it in wrong.errors()]
    return JSONResponse({"detail": f"found {'; '.join(told)}."}, status_code=422)
