"""The quick way through a JPEG gives the pixels and the refusals of `Image.load`."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.schema import Array
from stages.faces import images, jpeg
from stages.faces.images import Unusable, decode

LIMIT = 1_000_000
SIZES = ((1, 1), (7, 9), (16, 16), (33, 31), (3, 130), (112, 112))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / 4), 128 + 90 * np.cos(y / 5), 128 + 90 * np.sin((x + y) / 6)]
    return Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def loaded(data: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def outcome(data: bytes, quick: bool) -> Any:
    """Return the pixels, or status and sentence, with or without the quick way."""
    with pytest.MonkeyPatch.context() as patch:
        if not quick:
            patch.setattr(jpeg, "header", lambda data: None)
        try:
            found = decode(data, LIMIT)
        except Unusable as problem:
            return problem.status, problem.reason
    return found.shape, found.tobytes()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("mode", "subsampling"), [("L", -1), *(("RGB", way) for way in ("4:4:4", "4:2:2", "4:2:0"))]
)
def test_the_pixels_are_those_of_image_load(mode: str, subsampling: Any, progressive: bool) -> None:
    for size, quality in itertools.product(SIZES, (10, 60, 100)):
        image = picture(*size, mode)
        options = {"subsampling": subsampling} if mode == "RGB" else {}
        data = encoded(image, quality=quality, progressive=progressive, **options)
        header = jpeg.header(data)
        assert header is not None
        found = jpeg.pixels(data, header)
        assert found is not None
        assert np.array_equal(found, loaded(data))


def test_pixels_subsampled_in_their_height_alone_are_those_of_image_load() -> None:
    way = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440]
    data = cv2.imencode(".jpg", np.asarray(picture(61, 47)), way)[1].tobytes()
    header = jpeg.header(data)
    assert header is not None
    assert np.array_equal(jpeg.pixels(data, header), loaded(data))


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """What is damaged below: of both codings, grey, colour and CMYK, short and over 64 kB."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 210, 3), np.uint8)
    made = [
        encoded(picture(43, 50, mode), progressive=progressive, **options)
        for mode in ("RGB", "L", "CMYK")
        for progressive in (False, True)
        for options in (
            {},
            {"restart_marker_blocks": 5},
            {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
        )
    ]
    return [*made, encoded(Image.fromarray(noise), quality=98)]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_file_has_the_same_outcome_as_by_image_load(
    files: list[bytes], data: Any
) -> None:
    file = bytearray(data.draw(st.sampled_from(files)))
    scan = file.index(b"\xff\xda")
    way = data.draw(st.sampled_from(("bytes", "header", "cut", "cut and ended", "move", "zeros")))
    at = data.draw(st.integers(2, len(file) - 1))
    end = data.draw(st.integers(at, min(len(file), at + 400)))
    if way in ("bytes", "header"):
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(2, scan + 12 if way == "header" else len(file) - 1))
            file[at] = data.draw(st.sampled_from((0, 0xFF, 0xC0, 0xD8, 0xDA, 0x11, 0x80)))
    elif way == "zeros":
        file[at:end] = bytes(end - at)
    elif way == "move":
        file += file[at:end]
        del file[at:end]
    else:
        del file[at:]
        file += b"\xff\xd9" if way == "cut and ended" else b""
    assert outcome(bytes(file), quick=True) == outcome(bytes(file), quick=False)


def test_a_file_that_breaks_off_in_a_segment_after_its_scan_has_the_same_outcome() -> None:
    # All its pixels are there, and Pillow's decoder would be content with them.
    data = encoded(picture(12, 12))[:-2] + b"\xff\xdb"
    assert outcome(data, quick=True) == outcome(data, quick=False)
    with pytest.raises(Unusable):
        decode(data, LIMIT)


def test_nothing_is_printed_of_damaged_data(tmp_path: Path) -> None:
    data = encoded(picture(60, 60))
    scan = data.index(b"\xff\xda") + 40
    for name, damaged in {
        "early end": data[:scan] + b"\xff\xd9" + data[scan:],
        "more bytes": data[:-2] + b"more" + data[-2:],
        "cut": data[:scan],
    }.items():
        (tmp_path / name).write_bytes(damaged)
    script = (
        "import sys; from stages.faces import images\n"
        "for name in sys.argv[1:]:\n"
        "    try: images.decode(open(name, 'rb').read(), 10**6)\n"
        "    except images.Unusable: pass\n"
    )
    command = [sys.executable, "-c", script, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(
        command, capture_output=True, cwd=Path(images.__file__).parents[2], text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(segment(0xC0, b"\x08\0\x10\0\x10\1\1\x11\0"), id="a second frame"),
        pytest.param(segment(0xC9, b"\x08\0\x10\0\x10\1\1\x11\0"), id="arithmetic coding"),
        pytest.param(segment(0xDC, b"\0\x10"), id="a number of lines"),
        pytest.param(b"\xff\xd8", id="a second start"),
        pytest.param(b"\xff", id="a fill byte"),
        pytest.param(b"\0", id="a byte between segments"),
        pytest.param(b"\xff\xe5\0\0", id="a length that does not count itself"),
        pytest.param(segment(0xE5, b"")[:-1] + b"\xff", id="a length past the end"),
    ],
)
def test_any_other_header_is_left_to_image_load(extra: bytes) -> None:
    data = encoded(picture(16, 16))
    at = data.index(b"\xff\xdb")
    assert jpeg.header(data) is not None
    assert jpeg.header(data[:at] + extra + data[at:]) is None


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(3, b"\x12", id="a length that is not its layers'"),
        pytest.param(4, b"\x0c", id="12 bits"),
        pytest.param(5, b"\0\0", id="no lines"),
        pytest.param(7, b"\0\0", id="no columns"),
        pytest.param(9, b"\4", id="four layers"),
    ],
)
def test_a_frame_of_another_kind_is_left_to_image_load(offset: int, value: bytes) -> None:
    data = encoded(picture(16, 16))
    at = data.index(b"\xff\xc0") + offset
    assert jpeg.header(data[:at] + value + data[at + len(value) :]) is None


def test_the_header_tells_size_layers_scans_and_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = jpeg.header(encoded(picture(21, 14), exif=exif))
    assert colour is not None
    assert colour[:4] == (21, 14, 3, False)
    assert list(colour.told) == ["exif"]
    assert jpeg.header(encoded(picture(21, 14, "L"), progressive=True)) == (21, 14, 1, True, {})


def test_pixels_are_not_returned_from_memory_that_the_image_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # as of a Pillow that copies before it writes into shared memory
    def elsewhere(self: Image.Image, *_: object) -> None:
        self.readonly = 0

    data = encoded(picture(21, 14))
    header = jpeg.header(data)
    assert header is not None
    monkeypatch.setattr(Image.Image, "frombytes", elsewhere)
    assert jpeg.pixels(data, header) is None
