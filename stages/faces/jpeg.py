"""JPEG: its segments, what of it Pillow is given, one that lacks its end, and the quick way.

The quick way is for what nearly all photographs are: whole files, put together as ITU-T T.81 says.
Pillow's own decoder writes their pixels into our memory, where `Image.load` and its copies take as
long again. Any other file is left to `Image.load`, and to what it says of it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

START = b"\xff\xd8\xff"
MAX_SCANS = 100  # as libtiff's limit; cameras and programs write about ten
# one that opens a segment, or EOI (table B.1)
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PROGRESSIVE = 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)  # baseline and extended are the others of Huffman codes
_TABLES = (0xC4, 0xDB, 0xDD)  # Huffman codes, quantisation, restart interval
_EXIF = 0xE1
_METADATA = (*range(0xE0, 0xF0), 0xFE)  # applications' segments and comments


class Header(NamedTuple):
    """What an ordinary JPEG says before its first scan; `told` as `essential` returns it."""

    width: int
    height: int
    layers: int  # 1: grey; 3: colour
    several_scans: bool
    told: dict[str, bytes]


def header(data: bytes) -> Header | None:
    """Return the header of an ordinary JPEG; None for any other file.

    An ordinary one has segments without gaps, of the kinds that all photographs have, and one frame
    of 8 bits. libjpeg reads the same out of it, and Pillow's parser has nothing to refuse.
    """
    at, frame, coding, told = 2, b"", 0, dict[str, bytes]()
    while data[at : at + 1] == b"\xff" and at + 4 < len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker in _FRAMES and not frame:
            coding, frame = marker, data[at + 4 : end]
        elif marker == _SOS[1]:
            break
        elif marker == _EXIF:
            _tell(told, data[at + 4 : end])
        elif marker not in _TABLES and marker not in _METADATA:
            return None
        at = end
    else:
        return None
    # Its bits, height, width, and the number of its layers, each of which has three bytes (B.2.2).
    if len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3) or len(frame) != 6 + 3 * frame[5]:
        return None
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    if not height or not width:
        return None
    several = coding == _PROGRESSIVE or data[at + 4] < frame[5]  # the first scan has a part of them
    return Header(width, height, frame[5], several, told)


def pixels(data: bytes, of: Header) -> NDArray[np.uint8] | None:
    """Return the pixels (height, width, 3) uint8 RGB, those of `Image.load`; None to ask that.

    `of` is the header of `data`: Pillow's decoder trusts in the size.
    """
    import cv2

    # Without an end Pillow's decoder may be content; each of several scans may cost a pass over all
    # pixels.
    if not data.endswith(_EOI) or (of.several_scans and data.count(_SOS) > MAX_SCANS):
        return None
    if of.layers == 1:
        mode, raw, planes, to_rgb = "L", "L", 1, cv2.COLOR_GRAY2RGB
    else:  # as Pillow lays out RGB, by the one name for it that may share memory
        mode, raw, planes, to_rgb = "RGBX", "RGB", 4, cv2.COLOR_RGBA2RGB
    memory = np.empty((of.height, of.width, planes), np.uint8)
    image = Image.frombuffer(mode, (of.width, of.height), memory, "raw", mode, 0, 1)
    try:
        image.frombytes(data, "jpeg", raw, "")
    except ValueError:  # cut off or damaged
        return None
    if not image.readonly:  # it is no longer the image of `memory`
        return None
    return np.asarray(cv2.cvtColor(memory, to_rgb), np.uint8)


def essential(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return a JPEG without its metadata, and the parts of it that may tell the orientation.

    Pillow refuses a whole image for broken metadata. JFIF and Adobe segments that libjpeg accepts
    as such stay: they say how the colours are coded.
    """
    parts, told, at = [data[:2]], dict[str, bytes](), 2
    for marker, start, end in _segments(data):
        if marker == _SOS[1]:
            break
        body = data[start + 4 : end]
        parts.append(data[at:start])
        if (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
            marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        ):
            parts.append(data[start:end])
        elif marker == _EXIF:
            _tell(told, body)
        elif marker not in _METADATA:
            parts.append(data[start:end])
        at = end
    return b"".join([*parts, data[at:]]), told


def _tell(told: dict[str, bytes], body: bytes) -> None:
    if body.startswith(b"Exif\0\0"):
        # what is too long for one segment goes on in the next
        told["exif"] = told["exif"] + body[6:] if "exif" in told else body
    elif body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        told["xmp"] = body.partition(b"\0")[2]


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield a JPEG's segments up to its end: the marker's second byte, start and end.

    Start and end are offsets in `data`.
    """
    at = 2
    while (marker := _MARKER.search(data, at)) and marker[0] != _EOI:
        # Past the segment, which may hold anything; its length counts the two bytes that give it.
        at = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2]))
        yield marker[0][1], marker.start(), at


def scans(data: bytes) -> Iterator[bytes]:
    """Yield the header of each of a JPEG's scans."""
    return (data[start + 4 : end] for marker, start, end in _segments(data) if marker == _SOS[1])


def ended(image: Any, data: bytes) -> Any:
    """Return a JPEG without an end with one, if that is all it lacks; else the image as it is.

    A scan that is whole gives the same pixels whatever follows it. One that is cut off does not:
    here other bits are appended, in its last restart interval and in the next one, if it has
    any.
    """
    if data.rfind(_EOI) >= data.rfind(_SOS):
        return image
    shifts = {
        (component, k): head[-1] & 15  # by which the last scan of a coefficient leaves it shifted
        for head in scans(data)
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
