"""Bytes → RGB pixels, within bounds: a file is refused by its header before memory is spent on it.

Transparency is ignored, grey is repeated, palettes and CMYK are converted, 16 bits are cut to the
upper 8. Of the metadata only the orientation is read; odd values elsewhere are no reason to refuse
a photograph.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.core.schema import Status

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
MAX_SCANS = 100  # of a JPEG, as libtiff's limit; cameras and programs write about ten
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
# one that opens a segment, or EOI (ITU-T T.81, table B.1)
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_JPEG, _SOS, _EOI = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
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
    if data.startswith(_JPEG):
        data, told = _essential_jpeg(data)
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
    if data.startswith(_JPEG) and len(list(islice(_scans(data), MAX_SCANS + 1))) > MAX_SCANS:
        kind = "progressive JPEG" if "progressive" in image.info else "JPEG"
        raise Unusable(Status.UNREADABLE, f"a {kind} of more than {MAX_SCANS} scans; save it anew")
    try:
        if data.startswith(_JPEG) and data.rfind(_EOI) < data.rfind(_SOS):
            image = _ended(image, data)
        image.load()
        # a TIFF
        if (
            "tag_v2" in vars(image)
            and max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))) > 16
        ):
            raise Unusable(Status.UNREADABLE, _DEEP)
        return _rgb(_upright(image))
    except Unusable:
        raise
    # Pillow's plug-ins raise many kinds; whichever it is, this file is unusable.
    except Exception as error:
        raise _unusable(error, "truncated or damaged") from None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield a JPEG's segments up to its end: the marker's second byte, start and end.

    Start and end are offsets in `data`.
    """
    at = 2
    while (marker := _MARKER.search(data, at)) and marker[0] != _EOI:
        # Past the segment, which may hold anything; its length counts the two bytes that give it.
        at = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2]))
        yield marker[0][1], marker.start(), at


def _scans(data: bytes) -> Iterator[bytes]:
    """Yield the header of each of a JPEG's scans."""
    return (data[start + 4 : end] for marker, start, end in _segments(data) if marker == _SOS[1])


def _essential_jpeg(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return a JPEG without its metadata, and the parts of it that may tell the orientation.

    Pillow refuses a whole image for broken metadata. JFIF and Adobe segments that libjpeg accepts
    as such stay: they say how the colours are coded.
    """
    parts, exif, told, at = [data[:2]], list[bytes](), dict[str, bytes](), 2
    for marker, start, end in _segments(data):
        if marker == _SOS[1]:
            break
        body = data[start + 4 : end]
        parts.append(data[at:start])
        if (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
            marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        ):
            parts.append(data[start:end])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            # what is too long for one segment goes on in the next
            exif.append(body[6:] if exif else body)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            told["xmp"] = body.partition(b"\0")[2]
        # What is neither an application's segment nor a comment stays.
        elif not 0xE0 <= marker <= 0xEF and marker != 0xFE:
            parts.append(data[start:end])
        at = end
    if exif:
        told["exif"] = b"".join(exif)
    return b"".join([*parts, data[at:]]), told


def _ended(image: Any, data: bytes) -> Any:
    """Return a JPEG without an end with one, if that is all it lacks; else the image as it is.

    A scan that is whole gives the same pixels whatever follows it. One that is cut off does not:
    here other bits are appended, in its last restart interval and in the next one, if it has
    any.
    """
    shifts = {
        (component, k): head[-1] & 15  # by which the last scan of a coefficient leaves it shifted
        for head in _scans(data)
        if len(head) > 5
        for component in head[1:-3:2][:4]
        for k in range(head[-3], head[-2] + 1)
    }
    if len(shifts) < 64 * image.layers or any(shifts.values()):
        return image  # of a progressive one whole scans may be missing
    body = data.rstrip(b"\xff")
    restarts = _RESTART.findall(body, body.rfind(_SOS))
    following = bytes([0xFF, (restarts[-1][1] + 1) % 8 + 0xD0 if restarts else 0xD0])
    ends = [bits + following + bits + _EOI for bits in (b"\x55" * 2048, b"\xaa" * 2048)]
    seen = set()
    for end in (*ends, _EOI):
        whole = Image.open(io.BytesIO(body + end), formats=["JPEG"])
        seen.add(hashlib.sha256(whole.tobytes()).digest())
    whole.info.update(image.info)
    return whole if len(seen) == 1 else image


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


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation; it stays as it is if EXIF cannot be read."""
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
    if image.mode == "F" or grey.min() < 0 or grey.max() > 0xFFFF:  # "I" stands for 16 bits, too
        raise Unusable(Status.UNREADABLE, _DEEP)
    return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)


def _unusable(error: Exception, what: str) -> Unusable:
    # Pillow's own OSErrors, as of a truncated file, have no errno.
    if isinstance(error, MemoryError | ImportError) or (isinstance(error, OSError) and error.errno):
        raise error
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return Unusable(Status.UNREADABLE, f"{what} ({line[:120]})")
