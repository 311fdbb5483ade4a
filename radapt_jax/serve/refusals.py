"""Requests that are refused: a status, and what was found and expected."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A request that is not answered.

    Args:
      status: of HTTP.
      detail: what was found, and what was expected.
      headers: of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def too_large(most: int, found: int | None = None) -> Refused:
    """Return the refusal of a body of more than `most` bytes."""
    told = "a larger body" if found is None else f"a body of {found:,} bytes"
    return Refused(413, f"found {told}; expected {most:,} bytes at most.", {"Connection": "close"})


def busy(waiting: int, more: int, most: int) -> Refused:
    """Return the refusal of images for which there is no room in the queue."""
    return Refused(
        429,
        f"found {waiting} images waiting and {more} more; expected {most} at most. Ask later.",
        {"Retry-After": "1"},
    )
