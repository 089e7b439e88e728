"""What `stages.datasets.tables_file` promises: a file gives back what was written, or a
sentence."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.core.schema import Batch, text
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.tables_file import TablesOptions, TablesReader, write_tables
from stages.tables.tables import ProtocolLists, build_tables, singletons


def example(
    embedding: np.ndarray | None = None, ids: tuple[str, ...] = ("f0", "f1", "é€𐍈")
) -> dict[str, Batch]:
    columns = (
        {} if embedding is None else {"embedding": embedding, "quality": embedding[:, 0].copy()}
    )
    subjects = ["ada", "ada", "bob"]
    found = ProtocolLists(
        face_id=list(ids),
        path=[""] * 3,
        sha256=[""] * 3,
        subject=subjects,
        comparison_a=[ids[0], ids[0]],
        comparison_b=[ids[1], ids[2]],
        mated=[True, False],
        role_template=list(ids),
        role=["reference", "probe", "probe"],
        all_pairs=("reference", "probe"),
        columns=columns,
        **singletons(ids, subjects),
    )
    return build_tables(found, "example")


def read(root: Path) -> dict[str, Batch]:
    return TablesReader(TablesOptions()).read(open_files(root))


def digests(tables: dict[str, Batch]) -> dict[str, str]:
    return {name: batch.digest() for name, batch in tables.items()}


def embeddings() -> np.ndarray:
    return np.arange(12, dtype=np.float32).reshape(3, 4)


@settings(deadline=None, max_examples=25)
@given(
    arrays(np.float32, (3, 2), elements=st.floats(width=32)),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])), min_size=3, max_size=3, unique=True
    ).map(tuple),
)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, embedding: np.ndarray, ids: tuple[str, ...]
) -> None:
    root, tables = tmp_path_factory.mktemp("tables"), example(embedding, ids)
    write_tables(root / "tables.h5", tables)
    assert digests(read(root)) == digests(tables)


def test_embeddings_that_are_nan_stay_rows(tmp_path: Path) -> None:
    embedding = embeddings()
    embedding[1] = np.nan
    write_tables(tmp_path / "tables.h5", example(embedding))
    assert np.isnan(read(tmp_path)["faces"]["embedding"]).all(axis=1).tolist() == [
        False,
        True,
        False,
    ]


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables.h5", example())
    assert "embedding" not in read(tmp_path)["faces"].columns


def test_lists_that_a_set_does_not_have_are_empty_tables(tmp_path: Path) -> None:
    tables = example()
    write_tables(
        tmp_path / "tables.h5", {name: tables[name] for name in ("faces", "members", "templates")}
    )
    assert [read(tmp_path)[name].rows for name in ("roles", "comparisons", "pairings")] == [0, 0, 0]


def test_a_zip_is_read_as_a_folder_is(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables.h5", example(embeddings()))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(tmp_path / "tables.h5", "tables.h5")
    assert digests(read(tmp_path / "set.zip")) == digests(read(tmp_path))


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_tables(tmp_path / name, example(embeddings()), {"made_by": "a test"})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_attributes_are_kept_in_the_file(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables.h5", example(), {"made_by": "a test"})
    with h5py.File(tmp_path / "tables.h5") as file:
        assert dict(file.attrs) == {"made_by": "a test", "format": "qfuse-tables/1"}


def test_every_column_is_checksummed(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables.h5", example(embeddings()))
    without: list[str] = []
    with h5py.File(tmp_path / "tables.h5") as file:
        file.visititems(
            lambda name, node: (
                without.append(name)
                if isinstance(node, h5py.Dataset) and node.size and not node.fletcher32
                else None
            )
        )
    assert not without


def test_tables_of_another_kind_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown table 'face': did you mean 'faces'"):
        write_tables(tmp_path / "tables.h5", {"face": example()["faces"]})
    assert not list(tmp_path.iterdir())


def test_columns_of_another_type_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"table faces: column 'embedding' should be float32"):
        write_tables(tmp_path / "tables.h5", example(embeddings().astype(np.float64)))


def refused(tmp_path: Path, change: Callable[[h5py.File], object]) -> str:
    """Return what is said about the example's file after `change`."""
    write_tables(tmp_path / "tables.h5", example(embeddings()))
    with h5py.File(tmp_path / "tables.h5", "r+") as file:
        change(file)
    with pytest.raises(InvalidInput) as error:
        read(tmp_path)
    assert "tables.h5" in str(error.value)
    return str(error.value)


def replace(file: h5py.File, name: str, data: object) -> None:
    del file[name]
    file[name] = data


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, lambda f: replace(f, "faces/quality", np.zeros(3)))
    assert "table faces, column 'quality' should be float32" in said
    assert "found float64" in said


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    assert "table members, column 'media' is missing" in refused(
        tmp_path, lambda f: f.pop("members/media")
    )


def test_a_column_that_no_schema_has_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, lambda f: f.create_dataset("faces/age", data=np.zeros(3)))
    assert "table faces, column 'age' is none of this table's" in said


def test_columns_of_different_lengths_are_named(tmp_path: Path) -> None:
    said = refused(tmp_path, lambda f: replace(f, "faces/quality", np.zeros(2, np.float32)))
    assert "as many rows" in said
    assert "'quality': 2" in said


def test_numbers_in_place_of_text_are_named(tmp_path: Path) -> None:
    said = refused(tmp_path, lambda f: replace(f, "faces/subject", np.zeros(3)))
    assert "table faces, column 'subject' should be text" in said


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        replace(file, "faces/quality", np.zeros(3))
        del file["members/media"]

    said = refused(tmp_path, change)
    assert "'quality'" in said
    assert "'media'" in said


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    assert "table members is missing" in refused(tmp_path, lambda f: f.pop("members"))


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    assert "did you mean 'faces'" in refused(tmp_path, lambda f: f.create_group("face"))


@pytest.mark.parametrize(
    "found", ["x", b"x", [1, 2], ["qfuse-tables/1"] * 2, np.nan, h5py.Empty("f4")]
)
def test_another_format_is_refused(tmp_path: Path, found: object) -> None:
    assert "'format' should be 'qfuse-tables/1', found" in refused(
        tmp_path, lambda f: f.attrs.update({"format": found})
    )


def virtual(file: h5py.File) -> None:
    """Let a column be put together of another file's, which HDF5 looks up on its heap as soon as it
    sees the column.
    """
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file["faces"].create_virtual_dataset("quality", layout)


@pytest.mark.parametrize("change", [lambda file: None, virtual], ids=["attribute", "virtual"])
def test_a_damaged_heap_is_not_walked_for_ever(
    tmp_path: Path, change: Callable[[h5py.File], None]
) -> None:
    write_tables(tmp_path / "tables.h5", example())
    with h5py.File(tmp_path / "tables.h5", "r+") as file:
        change(file)
    data = bytearray((tmp_path / "tables.h5").read_bytes())
    heap = data.find(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)  # an object of no size
    (tmp_path / "tables.h5").write_bytes(data)
    with pytest.raises(
        InvalidInput, match="damaged, or no HDF5 file \\(a heap that does not end\\)"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["members/template", "members/face", "roles/template", "comparisons/b"]
)
@pytest.mark.parametrize("row", [-1, 3])
def test_row_numbers_outside_their_table_are_named(tmp_path: Path, name: str, row: int) -> None:
    def change(file: h5py.File) -> None:
        file[name][0] = row

    table, column = name.split("/")
    said = refused(tmp_path, change)
    assert f"table {table}, column {column!r}, row 0: {row} is not a row of" in said


def test_members_that_are_not_sorted_are_refused(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["members/template"][:] = [2, 1, 0]

    assert "should be sorted" in refused(tmp_path, change)


def test_an_id_given_twice_is_named(tmp_path: Path) -> None:
    tables = example()
    tables["faces"] = Batch({**tables["faces"].columns, "face_id": text(["x", "y", "x"])})
    write_tables(tmp_path / "tables.h5", tables)
    with pytest.raises(InvalidInput, match="table faces, column 'face_id': 'x' is given twice"):
        read(tmp_path)


def test_a_pairing_of_a_role_that_nobody_has_is_refused(tmp_path: Path) -> None:
    tables = example()
    tables["pairings"] = Batch({"role_a": text(["reference"]), "role_b": text(["gallery"])})
    write_tables(tmp_path / "tables.h5", tables)
    with pytest.raises(InvalidInput, match="no template has the role 'gallery'"):
        read(tmp_path)


def test_a_link_to_another_file_is_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["quality"] = np.zeros(3, np.float32)

    def change(file: h5py.File) -> None:
        del file["faces/quality"]
        file["faces/quality"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "quality")

    assert "column 'quality' should be a dataset in this file" in refused(tmp_path, change)


def test_values_kept_in_another_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(12))

    def change(file: h5py.File) -> None:
        del file["faces/quality"]
        place = [(str(tmp_path / "raw"), 0, 12)]
        file["faces"].create_dataset("quality", (3,), np.float32, external=place)

    assert "keeps its values in another file" in refused(tmp_path, change)


def test_values_that_were_never_written_are_not_taken_for_zeros(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["faces/quality"]
        file["faces"].create_dataset("quality", (3,), np.float32, chunks=(1,))
        file["faces/quality"][:2] = 1

    assert "column 'quality' is unfinished" in refused(tmp_path, change)


def test_a_flipped_bit_in_a_column_is_found(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables.h5", example(embeddings()))
    data = bytearray((tmp_path / "tables.h5").read_bytes())
    data[data.find(embeddings().tobytes()) + 5] ^= 1
    (tmp_path / "tables.h5").write_bytes(data)
    with pytest.raises(InvalidInput, match="damaged"):
        read(tmp_path)


def test_a_few_packed_bytes_are_not_unfolded_to_fill_the_memory(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["faces/quality"]
        made = file["faces"].create_dataset(
            "quality", (1 << 30,), np.float32, chunks=(1 << 22,), compression="gzip"
        )
        packed = zlib.compress(bytes(16 << 20))
        for i in range(256):
            made.id.write_direct_chunk((i << 22,), packed)

    assert "column 'quality' announces 4,294,967,296 bytes, more than 100 times" in refused(
        tmp_path, change
    )


def test_a_shape_whose_chunks_no_number_of_64_bits_counts_is_refused(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["faces/embedding"]
        file["faces"].create_dataset("embedding", (1 << 33, 1 << 31), np.float32, chunks=(1, 1))

    assert "column 'embedding' announces" in refused(tmp_path, change)


def test_truth_values_that_are_neither_are_refused(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["comparisons/mated"].id.write(
            h5py.h5s.ALL,
            h5py.h5s.ALL,
            np.array([1, 2], np.uint8),
            file["comparisons/mated"].id.get_type(),
        )

    assert "/comparisons/mated holds truth values that are neither 0 nor 1" in refused(
        tmp_path, change
    )


@pytest.mark.parametrize("kind", [h5py.h5t.STD_B8LE, h5py.h5t.UNIX_D32LE])
def test_a_type_that_numpy_does_not_know_is_a_sentence(
    tmp_path: Path, kind: h5py.h5t.TypeID
) -> None:
    def change(file: h5py.File) -> None:
        del file["faces/quality"]
        h5py.h5d.create(file["faces"].id, b"quality", kind.copy(), h5py.h5s.create_simple((3,)))

    assert "tables.h5" in refused(tmp_path, change)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tables.h5").write_bytes(content)
    with pytest.raises(InvalidInput, match="damaged, or no HDF5 file"):
        read(tmp_path)


@pytest.mark.parametrize("ask", [TablesReader.sources, TablesReader.read])
def test_an_absent_file_is_refused_saying_what_to_set(
    tmp_path: Path, ask: Callable[..., object]
) -> None:
    with pytest.raises(InvalidInput, match=r"tables\.h5: no such file; set dataset\.options\.file"):
        ask(TablesReader(TablesOptions()), open_files(tmp_path))
