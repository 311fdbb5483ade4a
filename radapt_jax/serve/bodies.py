"""Bodies of requests: read within bounds, and taken apart into encoded images or arrays."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pydantic
from fastapi import Request
from starlette.formparsers import MultiPartException, MultiPartParser

from radapt_jax.serve.limits import Limits
from radapt_jax.serve.refusals import Refused

NPY = ("application/x-npy", "application/octet-stream")
LONGEST_HEADER = 1024  # of an npy file


class Encoded(pydantic.BaseModel, extra="forbid"):
    """A body of JSON: image files in base64."""

    images: list[str] = pydantic.Field(min_length=1, description="image files, in base64")


async def images_of(request: Request, body: bytes, limits: Limits) -> list[Any]:
    """Return the images of a body, as `data.images.decode` takes them.

    Raises:
      Refused: it is of no type that is known, cannot be read, or has too many images or none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images: list[Any] = await _of_form(request, body, limits)
    elif kind == "application/json":
        images = _of_json(body, limits)
    elif kind in NPY:
        images = _of_npy(body, limits)
    elif kind.startswith("image/"):
        images = [body]
    else:
        raise Refused(
            415,
            f"found a body of type {kind!r}; expected multipart/form-data with image files, "
            f"application/json with base64, {NPY[0]} or image/*.",
        )
    _check_count(len(images), limits)
    return images


def _check_count(count: int, limits: Limits) -> None:
    if not 1 <= count <= limits.images:
        raise Refused(422, f"found {count} images; expected 1 to {limits.images}.")


async def _of_form(request: Request, body: bytes, limits: Limits) -> list[bytes]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers,
        stream(),
        max_files=limits.images,
        max_fields=0,
    )
    parser.spool_max_size = limits.body + 1  # parts stay in memory
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        told = getattr(error, "message", str(error))
        raise Refused(422, f"found a form that cannot be read: {told}") from error
    try:
        return [await part.read() for _, part in form.multi_items() if not isinstance(part, str)]
    finally:
        await form.close()


def _of_json(body: bytes, limits: Limits) -> list[bytes]:
    if (commas := body.count(b",")) >= limits.images:  # before millions of texts are made of it
        _check_count(commas + 1, limits)
    try:
        found = Encoded.model_validate_json(body)
        return [base64.b64decode(text, validate=True) for text in found.images]
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise Refused(
            422, f'found {place}: {first["msg"]}; expected {{"images": ["<base64>", ...]}}.'
        ) from error
    except (binascii.Error, ValueError) as error:
        raise Refused(422, f"found an image that is no base64: {error}.") from error


def _of_npy(body: bytes, limits: Limits) -> list[np.ndarray]:
    """Return the images of an array in NumPy's format, (n, h, w, 3); its size is checked first."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(
            stream, max_header_size=LONGEST_HEADER
        )
    except Exception as error:  # NumPy evaluates the header as literals, which fails in many ways
        raise Refused(422, f"found no array in NumPy's format 1.0: {error}.") from error
    rest = body[stream.tell() :]
    shape = (1, *shape) if len(shape) == 3 else shape
    fits = len(shape) == 4 and shape[-1] == 3 and min(shape[1:]) > 0
    if fits:
        _check_count(shape[0], limits)
    size = int(np.prod(shape, dtype=object)) if fits else -1
    if dtype != np.uint8 or fortran or size != len(rest):
        raise Refused(
            422,
            f"found an array of {dtype} {shape} in {len(rest):,} bytes; expected uint8 "
            "(n, height, width, 3) in [0, 255], in C order and whole.",
        )
    return list(np.frombuffer(rest, np.uint8).reshape(shape))
