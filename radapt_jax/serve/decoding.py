"""Decodes the images of a request in threads, off the event loop."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from radapt_jax.data.domain import Domain
from radapt_jax.data.images import preprocess
from radapt_jax.serve.refusals import Refused


class Decoder:
    """Threads that turn encoded images into what a domain's network sees.

    Args:
      pixels: most pixels of an image as stored.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._threads = ThreadPoolExecutor(os.cpu_count(), "decode")

    async def decoded(self, images: list[Any], domain: Domain) -> np.ndarray:
        """Return images as uint8 (n, size, size, 3), each decoded in a thread.

        Raises:
          Refused: one cannot be read, or has too many pixels.
        """
        loop = asyncio.get_running_loop()
        tasks = [
            loop.run_in_executor(self._threads, self._one, place, image, domain)
            for place, image in enumerate(images)
        ]
        return np.concatenate(await asyncio.gather(*tasks))

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _one(self, place: int, image: Any, domain: Domain) -> np.ndarray:
        try:
            return preprocess([image], domain, self._pixels)
        except ValueError as error:
            raise Refused(422, f"image {place}: {error}") from error
