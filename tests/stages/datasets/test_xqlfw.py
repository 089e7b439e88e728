"""What `stages.datasets.xqlfw` promises, on a small tree in XQLFW's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_sets import image, lfw_list, tree, xqlfw

from pipeline.config.validation import validate
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.manifests import benchmark
from stages.datasets.xqlfw import XqlfwReader
from stages.tables.tables import LAYOUT


def read(root: Path, **options: object) -> dict[str, Batch]:
    return XqlfwReader(validate(XqlfwReader.Options, options, "options")).read(open_files(root))


def test_its_list_is_read_as_lfws_is(tmp_path: Path) -> None:
    tables = read(xqlfw(tmp_path), counts="any")
    ids, list_ = tables["templates"]["template_id"], tables["comparisons"]
    assert [
        *zip(
            ids[list_["a"]],
            ids[list_["b"]],
            list_["mated"].tolist(),
            list_["fold"].tolist(),
            strict=True,
        )
    ] == [
        ("Person_A_0001", "Person_A_0002", True, 0),
        ("Person_A_0001", "Person_B_0001", False, 0),
        ("Person_B_0002", "Person_B_0003", True, 1),
        ("Person_B_0002", "Person_C_0001", False, 1),
    ]
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])


def test_a_part_is_refused_unless_any_count_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"not the whole of xqlfw: pairs: expected 6,000, found 4; mated: .*counts to any",
    ):
        read(xqlfw(tmp_path))


def test_a_list_of_the_published_counts_is_taken(tmp_path: Path) -> None:
    fold = ["Ann\t1\t2"] * 300 + ["Ann\t1\tBob\t1"] * 300
    tree(tmp_path, {"Ann/Ann_0001.jpg": b"a", "Ann/Ann_0002.jpg": b"b", "Bob/Bob_0001.jpg": b"c"})
    tree(tmp_path, {"xqlfw_pairs.txt": lfw_list(fold * 10, 10, 300)})
    assert read(tmp_path)["comparisons"].rows == 6000


def test_lfws_own_list_beside_it_is_not_read(tmp_path: Path) -> None:
    root = tree(xqlfw(tmp_path), {"pairs.txt": "no list"})
    assert read(root, counts="any")["comparisons"].rows == 4


def test_an_unknown_face_is_refused_naming_the_line(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "Ann/Ann_0001.jpg": image(0, 0),
            "xqlfw_pairs.txt": lfw_list(["Ann\t1\t2", "Ann\t1\tBob\t1"], 1, 1),
        },
    )
    with pytest.raises(
        InvalidInput, match=r"xqlfw_pairs\.txt: line 2: a pair naming an unknown face"
    ):
        read(tmp_path)


def test_a_pair_whose_image_lacks_is_left_out_where_any_count_will_do(tmp_path: Path) -> None:
    root = xqlfw(tmp_path)
    (root / "xqlfw_aligned_112/Person_A/Person_A_0002.jpg").unlink()
    tables = read(root, counts="any")
    assert tables["comparisons"]["fold"].tolist() == [0, 1, 1]


def test_the_manifest_says_that_two_quality_methods_chose_the_pairs() -> None:
    assert "SER-FIQ and BRISQUE" in benchmark("xqlfw").bias
