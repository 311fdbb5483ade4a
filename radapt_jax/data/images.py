"""Decodes and resizes single images, for training, evaluation and `preprocess` alike."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from radapt_jax.data.domain import Domain, Interpolation

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS: it starts a program
CHANNELS = (1, 3, 4)  # grey, RGB and RGBA
MAX_BYTES = 1 << 28  # of an image file
MAX_PIXELS = 1 << 26  # of an image as stored; 0.2 GB when decoded
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MAX_ASPECT = 8  # a longer side is cut to this multiple of the shorter one, centred


def preprocess(images: Any, domain: Domain, pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return images as the evaluation of a domain sees them: uint8 (n, size, size, 3).

    Args:
      images: one image that `decode` takes, or several: a list, a generator or another iterable of
        such images, or an array (n, h, w) or (n, h, w, 1, 3 or 4). An array of three axes whose
        last has 1, 3 or 4 entries is one image.
      domain: whose resizing and crop to use.
      pixels: the most of an image as stored.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an image cannot be read.
    """
    size = domain.size
    cut = [centre_crop(decode(image, *domain.resizing, pixels), size) for image in each(images)]
    return np.stack(cut) if cut else np.zeros((0, size, size, 3), np.uint8)


def each(images: Any) -> Iterable[Any]:
    """Return one or several images as several; `preprocess` says what they may be."""
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
        return [images]
    if _is_array(images):
        images = np.asarray(images)
        pixels = images.dtype.kind not in "OSU"  # those are paths, or images of several shapes
        one = images.ndim < 3 or (images.ndim == 3 and images.shape[-1] in CHANNELS)
        return [images] if pixels and one else images
    return images if isinstance(images, Iterable) else [images]


def _is_array(image: Any) -> bool:
    """Return whether this is an array of NumPy, JAX or another library that NumPy can read."""
    return hasattr(image, "__array__") and not isinstance(image, str | bytes)


def decode(
    image: Any,
    resize: int,
    squash: bool = False,
    interpolation: Interpolation = "bicubic",
    pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Return an image as uint8 (height, width, 3), resized.

    Grey, palette and CMYK images become RGB. Of 16 bits, the high byte is kept. Transparency is
    dropped, which shows the colours under it. Of an animation, the first frame is taken.
    Photographs are turned upright.

    Args:
      image: a path, encoded bytes, a PIL image, or a uint8 array (h, w), (h, w, 1), (h, w, 3) or
        (h, w, 4), whose last channel is transparency. Files must be in one of `FORMATS`, with at
        most `MAX_BYTES` bytes.
      resize: length of the shorter side in pixels, or of both sides with `squash`.
      squash: ignore the aspect ratio.
      interpolation: see `Domain`.
      pixels: the most of an image as stored.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it cannot be read as an image, is too large, or is an array of another dtype or
        shape.
    """
    picture = _open(image, pixels)
    if squash:
        new = (resize, resize)
    else:
        picture = _without_ends(picture)
        width, height = picture.size
        scale = resize / min(width, height)
        new = (max(round(width * scale), resize), max(round(height * scale), resize))
    if picture.size != new:
        picture = picture.resize(new, RESAMPLING[interpolation])
    return np.asarray(picture)


def _without_ends(picture: Image.Image) -> Image.Image:
    """Return the middle of a very long or very high picture, and any other picture unchanged."""
    longest = MAX_ASPECT * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    left, top = (max(side - longest, 0) // 2 for side in picture.size)
    width, height = (min(side, longest) for side in picture.size)
    return picture.crop((left, top, left + width, top + height))


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the centre `size` x `size` pixels of an image (h, w, 3), as in evaluation."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _open(image: Any, pixels: int) -> Image.Image:
    """Return an image as RGB; if it cannot be read, raise a ValueError that names it."""
    what = str(image) if isinstance(image, str | os.PathLike) else "the image"
    try:
        if isinstance(image, Image.Image):
            return _rgb(image, pixels)
        if _is_array(image):
            return _rgb(_from_array(np.asarray(image)), pixels)
        with Image.open(_stream(image), formats=FORMATS) as picture:
            return _rgb(picture, pixels)
    except (FileNotFoundError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{what} cannot be read as an image: expected one of {', '.join(FORMATS)}."
        ) from error
    except Exception as error:
        raise ValueError(f"{what} cannot be read as an image: {error}") from error


def _stream(image: Any) -> Any:
    """Return a path or encoded bytes as pillow reads them; raise ValueError if they are too big."""
    if isinstance(image, bytes):
        size = len(image)
    elif isinstance(image, str | os.PathLike):
        size = os.stat(image).st_size
    else:
        raise ValueError(
            f"found {type(image).__name__}; expected a path, encoded bytes, a PIL image or a uint8 "
            "array."
        )
    if size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes; store it smaller.")
    return io.BytesIO(image) if isinstance(image, bytes) else image


def _from_array(image: np.ndarray) -> Image.Image:
    shape = image.shape[:-1] if image.ndim == 3 and image.shape[-1] == 1 else image.shape
    if image.dtype != np.uint8 or not (
        len(shape) == 2 or (len(shape) == 3 and shape[-1] in CHANNELS)
    ):
        raise ValueError(
            f"found an array of {image.dtype} {image.shape}; expected uint8 (h, w), (h, w, 1), "
            "(h, w, 3) or (h, w, 4) in [0, 255]."
        )
    if 0 in shape:
        raise ValueError(f"found an array of {image.shape}; expected at least one pixel.")
    return Image.fromarray(image.reshape(shape))


def _rgb(picture: Image.Image, pixels: int) -> Image.Image:
    """Return a picture upright and as RGB; its size is checked before its pixels are decoded."""
    width, height = picture.size
    if not 0 < width * height <= pixels:
        raise ValueError(
            f"it has {width} x {height} pixels; expected 1 to {pixels:,} in all. Store it smaller."
        )
    all_bits = picture.format == "PPM"  # pillow scales its values to 16 bits
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("its pixels are floats of unknown range; expected 8 or 16 bits.")
    if picture.mode.startswith("I"):
        picture = _eight_bits(picture, all_bits)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image, all_bits: bool) -> Image.Image:
    """Return the high byte of 16-bit pixels; pixels of mode I that are all below 256 stay."""
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            f"its pixels range from {values.min()} to {values.max()}; expected 8 or 16 bits."
        )
    if picture.mode != "I" or all_bits or values.max() > 0xFF:
        values >>= 8
    return Image.fromarray(values.astype(np.uint8))
