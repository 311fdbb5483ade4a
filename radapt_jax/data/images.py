"""Decoding and resizing of single images, shared by training, evaluation and `preprocess`."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_ASPECT = 8  # a longer side beyond this multiple of the shorter one is cut, centred


def decode(image: Any, resize: int, squash: bool = False) -> np.ndarray:
    """Return an image as uint8 (height, width, 3), resized.

    Args:
      image: a path, encoded bytes, a PIL image, or a uint8 array (h, w), (h, w, 1) or (h, w, 3).
      resize: length of the shorter side in pixels, or of both sides with `squash`.
      squash: ignore the aspect ratio.

    Raises:
      ValueError: it cannot be read as an image, or an array has another dtype or shape.
    """
    picture = _open(image)
    if squash:
        new = (resize, resize)
    else:
        picture = _without_ends(picture)
        width, height = picture.size
        scale = resize / min(width, height)
        new = (max(round(width * scale), resize), max(round(height * scale), resize))
    if picture.size != new:
        picture = picture.resize(new, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _without_ends(picture: Image.Image) -> Image.Image:
    """Return the middle of a very long or very high picture, and any other as it is."""
    longest = MAX_ASPECT * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    left, top = (max(side - longest, 0) // 2 for side in picture.size)
    width, height = (min(side, longest) for side in picture.size)
    return picture.crop((left, top, left + width, top + height))


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the centre `size` x `size` pixels of (h, w, 3), as at evaluation."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _open(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(image))
    if isinstance(image, np.ndarray):
        grey = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 1)
        if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[-1] == 3)):
            raise ValueError(
                f"found an array of {image.dtype} {image.shape}; expected uint8 (h, w), (h, w, 1) "
                "or (h, w, 3) in [0, 255]."
            )
        return Image.fromarray(image.squeeze(-1) if grey and image.ndim == 3 else image).convert(
            "RGB"
        )
    what = str(image) if isinstance(image, str | os.PathLike) else "the image"
    try:
        stream = io.BytesIO(image) if isinstance(image, bytes) else Path(image)
        with Image.open(stream) as picture:
            return _to_rgb(ImageOps.exif_transpose(picture))
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{what} cannot be read as an image: {error}") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("its pixels are floats of unknown range; expected 8 or 16 bits.")
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if picture.mode != "I" or values.max() > 255:  # 16 bits: keep the high byte
            values >>= 8
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")
