"""Bytes → RGB pixels, within bounds: a file is refused by its header before memory is spent on it.

Transparency is ignored, grey is repeated, palettes and CMYK are converted, 16 bits are cut to the upper 8. Of metadata
only the orientation is read: what is odd about the rest is no reason to refuse a photograph.
"""

from __future__ import annotations

import io
import re
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.schema import Status

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
with suppress(ImportError):  # of the extra `heic`
    from pillow_heif import register_heif_opener

    register_heif_opener()
    FORMATS += ("HEIF",)
# `decode` has a bound of its own; Pillow's would warn, and refuse what a larger `max_pixels` allows.
Image.MAX_IMAGE_PIXELS = None
MAX_SCANS = 100  # of a progressive JPEG, as libtiff's limit; cameras and programs write about ten
_HEIF = re.compile(rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"
_TURNS = {  # EXIF orientation → what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # one that opens a segment (ITU-T T.81, table B.1)
_HEIC = "a HEIC photograph, which takes an extra to read: install qfuse[heic]"


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
        image = Image.open(io.BytesIO(_essential(data) if data.startswith(_PNG) else data), formats=FORMATS)
    except UnidentifiedImageError:
        if _HEIF.match(data):
            raise Unusable(Status.UNREADABLE, _HEIC) from None
        raise Unusable(Status.UNREADABLE, "not an image of a known format") from None
    except Exception as error:
        raise _unusable(error, "damaged header") from None
    if image.width * image.height > max_pixels:
        raise Unusable(
            Status.TOO_LARGE, f"{image.width}×{image.height} pixels are more than the {max_pixels:,} of align.max_pixels"
        )
    # A scan of 14 bytes costs a pass over all pixels: a few hundred kB of them would keep a core busy for an hour.
    if "progressive" in image.info and _scans(data) > MAX_SCANS:
        raise Unusable(Status.UNREADABLE, f"a progressive JPEG of more than {MAX_SCANS} scans; save it anew")
    try:
        image.load()
        return _rgb(_upright(image))
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


def _essential(data: bytes) -> bytes:
    """Return a PNG less its chunks of metadata, which Pillow refuses a whole image for; EXIF stays, which it reads late."""
    parts, at = [_PNG], len(_PNG)
    while len(head := data[at : at + 8]) == 8:
        end = at + 12 + int.from_bytes(head[:4])
        if not head[4] & 0x20 or head[4:] in (b"tRNS", b"eXIf"):  # an upper-case letter: critical (ISO/IEC 15948, 5.4)
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation; one whose EXIF cannot be read is as it is."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser raises many kinds
        return image
    return image if turn is None else image.transpose(turn)


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
