"""Bytes → RGB pixels, within bounds: a file is refused by its header before memory is spent on it.

Transparency is ignored, grey is repeated, palettes and CMYK are converted, 16 bits are cut to the
upper 8. Of the metadata only the orientation is read; odd values elsewhere are no reason to refuse
a photograph.
"""

from __future__ import annotations

import io
import re
import warnings
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.core.schema import Status
from stages.faces import jpeg

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
with suppress(ImportError):  # of the extra `heic`
    from pillow_heif import register_heif_opener

    register_heif_opener()
    FORMATS += ("HEIF",)
# `decode` has a bound of its own; Pillow's would warn, and refuse what a larger `max_pixels`
# allows.
Image.MAX_IMAGE_PIXELS = None
# Of odd metadata it warns with paths of its own files. Filters are the process's: set while threads
# decode, they would race.
warnings.filterwarnings("ignore", category=UserWarning, module=r"(PIL|pillow_heif)\b")
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
_HEIC = "a HEIC photograph, which takes an extra to read: install qfuse[heic]"
_HEIC_DAMAGED = (
    "a HEIC photograph that is damaged, or of a kind that pillow-heif does not read; save it anew"
    " as JPEG"
)
_DEEP = "its pixels have 32 bits, whose scale is unknown; save it with 8 or 16"


class Unusable(Exception):
    """An image that cannot be used: its status and a sentence."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the image (height, width, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises Unusable: UNREADABLE if it is no image, truncated or damaged; TOO_LARGE if its
    header announces more than `max_pixels`. What is not the file's fault comes through:
    MemoryError, ImportError, the operating system's errors.
    """
    if not data:
        raise Unusable(Status.UNREADABLE, "the file is empty")
    told: dict[str, bytes] = {}
    if data.startswith(jpeg.START):
        header = jpeg.header(data)
        if header and header.width * header.height <= max_pixels and _is_upright(header.told):
            pixels = jpeg.pixels(data, header)
            if pixels is not None:
                return pixels
        data, told = jpeg.essential(data)
    elif data.startswith(_PNG):
        data = _essential_png(data)
    try:
        image: Any = Image.open(io.BytesIO(data), formats=FORMATS)
        image.info.update(told)
    except UnidentifiedImageError:
        if _HEIF.match(data):
            raise Unusable(
                Status.UNREADABLE, _HEIC_DAMAGED if "HEIF" in FORMATS else _HEIC
            ) from None
        raise Unusable(Status.UNREADABLE, "not an image of a known format") from None
    except Exception as error:
        raise _unusable(error, "damaged header") from None
    if image.width * image.height > max_pixels:
        raise Unusable(
            Status.TOO_LARGE,
            f"{image.width}×{image.height} pixels are more than the {max_pixels:,} of"
            " align.max_pixels",
        )
    # A scan of 14 bytes costs a pass over all pixels: a few hundred kB of them would keep a core
    # busy for an hour.
    most = jpeg.MAX_SCANS
    if data.startswith(jpeg.START) and len(list(islice(jpeg.scans(data), most + 1))) > most:
        kind = "progressive JPEG" if "progressive" in image.info else "JPEG"
        raise Unusable(Status.UNREADABLE, f"a {kind} of more than {most} scans; save it anew")
    try:
        if data.startswith(jpeg.START):
            image = jpeg.ended(image, data)
        image.load()
        # a TIFF
        if (
            "tag_v2" in vars(image)
            and max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))) > 16
        ):
            raise Unusable(Status.UNREADABLE, _DEEP)
        turn = _turn(image)
        return _rgb(image if turn is None else image.transpose(turn))
    except Unusable:
        raise
    # Pillow's plug-ins raise many kinds; whichever it is, this file is unusable.
    except Exception as error:
        raise _unusable(error, "truncated or damaged") from None


def _essential_png(data: bytes) -> bytes:
    """Return a PNG without chunks of metadata, for which Pillow may refuse a whole image.

    EXIF stays, as Pillow reads it late.
    """
    parts, at = [_PNG], len(_PNG)
    while len(head := data[at : at + 8]) == 8:
        end = at + 12 + int.from_bytes(head[:4])
        # an upper-case letter: critical (ISO/IEC 15948, 5.4)
        if not head[4] & 0x20 or head[4:] == b"eXIf":
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright by its EXIF orientation; None also if EXIF is damaged."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser raises many kinds
        return None


def _is_upright(told: dict[str, bytes]) -> bool:
    if not told:
        return True
    bearer = Image.new("L", (1, 1))
    bearer.info.update(told)
    return _turn(bearer) is None


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "RGB":  # a conversion would copy it
        return np.asarray(image)
    if image.mode[0] not in "IF":
        return np.asarray(image.convert("RGB"))
    # Pillow would clip these to 0…255: a photograph of 16 bits would come out white.
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 0xFFFF:  # "I" stands for 16 bits, too
        raise Unusable(Status.UNREADABLE, _DEEP)
    return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)


def _unusable(error: Exception, what: str) -> Unusable:
    # Pillow's own OSErrors, as of a truncated file, have no errno.
    if isinstance(error, MemoryError | ImportError) or (isinstance(error, OSError) and error.errno):
        raise error
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return Unusable(Status.UNREADABLE, f"{what} ({line[:120]})")
