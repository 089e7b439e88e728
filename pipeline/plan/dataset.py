"""Ingest: a data set's own files → tables that fix every row and shard before anything is planned.

A `Reader` knows one protocol. Its tables are cached in the store under the digests of the files
they came from, so neither a moved folder nor a second run reads them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol
from zlib import crc32

import numpy as np

from pipeline.config.config import Config
from pipeline.config.validation import validate
from pipeline.core.numerics import backend_version
from pipeline.core.registry import lookup
from pipeline.core.schema import Array, Batch, Schema
from pipeline.errors import InvalidInput, unknown
from pipeline.files.digests import DigestCache
from pipeline.files.file_tree import Files, Zip, open_files
from pipeline.store.store import Store
from pipeline.system.canonical_json import KEY_FORMAT, key_of


@dataclass(frozen=True)
class Axis:
    """Numbered rows, cut into shards of at most `shard_rows` that end at a multiple of `multiple`.

    With `names` (one text a row), shards end where the hashes of names say so: a row that comes or
    goes changes the shard that it lies in, rarely the next, and never all that follow. If
    `growing`, shards are smaller near the first row, so that a small set has several of them too.
    """

    rows: int
    shard_rows: int
    multiple: int = 1
    names: Array | None = field(default=None, repr=False, compare=False)
    growing: bool = False

    @cached_property
    def shards(self) -> tuple[tuple[int, int], ...]:
        """(first, one past last) row of every shard; there is one, empty, if there are no rows."""
        step = self._most
        if self.names is None:
            stops = [*range(step, self.rows, step), self.rows]
        else:
            stops = _cuts(self.names, step, self.growing)
        return tuple(zip([0, *stops[:-1]], stops, strict=True))

    @property
    def fewest(self) -> int:
        """The least number of shards that there can be, known without cutting them."""
        return max(1, -(-self.rows // self._most))

    @property
    def _most(self) -> int:
        """Rows of a shard at most."""
        return max(1, self.shard_rows // self.multiple) * self.multiple

    def places(self, rows: Array) -> tuple[Array, Array]:
        """Return the shard of each row (int64), and its number inside that shard."""
        starts, stops = self._bounds
        shard = np.searchsorted(stops, rows, side="right")
        return shard, rows - starts[np.minimum(shard, len(starts) - 1)]

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        starts, stops = np.array(self.shards).T
        return starts, stops


def _cuts(names: Array, most: int, growing: bool) -> list[int]:
    """Return the ends of shards of size/2 … size rows.

    Each shard ends after the row in that range whose name has the lowest hash.

    What is left at the end, up to `size` rows, is one shard. The size is `most`. If `growing`, it
    depends on how many rows lie before, not on how many there are in all: a set that grows keeps
    the shards that it has.
    """
    hashes = np.fromiter(
        (crc32(name.encode("utf-8", "surrogatepass")) for name in names), np.uint32, len(names)
    )
    hashes *= np.uint32(2654435761)  # spreads the hashes of consecutive names over all numbers
    start, stops = 0, []
    while len(names) - start > (size := _size_at(start, most) if growing else most):
        first = start + (size - 1) // 2  # the first row that may be a shard's last
        start = first + 1 + int(hashes[first : start + size].argmin())
        stops.append(start)
    return [*stops, len(names)]


def _size_at(row: int, most: int) -> int:
    """Return the size of a shard that begins at `row`.

    It is an eighth of `most` at first, and doubles whenever the row number has grown eightfold.
    """
    size, limit = max(1, most // 8), most // 2
    while size < most and row >= limit:
        size, limit = 2 * size, 8 * limit
    return min(size, most)


class Layout(Protocol):
    """How a family of data sets is laid out: its tables, and which axes they span."""

    # of each table; its first column, where that is text, is the id of a row
    schemas: Mapping[str, Schema]
    # (table, column): the axis whose rows a *sorted* int64 column numbers; such a table is cut with
    # that axis
    sorted_index: Mapping[tuple[str, str], str]

    def axes(
        self, tables: Mapping[str, Batch], shard_rows: Mapping[str, int]
    ) -> dict[str, Axis]: ...

    def same_rows(self, one: str, other: str, tables: Mapping[str, Batch]) -> bool:
        """Whether two axes number the same rows."""


class Reader(Protocol):
    """One data-set protocol.

    It may have a method `notes(files, tables)`, too: sentences on what it left out, or what else is
    worth knowing of a data set that can be used. `check`, `plan`, `run` and `status` print them; it
    is called at each, so it has to be fast.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    backends: ClassVar[tuple[str, ...]]  # libraries whose version may change what is read or drawn
    Options: ClassVar[type[Any]]
    layout: ClassVar[Layout]

    def __init__(self, options: Any) -> None: ...

    def sources(self, files: Files) -> list[str]:
        """Names of the files that the tables depend on."""

    def read(self, files: Files | None) -> dict[str, Batch]:
        """All tables of the layout.

        Raises InvalidInput listing what is wrong, with file and row.
        """


@dataclass(frozen=True)
class Dataset:
    """Tables, their axes, and the files they speak of."""

    key: str
    tables: Mapping[str, Batch]
    axes: Mapping[str, Axis]
    layout: Layout
    path: Path | None
    notes: Sequence[str] = ()  # sentences of its reader about it
    _digests: dict[Any, str] = field(default_factory=dict, repr=False)

    @cached_property
    def files(self) -> Files:
        if self.path is None:
            raise InvalidInput("this data set has no files: set dataset.path.")
        return open_files(self.path)

    def part(self, table: str, columns: tuple[str, ...], axis: str, start: int, stop: int) -> Batch:
        """Return a table's rows of rows start…stop of an axis; all, if it is not cut along it.

        Columns that are optional and absent are left out. Index columns that number the axis are
        rebased to `start`.
        """
        batch = self.tables[table]
        present = [name for name in columns if self._known(table, name) in batch.columns]
        part = batch.select(present)
        if table == axis:
            return part.take(slice(start, stop))
        for (owner, column), target in self.layout.sorted_index.items():
            if owner == table and target == axis:
                first, last = np.searchsorted(batch[column], [start, stop])
                part = part.take(slice(int(first), int(last)))
                if column in part.columns:
                    part = Batch({**part.columns, column: part[column] - start})
        return part

    def ids(self, axis: str) -> Array | None:
        """Return the id of each row of an axis; None if it is no table, or its rows have no ids."""
        if axis not in self.tables:
            return None
        # by the schema, because a stored batch has its columns sorted by name
        first = self.layout.schemas[axis].fields[0]
        return self.tables[axis][first.name] if first.dtype == "text" else None

    def digest(self, table: str, columns: tuple[str, ...], axis: str, start: int, stop: int) -> str:
        """Return the digest of what `part` returns."""
        cut = table == axis or any(
            o == table and a == axis for (o, _), a in self.layout.sorted_index.items()
        )
        name = (table, columns, axis, start, stop) if cut else (table, columns)
        if name not in self._digests:
            self._digests[name] = self.part(table, columns, axis, start, stop).digest()
        return self._digests[name]

    def _known(self, table: str, column: str) -> str:
        return self.layout.schemas[table].field(column).name


def ingest(config: Config, store: Store, digests: DigestCache) -> Dataset:
    """Return the data set of a config: from the store if its files are unchanged, else read anew.

    What is read is committed.

    Raises InvalidInput for an unknown reader or option, missing files, or tables that contradict
    each other; CorruptArtifact for a stored table that is damaged.
    """
    section = config.dataset
    cls: type[Reader] = lookup("reader", section.reader)
    options = validate(cls.Options, section.options, "dataset.options")
    reader = cls(options)
    path = _path(config)
    files = open_files(path, digests) if path is not None else None
    sources = _sources(reader, files)
    names = list(cls.layout.schemas)
    identity = [
        *(KEY_FORMAT, "ingest", cls.name, cls.version, options.model_dump(mode="json"), sources),
        {name: backend_version(name) for name in cls.backends},
        [cls.layout.schemas[name].fingerprint for name in names],
    ]
    key = key_of(identity)
    tables = _stored_tables(store, names, key)
    if tables is None:
        tables = reader.read(files)
        # The files must not have changed while they were read: the tables would be kept under the
        # key of other bytes.
        if path is not None and _sources(reader, open_files(path, digests)) != sources:
            raise InvalidInput(
                f"{path}: files changed while they were read; run again when they are complete."
            )
        for name in names:
            cls.layout.schemas[name].check(tables[name], f"{cls.name} reader, table {name}")
            if not store.readonly:
                store.commit(
                    f"ingest.{name}",
                    key,
                    tables[name],
                    cls.layout.schemas[name],
                    {"identity": identity},
                )
    tell = getattr(reader, "notes", None)
    return _laid_out(config, key, tables, path, tell(files, tables) if tell else ())


def stored_dataset(config: Config, store: Store, key: str) -> Dataset:
    """Return the data set of a config that another process has ingested into the store.

    Raises CorruptArtifact if a table is gone or damaged.
    """
    cls: type[Reader] = lookup("reader", config.dataset.reader)
    tables = {name: store.read(f"ingest.{name}", key) for name in cls.layout.schemas}
    return _laid_out(config, key, tables, _path(config))


def _path(config: Config) -> Path | None:
    return config.resolve(config.dataset.path) if config.dataset.path is not None else None


def _stored_tables(store: Store, names: Sequence[str], key: str) -> dict[str, Batch] | None:
    """Return the tables of an earlier ingest; None if one is missing."""
    if not all(store.has(f"ingest.{name}", key) for name in names):
        return None
    return {name: store.read(f"ingest.{name}", key) for name in names}


def _laid_out(
    config: Config, key: str, tables: dict[str, Batch], path: Path | None, notes: Sequence[str] = ()
) -> Dataset:
    section = config.dataset
    layout = lookup("reader", section.reader).layout
    axes = layout.axes(tables, section.shard_rows)
    for axis in section.shard_rows:
        if axis not in axes:
            raise InvalidInput(f"dataset.shard_rows: {unknown('axis', axis, axes)}")
    return Dataset(key, tables, axes, layout, path, notes)


def _sources(reader: Reader, files: Files | None) -> list[list[str]]:
    if files is None:
        return []
    if isinstance(files, Zip):
        return [["", files.sha256]]
    names = reader.sources(files)
    return [[name, digest] for name, digest in zip(names, files.digests(names), strict=True)]
