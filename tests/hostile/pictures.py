"""Hostile images, met by alignment as it meets every photograph."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core.numerics import profile_of
from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Context
from pipeline.files.file_tree import Folder
from stages.faces.align import Align, AlignOptions
from stages.tables.schemas import CROPS, DETECTIONS

from .guard import Breach
from .mutate import damaged

MAX_PIXELS = 4_000_000
_SIDES = (0, 1, 2, 113, 4000, 32_767, 40_000, 65_535, 1_000_000, 2**31 - 1, 2**32 - 1)
KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "LA", {}),
    ("PNG", "P", {"transparency": 0}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "RGBA", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"quality": 50}),
    ("GIF", "P", {}),
    ("PPM", "RGB", {}),
    ("PPM", "I;16", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", {"compression": "packbits"}),
    ("TIFF", "F", {}),
    ("TIFF", "I", {}),
    ("TIFF", "LAB", {}),
)


@cache
def image(kind: int, side: tuple[int, int]) -> bytes:
    """One image of `KINDS`, noise of `side` (width, height) pixels."""
    format_, mode, options = KINDS[kind]
    width, height = side
    noise = np.random.default_rng(kind).integers(0, 256, (height, width, 3), np.uint8)
    made = Image.fromarray(noise)
    if mode == "I;16":
        made = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    elif mode == "F":
        made = Image.fromarray(noise[:, :, 0].astype(np.float32))
    elif mode == "LAB":
        made = Image.frombytes("LAB", side, noise.tobytes())
    elif mode != "RGB":
        made = made.convert("L").convert(mode) if mode in ("LA", "I") else made.convert(mode)
    buffer = io.BytesIO()
    made.save(buffer, format_, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _announced(rng: Random) -> bytes:
    """A header that announces any size, and little or nothing behind it."""
    width, height = rng.choice(_SIDES), rng.choice(_SIDES)
    kind = rng.randrange(6)
    if kind == 0:
        head = struct.pack(
            ">IIBBBBB",
            width,
            height,
            rng.choice((1, 8, 16)),
            rng.choice((0, 2, 3, 4, 6)),
            0,
            0,
            rng.randrange(2),
        )
        extra = (
            chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3 << 20))) if rng.random() < 0.1 else b""
        )
        rows = zlib.compress(bytes(rng.choice((0, 100, 100_000))))
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", head)
            + extra
            + chunk(b"IDAT", rows)
            + chunk(b"IEND", b"")
        )
    if kind == 1:
        size = struct.pack(
            "<iiHHIIiiII",
            width % 2**31,
            height % 2**31,
            1,
            rng.choice((1, 8, 24, 32)),
            rng.choice((0, 1, 3)),
            *[0] * 5,
        )
        return (
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<I", 40) + size + bytes(100)
        )
    if kind == 2:
        canvas = (min(width, 1 << 24) - 1) % (1 << 24) | (
            (min(height, 1 << 24) - 1) % (1 << 24)
        ) << 24
        body = (
            b"WEBPVP8X"
            + struct.pack("<II", 10, rng.choice((0, 2, 0x3E)))
            + canvas.to_bytes(6, "little")
            + image(13, (9, 7))[12:]
        )
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if kind == 3:
        return b"P%d %d %d %d\n" % (
            rng.choice((1, 2, 3, 4, 5, 6)),
            width,
            height,
            rng.choice((0, 1, 255, 65535)),
        ) + bytes(300)
    if kind == 4:
        data = bytearray(image(0, (9, 7)))
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height % 65536, width % 65536)
        return bytes(data)
    return _tiff(rng, width, height)


def _tiff(rng: Random, width: int, height: int) -> bytes:
    tags = [
        (256, width),
        (257, height),
        (258, rng.choice((1, 8, 16, 32))),
        (259, rng.choice((1, 2, 4, 5, 6, 7, 8, 32773, 34712, 50000, 50001))),
        (262, rng.choice((0, 1, 2, 3, 5, 6, 8))),
        (273, rng.choice((8, 200, 2**32 - 1))),
        (277, rng.choice((1, 3, 4, 65535))),
        (278, rng.choice((1, height, 2**32 - 1))),
        (279, rng.choice((0, 100, 2**32 - 1))),
    ]
    if rng.random() < 0.3:
        tags += [(322, rng.choice(_SIDES)), (323, rng.choice(_SIDES)), (324, 8), (325, 100)]
    tags = [(tag, value) for tag, value in tags if rng.random() > 0.05]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(200)


def _with_exif(rng: Random) -> bytes:
    exif = Image.Exif()
    for tag, value in (
        (0x0112, rng.choice((0, 1, 3, 6, 8, 9, 65535))),
        (0x010E, "x"),
        (0x8769, {0x9003: "2026"}),
    ):
        if rng.random() < 0.8:
            exif[tag] = value
    block = exif.tobytes()
    if rng.random() < 0.7:
        block = damaged(rng, block, most=3)
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7)).save(buffer, rng.choice(("JPEG", "PNG", "WEBP")), exif=block[:60_000])
    return buffer.getvalue()


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG of side × side whose last scan is there `count` times: each costs a pass
    over all of it.
    """
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True, quality=50)
    data = buffer.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


@cache
def _scan_bomb() -> bytes:
    return scans(1900, 3000)


def photograph(rng: Random) -> bytes:
    kind = rng.randrange(20)
    if kind < 11:
        data = image(rng.randrange(len(KINDS)), rng.choice(((1, 1), (9, 7), (9, 7), (40, 30))))
        return data if kind == 0 else damaged(rng, data, most=5, head=rng.choice((0, 64)))
    if kind < 15:
        return _announced(rng)
    if kind < 18:
        return _with_exif(rng)
    if kind == 18:
        return rng.choice(
            (
                b"",
                b"words",
                rng.randbytes(50),
                b"GIF89a" + rng.randbytes(30),
                b"<svg/>",
                b"%PDF-1.4",
            )
        )
    return _scan_bomb() if rng.random() < 0.05 else damaged(rng, _announced(rng), most=2)


def images(rng: Random, folder: Path) -> Callable[[], object]:
    """A few photographs aligned together, some with landmarks: every row is OK or has a status and
    a reason.
    """
    rows = rng.randint(1, 3)
    digests = []
    for i in range(rows):
        data = photograph(rng)
        (folder / f"{i}.jpg").write_bytes(data)
        digests.append(
            hashlib.sha256(data).hexdigest()
            if rng.random() < 0.95
            else rng.choice(("", "unreadable"))
        )
    columns: dict[str, Any] = {
        "path": text(f"{i}.jpg" for i in range(rows)),
        "sha256": text(digests),
    }
    if rng.random() < 0.3:
        edges = (np.nan, np.inf, 0.0, -1.0, 4.0, 1e6, 1e38, -1e38)
        marks = [[[rng.choice(edges) for _ in range(2)] for _ in range(5)] for _ in range(rows)]
        columns["landmarks"] = np.array(marks, np.float32)

    def call() -> object:
        context = Context(profile_of("cpu-fp32"), lambda: Folder(folder))
        align = Align(AlignOptions(detector="none", max_pixels=MAX_PIXELS), context)
        align.open()
        batch = Batch(columns)
        made = align.run(batch, {}, align.load(batch))
        DETECTIONS.check(made["detections"])
        CROPS.check(made["crops"])
        for status, reason in zip(
            made["detections"]["status"], made["detections"]["reason"], strict=True
        ):
            if status != Status.OK and not reason:
                raise Breach("a failed row without a reason")
        return made

    return call
