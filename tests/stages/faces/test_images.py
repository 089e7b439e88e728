"""Decoding: every kind of photograph comes out upright RGB, every other file as a status and a
sentence.
"""

from __future__ import annotations

import errno
import io
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from pipeline.core.schema import Status
from stages.faces import images
from stages.faces.images import Unusable, decode

LIMIT = 50_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG by hand: its signature, header, compressed rows and end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def refusal(data: bytes, limit: int = LIMIT) -> tuple[Status, str]:
    with pytest.raises(Unusable) as caught:
        decode(data, limit)
    assert "\n" not in caught.value.reason
    return caught.value.status, caught.value.reason


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """21 wide, 14 high, smooth; no two of its eight orientations are alike."""
    y, x = np.mgrid[:14, :21]
    return np.stack([8 * x, 12 * y, 4 * x + 3 * y], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_give_the_pixels(
    picture: np.ndarray, kind: str, options: dict[str, Any]
) -> None:
    found = decode(encoded(Image.fromarray(picture), kind, **options), LIMIT)
    assert found.dtype == np.uint8
    assert np.array_equal(found, picture)


def test_jpeg_gives_the_pixels_nearly(picture: np.ndarray) -> None:
    found = decode(encoded(Image.fromarray(picture), "JPEG", quality=98, subsampling=0), LIMIT)
    assert np.abs(found.astype(int) - picture).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(picture: np.ndarray, orientation: int, kind: str) -> None:
    # How a camera stores an upright scene under each value of the tag (EXIF 2.3, section 4.6.4).
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: picture.transpose(1, 0, 2)[::-1],
        7: picture.transpose(1, 0, 2)[::-1, ::-1],
        8: picture.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    found = decode(
        encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options), LIMIT
    )
    assert found.shape == picture.shape
    assert np.abs(found.astype(int) - picture).max() < 12


ODD_EXIF = (
    b"Exif\0\0garbage",
    b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
)


def test_what_pillow_warns_of_is_not_printed(picture: np.ndarray, tmp_path: Path) -> None:
    files = [encoded(Image.fromarray(picture), "JPEG", exif=odd) for odd in ODD_EXIF]
    palette = Image.fromarray(picture).quantize(16)
    files += [encoded(palette, transparency=bytes(16)), encoded(palette, "GIF", transparency=3)]
    for i, data in enumerate(files):
        (tmp_path / str(i)).write_bytes(data)
    script = (
        "import sys; from stages.faces.images import decode; [decode(open(f, 'rb').read(), 1000)"
        " for f in sys.argv[1:]]"
    )
    command = [sys.executable, "-c", script, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(
        command, capture_output=True, cwd=Path(images.__file__).parents[2], text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_costs_the_orientation_only(picture: np.ndarray) -> None:
    for exif in ODD_EXIF:
        assert (
            decode(encoded(Image.fromarray(picture), "JPEG", exif=exif), LIMIT).shape
            == picture.shape
        )


def exif(*tags: tuple[int, int, bytes]) -> bytes:
    """An EXIF block of orientation 6 and other tags (number, type, value) of one value each."""
    entries = sorted([(0x112, 3, struct.pack("<HH", 6, 0)), *tags])
    at, body, values = (
        10 + 12 * len(entries) + 4,
        b"II*\0" + struct.pack("<LH", 8, len(entries)),
        b"",
    )
    for number, kind, value in entries:
        body += struct.pack("<HHL", number, kind, 1) + (
            value if len(value) == 4 else struct.pack("<L", at + len(values))
        )
        values += b"" if len(value) == 4 else value
    return b"Exif\0\0" + body + bytes(4) + values


@pytest.mark.parametrize(
    "odd",
    [
        (0x10E, 5, struct.pack("<LL", 1, 1)),  # a description that is a fraction
        (0x11A, 10, struct.pack("<ll", -1, 0)),  # a resolution that is negative, and divided by 0
        (0x131, 12, struct.pack("<d", float("nan"))),
        (0x9286, 2, b"\xff\xfe\xfd\xfc\xfb"),
    ],
)
def test_an_odd_tag_beside_the_orientation_costs_nothing(
    picture: np.ndarray, odd: tuple[int, int, bytes]
) -> None:
    stored = np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1])
    found = decode(
        encoded(Image.fromarray(stored), "JPEG", quality=98, subsampling=0, exif=exif(odd)), LIMIT
    )
    assert found.shape == picture.shape
    assert np.abs(found.astype(int) - picture).max() < 12


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"iTXt", b"comment\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"tEXt", b"comment\0text")[:-4] + b"\0\0\0\0",  # a wrong checksum
        chunk(b"gAMA", b""),
        chunk(b"tRNS", b""),
    ],
    ids=["iCCP", "zTXt", "iTXt", "tEXt", "gAMA", "tRNS"],
)
def test_odd_metadata_of_a_png_costs_nothing(picture: np.ndarray, extra: bytes) -> None:
    data = encoded(Image.fromarray(picture))
    assert np.array_equal(decode(data[:33] + extra + data[33:], LIMIT), picture)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE0, b"JFIF"),
        segment(0xE0, b"JFIF\0\1"),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"MPF\0" + b"II*\0" + b"\xff" * 20),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04"),
        segment(0xEE, b"Adobe\0"),
        segment(0xEE, b""),
        segment(0xFE, b"\xff\xd9\xff\xda"),
        b"\xff\xe5\0\0",  # a length that does not count itself
    ],
)
def test_odd_metadata_of_a_jpeg_costs_nothing(picture: np.ndarray, extra: bytes) -> None:
    for mode in ("RGB", "L", "CMYK"):
        data = encoded(Image.fromarray(picture).convert(mode), "JPEG")
        at = data.index(b"\xff\xdb")
        assert np.array_equal(decode(data[:at] + extra + data[at:], LIMIT), decode(data, LIMIT))


def test_what_says_how_the_colours_of_a_jpeg_are_coded_is_kept(picture: np.ndarray) -> None:
    # by an Adobe segment
    data = encoded(Image.fromarray(picture), "JPEG", quality=98, keep_rgb=True)
    assert b"Adobe" in data
    assert np.abs(decode(data, LIMIT).astype(int) - picture).max() < 12
    frame = data.index(b"\xff\xc0")
    # the components are called R, G and B: RGB too, but where it says JFIF
    named = data.replace(b"Adobe", b"Other")
    assert data[frame + 10 : frame + 19 : 3] == b"RGB"
    assert np.array_equal(decode(named, LIMIT), decode(data, LIMIT))
    jfif = data[:2] + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0") + named[2:]
    assert np.abs(decode(jfif, LIMIT).astype(int) - picture).max() > 50


def test_the_orientation_of_xmp_counts_where_exif_has_none(picture: np.ndarray) -> None:
    stored = np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1])
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    assert decode(encoded(Image.fromarray(stored), "JPEG", xmp=xmp), LIMIT).shape == picture.shape
    upright = Image.Exif()
    upright[0x0112] = 1
    assert (
        decode(encoded(Image.fromarray(picture), "JPEG", xmp=xmp, exif=upright), LIMIT).shape
        == picture.shape
    )


KINDS: list[dict[str, Any]] = [
    {},
    {"subsampling": 0, "quality": 95},
    {"restart_marker_blocks": 1},
    {"restart_marker_blocks": 7},
    {"restart_marker_rows": 1},
    {"optimize": True},
    {"progressive": True},
    {"progressive": True, "restart_marker_blocks": 5},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_its_end_alone_is_read_and_one_cut_in_its_scan_is_not(
    mode: str, options: dict[str, Any]
) -> None:
    y, x = np.mgrid[:50, :43]
    wavy = np.stack(
        [128 + 90 * np.sin(x / 4), 128 + 90 * np.cos(y / 5), 128 + 90 * np.sin((x + y) / 6)], axis=2
    )
    data = encoded(Image.fromarray(wavy.astype(np.uint8)).convert(mode), "JPEG", **options)
    whole = decode(data, LIMIT)
    assert np.array_equal(decode(data[:-1], LIMIT), whole)
    assert np.array_equal(decode(data[:-2], LIMIT), whole)
    # All the pixels may be there before the last byte, as where the last block is empty; what is
    # read has them all.
    read = []
    for cut in range(3, len(data) - data.index(b"\xff\xda")):
        with suppress(Unusable):
            read.append(np.array_equal(decode(data[:-cut], LIMIT), whole))
    assert all(read)
    assert len(read) < 40


def test_a_progressive_jpeg_that_lacks_a_scan_is_unreadable(picture: np.ndarray) -> None:
    data = encoded(Image.fromarray(picture), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    table = data.rfind(b"\xff\xc4", 0, last)  # each scan of it has its own
    assert "truncated" in refusal(data[:table])[1]


def test_a_wrong_checksum_of_pixels_is_still_refused(picture: np.ndarray) -> None:
    data = bytearray(encoded(Image.fromarray(picture)))
    data[data.index(b"IDAT") + 8] ^= 1
    assert refusal(bytes(data))[0] == Status.UNREADABLE


def test_heic_is_read_where_its_extra_is_installed(picture: np.ndarray) -> None:
    pytest.importorskip("pillow_heif")
    big = np.kron(picture, np.ones((8, 8, 1), np.uint8))
    data = encoded(Image.fromarray(big), "HEIF", quality=95)
    assert np.abs(decode(data, LIMIT).astype(int) - big).mean() < 6
    assert refusal(data, 100)[0] == Status.TOO_LARGE
    assert refusal(data[: len(data) // 2])[0] == Status.UNREADABLE


def test_a_damaged_heic_is_told_from_one_whose_extra_is_missing(picture: np.ndarray) -> None:
    pytest.importorskip("pillow_heif")
    assert refusal(encoded(Image.fromarray(picture), "HEIF")[:60])[1].startswith(
        "a HEIC photograph that is damaged"
    )


def test_heic_without_its_extra_names_it(
    picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif")
    data = encoded(Image.fromarray(picture), "HEIF")
    monkeypatch.setattr(images, "FORMATS", tuple(name for name in images.FORMATS if name != "HEIF"))
    assert refusal(data) == (
        Status.UNREADABLE,
        "a HEIC photograph, which takes an extra to read: install qfuse[heic]",
    )


def test_grey_is_repeated(picture: np.ndarray) -> None:
    grey = picture[:, :, 0]
    assert np.array_equal(
        decode(encoded(Image.fromarray(grey)), LIMIT), np.repeat(grey[:, :, None], 3, axis=2)
    )
    bits = decode(encoded(Image.fromarray(grey > 80)), LIMIT)
    assert np.array_equal(bits, np.repeat(np.where(grey > 80, 255, 0)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_upper_eight(picture: np.ndarray, kind: str) -> None:
    deep = picture[:, :, 0].astype(np.uint16) * 256 + 77
    assert np.array_equal(
        decode(encoded(Image.fromarray(deep), kind), LIMIT), np.repeat(picture[:, :, :1], 3, axis=2)
    )


def test_sixteen_bit_colour_keeps_its_upper_eight(picture: np.ndarray) -> None:
    rows = b"".join(
        b"\0" + (row.astype(np.uint16) * 256 + 77).astype(">u2").tobytes() for row in picture
    )
    assert np.array_equal(decode(png(21, 14, rows, depth=16, colour=2), LIMIT), picture)


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([1, 0])
    assert decode(encoded(image), LIMIT).tolist() == [[[200, 100, 0], [10, 20, 30]]]
    assert decode(encoded(image, transparency=0), LIMIT).tolist() == [[[200, 100, 0], [10, 20, 30]]]


def test_transparency_is_ignored(picture: np.ndarray) -> None:
    alpha = np.concatenate([picture, np.zeros_like(picture[:, :, :1])], axis=2)
    assert np.array_equal(decode(encoded(Image.fromarray(alpha, "RGBA")), LIMIT), picture)
    grey = decode(encoded(Image.fromarray(alpha[:, :, [0, 3]], "LA")), LIMIT)
    assert np.array_equal(grey, np.repeat(picture[:, :, :1], 3, axis=2))


def test_cmyk_becomes_rgb() -> None:
    found = decode(
        encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=98), LIMIT
    )
    assert np.abs(found.astype(int) - [255, 0, 0]).max() < 6


def test_thirty_two_bit_pixels_are_refused(picture: np.ndarray) -> None:
    grey = picture[:, :, 0]
    for deep in (
        grey / np.float32(255),
        grey.astype(np.int32) << 20,
        grey.astype(np.int32),
        -grey.astype(np.int32),
    ):
        for orientation in (1, 6):
            status, reason = refusal(
                encoded(Image.fromarray(deep), "TIFF", tiffinfo={0x0112: orientation})
            )
            assert status == Status.UNREADABLE
            assert "32 bits" in reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_unreadable(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert refusal(data[: int(share * len(data))])[0] == Status.UNREADABLE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, this is no image", "not an image of a known format"),
        (b"\0" * 100, "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
        (
            b"GIF89a" + b"\0" * 20,
            "not an image of a known format",
        ),  # formats that no photograph comes in are not tried
    ],
)
def test_what_is_no_image_is_unreadable(data: bytes, reason: str) -> None:
    assert refusal(data) == (Status.UNREADABLE, reason)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_damaged_file_is_pixels_or_unusable_and_nothing_else(data: Any) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    file = bytearray(encoded(Image.fromarray(noise), data.draw(st.sampled_from(["JPEG", "PNG"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        outcome: Any = decode(bytes(file), 10_000).shape[2:]
    except Unusable as problem:
        outcome = problem.status
    assert outcome in ((3,), Status.UNREADABLE, Status.TOO_LARGE)


@pytest.mark.parametrize("side", [8_000, 30_000, 2_000_000_000])
def test_a_header_that_announces_too_much_is_refused_before_a_pixel_is_decoded(side: int) -> None:
    # It holds no pixels: had decoding begun, this would be a truncated file.
    bomb = png(side, side, b"")
    assert len(bomb) < 100
    status, reason = refusal(bomb)
    assert status == Status.TOO_LARGE
    assert f"{side}×{side}" in reason
    assert "50,000,000" in reason


def progressive(scans: int, before: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is there several times, with a segment of any bytes after
    its first marker.
    """
    data = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    segment = b"\xff\xef" + (len(before) + 2).to_bytes(2) + before if before else b""
    return data[:2] + segment + data[2:last] + data[last:-2] * scans + b"\xff\xd9"


def test_scans_without_end_are_refused_before_a_pixel_is_decoded() -> None:
    assert decode(progressive(50), LIMIT).shape == (64, 64, 3)
    status, reason = refusal(progressive(101))
    assert (status, reason) == (
        Status.UNREADABLE,
        "a progressive JPEG of more than 100 scans; save it anew",
    )


def test_scans_without_end_are_refused_of_a_jpeg_that_is_not_progressive_too() -> None:
    # Each component in scans of its own: libjpeg reads all of them, as often as they come, before
    # it gives a pixel.
    data = encoded(Image.new("RGB", (64, 64)), "JPEG")
    start = data.index(b"\xff\xda")
    scans = [
        b"\xff\xda\0\x08\1" + data[at : at + 2] + b"\0\x3f\0\0"
        for at in range(start + 5, start + 11, 2)
    ]
    assert decode(data[:start] + b"".join(scans) * 20 + b"\xff\xd9", LIMIT).shape == (64, 64, 3)
    reason = "a JPEG of more than 100 scans; save it anew"
    assert refusal(data[:start] + b"".join(scans) * 40 + b"\xff\xd9") == (Status.UNREADABLE, reason)


def test_what_looks_like_a_scan_inside_a_segment_is_none() -> None:
    assert decode(progressive(1, b"\xff\xda" * 300), LIMIT).shape == (64, 64, 3)
    assert decode(progressive(1) + b"\xff\xda" * 300, LIMIT).shape == (
        64,
        64,
        3,
    )  # nor behind the image, as of a film


def test_the_bound_is_the_callers_alone() -> None:
    white = png(400, 300, b"".join(b"\0" + b"\xff" * 400 for _ in range(300)))
    assert decode(white, 120_000).shape == (300, 400, 3)
    assert refusal(white, 119_999) == (
        Status.TOO_LARGE,
        "400×300 pixels are more than the 119,999 of align.max_pixels",
    )
    # More than Pillow's own bound of 2 × 89 million, and allowed here; it is cut short, so nothing
    # is decoded.
    assert refusal(png(18_000, 10_000, b""), 10**9)[0] == Status.UNREADABLE


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.EMFILE, "Too many open files"), ImportError("libjpeg")]
)
@pytest.mark.parametrize("step", ["open", "load"])
def test_what_is_not_the_files_fault_comes_through(
    picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    data = encoded(Image.fromarray(picture))
    monkeypatch.setattr(
        *((Image, "open", fail) if step == "open" else (ImageFile.ImageFile, "load", fail))
    )
    with pytest.raises(type(error)):
        decode(data, LIMIT)
