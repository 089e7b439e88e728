"""Hostile zip archives."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from pipeline.errors import InvalidInput
from pipeline.files.file_tree import MAX_FILE_BYTES, open_files
from stages.datasets.folder import FolderOptions, FolderReader

from .guard import Breach
from .mutate import TEXTS, damaged

NAMES = (
    *(
        "../beside/made",
        "/etc/passwd",
        "a/../../beside/made",
        "C:\\x.jpg",
        "a\\..\\b.jpg",
        "..",
        ".",
        "",
        "a/",
        "a//b.jpg",
    ),
    *(
        "./Ann/1.jpg",
        "Ann/./1.jpg",
        "Ann/1.jpg",
        "Ann/1.jpg\0.png",
        "Ann/\udcff.jpg",
        "CON",
        "a:b.jpg",
        "__MACOSX/a.jpg",
    ),
    *(".hidden.jpg", "Ann", "Ann/1.jpg/2.jpg"),
)


@cache
def _zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(megabytes)]) + packer.flush()


def entry(
    name: bytes,
    packed: bytes,
    size: int,
    *,
    method: int = 8,
    crc: int = 0,
    flags: int = 0,
    mode: int = 0o100644,
) -> tuple:
    """Return (local header and data, central header without offset) of a member whose fields say
    what one likes.
    """
    sizes = (min(len(packed), 0xFFFFFFFF), min(size, 0xFFFFFFFF))
    common = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 33, crc, *sizes, len(name), 0)
    local = b"PK\3\4" + common + name + packed
    central = (
        b"PK\1\2" + struct.pack("<H", 0x314) + common + struct.pack("<HHHI", 0, 0, 0, mode << 16)
    )
    return local, central, name


def archive(entries: list[tuple], overlap: bool = False) -> bytes:
    """Return a zip; with `overlap` every member is the first one's bytes."""
    body, directory, offset = b"", b"", 0
    for local, central, name in entries:
        directory += central + struct.pack("<I", 0 if overlap else offset) + name
        if not overlap or not body:
            body += local
        offset = len(body)
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(body), 0
    )
    return body + directory + end


@cache
def _ordinary(kind: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", (0, 8, 12, 14)[kind % 4]) as packed:
        for i in range(4):
            with packed.open(zipfile.ZipInfo(f"Ann/{i}.jpg"), "w", force_zip64=kind > 3) as member:
                member.write(bytes(range(64)) * (i + 1))
        packed.comment = b"x" * (kind % 3)
    return buffer.getvalue()


def _built(rng: Random) -> bytes:
    """An archive whose every field is drawn."""
    entries = []
    for i in range(rng.randint(1, 4)):
        data = rng.choice((b"", b"words", bytes(1000), bytes(range(256)) * 8))
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        method = rng.choice((0, 8, 8, 8, 9, 12, 14, 93, 99))
        packed = data if method == 0 else packer.compress(data) + packer.flush()
        size = (
            len(data)
            if rng.random() < 0.6
            else rng.choice((0, 1, 2**31, 2**32 - 1, MAX_FILE_BYTES, MAX_FILE_BYTES + 1))
        )
        crc = zlib.crc32(data) if rng.random() < 0.7 else rng.getrandbits(32)
        name = rng.choice((*NAMES, *TEXTS)) if rng.random() < 0.4 else f"Ann/{i}.jpg"
        raw = name.encode("utf-8", "surrogatepass")[:60_000]
        flags = rng.choice((0, 0, 0, 0x800, 1, 0x41, 8, 0x20))
        mode = rng.choice((0o100644, 0o120777, 0o040755, 0o010644, 0))
        entries.append(entry(raw, packed, size, method=method, crc=crc, flags=flags, mode=mode))
    return archive(entries, overlap=rng.random() < 0.1)


def _bomb(rng: Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:  # says how large it is, which is more than is read
        return archive(
            [entry(b"Ann/1.jpg", _zeros(1), rng.choice((MAX_FILE_BYTES + 1, 2**32 - 1)))]
        )
    if kind == 1:  # says that it is small
        return archive(
            [entry(b"Ann/1.jpg", _zeros(64), rng.choice((0, 1, 100_000)), crc=rng.getrandbits(32))]
        )
    if kind == 2:  # one piece that counts a thousand times
        size = 64 << 20
        return archive(
            [entry(b"Ann/%d.jpg" % i, _zeros(64), size) for i in range(2000)], overlap=True
        )
    inner = archive([entry(b"Ann/1.jpg", _zeros(8), 8 << 20)])  # an archive in an archive
    return archive([entry(b"Ann/1.jpg", inner, len(inner), method=0, crc=zlib.crc32(inner))])


def zips(rng: Random, folder: Path) -> Callable[[], object]:
    """An archive as a data set's path: its names, every member, the digests, and the folder reader
    on it.
    """
    kind = rng.randrange(10)
    if kind == 0:
        data = _bomb(rng)
    elif kind < 5:
        data = _built(rng)
    else:
        data = damaged(rng, _ordinary(rng.randrange(8)))
        end = data.rfind(b"PK\1\2")
        if end > 0 and rng.random() < 0.3:  # in the directory, where the lengths and offsets are
            data = data[:end] + damaged(rng, data[end:], most=2)
    (folder / "set.zip").write_bytes(data)

    def call() -> object:
        files = open_files(folder / "set.zip")
        names, refused = files.names(), []
        for name in names[:20]:
            if name.startswith("/") or ".." in name.split("/"):
                raise Breach(f"the name {name!r} leads out of the archive")
            try:
                if len(files.read(name)) > MAX_FILE_BYTES:
                    raise Breach(f"{name!r} expanded to more than is ever read")
            except InvalidInput as refusal:
                refused.append(str(refusal))
        assert all(refused)
        return FolderReader(FolderOptions()).read(files)

    return call
