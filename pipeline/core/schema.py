"""Named columns of one length: what every stage takes and gives.

A `Schema` says which columns a table has (dtype, shape of one row, unit); a `Batch` holds them.
Columns are NumPy arrays whose first axis is the row; text columns are object arrays of `str`. Rows
that failed carry a `Status` other than OK and, in `reason`, a sentence; their other values are
blanks (nan, zero, empty text).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput, unknown

Array = NDArray[Any]


class Status(IntEnum):
    """Why a row has no usable value; 0 is usable."""

    OK = 0
    MISSING = 1  # the file named by the protocol is not there
    UNREADABLE = 2  # truncated, or not an image at all
    TOO_LARGE = 3  # decoding it would take more memory than is allowed
    NOT_FOUND = 4  # nothing was found in it: no face
    NOT_FINITE = 5  # a model or a file gave nan or infinity
    FAILED = 6  # the stage raised on this row alone
    EMPTY = 7  # a group none of whose members is usable
    DECODER_CRASH = 8  # reading it ends the process that tries


@dataclass(frozen=True)
class Field:
    """One column: `shape` is that of a single row; None in it is a length that the data decides."""

    name: str
    dtype: str  # a NumPy dtype name, or "text"
    shape: tuple[int | None, ...] = ()
    unit: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        if self.dtype == "text" and self.shape:
            raise ValueError(
                f"column {self.name!r}: a row of text is one string, not an array of shape"
                f" {self.shape}."
            )

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(object) if self.dtype == "text" else np.dtype(self.dtype)

    def blank(self, rows: int, shape: tuple[int, ...]) -> Array:
        """Return `rows` rows of this column that stand for 'no value'."""
        if self.dtype == "text":
            return np.full((rows, *shape), "", dtype=object)
        fill = np.nan if self.numpy.kind == "f" else 0
        return np.full((rows, *shape), fill, dtype=self.numpy)


@dataclass(frozen=True)
class Schema:
    """The columns of one kind of table.

    `finite` names float columns that must be finite in rows that are OK.
    """

    name: str
    fields: tuple[Field, ...]
    finite: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> list[Any]:
        """What of the schema enters a key: names, dtypes and shapes, not units or prose."""
        return [self.name, [[f.name, f.dtype, list(f.shape), f.optional] for f in self.fields]]

    def field(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise InvalidInput(unknown(f"column of {self.name}", name, (f.name for f in self.fields)))

    def check(self, batch: Batch, where: str = "") -> Batch:
        """Return `batch` if it has exactly this schema's columns, dtypes and shapes.

        Raises InvalidInput naming the column, what was expected and what was found.
        """
        where = where or self.name
        for name in batch.columns:
            self.field(name)
        for field in self.fields:
            if field.name not in batch.columns:
                if field.optional:
                    continue
                raise InvalidInput(
                    f"{where}: expected a column {field.name!r}, found"
                    f" {', '.join(batch.columns) or 'none'}."
                )
            array = batch.columns[field.name]
            row = array.shape[1:]
            fits = len(row) == len(field.shape) and all(
                want is None or want == got for want, got in zip(field.shape, row, strict=True)
            )
            if array.dtype != field.numpy or not fits:
                raise InvalidInput(
                    f"{where}: column {field.name!r} should be {field.dtype} with rows of shape"
                    f" {field.shape}, found {array.dtype} with rows of shape {row}."
                )
            if field.dtype != "text":
                continue
            strange = [value for value in array if not isinstance(value, str)]
            if strange:
                raise InvalidInput(
                    f"{where}: column {field.name!r} should hold text, found {strange[0]!r:.40}."
                )
        return batch

    def blank(self, rows: int, like: Batch, status: Status, reason: str) -> Batch:
        """Return `rows` failed rows, with the data-dependent lengths taken from `like`."""
        columns = {}
        for field in self.fields:
            if field.name in like.columns:
                columns[field.name] = field.blank(rows, like.columns[field.name].shape[1:])
        columns["status"][:] = status
        if "reason" in columns:
            columns["reason"][:] = reason
        return Batch(columns)


class Batch(Mapping[str, Array]):
    """Columns of one length. Immutable by convention: a stage returns a new one."""

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self.columns: dict[str, Array] = dict(columns)
        lengths = {name: len(array) for name, array in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInput(f"columns of one batch must have one length, found {lengths}.")
        self.rows = next(iter(lengths.values()), 0)

    def __getitem__(self, name: str) -> Array:
        try:
            return self.columns[name]
        except KeyError:
            raise InvalidInput(unknown("column", name, self.columns)) from None

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"Batch({self.rows} rows: {', '.join(self.columns)})"

    @property
    def nbytes(self) -> int:
        """The bytes of its columns; of a text column, only those of the references."""
        return sum(array.nbytes for array in self.columns.values())

    def take(self, rows: slice | Array) -> Batch:
        """Return the given rows (a slice, an index array or a mask) of every column."""
        return Batch({name: array[rows] for name, array in self.columns.items()})

    def select(self, names: Iterable[str]) -> Batch:
        return Batch({name: self[name] for name in names})

    def digest(self) -> str:
        """sha256 (hex) of names, dtypes, shapes and values, wherever the columns are kept."""
        sha = hashlib.sha256()
        for name in sorted(self.columns):
            array = self.columns[name]
            kind = "text" if array.dtype == object else array.dtype.str
            sha.update(f"{name}|{kind}|{array.shape}|".encode())
            parts = encode_text(array) if array.dtype == object else (np.ascontiguousarray(array),)
            for part in parts:
                sha.update(part.data if part.size else b"")
        return sha.hexdigest()


def concat(batches: Sequence[Batch]) -> Batch:
    """Return the rows of all batches in order.

    Raises InvalidInput if they have not the same columns.
    """
    if len(batches) == 1:
        return batches[0]
    for batch in batches:
        if batch.columns.keys() != batches[0].columns.keys():
            raise InvalidInput(
                f"cannot join {batches[0]} and {batch}: they have different columns."
            )
    return Batch({name: np.concatenate([b[name] for b in batches]) for name in batches[0]})


def status_counts(batch: Batch) -> dict[str, int]:
    """Return how many rows have each status, by its name in small letters.

    Empty for a batch without statuses.
    """
    if "status" not in batch:
        return {}
    return {
        status.name.lower(): count
        for status in Status
        if (count := int((batch["status"] == status).sum()))
    }


def text(values: Iterable[object]) -> Array:
    """Return a text column (object array of str)."""
    items = [str(value) for value in values]
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def encode_text(array: Array) -> tuple[Array, Array]:
    """Return a text column as (UTF-8 bytes of all rows one after another, end offset of each row).

    Lone surrogates, which stand for the bytes of a file name that is not UTF-8, survive the round
    trip.
    """
    encoded = [value.encode("utf-8", "surrogatepass") for value in array]
    ends = np.cumsum([len(value) for value in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def decode_text(data: Array, ends: Array) -> Array:
    """Invert `encode_text`. Raises ValueError if the offsets do not fit the bytes."""
    raw = data.tobytes()
    if (int(ends[-1]) if len(ends) else 0) != len(raw) or np.any(np.diff(ends, prepend=0) < 0):
        raise ValueError("text offsets do not fit the bytes")
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return text(
        raw[a:b].decode("utf-8", "surrogatepass")
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    )
