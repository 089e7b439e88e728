"""Hostile HDF5: files of tables, and what a store holds."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np

from pipeline.core.schema import Batch, Field, Schema, text
from pipeline.errors import QfuseError
from pipeline.files.file_tree import open_files
from pipeline.store.store import Store
from stages.datasets.tables_file import TablesOptions, TablesReader, write_tables
from stages.tables.tables import LAYOUT, ProtocolLists, build_tables, singletons

from .guard import SECRET, Breach
from .mutate import changed, damaged, odd

_COLUMNS = {
    f"{name}/{field.name}": field
    for name, schema in LAYOUT.schemas.items()
    for field in schema.fields
}


def _tables() -> dict[str, Batch]:
    ids = ["f0", "f1", "f2", "é"]
    subjects = ["ada", "ada", "bob", "bob"]
    floats = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    columns = {"embedding": floats, "quality": floats[:, 0].copy(), "box": floats.copy()}
    found = ProtocolLists(
        face_id=ids,
        path=["a.jpg"] * 4,
        sha256=[""] * 4,
        subject=subjects,
        comparison_a=["f0", "f0"],
        comparison_b=["f1", "f2"],
        mated=[True, False],
        fold=[0, 1],
        role_template=ids,
        role=["reference", "probe", "probe", "gallery"],
        all_pairs=("reference", "probe"),
        columns=columns,
        **singletons(ids, subjects),
    )
    return build_tables(found, "hostile")


@cache
def _written(plain: bool) -> tuple[bytes, dict[str, str]]:
    """The bytes of a file of tables, and the digest of each table; `plain`: in HDF5's old format,
    without checksums.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tables.h5"
        write_tables(path, _tables())
        if plain:
            with (
                h5py.File(path) as source,
                h5py.File(path.with_name("plain.h5"), "w", libver="earliest") as target,
            ):
                target.attrs["format"] = source.attrs["format"]
                source.visititems(lambda name, node: _copied(target, name, node))
            path = path.with_name("plain.h5")
        return path.read_bytes(), {name: batch.digest() for name, batch in _tables().items()}


def _copied(target: h5py.Group, name: str, node: Any) -> None:
    if isinstance(node, h5py.Dataset):
        target[name] = node[()]


def _put(rng: Random, group: h5py.Group, name: str, field: Field | None, beside: Path) -> None:
    """Put something under a column's name that is not what its schema says, or not there at all, or
    far too large.
    """
    dtype: Any = field.numpy if field and field.dtype != "text" else np.dtype("u1")
    row = tuple(4 if size is None else size for size in field.shape) if field else ()
    if field and field.dtype == "text" and rng.random() < 0.5:
        group, name = group.create_group(name), "utf8"
        group["ends"] = np.array([0, 1, 2, 3], np.int64)
    kind = rng.randrange(16)
    if kind == 0:
        group[name] = rng.choice(
            (
                3,
                "text",
                [1, 2],
                np.float64(2),
                np.array([b"x"]),
                np.zeros((0, 3)),
                np.zeros((2, 2, 2)),
            )
        )
    elif kind == 1:
        group[name] = h5py.ExternalLink(str(beside / "secret.h5"), "x")
    elif kind == 2:
        group[name] = h5py.SoftLink(
            rng.choice(("/faces", f"/{name}", "/nowhere", ".", "/faces/quality", "/members/face"))
        )
    elif kind == 3:
        group.create_dataset(
            name, (4, *row), dtype, external=[(str(beside / "raw"), 0, h5py.h5f.UNLIMITED)]
        )
    elif kind == 4:
        layout = h5py.VirtualLayout((4, *row), dtype)
        layout[:] = h5py.VirtualSource(str(beside / "secret.h5"), "x", (4, *row))
        group.create_virtual_dataset(name, layout)
    elif kind == 5:  # large, and nothing of it is there
        rows = rng.choice((2**20, 2**31, 2**40, 2**60))
        chunks = rng.choice((None, (1, *row), (1024, *row)))
        with suppress(ValueError):  # HDF5 itself refuses some
            group.create_dataset(name, (rows, *row), dtype, chunks=chunks)
    elif kind in (6, 7):  # large, and all of it is there, in few bytes
        _packed(rng, group, name, dtype, row)
    elif kind == 8:
        group.create_dataset(
            name,
            (4,),
            rng.choice((h5py.special_dtype(vlen=str), h5py.special_dtype(vlen=np.dtype("i8")))),
        )
    elif kind == 9:
        odd_types = (
            h5py.h5t.STD_B8LE,
            h5py.h5t.STD_REF_OBJ,
            h5py.h5t.UNIX_D32LE,
            h5py.h5t.NATIVE_LDOUBLE,
        )
        h5py.h5d.create(
            group.id, name.encode(), rng.choice(odd_types).copy(), h5py.h5s.create_simple((4,))
        )
    elif kind == 10:
        pair = np.dtype([("a", "f4"), ("b", "i8")])
        group.create_dataset(
            name,
            (4,),
            rng.choice((pair, np.dtype("S5"), np.dtype("c16"), np.dtype(">f4"), np.dtype("f2"))),
        )
    elif kind == 11:
        group[name] = np.dtype("f4")  # a type, not values
    elif kind == 12:
        group[name] = h5py.Empty("f4")
    elif kind == 13:  # truth values that are neither
        truth = h5py.h5t.enum_create(h5py.h5t.STD_I8LE)
        truth.enum_insert(b"FALSE", 0)
        truth.enum_insert(b"TRUE", 1)
        made = h5py.Dataset(
            h5py.h5d.create(group.id, name.encode(), truth, h5py.h5s.create_simple((2,)))
        )
        made.id.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([2, 255], np.uint8), truth)
    elif kind == 14:
        group[name] = group  # a group that holds itself
    elif name != "utf8":
        text_ = group.create_group(name)
        raw = rng.choice((b"", b"abc", b"abcd", b"\xff\xfe", b"\xed\xa0\x80" * 4, b"a\0" * 4))
        text_["utf8"] = np.frombuffer(raw, np.uint8)
        text_["ends"] = np.array([rng.choice((i, i + 1, 2**62, -1)) for i in range(4)], np.int64)


def _packed(rng: Random, group: h5py.Group, name: str, dtype: Any, row: tuple[int, ...]) -> None:
    """Zeros of up to 30 GB: each chunk is written once, packed, by its bytes."""
    chunk = (1 << 20, *row)
    count = rng.choice((1, 8, 500))
    made = group.create_dataset(name, (count << 20, *row), dtype, chunks=chunk, compression="gzip")
    packed = _zeros(int(np.prod(chunk)) * np.dtype(dtype).itemsize)
    for i in range(count):
        made.id.write_direct_chunk((i << 20, *(0 for _ in row)), packed)


@cache
def _zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def _spoiled(rng: Random, folder: Path) -> None:
    """Change members of a good file through HDF5 itself."""
    beside = folder.parent / "beside"
    if not (beside / "secret.h5").exists():
        with h5py.File(beside / "secret.h5", "w") as file:
            file["x"] = np.full((4, 4), SECRET, np.float32)
        np.full((4, 4), SECRET, np.float32).tofile(beside / "raw")
    with h5py.File(folder / "tables.h5", "r+", libver=rng.choice(("earliest", "latest"))) as file:
        for _ in range(rng.randint(1, 2)):
            name = rng.choice(list(_COLUMNS))
            kind = rng.randrange(8)
            if kind == 0:
                value = rng.choice(
                    (
                        1,
                        "qfuse-tables/2",
                        [1, 2],
                        np.array([b"x", b"y"]),
                        h5py.Empty("f4"),
                        np.float64("nan"),
                    )
                )
                file.attrs["format"] = value
                continue
            if kind == 1:
                name = rng.choice(("faces", "members", "é", "x", "faces/x"))
            group, _, column = name.rpartition("/")
            if group and not isinstance(file.get(group, getlink=True), h5py.HardLink):
                continue
            place = file[group] if group else file
            if not isinstance(place, h5py.Group):
                continue
            link = place.get(column, getlink=True)
            if (
                kind in (2, 3)
                and isinstance(link, h5py.HardLink)
                and isinstance(place[column], h5py.Dataset)
            ):
                node = place[column]
                here = not node.is_virtual and not node.external
                if here and node.size and node.size < 1000 and _kind(node) in (*"iufb",):
                    numbers = np.array(node[:])
                    numbers.flat[rng.randrange(numbers.size)] = rng.choice(
                        (-1, 0, 1, 3, 4, 100, -100)
                    )
                    node[...] = numbers
                continue
            if column in place:
                del place[column]
            if kind != 4:
                _put(rng, place, column, _COLUMNS.get(name), beside)


def _kind(node: h5py.Dataset) -> str:
    try:
        return str(node.dtype.kind)
    except TypeError:  # a type that NumPy has not, such as HDF5's time
        return ""


def _damaged(rng: Random, data: bytes) -> bytes:
    """Return damaged bytes of, nearly always, the same number: HDF5 looks at that first."""
    found = damaged(rng, data, head=rng.choice((0, 0, 3000)))
    return found if rng.random() < 0.1 else (found + data[len(found) :])[: len(data)]


def tables(rng: Random, folder: Path) -> Callable[[], object]:
    """A file of tables. What is read holds together; of bytes that were damaged, nothing is read as
    other numbers.
    """
    kind = rng.randrange(6)
    data, expected = _written(plain=kind < 2)
    if kind < 3:
        data = _damaged(rng, data)
    (folder / "tables.h5").write_bytes(data)
    if kind > 2:
        _spoiled(rng, folder)
        if rng.random() < 0.2:
            (folder / "tables.h5").write_bytes(_damaged(rng, (folder / "tables.h5").read_bytes()))

    def call() -> object:
        found = TablesReader(TablesOptions()).read(open_files(folder))
        for name, schema in LAYOUT.schemas.items():
            schema.check(found[name])
        if kind == 2 and {name: batch.digest() for name, batch in found.items()} != expected:
            raise Breach("damaged bytes were read as other columns")
        _hold_together(found)
        return found

    return call


def _hold_together(found: dict[str, Batch]) -> None:
    for table, column, target in (
        ("members", "face", "faces"),
        ("comparisons", "a", "templates"),
        ("roles", "template", "templates"),
    ):
        index = found[table][column]
        if len(index) and not (index.min() >= 0 and index.max() < found[target].rows):
            raise Breach(f"{table}.{column} points nowhere")
    for batch in found.values():
        for column in batch.columns.values():
            if column.dtype.kind == "f" and np.any(np.isclose(column, SECRET)):
                raise Breach("values from beside the given folder were read")
            if column.dtype == bool and np.any(column.view(np.uint8) > 1):
                raise Breach("a truth value is neither 0 nor 1")


TOY = Schema(
    "toy",
    (
        Field("status", "uint8"),
        Field("name", "text"),
        Field("x", "float64"),
        Field("v", "float32", (3,)),
    ),
)
KEY = "0123456789abcdef" * 4


@cache
def stored() -> tuple[bytes, bytes, bytes, str]:
    """The bytes of a small artifact, of its receipt and of the store's marker, and the digest of
    its columns.
    """
    rows = 40
    columns: dict[str, Any] = {
        "status": np.zeros(rows, np.uint8),
        "name": text(range(rows)),
        "x": np.arange(rows) / 7,
    }
    batch = Batch({**columns, "v": np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)})
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.commit("toy", KEY, batch, TOY, {"identity": [1, {"a": None}], "step": "toy"})
        path = store.path("toy", KEY)
        marker = (store.root / "format.json").read_bytes()
        return path.read_bytes(), path.with_suffix(".json").read_bytes(), marker, batch.digest()


def store(rng: Random, folder: Path) -> Callable[[], object]:
    """An artifact, its receipt or the store's marker, damaged or forged; nothing is read as other
    columns.
    """
    data, receipt, marker, expected = stored()
    kind = rng.randrange(10)
    if kind < 5:
        data = _damaged(rng, data)
    elif kind < 7:
        receipt = damaged(rng, receipt, most=3)
    elif kind < 9:
        receipt = json.dumps(changed(rng, json.loads(receipt))).encode()
        if rng.random() < 0.5:
            receipt = resealed(receipt[:-1])
        if rng.random() < 0.1:
            receipt = rng.choice(
                (
                    b"[" * 100_000,
                    b'{"a":' * 50_000,
                    b"9" * 5000,
                    b"{}",
                    b"[]",
                    b"null",
                    b"\xff",
                    b"",
                )
            )
    else:
        marker = rng.choice((damaged(rng, marker), json.dumps(odd(rng)).encode(), b"[" * 100_000))
    root = folder / "store"
    path = root / "toy" / KEY[:2] / f"{KEY}.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    path.with_suffix(".json").write_bytes(receipt)
    (root / "format.json").write_bytes(marker)

    def call() -> object:
        opened = Store(root, readonly=True)
        refused = []
        for ask in (
            lambda: opened.receipt("toy", KEY),
            lambda: _columns(opened, expected),
            lambda: _checked(opened),
        ):
            try:
                ask()
            except QfuseError as refusal:
                refused.append(refusal)
        if refused:
            raise refused[0]
        return None

    return call


def resealed(body: bytes) -> bytes:
    """Return a receipt of these fields (JSON without its last brace) whose seal is right: it is
    forged, not damaged.
    """
    return body + b',"seal":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'


def _columns(opened: Store, expected: str) -> None:
    if opened.read("toy", KEY).digest() != expected:
        raise Breach("damaged bytes were read as other columns")


def _checked(opened: Store) -> None:
    for path in opened.receipts():
        problem = opened.check_artifact(path)
        if problem is not None and not problem.reason:
            raise Breach("a problem without a reason")
