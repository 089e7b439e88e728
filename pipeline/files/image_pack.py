"""A pack of images: one pickle of (2n encoded images, n truth values).

Face-recognition test sets are handed round in this form (lfw.bin).

Images 2i and 2i + 1 are pair i, which is mated where truth value i says so. A pack is offered as
files (`file_tree`): `pairs.txt`, a line of which is 1 (mated) or 0 for each pair, and
`images/0000000` and so on, in the order of the pack. `safe_pickle` reads it; images stay in the
file until they are asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidInput, cannot_read
from pipeline.files.digests import UNREADABLE
from pipeline.files.safe_pickle import ITEM_BYTES, Bytes1D, Chunk, load
from pipeline.system.regular_file import open_regular

MAX_PACK_BYTES = 1 << 30  # published ones have about 100 MB
MAX_IMAGE_BYTES = 256 << 20
MAX_PAIRS = 100_000
PAIRS, IMAGES = "pairs.txt", "images/"
_BEGINNINGS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def open_pack(root: Path) -> Pack | None:
    """Return the pack at `root`; None if the file there, if any, begins no pickle.

    Raises InvalidInput as `Pack` does.
    """
    if not os.path.isfile(root):
        return None
    try:
        with open_regular(root) as file:
            beginning = file.read(2)
    except OSError:  # the caller looks for another kind of file there, and reports
        return None
    return Pack(root) if beginning in _BEGINNINGS else None


class Pack:
    """The files of a pack.

    Raises InvalidInput if it holds anything but images and truth values, or too much.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.passed_over: Mapping[str, str] = {}
        try:
            self._file = open_regular(root)  # stays open as long as images may be asked for
        except OSError as error:
            raise cannot_read(root, error) from error
        try:
            images, mated = self._read()
        except BaseException:
            self._file.close()
            raise
        self._pairs = "".join(f"{int(each)}\n" for each in mated).encode()
        self._images = {f"{IMAGES}{i:07d}": chunk for i, chunk in enumerate(images)}
        self._digests: dict[Chunk, str] = {}  # an image may be in several pairs

    def _read(self) -> tuple[list[Chunk], list[bool]]:
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size > MAX_PACK_BYTES:
                most = MAX_PACK_BYTES >> 20
                raise InvalidInput(
                    f"{self.root} is larger than {most} MiB, more than any pack of images needs."
                )
            data = self._file.read(size)
        except OSError as error:
            raise cannot_read(self.root, error) from error
        return _parts(load(data, str(self.root)), data, str(self.root))

    def names(self) -> list[str]:
        return [*self._images, PAIRS]

    def read(self, name: str) -> bytes:
        name = str(Path(name))
        if name == PAIRS:
            return self._pairs
        if (chunk := self._images.get(name)) is None:
            raise FileNotFoundError(name)
        count = chunk.stop - chunk.start
        if count > MAX_IMAGE_BYTES:
            raise InvalidInput(
                f"{self.root}: {name} is larger than {MAX_IMAGE_BYTES >> 20} MiB; it is not read as"
                " one sample."
            )
        try:
            data = os.pread(self._file.fileno(), count, chunk.start)
        except OSError as error:
            raise cannot_read(self.root, error) from error
        try:
            return chunk.of(data) if len(data) == count else _short(data)
        except ValueError:
            raise InvalidInput(
                f"{self.root} changed while it was read; run again when it is complete."
            ) from None

    def digests(self, names: Iterable[str], limit: int | None = None) -> list[str]:
        return [self._digest(name, limit) for name in names]

    def _digest(self, name: str, limit: int | None) -> str:
        chunk = self._images.get(str(Path(name)))
        if chunk is None:
            return hashlib.sha256(self._pairs).hexdigest() if str(Path(name)) == PAIRS else ""
        if chunk.stop - chunk.start > (
            MAX_IMAGE_BYTES if limit is None else min(limit, MAX_IMAGE_BYTES)
        ):
            return UNREADABLE
        if chunk not in self._digests:
            self._digests[chunk] = hashlib.sha256(self.read(name)).hexdigest()
        return self._digests[chunk]


def _short(data: bytes) -> bytes:
    raise ValueError(f"only {len(data)} bytes are left")


def _parts(found: Any, data: bytes, where: str) -> tuple[list[Chunk], list[bool]]:
    """Return where each image is, and which pairs are mated.

    Raises InvalidInput naming the first thing out of place.
    """
    shape = "should be a pair: the list of 2n encoded images, and the list of n truth values"
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise InvalidInput(f"{where}: a pack of images {shape}; it is not one.")
    images, mated = found
    if isinstance(mated, Bytes1D) and mated.chunk is not None:
        held = mated.chunk.of(data[mated.chunk.start : mated.chunk.stop])
        size = ITEM_BYTES[mated.dtype]
        # a list takes eight times the bytes
        starts = range(0, min(len(held), size * (MAX_PAIRS + 1)), size)
        mated = [int.from_bytes(held[start : start + size], "little") for start in starts]
    if not isinstance(images, tuple | list) or not isinstance(mated, tuple | list):
        raise InvalidInput(f"{where}: a pack of images {shape}; it holds something else.")
    if len(mated) > MAX_PAIRS:
        raise InvalidInput(
            f"{where}: it is of more than {MAX_PAIRS:,} pairs, and a pack of more is not read."
        )
    if len(images) != 2 * len(mated) or not len(mated):
        raise InvalidInput(
            f"{where}: a pack of images {shape}; found {len(images):,} images and {len(mated):,}"
            " truth values."
        )
    for i, value in enumerate(mated):
        if type(value) not in (bool, int) or value not in (0, 1):
            raise InvalidInput(f"{where}: what it says of pair {i} is not a truth value.")
    chunks: list[Chunk] = []
    for i, image in enumerate(images):
        chunk = image.chunk if isinstance(image, Bytes1D) and image.dtype == "u1" else image
        if not isinstance(chunk, Chunk) or chunk.kind == "text":
            raise InvalidInput(
                f"{where}: image {i} should be the bytes of an image file, and is something else."
            )
        chunks.append(chunk)
    return chunks, [bool(value) for value in mated]
