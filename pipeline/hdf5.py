"""Batch ↔ HDF5: one dataset a column, checksums on every chunk and every index, nothing pickled.

Text is kept as UTF-8 bytes and end offsets (`NAME/utf8`, `NAME/ends`) because HDF5 keeps variable-length strings
outside the checksummed chunks. Files hold no time and no host, so equal columns give equal bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import CorruptArtifact, InvalidInput, cannot_read, unknown
from pipeline.schema import Array, Batch, decode_text, encode_text

CHUNK_BYTES = 4 << 20
# From format v110 on the chunk indexes have checksums too; before, a flipped bit in one made rows read as zeros.
LIBVER = ("v110", "v110")
_MACHINE = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def write(path: Path, batch: Batch, schema: str) -> None:
    """Write all columns to a new file at `path`. Raises OSError where the disk is full or refuses."""
    # In memory first: HDF5 crashes on a file that it cannot write to the end.
    image = BytesIO()
    with h5py.File(image, "w", libver=LIBVER, track_order=False) as file:
        file.attrs["schema"] = schema
        file.attrs["rows"] = batch.rows
        write_columns(file, batch)
    with path.open("xb") as output:
        output.write(image.getbuffer())


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


def read(path: Path, columns: Iterable[str] | None = None, rows: slice = slice(None)) -> Batch:
    """Read the named columns (default: all) and rows of a file.

    Raises CorruptArtifact where a chunk's checksum or the file's structure is wrong, or a column claims more than the
    file holds; InvalidInput for a column that is not in the file; ResourceRefused where the machine refuses to read;
    MemoryError.
    """
    try:
        # The chunk cache is off: shards are read once, in large pieces, and the cache only slows random rows.
        with h5py.File(path, "r", rdcc_nbytes=0) as file:
            names = list(file) if columns is None else list(columns)
            return Batch({name: _column(file, name, rows, path) for name in names})
    except (OSError, ValueError, TypeError, OverflowError, RuntimeError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise cannot_read(path, OSError(error.errno, os.strerror(error.errno))) from error  # HDF5's words are many
        raise CorruptArtifact(f"{path}: the file is damaged ({_first_line(error)}).") from error


def _dataset(group: h5py.Group, name: str, array: Array) -> None:
    if array.size == 0:
        group.create_dataset(name, data=array)
        return
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
    chunks = -(-len(array) // max(1, CHUNK_BYTES // row_bytes))
    rows = -(-len(array) // chunks)  # the last chunk is stored in full: let it be nearly full
    group.create_dataset(name, data=array, chunks=(rows, *array.shape[1:]), fletcher32=True)


def _column(file: h5py.File, name: str, rows: slice, path: Path) -> Array:
    if name not in file:
        raise InvalidInput(f"{path}: {unknown('column', name, list(file))}")
    node: Any = file[name]
    if isinstance(node, h5py.Group):
        return decode_text(_values(node["utf8"], path), _values(node["ends"], path))[rows]
    return np.asarray(_values(node, path, rows))


def _values(node: Any, path: Path, rows: slice = slice(None)) -> Any:
    # Columns are not compressed. A damaged header is met here, before memory is spent on what it claims.
    if node.nbytes > path.stat().st_size:
        raise ValueError(f"column {node.name} claims {node.nbytes} bytes, more than the file holds")
    return node[rows]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
