"""Bytes → RGB pixels, within bounds: a file is refused by its header before memory is spent on it.

Transparency is ignored, grey is repeated, palettes and CMYK are converted, 16 bits are cut to the upper 8.
"""

from __future__ import annotations

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.schema import Status

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
# `decode` has a bound of its own; Pillow's would warn, and refuse what a larger `max_pixels` allows.
Image.MAX_IMAGE_PIXELS = None
MAX_SCANS = 100  # of a progressive JPEG, as libtiff's limit; cameras and programs write about ten
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # one that opens a segment (ITU-T T.81, table B.1)


class Unusable(Exception):
    """An image that cannot be used: its status and a sentence."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the image (height, width, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises Unusable: UNREADABLE where it is no image, truncated or damaged; TOO_LARGE where its header announces more
    than `max_pixels`. What is not the file's fault comes through: MemoryError, ImportError, the operating system's errors.
    """
    if not data:
        raise Unusable(Status.UNREADABLE, "the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unusable(Status.UNREADABLE, "not an image of a known format") from None
    except Exception as error:
        raise _unusable(error, "damaged header") from None
    if image.width * image.height > max_pixels:
        raise Unusable(Status.TOO_LARGE, f"{image.width}×{image.height} is more than {max_pixels:,} pixels")
    # A scan of 14 bytes costs a pass over all pixels: a few hundred kB of them would keep a core busy for an hour.
    if "progressive" in image.info and _scans(data) > MAX_SCANS:
        raise Unusable(Status.UNREADABLE, f"a progressive JPEG of more than {MAX_SCANS} scans; save it anew")
    try:
        image.load()
        return _rgb(ImageOps.exif_transpose(image) or image)
    except Unusable:
        raise
    except Exception as error:  # Pillow's plug-ins raise many kinds; whichever it is, this file is unusable
        raise _unusable(error, "truncated or damaged") from None


def _scans(data: bytes) -> int:
    """Return how many scans a JPEG has, up to one more than MAX_SCANS."""
    scans, at = 0, 2
    while scans <= MAX_SCANS and (marker := _MARKER.search(data, at)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])  # past the segment, which may hold anything
    return scans


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode[0] not in "IF":
        return np.asarray(image.convert("RGB"))
    # Pillow would clip these to 0…255: a photograph of 16 bits would come out white.
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 0xFFFF:
        raise Unusable(Status.UNREADABLE, "its pixels have 32 bits, whose scale is unknown; save it with 8 or 16")
    return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)


def _unusable(error: Exception, what: str) -> Unusable:
    # Pillow's own OSErrors, as of a truncated file, have no errno.
    if isinstance(error, MemoryError | ImportError) or (isinstance(error, OSError) and error.errno):
        raise error
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return Unusable(Status.UNREADABLE, f"{what} ({line[:120]})")
