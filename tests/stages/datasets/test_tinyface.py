"""What `stages.datasets.tinyface` promises, on small folders in TinyFace's manner."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from bench_sets import numbers, run, tinyface, tree

from pipeline.config.validation import validate
from pipeline.core.schema import Batch
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.tinyface import TinyFaceReader
from stages.tables.comparisons import refuse_itself, role_rows
from stages.tables.tables import LAYOUT


def read(folder: Path, **options: object) -> dict[str, Batch]:
    options = {"counts": "any", **options}
    return TinyFaceReader(validate(TinyFaceReader.Options, options, "options")).read(
        open_files(folder)
    )


def having(tables: dict[str, Batch], role: str) -> list[str]:
    return list(tables["templates"]["template_id"][role_rows(tables["roles"], role)])


def test_tables_fit_the_layout_and_every_image_is_a_template(tmp_path: Path) -> None:
    tables = read(tinyface(tmp_path))
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])
    assert LAYOUT.same_rows("faces", "templates", tables)
    assert tables["faces"].rows == 4 * 3 + 3


def test_probes_are_searched_in_matches_and_distractors(tmp_path: Path) -> None:
    tables = read(tinyface(tmp_path, 2, 1))
    matches = [f"Gallery_Match/{i}_{k}.jpg" for i in (1, 2) for k in (1, 2)]
    assert having(tables, "gallery_match") == matches
    assert having(tables, "gallery") == ["Gallery_Distractor/0_0_img_0.jpg", *matches]
    assert having(tables, "probe") == ["Probe/1_3.jpg", "Probe/2_3.jpg"]
    refuse_itself(tables, "gallery", "probe")


def test_a_subject_stands_before_the_last_underscore_and_a_distractor_has_none(
    tmp_path: Path,
) -> None:
    faces = read(tinyface(tmp_path, 2, 1))["faces"]
    assert faces["subject"].tolist() == ["", "1", "1", "2", "2", "1", "2"]


def test_every_image_has_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    faces = read(tinyface(tmp_path))["faces"]
    assert faces["sha256"].tolist() == [
        hashlib.sha256((tmp_path / p).read_bytes()).hexdigest() for p in faces["path"]
    ]


def test_the_folders_may_lie_at_any_level_and_images_deeper_inside_them(tmp_path: Path) -> None:
    tinyface(tmp_path / "tinyface/Testing_Set", 2, 1)
    tree(tmp_path / "tinyface/Testing_Set", {"Gallery_Distractor/0_0_img/0_0_img_9.jpg": b"deeper"})
    tables = read(tmp_path)
    assert "Gallery_Distractor/0_0_img/0_0_img_9.jpg" in having(tables, "gallery")
    assert tables["faces"]["path"][0].startswith("tinyface/Testing_Set/Gallery_")


def test_two_sets_are_refused_until_one_is_named(tmp_path: Path) -> None:
    tinyface(tmp_path / "Testing_Set", 2)
    tinyface(tmp_path / "aligned", 3)
    with pytest.raises(
        InvalidInput, match=r"several places: Testing_Set/, aligned/; set dataset\.options\.root"
    ):
        read(tmp_path)
    assert len(having(read(tmp_path, root="aligned"), "probe")) == 3


@pytest.mark.parametrize("folder", ["Gallery_Match", "Probe"])
def test_a_folder_that_lacks_is_named(tmp_path: Path, folder: str) -> None:
    shutil.rmtree(tinyface(tmp_path) / folder)
    with pytest.raises(InvalidInput, match=f"{folder}/: there is no image in it"):
        read(tmp_path)


def test_without_distractors_there_are_none(tmp_path: Path) -> None:
    tables = read(tinyface(tmp_path, 2, 0))
    assert having(tables, "gallery") == having(tables, "gallery_match")


def test_an_image_that_names_no_subject_is_refused(tmp_path: Path) -> None:
    tree(tinyface(tmp_path), {"Probe/face.jpg": b"?"})
    with pytest.raises(InvalidInput, match=r"Probe/: Probe/face\.jpg should be called SUBJECT_N"):
        read(tmp_path)


def test_a_part_is_refused_unless_any_count_is_asked_for(tmp_path: Path) -> None:
    message = (
        "gallery match: expected 4,443, found 8; distractors: expected 153,428, found 3; probes:"
        " expected 3,728, found 4"
    )
    with pytest.raises(
        InvalidInput, match=f"not the whole of tinyface: {message}; .*counts to any"
    ):
        read(tinyface(tmp_path), counts="published")


def test_sources_are_the_images_of_the_three_folders(tmp_path: Path) -> None:
    files = open_files(
        tree(tinyface(tmp_path), {"Training_Set/1/1_1.jpg": b"other", "Probe/list.mat": b"other"})
    )
    sources = TinyFaceReader(TinyFaceReader.Options()).sources(files)
    assert sources == [
        name for name in files.names() if name not in ("Training_Set/1/1_1.jpg", "Probe/list.mat")
    ]


CONFIG = """
name: tiny
dataset: {reader: tinyface, path: set, options: {counts: any}}
steps:
  align: {options: {detector: none}}
  embed: {options: {model: tiny}}
  search: {inputs: {templates: embed}, options: {k: 11}}
  evaluate_identification: {options: {replicates: 20, ranks: [1, 5]}}
"""


def test_the_folders_go_through_to_ranks_and_tell_nothing_of_fpir(
    tmp_path: Path, tiny: Context
) -> None:
    tinyface(tmp_path / "set")
    found = numbers(run(tmp_path, CONFIG, tiny), "evaluate_identification")
    assert found["rank"]["trials"] == 4
    assert found["rank"]["value"] == 1  # drawn faces of one subject look alike
    assert np.isnan(found["tpir"]["value"])
