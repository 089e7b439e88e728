"""Reader `tables`: a whole data set in one HDF5 file, and the function that writes such a file.

Layout of the file
    /               attribute `format` = "qfuse-tables/1", and what the writer adds
    /TABLE          a group for each table of `stages.tables.schemas`; roles, comparisons and
                    pairings may be left out
    /TABLE/COLUMN   a dataset whose first axis is the row; little-endian; a fletcher32 checksum on
                    every chunk
    /TABLE/COLUMN/utf8 and /TABLE/COLUMN/ends
                    instead, for text: the UTF-8 bytes of all rows one after another (uint8), and
                    the end offset of each row (int64)

Index columns (members.template, members.face, roles.template, comparisons.a and .b) are row
numbers, members sorted by template. Embeddings that are nan stay rows; a later stage decides about
them. A file may come from anywhere. So links and external storage are not followed, values that it
declares but does not hold are not read as zeros, and compressed data that would fill the memory is
refused.
"""

from __future__ import annotations

import io
import math
import mmap
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Field, Schema, decode_text
from pipeline.core.stage import Options
from pipeline.errors import InvalidInput, unknown
from pipeline.files.file_tree import Files, Folder
from pipeline.store import hdf5
from pipeline.system.atomic_text import replace_bytes
from pipeline.system.regular_file import NotRegular, open_regular
from stages.datasets.folder import need_files
from stages.tables.tables import GROWING, LAYOUT, FaceLayout

TABLES_FORMAT = "qfuse-tables/1"
MAX_COLUMN_BYTES = 64 << 20  # of a column, if that is not
MAX_RATIO = 100  # times the file: HDF5's filters pack a thousand to one and more
_HEAP = b"GCOL\1\0\0\0"
_MAX_OBJECTS = 100_000  # on heaps; a file of tables has a handful
_MAY_LACK = ("roles", "comparisons", "pairings")


def write_tables(
    path: Path, tables: Mapping[str, Batch], attrs: Mapping[str, str | int | float] | None = None
) -> None:
    """Write `tables` as one file, which appears at `path` when complete, replacing any other.

    Raises InvalidInput if the tables are not those of a face data set, OSError if the file cannot
    be written.
    """
    for name, batch in tables.items():
        _schema(name, str(path)).check(batch, f"{path}, table {name}")

    def fill(file: h5py.File) -> None:
        file.attrs.update({**(attrs or {}), "format": TABLES_FORMAT})
        for name in sorted(tables):
            hdf5.write_columns(file.create_group(name), tables[name])

    replace_bytes(path, hdf5.image(fill, sum(batch.nbytes for batch in tables.values())))


class TablesOptions(Options):
    """Which file holds the tables."""

    file: str = "tables.h5"
    """Its name in the data set's folder."""


@register("reader", "tables")
class TablesReader:
    """Tables as they are in the file, checked column by column and against each other."""

    name: ClassVar[str] = "tables"
    version: ClassVar[int] = 1
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = TablesOptions
    layout: ClassVar[FaceLayout] = GROWING

    def __init__(self, options: TablesOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """The file of tables; images that it names enter by the sha256 it gives.

        Raises InvalidInput if it is absent.
        """
        # a name may be too long
        if isinstance(files, Folder) and not os.path.exists(files.path(self.options.file)):
            raise self._absent(files)
        return [self.options.file]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the six tables.

        Raises InvalidInput if the file is absent, damaged or unfinished, and for every column that
        is not as its schema says or points at rows that are not there.
        """
        files = need_files(files, self.name)
        where = f"{files.root}: {self.options.file}"
        try:
            source = _open(files, self.options.file)
            _check_heaps(source)
            with hdf5.opened(source) as file:
                tables = _read_file(file, where)
        except FileNotFoundError:
            raise self._absent(files) from None
        except NotRegular as error:
            raise InvalidInput(
                f"{where}: {error.strerror}; set dataset.options.file to a file of tables."
            ) from None
        except (
            OSError,
            RuntimeError,
            LookupError,
            ValueError,
            TypeError,
            ArithmeticError,
            MemoryError,
        ) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidInput(
                f"{where} is damaged, or no HDF5 file ({reason}); write it again."
            ) from error
        _refuse(_cross_check(tables), where)
        return tables

    def _absent(self, files: Files) -> InvalidInput:
        return InvalidInput(
            f"{files.root}: {self.options.file}: no such file; set dataset.options.file to its"
            " name."
        )


def _open(files: Files, name: str) -> Path | io.BytesIO:
    """Return what h5py opens: in a folder the file itself, which may exceed `Files.read`."""
    return files.path(name) if isinstance(files, Folder) else io.BytesIO(files.read(name))


def _check_heaps(source: Path | io.BytesIO) -> None:
    """Raise ValueError if a global heap, on which attributes and virtual columns lie, is damaged.

    HDF5 keeps no checksum of it, and an object of no size lets HDF5 walk it for ever. Source: HDF5
    file format specification 3.0, III.E.
    """
    if isinstance(source, io.BytesIO):
        return _walk_heaps(source.getvalue())
    with open_regular(source) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return _walk_heaps(view)


def _walk_heaps(data: bytes | mmap.mmap) -> None:
    at, objects = data.find(_HEAP), 0
    while at >= 0:
        place, end = at + 16, at + int.from_bytes(data[at + 8 : at + 16], "little")
        while place + 16 <= end:
            size = int.from_bytes(data[place + 8 : place + 16], "little")
            # object 0 is the free space
            step = 16 + -(-size // 8) * 8 if any(data[place : place + 2]) else size
            place, objects = place + step, objects + 1
            if step < 16 or place > min(end, len(data)) or objects > _MAX_OBJECTS:
                raise ValueError("a heap that does not end")
        at = data.find(_HEAP, at + 1)


def _schema(table: str, where: str) -> Schema:
    if table not in LAYOUT.schemas:
        raise InvalidInput(f"{where}: {unknown('table', table, LAYOUT.schemas)}")
    return LAYOUT.schemas[table]


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        more = f" (and {len(problems) - 10} more)" if len(problems) > 10 else ""
        raise InvalidInput(f"{where}: " + "; ".join(problems[:10]) + more + ".")


def _read_file(file: h5py.File, where: str) -> dict[str, Batch]:
    # of its numbers, in bytes; all programs write these
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("it counts in numbers of another size")
    found = file.attrs.get("format")
    if not isinstance(found, str) or found != TABLES_FORMAT:
        raise InvalidInput(
            f"{where}: attribute 'format' should be {TABLES_FORMAT!r}, found {found!r:.60}."
        )
    for table in file:
        _schema(table, where)
    tables, problems = {}, []
    for table, schema in LAYOUT.schemas.items():
        group = _node(file, table)
        if isinstance(group, h5py.Group):
            problems += [
                f"table {table}, column {name!r} {p}" for name, p in _column_problems(group, schema)
            ]
        elif group is not None or table not in _MAY_LACK:
            state = "missing" if group is None else "not a group of columns in this file"
            problems.append(f"table {table} is {state}")
    _refuse(problems, where)
    for table, schema in LAYOUT.schemas.items():
        columns = {
            field.name: (
                _read_column(file[table][field.name]) if table in file else field.blank(0, ())
            )
            for field in schema.fields
            if table not in file or field.name in file[table]
        }
        tables[table] = schema.check(Batch(columns), f"{where}, table {table}")
    return tables


def _node(group: h5py.Group, name: str) -> Any:
    """Return a member that lies in this file; None if there is none, False for a link."""
    link = group.get(name, getlink=True)
    if link is None:
        return None
    return group[name] if isinstance(link, h5py.HardLink) else False


def _column_problems(group: h5py.Group, schema: Schema) -> list[tuple[str, str]]:
    """Return (column, what is wrong) from what the file declares, before any value is read."""
    known = [field.name for field in schema.fields]
    problems = [
        (name, f"is none of this table's: {', '.join(known)}")
        for name in group
        if name not in known
    ]
    rows: dict[str, int] = {}
    for field in schema.fields:
        node = _node(group, field.name)
        if node is None:
            if not field.optional:
                problems.append((field.name, "is missing"))
            continue
        problem = _text_problem(node) if field.dtype == "text" else _array_problem(node, field)
        if problem:
            problems.append((field.name, problem))
        else:
            rows[field.name] = len(node["ends"] if field.dtype == "text" else node)
    if len(set(rows.values())) > 1:
        problems.append(
            (next(iter(rows)), f"and the others should have as many rows, found {rows}")
        )
    return problems


def _text_problem(node: Any) -> str:
    if not isinstance(node, h5py.Group):
        return "should be text: a group of 'utf8' and 'ends'"
    for name, dtype in (("utf8", "uint8"), ("ends", "int64")):
        problem = _array_problem(_node(node, name), Field(name, dtype))
        if problem:
            return f"is text, and its {name!r} {problem}"
    return ""


def _array_problem(node: Any, field: Field) -> str:
    if not isinstance(node, h5py.Dataset):
        return "should be a dataset in this file"
    row = node.shape[1:] if node.shape else None
    fits = row is not None and len(row) == len(field.shape)
    fits = fits and all(
        size in (None, got) for size, got in zip(field.shape, row or (), strict=True)
    )
    if node.dtype != field.numpy or not fits:
        want = f"{field.dtype} with rows of shape {field.shape}"
        return f"should be {want}, found {node.dtype} of shape {node.shape}"
    if node.is_virtual or node.external:
        return "keeps its values in another file; such a file is never read"
    needed = math.prod(node.shape) * node.dtype.itemsize
    if needed > max(MAX_COLUMN_BYTES, MAX_RATIO * node.file.id.get_filesize()):
        return f"announces {needed:,} bytes, more than {MAX_RATIO} times what the file holds"
    if node.chunks:
        chunks = math.prod(
            -(-size // step) for size, step in zip(node.shape, node.chunks, strict=True)
        )
        complete = node.id.get_num_chunks() >= chunks
    else:
        complete = node.id.get_storage_size() >= needed
    # HDF5 returns zeros for what was never written, as after a writer that was killed.
    return "" if complete else "is unfinished: some of its values were never written"


def _read_column(node: Any) -> Array:
    if isinstance(node, h5py.Group):
        return decode_text(node["utf8"][:], node["ends"][:])
    values = np.asarray(node[:])
    if values.dtype == bool and np.any(values.view(np.uint8) > 1):
        raise ValueError(f"{node.name} holds truth values that are neither 0 nor 1")
    return values


def _cross_check(tables: Mapping[str, Batch]) -> list[str]:
    """Return what is wrong between tables: repeated ids, row numbers out of range, unused roles."""
    problems = []
    for table, column in (("faces", "face_id"), ("templates", "template_id")):
        twice = [
            name for name, count in Counter(tables[table][column].tolist()).items() if count > 1
        ]
        problems += [f"table {table}, column {column!r}: {name!r} is given twice" for name in twice]
    for table, column, target in (
        ("members", "template", "templates"),
        ("members", "face", "faces"),
        ("roles", "template", "templates"),
        ("comparisons", "a", "templates"),
        ("comparisons", "b", "templates"),
    ):
        index, rows = tables[table][column], tables[target].rows
        outside = np.flatnonzero((index < 0) | (index >= rows))
        problems += [
            f"table {table}, column {column!r}, row {row}: {index[row]} is not a row of {target}"
            f" (it has {rows})"
            for row in outside.tolist()
        ]
    if np.any(np.diff(tables["members"]["template"]) < 0):
        problems.append(
            "table members, column 'template' should be sorted, members of one template together"
        )
    pairings = tables["pairings"]
    if pairings.rows > 1:
        problems.append(f"table pairings: one pair of roles at most, found {pairings.rows}")
    for column in ("role_a", "role_b"):
        for role in sorted(set(pairings[column].tolist()) - set(tables["roles"]["role"].tolist())):
            problems.append(f"table pairings, column {column!r}: no template has the role {role!r}")
    return problems
