"""Bytes → RGB pixels, within bounds: a file is refused by its header before memory is spent on it."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.schema import Status

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")


class Unusable(Exception):
    """An image that cannot be used: its status and a sentence."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the image (height, width, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises Unusable: UNREADABLE where it is no image, truncated or damaged; TOO_LARGE where its header announces more
    than `max_pixels`.
    """
    if not data:
        raise Unusable(Status.UNREADABLE, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Unusable(Status.TOO_LARGE, f"its header announces more than {max_pixels:,} pixels") from None
    except UnidentifiedImageError:
        raise Unusable(Status.UNREADABLE, "not an image of a known format") from None
    except Exception as error:
        raise Unusable(Status.UNREADABLE, f"damaged header ({_line(error)})") from None
    if image.width * image.height > max_pixels:
        raise Unusable(Status.TOO_LARGE, f"{image.width}×{image.height} is more than {max_pixels:,} pixels")
    try:
        image.load()
        upright = ImageOps.exif_transpose(image) or image
        return np.asarray(upright.convert("RGB"))
    except Exception as error:  # Pillow's plug-ins raise many kinds; whichever it is, this file is unusable
        raise Unusable(Status.UNREADABLE, f"truncated or damaged ({_line(error)})") from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
