"""What a server accepts from a request, and how much it lets wait."""

from __future__ import annotations

import dataclasses

from radapt_jax.data.images import MAX_PIXELS
from radapt_jax.utils.checks import check_all, number, whole

MOST = 64  # images of a batch
WAIT = 0.002  # seconds that the first images of a batch wait for others
MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a server; what goes beyond one is refused with a status of its own.

    Args:
      body: most bytes of a request's body (413). Adapter files are bodies, too.
      images: most images of a request (422).
      pixels: most pixels of an image as stored, before it is resized (422).
      waiting: most images that wait or are being answered (429).
      seconds: longest time for a body to arrive (408), and for images to be answered (503).
      connections: most open connections (503).

    Raises:
      ValueError: a value outside these ranges.
    """

    body: int = 32 * MIB
    images: int = 64
    pixels: int = 1 << 24
    waiting: int = 1024
    seconds: float = 30.0
    connections: int = 512

    def __post_init__(self) -> None:
        check_all(vars(self), KINDS)
        if self.pixels > MAX_PIXELS:
            raise ValueError(f"found pixels {self.pixels}; expected at most {MAX_PIXELS}.")
        if self.waiting < self.images:
            raise ValueError(
                f"found waiting {self.waiting} below images {self.images}; expected room for the "
                "images of one request."
            )


KINDS = {
    **{name: whole(1) for name in ("body", "images", "pixels", "waiting", "connections")},
    "seconds": number("(0, inf)"),
}
DEFAULT = Limits()
