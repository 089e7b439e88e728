"""What `pipeline.store.hdf5` promises: what is read is what was written, or CorruptArtifact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import no_more_files, public_folder, unprivileged

from pipeline.core.schema import Batch, text
from pipeline.errors import CorruptArtifact, InvalidInput, ResourceRefused
from pipeline.store import hdf5

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "int32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]
SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 5e-324]
TEXTS = ["", "face 1", "Zoë", "顔", "🙂", "a\0b", "line\nbreak", "\udcff", "\ud800", " " * 300]


def small() -> Batch:
    return Batch(
        {
            "status": np.array([0, 0, 4, 0, 6, 0], np.uint8),
            "reason": text(["", "", "no face", "", "é\udcff", ""]),
            "vector": np.arange(24, dtype=np.float32).reshape(6, 4) + 1,
            "row": np.arange(6) + 100,
        }
    )


def round_trip(folder: Path, batch: Batch) -> Batch:
    path = folder / "a.h5"
    path.unlink(missing_ok=True)
    hdf5.write(path, batch, "toy")
    found = hdf5.read(path)
    assert hdf5.read(path, checked=True).digest() == found.digest()
    return found


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_bit_for_bit(
    tmp_path: Path, dtype: str, rows: int, shape: tuple[int, ...]
) -> None:
    raw = np.random.default_rng(rows).bytes(rows * int(np.prod(shape)) * np.dtype(dtype).itemsize)
    column = (
        np.frombuffer(raw, dtype).reshape(rows, *shape)
        if dtype != "bool"
        else np.zeros((rows, *shape), bool)
    )
    found = round_trip(tmp_path, Batch({"x": column}))["x"]
    assert (found.dtype, found.shape) == (column.dtype, column.shape)
    assert found.tobytes() == column.tobytes()


def test_special_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    assert (
        round_trip(tmp_path, Batch({"x": np.array(SPECIAL)}))["x"].tobytes()
        == np.array(SPECIAL).tobytes()
    )


def test_text_comes_back_whatever_is_in_it(tmp_path: Path) -> None:
    assert list(round_trip(tmp_path, Batch({"t": text(TEXTS)}))["t"]) == TEXTS


@given(st.lists(st.text(st.characters(), max_size=9), max_size=9))
@settings(max_examples=30, deadline=None)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    assert (
        list(round_trip(tmp_path_factory.getbasetemp(), Batch({"t": text(values)}))["t"]) == values
    )


def test_no_rows_and_no_columns_come_back(tmp_path: Path) -> None:
    empty = small().take(slice(0, 0))
    assert round_trip(tmp_path, empty).digest() == empty.digest()
    assert round_trip(tmp_path, Batch({})).columns == {}


def test_columns_of_many_chunks_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "CHUNK_BYTES", 64)
    batch = Batch({"v": np.random.default_rng(0).normal(size=(999, 3)), "t": text(range(999))})
    assert round_trip(tmp_path, batch).digest() == batch.digest()
    part = hdf5.read(tmp_path / "a.h5", ["t"], slice(500, 777))
    assert list(part["t"]) == [str(row) for row in range(500, 777)]


def test_a_row_larger_than_a_chunk_should_be_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "CHUNK_BYTES", 64)
    batch = Batch({"image": np.random.default_rng(0).integers(0, 256, (3, 10, 10), np.uint8)})
    assert round_trip(tmp_path, batch).digest() == batch.digest()


@pytest.mark.parametrize("rows", [2049, 4097, 5000])
def test_a_file_is_hardly_larger_than_its_columns(tmp_path: Path, rows: int) -> None:
    batch = Batch({"x": np.ones((rows, 512), np.float32)})
    hdf5.write(tmp_path / "a.h5", batch, "toy")
    assert (tmp_path / "a.h5").stat().st_size < 1.01 * batch["x"].nbytes + 4096


def test_a_checked_file_that_lacks_a_chunk_is_still_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=hdf5.LIBVER) as file:
        file.create_dataset("x", (8,), "f4", chunks=(4,), fletcher32=True)[:4] = 1
        file["padding"] = np.zeros(64)
    with pytest.raises(CorruptArtifact, match=r"column /x has 16 of its 32 bytes"):
        hdf5.read(tmp_path / "a.h5", ["x"], checked=True)


def test_columns_and_rows_are_read_alone(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", small(), "toy")
    part = hdf5.read(tmp_path / "a.h5", ["row", "reason"], slice(2, 5))
    assert part.digest() == small().select(["row", "reason"]).take(slice(2, 5)).digest()


def test_a_column_that_is_not_in_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", small(), "toy")
    with pytest.raises(InvalidInput, match="unknown column 'vectr': did you mean 'vector'"):
        hdf5.read(tmp_path / "a.h5", ["vectr"])


def test_equal_columns_give_equal_bytes_whatever_their_order_and_layout(tmp_path: Path) -> None:
    batch = small()
    again = {name: np.asfortranarray(batch[name]) for name in reversed(list(batch))}
    hdf5.write(tmp_path / "a.h5", batch, "toy")
    hdf5.write(tmp_path / "b.h5", Batch(again), "toy")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"something")
    with pytest.raises(FileExistsError):
        hdf5.write(tmp_path / "a.h5", small(), "toy")
    assert (tmp_path / "a.h5").read_bytes() == b"something"


def test_every_chunk_has_a_checksum_and_nothing_is_an_object(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", small(), "toy")
    seen = []

    def visit(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            seen.append(name)
            assert node.fletcher32
            assert node.dtype.kind in "biuf"

    with h5py.File(tmp_path / "a.h5") as file:
        file.visititems(visit)
        assert dict(file.attrs) == {"schema": "toy", "rows": 6}
    assert sorted(seen) == ["reason/ends", "reason/utf8", "row", "status", "vector"]


def flipped(path: Path, image: bytes, bit: int) -> None:
    changed = bytearray(image)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)


def test_a_flipped_bit_in_the_values_of_any_column_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    hdf5.write(path, small(), "toy")
    image = path.read_bytes()
    for name in ("row", "vector", "status"):
        start = image.index(small()[name].tobytes())
        for bit in range(0, 8 * small()[name].nbytes, 7):
            flipped(path, image, 8 * start + bit)
            with pytest.raises(CorruptArtifact, match="damaged"):
                hdf5.read(path)


@pytest.mark.parametrize("chunk", [64, hdf5.CHUNK_BYTES], ids=["many chunks", "one chunk"])
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_a_flipped_bit_anywhere_is_found_or_changes_no_value(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.h5"
    path.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdf5, "CHUNK_BYTES", chunk)
        hdf5.write(path, small(), "toy")
    image = path.read_bytes()
    flipped(path, image, data.draw(st.integers(0, 8 * len(image) - 1)))
    try:
        found = hdf5.read(path)
    except CorruptArtifact:
        return
    assert found.digest() == small().digest()


def test_the_index_of_chunks_has_a_checksum_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In HDF5's older formats a flipped bit there let rows read as zeros."""
    monkeypatch.setattr(hdf5, "CHUNK_BYTES", 64)
    path = tmp_path / "a.h5"
    hdf5.write(path, Batch({"x": np.arange(1.0, 33.0)}), "toy")
    assert b"TREE" not in path.read_bytes()
    assert (
        b"FADB" in path.read_bytes()
    )  # fixed-array data block: format specification, section VII.C


@pytest.mark.parametrize("keep", [0, 7, 0.5, -1])
def test_a_truncated_file_is_found(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.h5"
    hdf5.write(path, small(), "toy")
    image = path.read_bytes()
    path.write_bytes(image[: int(keep * len(image)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CorruptArtifact, match=r"a\.h5: the file is damaged \("):
        hdf5.read(path)


def test_a_file_that_is_no_hdf5_is_found_and_an_absent_one_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89PNG" * 1000)
    with pytest.raises(CorruptArtifact):
        hdf5.read(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError):
        hdf5.read(tmp_path / "none.h5")


def test_a_column_that_claims_more_than_the_file_holds_is_found_before_memory_is_spent(
    tmp_path: Path,
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (30_000_000,), "float64", chunks=(1000,))[:1000] = 1.0
    with pytest.raises(
        CorruptArtifact, match="column /x claims 240000000 bytes, more than the file holds"
    ):
        hdf5.read(tmp_path / "a.h5")


def test_a_machine_without_memory_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", Batch({"x": np.zeros(8_000_000)}), "toy")
    code = """
import sys
from pathlib import Path
import machine
from pipeline.store import hdf5
try:
    with machine.little_memory(16 << 20):
        hdf5.read(Path(sys.argv[1]))
except MemoryError:
    print(hdf5.read(Path(sys.argv[1])).rows)
"""
    places = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parents[2] / 'support'}:{Path(__file__).parents[3]}",
    }
    child = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
    assert (
        subprocess.run(child, env=places, capture_output=True, text=True, check=True).stdout
        == "8000000\n"
    )


def test_a_machine_that_refuses_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", small(), "toy")
    with (
        no_more_files(),
        pytest.raises(
            ResourceRefused, match=r"a\.h5 cannot be read \(Too many open files\): .* `ulimit -n`"
        ),
    ):
        hdf5.read(tmp_path / "a.h5")
    with pytest.raises(
        ResourceRefused, match=r"/mem cannot be read \(Input/output error\): check the disk"
    ):
        hdf5.read(Path("/proc/self/mem"))
    with public_folder() as folder:
        hdf5.write(folder / "a.h5", small(), "toy")
        (folder / "a.h5").chmod(0)
        with (
            unprivileged(),
            pytest.raises(ResourceRefused, match=r"\(Permission denied\): fix its permissions"),
        ):
            hdf5.read(folder / "a.h5")
