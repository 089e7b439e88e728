"""Batch ↔ HDF5: one dataset a column, checksums on every chunk and every index, nothing pickled.

Text is kept as UTF-8 bytes and end offsets (`NAME/utf8`, `NAME/ends`) because HDF5 keeps
variable-length strings outside the checksummed chunks. Files hold no time and no host, so equal
columns give equal bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from pipeline.core.schema import Array, Batch, decode_text, encode_text
from pipeline.errors import CorruptArtifact, InvalidInput, cannot_read, unknown
from pipeline.system.regular_file import need_regular

CHUNK_BYTES = 4 << 20
# From format v110 on the chunk indexes have checksums too; before, a flipped bit in one made rows
# read as zeros.
LIBVER = ("v110", "v110")
_MACHINE = {
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
}


def write(path: Path, batch: Batch, schema: str) -> None:
    """Write all columns to a new file at `path`. Raises OSError if the disk is full or refuses."""

    def fill(file: h5py.File) -> None:
        file.attrs["schema"] = schema
        file.attrs["rows"] = batch.rows
        write_columns(file, batch)

    data = image(fill, batch.nbytes)
    with path.open("xb") as output:
        output.write(data)


def image(fill: Callable[[h5py.File], None], size: int) -> memoryview:
    """Return the bytes of a new file of about `size` bytes, into which `fill` writes.

    Raises MemoryError. HDF5 crashes the process, at once or when it ends, where it cannot write a
    file to the end: a disk that is full, a quota, a limit on files, a Python file that raises. So
    every file is made in memory, and written by Python.
    """
    # A lack of memory is raised here; inside HDF5 it would be such a crash.
    np.empty(size + max(size // 4, 32 << 20), np.uint8)
    made = BytesIO()
    with h5py.File(made, "w", libver=LIBVER, track_order=False) as file:
        fill(file)
    return made.getbuffer()


def opened(source: Path | BinaryIO, **options: Any) -> h5py.File:
    """Open a file for reading. Raises OSError, at once where it is not a regular file.

    Without HDF5's locks: a file appears when it is complete and is never written again, and some
    file systems have no locks.
    """
    if isinstance(source, Path):
        need_regular(source)
    return h5py.File(source, "r", locking=False, **options)


def write_columns(group: h5py.Group, batch: Batch) -> None:
    """Write all columns as members of a group (a file is one), in the order of their names."""
    for name in sorted(batch.columns):
        array = batch[name]
        if array.dtype == object:
            data, ends = encode_text(array)
            _dataset(group, f"{name}/utf8", data)
            _dataset(group, f"{name}/ends", ends)
        else:
            _dataset(group, name, array)


def read(
    path: Path,
    columns: Iterable[str] | None = None,
    rows: slice = slice(None),
    checked: bool = False,
) -> Batch:
    """Read the named columns (default: all) and rows of a file.

    `checked`: every byte of the file has just been compared with its digest, so the chunks'
    checksums, and the lock under which HDF5 computes them, are left out.

    Raises CorruptArtifact if a chunk's checksum or the file's structure is wrong, or a column
    claims more than the file holds; InvalidInput for a column that is not in the file;
    ResourceRefused if the machine refuses to read; MemoryError.
    """
    try:
        # The chunk cache is off: shards are read once, in large pieces, and the cache only slows
        # random rows.
        with opened(path, rdcc_nbytes=0) as file:
            names = list(file) if columns is None else list(columns)
            return Batch({name: _column(file, name, rows, path, checked) for name in names})
    except (OSError, ValueError, TypeError, OverflowError, RuntimeError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, OSError) and error.errno in _MACHINE:
            # shorter than HDF5's own message
            raise cannot_read(path, OSError(error.errno, os.strerror(error.errno))) from error
        raise CorruptArtifact(f"{path}: the file is damaged ({_first_line(error)}).") from error


def _dataset(group: h5py.Group, name: str, array: Array) -> None:
    if array.size == 0:
        group.create_dataset(name, data=array)
        return
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
    chunks = -(-len(array) // max(1, CHUNK_BYTES // row_bytes))
    rows = -(-len(array) // chunks)  # the last chunk is stored in full: let it be nearly full
    group.create_dataset(name, data=array, chunks=(rows, *array.shape[1:]), fletcher32=True)


def _column(file: h5py.File, name: str, rows: slice, path: Path, checked: bool) -> Array:
    if name not in file:
        raise InvalidInput(f"{path}: {unknown('column', name, list(file))}")
    node: Any = file[name]
    if isinstance(node, h5py.Group):
        return decode_text(
            *(_values(node[part], path, slice(None), checked) for part in ("utf8", "ends"))
        )[rows]
    return np.asarray(_values(node, path, rows, checked))


def _values(node: Any, path: Path, rows: slice, checked: bool) -> Any:
    # Columns are not compressed. A damaged header is met here, before memory is spent on what it
    # claims.
    if node.nbytes > path.stat().st_size:
        raise ValueError(f"column {node.name} claims {node.nbytes} bytes, more than the file holds")
    if checked and node.chunks and rows == slice(None):
        return _chunks(node)
    return node[rows]


def _chunks(node: Any) -> Array:
    """Return all rows; each chunk is read straight into its place."""
    found = np.empty(node.shape, node.dtype)
    flat: Any = found.reshape(-1).view(np.uint8)
    row_bytes, total = found.nbytes // len(found), 0
    for number in range(node.id.get_num_chunks()):
        chunk = node.id.get_chunk_info(number)
        begin = chunk.chunk_offset[0] * row_bytes
        place = flat[begin : begin + node.chunks[0] * row_bytes]
        total += os.preadv(node.file.id.get_vfd_handle(), [place], chunk.byte_offset)
    if total != found.nbytes:
        raise ValueError(f"column {node.name} has {total} of its {found.nbytes} bytes")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
