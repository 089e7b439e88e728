"""What `stages.datasets.ijb.common_package` promises, on packages written by hand."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import janus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from janus import FACES, PAIRS, package, points, read

from pipeline.config.validation import validate
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.ijb import lists
from stages.datasets.ijb.common_package import IjbReader
from stages.datasets.ijb.protocol import manifest
from stages.tables.tables import LAYOUT


def refused(tree: object, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(tree, **options)
    return str(caught.value)


def same(one: dict[str, Batch], other: dict[str, Batch]) -> bool:
    return all(one[name].digest() == other[name].digest() for name in LAYOUT.schemas)


# -- what is read
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", [False, True])
def test_tables_fit_the_layout(lists: bool) -> None:
    tables = read(package(lists=lists))
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])


def test_templates_hold_the_faces_and_media_of_the_face_list() -> None:
    assert janus.members(read(package())) == {
        "3": [("10.jpg", "1"), ("11.jpg", "1")],
        "7": [("12.jpg", "2")],
        "20": [("13.jpg", "3")],
        "21": [("14.jpg", "4"), ("15.jpg", "5")],
        "30": [("16.jpg", "6")],
    }


def test_members_come_sorted_by_template_whatever_the_order_of_the_list() -> None:
    mixed = "".join(reversed(FACES.splitlines(keepends=True)))
    tables = read(package(faces=mixed))
    assert tables["members"]["template"].tolist() == sorted(tables["members"]["template"])
    assert {t: sorted(m) for t, m in janus.members(tables).items()} == janus.members(
        read(package())
    )


def test_comparisons_are_the_pair_list_in_its_order() -> None:
    tables = read(package())
    expected = [
        ("3", "7", True),
        ("3", "21", False),
        ("20", "21", True),
        ("20", "7", False),
        ("3", "30", False),
    ]
    assert janus.comparisons(tables) == expected
    assert set(tables["comparisons"]["fold"]) == {-1}


def test_landmarks_and_scores_are_the_protocol_s() -> None:
    faces = read(package())["faces"]
    assert faces["landmarks"][1].tolist() == [[11, 2], [3, 4], [5, 6], [7, 8], [9, 10.5]]
    assert set(faces["score"]) == {np.float32(0.75)}


def test_images_have_the_digest_of_their_bytes_and_missing_ones_none() -> None:
    tree = package()
    del tree.content["loose_crop/12.jpg"]
    faces = read(tree)["faces"]
    assert faces["path"].tolist() == [f"loose_crop/{n}.jpg" for n in range(10, 17)]
    assert faces["sha256"].tolist() == tree.digests(faces["path"])
    assert faces["sha256"][2] == ""


def test_a_package_wrapped_in_folders_is_found() -> None:
    tables = read(package("deep/IJBC/"))
    assert tables["faces"]["path"][0] == "deep/IJBC/loose_crop/10.jpg"
    assert tables["faces"]["sha256"][0]


def test_a_folder_and_a_zip_of_it_give_the_same_tables_as_the_memory(tmp_path: Path) -> None:
    tree = package(
        "IJBC/", lists=True, **{"embeddings.npy": janus.npy(np.ones((7, 3), np.float32))}
    )
    folder = tree.write(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in tree.content.items():
            archive.writestr(name, data)
    with_embeddings = package("IJBC/", lists=True, **{"IJBC/embeddings.npy": b""})
    with_embeddings.content["IJBC/embeddings.npy"] = tree.content["IJBC/embeddings.npy"]
    expected = read(with_embeddings, embeddings="embeddings.npy")
    for path in (folder, tmp_path / "set.zip"):
        assert same(read(open_files(path), embeddings="embeddings.npy"), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "﻿" + text,
        lambda text: text.removesuffix("\n"),
        lambda text: text + "\n\r\n\n",
    ],
    ids=["carriage returns", "byte-order mark", "no last line end", "blank end"],
)
def test_how_lines_end_does_not_matter(change: object) -> None:
    tree = package(faces=change(FACES), points=change(points()), pairs=change(PAIRS))
    assert same(read(tree), read(package()))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(0, 3))
def test_how_a_list_is_cut_into_pieces_does_not_matter(size: int, blank: int) -> None:
    whole = read(package(lists=True))
    before, lists.PIECE = lists.PIECE, 60 + size
    try:
        assert same(read(package(lists=True, pairs=PAIRS + "\n" * blank)), whole)
    finally:
        lists.PIECE = before


# -- who is who
# --------------------------------------------------------------------------------------------------


def test_subjects_are_those_of_the_1n_lists() -> None:
    assert janus.subjects(read(package(lists=True))) == {
        "3": "Ada",
        "7": "Ada",
        "20": "Bob",
        "21": "Bob",
        "30": "Cleo",
    }


def test_without_lists_the_mated_comparisons_tell_subjects_and_the_rest_are_unknown() -> None:
    tables = read(package())
    assert janus.subjects(tables) == {"3": "s3", "7": "s3", "20": "s20", "21": "s20", "30": ""}
    assert tables["faces"]["subject"].tolist() == ["s3", "s3", "s3", "s20", "s20", "s20", ""]


def test_a_template_that_no_list_names_is_of_whom_it_is_mated_with() -> None:
    tables = read(package(gallery_1="TEMPLATE_ID,SUBJECT_ID\n3,Ada\n"))
    assert janus.subjects(tables) == {"3": "Ada", "7": "Ada", "20": "s20", "21": "s20", "30": ""}


def test_a_subject_is_a_connected_component_of_the_mated_pairs() -> None:
    tables = read(package(pairs="7 3 1\n21 7 1\n20 30 0\n"))
    assert janus.subjects(tables) == {"3": "s3", "7": "s3", "21": "s3", "20": "", "30": ""}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_subjects_inferred_from_all_comparisons_are_the_true_groups(
    person: list[int], random: object
) -> None:
    ids = random.sample(range(1, 100), len(person))
    faces = "".join(f"{i}.jpg {t} {i}\n" for i, t in enumerate(ids))
    every = [(i, j) for i in range(len(ids)) for j in range(i)]
    random.shuffle(every)
    pairs = "".join(f"{ids[i]} {ids[j]} {int(person[i] == person[j])}\n" for i, j in every)
    found = janus.subjects(read(package(faces=faces, points=points(faces), pairs=pairs)))
    for i, t in enumerate(ids):
        own = [u for j, u in enumerate(ids) if person[j] == person[i]]
        assert found[str(t)] == (f"s{min(own)}" if len(own) > 1 else "")


def test_roles_are_those_of_the_1n_lists() -> None:
    tables = read(package(lists=True))
    roles = ("gallery_1", "gallery_2", "gallery", "probe")
    assert [janus.having(tables, role) for role in roles] == [
        ["3"],
        ["20"],
        ["3", "20"],
        ["7", "21", "30"],
    ]
    assert set(tables["roles"]["role"]) == set(roles)


def test_without_1n_lists_there_are_no_roles() -> None:
    assert read(package())["roles"].rows == 0


def test_another_list_of_probes_can_be_asked_for() -> None:
    tree = package(lists=True, **{"meta/ijbc_1N_probe_img.csv": "TEMPLATE_ID\n7\n"})
    assert janus.having(read(tree, probes="img"), "probe") == ["7"]


def test_a_1n_list_without_subjects_gives_roles_and_the_pairs_tell_subjects() -> None:
    tables = read(package(gallery_1="TEMPLATE_ID\n3\n"))
    assert janus.having(tables, "gallery_1") == ["3"]
    assert janus.subjects(tables)["7"] == "s3"


def test_the_order_of_lines_in_the_1n_lists_does_not_matter() -> None:
    head, *lines = janus.PROBES.splitlines(keepends=True)
    assert same(
        read(package(lists=True, probes=head + "".join(reversed(lines)))), read(package(lists=True))
    )


# -- what lies beside
# --------------------------------------------------------------------------------------------------


def test_embeddings_and_quality_are_read_row_for_row_and_nan_stays() -> None:
    embedding = np.arange(14, dtype=np.float32).reshape(7, 2)
    embedding[3] = np.nan
    quality = np.linspace(0, 1, 7, dtype=np.float32)
    beside = {"e.npy": janus.npy(embedding), "q.npy": janus.npy(quality)}
    faces = read(package(crops=False, **beside), embeddings="e.npy", quality="q.npy")["faces"]
    np.testing.assert_array_equal(faces["embedding"], embedding)
    np.testing.assert_array_equal(faces["quality"], quality)
    assert set(faces["sha256"]) == {""}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("laid", [np.ascontiguousarray, np.asfortranarray])
def test_arrays_may_be_of_any_float_and_by_column(kind: type, laid: Any) -> None:
    embedding, quality = np.arange(14).reshape(7, 2).astype(kind), np.linspace(0, 1, 7).astype(kind)
    beside = {"e.npy": janus.npy(laid(embedding)), "q.npy": janus.npy(laid(quality[:, None]))}
    faces = read(package(crops=False, **beside), embeddings="e.npy", quality="q.npy")["faces"]
    assert faces["embedding"].dtype == faces["quality"].dtype == np.float32
    np.testing.assert_array_equal(faces["embedding"], embedding)
    np.testing.assert_array_equal(faces["quality"], quality.astype(np.float32))


@pytest.mark.parametrize("form", ["{q}", "{n}.jpg {q}", "/data/loose_crop/{n}.jpg {q}"])
def test_quality_may_be_a_text_of_numbers_with_or_without_images(form: str) -> None:
    text = "".join(form.format(n=n, q=n / 4) + "\n" for n in range(10, 17))
    faces = read(package(**{"q.txt": text}), quality="q.txt")["faces"]
    np.testing.assert_array_equal(faces["quality"], np.arange(10, 17, dtype=np.float32) / 4)


@pytest.mark.parametrize(
    "form",
    ["{n}.jpg\t{q}", "{n}.jpg,{q}", "{n}.jpg, {q} ", "/data/{n}.jpg;{q}", "{n}.jpg {q}", "{q}"],
)
@pytest.mark.parametrize("none", ["nan", "NaN", "NAN"])
def test_quality_may_be_separated_in_any_way_and_nan_is_a_face_without_one(
    tmp_path: Path, form: str, none: str
) -> None:
    scores = {n: none if n == 12 else n / 4 for n in range(10, 17)}
    text = "".join(form.format(n=n, q=q) + "\n" for n, q in scores.items())
    files = open_files(package(**{"q.txt": text}).write(tmp_path))
    tables = read(files, quality="q.txt")
    expected = np.array([float(q) for q in scores.values()], np.float32)
    np.testing.assert_array_equal(tables["faces"]["quality"], expected)
    notes = IjbReader(validate(IjbReader.Options, {"quality": "q.txt"}, "")).notes(files, tables)
    assert notes == ["1 of 7 faces have no quality (nan in q.txt)"]


def test_a_line_of_qualities_that_is_separated_otherwise_is_told_with_the_form_of_line_1() -> None:
    text = "".join(f"{n}.jpg{' ' if n == 12 else ','}0.5\n" for n in range(10, 17))
    said = refused(package(**{"q.txt": text}), quality="q.txt")
    assert "q.txt: line 3: expected 'image,score', found '12.jpg 0.5'" in said


@pytest.mark.parametrize(
    "heading",
    ["Filename;UnifiedQualityScore", "Filename;UnifiedQualityScore;", "image,score", "quality"],
)
def test_a_heading_of_a_text_of_qualities_is_refused_with_what_to_do(heading: str) -> None:
    said = refused(package(**{"q.txt": heading + "\n" + "0.5\n" * 7}), quality="q.txt")
    assert (
        "q.txt: line 1 should be a score, or an image and its score, of the first face, and is the"
        f" heading {heading!r}" in said
    )
    assert said.endswith(": remove it.")


def test_an_image_in_two_templates_is_one_face() -> None:
    faces = FACES + "10.jpg 30 6\n"
    tables = read(package(faces=faces, **{"q.txt": "1\n2\n3\n4\n5\n6\n7\n1\n"}), quality="q.txt")
    assert tables["faces"].rows == 7
    assert tables["members"].rows == 8
    assert janus.members(tables)["30"] == [("16.jpg", "6"), ("10.jpg", "6")]
    assert tables["faces"]["quality"].tolist() == [1, 2, 3, 4, 5, 6, 7]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_whatever_bytes_a_file_holds_the_answer_is_tables_or_a_sentence(
    data: st.DataObject,
) -> None:
    tree = package(
        lists=True,
        **{"e.npy": janus.npy(np.ones((7, 2), np.float32)), "q.txt": "1\n2\n3\n4\n5\n6\n7\n"},
    )
    name = data.draw(st.sampled_from([name for name in tree.names() if "loose_crop" not in name]))
    old = tree.content[name]
    at = data.draw(st.integers(0, len(old)))
    pieces = st.sampled_from(
        [
            b"\n",
            b" ",
            b",",
            b"\0",
            b"\r",
            b"-",
            b"inf",
            b"1e308",
            b"9" * 19,
            b"\xff",
            b"true",
            b'"',
            b"../",
        ]
    )
    tree.content[name] = (
        old[:at]
        + data.draw(pieces | st.binary(max_size=4))
        + old[at + data.draw(st.integers(0, 9)) :]
    )
    try:
        tables = read(tree, embeddings="e.npy", quality="q.txt")
    except InvalidInput:
        return
    for table, schema in LAYOUT.schemas.items():
        schema.check(tables[table])


# -- what is refused
# --------------------------------------------------------------------------------------------------


def test_every_missing_list_is_named_at_once() -> None:
    said = refused(package(points=None, pairs=None))
    assert "meta/ijbc_name_5pts_score.txt: there is no such file" in said
    assert "meta/ijbc_template_pair_label.txt: there is no such file" in said
    assert "dataset.options.name" in said


def test_two_packages_in_one_tree_are_told_apart_by_the_option_root() -> None:
    both = package("a/")
    both.content |= package("b/").content
    assert "set dataset.options.root" in refused(both)
    assert read(both, root="b")["faces"]["path"][0] == "b/loose_crop/10.jpg"


def test_problems_of_all_files_are_told_with_line_and_column() -> None:
    said = refused(
        package(
            lists=True,
            faces=FACES.replace("11.jpg 3 1", "11.jpg x 1").replace("13.jpg 20 3", "13.jpg 20"),
            points=points().replace("12.jpg 12 2", "12.jpg 12 inf"),
            pairs=PAIRS.replace("20 21 1", "20 21 2").replace("20 7 0", "20 -7 0"),
            probes="TEMPLATE_ID,SUBJECT_ID\n7,Ada,9\n",
        )
    )
    assert (
        "meta/ijbc_face_tid_mid.txt: line 2, column 'template': expected a whole number from 0,"
        " found 'x'" in said
    )
    assert "line 4: expected 'image template media', found '13.jpg 20'" in said
    assert (
        "meta/ijbc_name_5pts_score.txt: line 3, column 'y1': expected a finite number, found 'inf'"
        in said
    )
    assert (
        "meta/ijbc_template_pair_label.txt: line 3, column 'label': expected 0 or 1, found '2'"
        in said
    )
    assert "line 4, column 'template 2': expected a whole number from 0, found '-7'" in said
    assert (
        "meta/ijbc_1N_probe_mixed.csv: line 2: expected 'TEMPLATE_ID,SUBJECT_ID', found '7,Ada,9'"
        in said
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"3 7", "expected 'template 1 template 2 label', found '3 7'"),
        (b"3 7 1 1", "expected 'template 1 template 2 label'"),
        (b"3  7 1", "expected 'template 1 template 2 label'"),
        (b"", "expected 'template 1 template 2 label', found ''"),
        (b"3\t7\t1", "expected 'template 1 template 2 label'"),
        (b"3 7.5 1", "column 'template 2': expected a whole number from 0, found '7.5'"),
        (b"3 inf 1", "column 'template 2': expected a whole number from 0, found 'inf'"),
        (b"3 nan 1", "column 'template 2': expected a whole number from 0, found 'nan'"),
        (b"99999999999999999999 7 1", "column 'template 1': expected a whole number from 0"),
        (b"True 7 1", "column 'template 1': expected a whole number from 0, found 'True'"),
        (b"3 7 \xff", "expected UTF-8 text, found the byte 0xff"),
        (b"3 7 1\0", "column 'label': expected 0 or 1"),
    ],
)
def test_a_wrong_line_is_named(line: bytes, what: str) -> None:
    tree = package()
    name = "meta/ijbc_template_pair_label.txt"
    tree.content[name] = tree.content[name].replace(b"3 21 0", line)
    said = refused(tree)
    assert f"{name}: line 2" in said
    assert what in said


def test_names_that_hold_the_word_true_are_names() -> None:
    assert (
        "true.jpg"
        in read(
            package(
                faces=FACES.replace("12.jpg", "true.jpg"),
                points=points().replace("12.jpg", "true.jpg"),
            )
        )["faces"]["face_id"]
    )


@pytest.mark.parametrize("value", ["1e300", "-inf", "nan", "1_0", "0x10", "true", ".", "1,5"])
def test_a_landmark_that_is_no_number_is_told(value: str) -> None:
    said = refused(package(points=points().replace("10.jpg 10 2", f"10.jpg 10 {value}")))
    assert f"line 1, column 'y1': expected a finite number, found {value!r}" in said


def test_of_many_problems_ten_are_shown_and_all_are_counted() -> None:
    said = refused(package(pairs="3 7 x\n" * 25))
    assert "line 10, column 'label'" in said
    assert "line 11, column" not in said
    assert "(and 15 more)" in said


def test_a_list_that_is_one_endless_line_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PIECE", 1000)
    assert "so this is not a list" in refused(package(pairs="3" * 5000))


def test_rows_that_name_different_images_are_told_with_both_names() -> None:
    lines = points().splitlines(keepends=True)
    said = refused(package(points="".join([lines[1], lines[0], *lines[2:]])))
    assert (
        "meta/ijbc_name_5pts_score.txt: line 1: '11.jpg', but meta/ijbc_face_tid_mid.txt has"
        " '10.jpg'; line 2: '10.jpg'" in said
    )


def test_a_list_that_is_shorter_than_the_other_is_told() -> None:
    said = refused(package(points=points("".join(FACES.splitlines(keepends=True)[:-1]))))
    assert "expected 7 lines, as meta/ijbc_face_tid_mid.txt has, found 6" in said


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b.jpg"])
def test_a_name_that_leads_out_of_the_package_is_refused(name: str) -> None:
    faces = FACES.replace("12.jpg", name)
    text = points(FACES).replace("12.jpg", name)
    assert "line 3: the name" in refused(package(faces=faces, points=text))


def test_an_image_with_two_sets_of_landmarks_is_told_with_both_lines() -> None:
    faces = FACES + "10.jpg 30 6\n"
    said = refused(package(faces=faces, points=points() + "10.jpg 99 2 3 4 5 6 7 8 9 10.5 0.75\n"))
    assert "line 8: image '10.jpg' has another landmarks than in line 1" in said


def test_an_image_twice_in_one_template_is_told() -> None:
    assert "line 8: image '16.jpg' is in template 30 already" in refused(
        package(faces=FACES + "16.jpg 30 6\n")
    )


def test_comparisons_of_templates_without_faces_or_with_themselves_are_told() -> None:
    said = refused(package(pairs=PAIRS + "3 99 0\n7 7 1\n"))
    assert "line 6: template 99 has no face" in said
    assert "line 7: template 7 is compared with itself" in said


def test_a_1n_list_with_an_unknown_template_or_two_subjects_for_one_is_told() -> None:
    said = refused(package(lists=True, gallery_1="TEMPLATE_ID,SUBJECT_ID\n3,Ada\n99,Zoe\n"))
    assert (
        "meta/ijbc_1N_gallery_G1.csv: line 3: template 99 is not in meta/ijbc_face_tid_mid.txt"
        in said
    )
    said = refused(package(lists=True, gallery_1="TEMPLATE_ID,SUBJECT_ID\n3,Ada\n3,Zoe\n"))
    assert "line 3: template 3 is of subject 'Zoe', and of 'Ada' before" in said


def test_a_header_without_its_columns_is_told() -> None:
    said = refused(package(lists=True, probes="ID,SUBJECT_ID\n7,Ada\n"))
    assert "line 1: there is no column TEMPLATE_ID, found 'ID,SUBJECT_ID'" in said


def test_labels_that_contradict_the_subjects_are_told_and_counted() -> None:
    said = refused(package(lists=True, pairs="3 7 1\n3 21 1\n20 21 0\n"))
    assert "line 2: called mated, but template 3 is of subject 'Ada' and 21 of 'Bob'" in said
    assert "line 3: called non-mated, but 20 and 21 are both of 'Bob'" in said


def test_a_non_mated_pair_within_a_component_contradicts_itself() -> None:
    assert "line 3: called non-mated, but 7 and 21 are both of 's3'" in refused(
        package(pairs="3 7 1\n3 21 1\n7 21 0\n")
    )


def test_a_partial_copy_is_refused_with_every_difference() -> None:
    said = refused(package(lists=True), counts="published")
    assert "missing" not in said
    assert "faces: expected 469,375, found 7; templates: expected 23,124, found 5" in said
    assert "comparisons: expected 15,658,489, found 5; mated: expected 19,557, found 2" in said
    assert (
        "non-mated: expected 15,638,932, found 3; subjects of gallery_1: expected 1,772, found 1"
        in said
    )
    assert (
        "subjects of gallery_2: expected 1,759, found 1; probes: expected 19,593, found 3" in said
    )
    assert "set dataset.options.counts to any" in said


def test_the_published_counts_add_up() -> None:
    counts = manifest("ijbc").counts
    assert counts["mated"] + counts["non-mated"] == counts["comparisons"]
    assert counts["gallery_1"] + counts["gallery_2"] + counts["probe"] == counts["templates"]


def test_of_ijbb_only_the_counts_that_are_known_are_asked_for() -> None:
    tree = janus.Tree(
        {name.replace("ijbc", "ijbb"): data for name, data in package(lists=True).content.items()}
    )
    said = refused(tree, name="ijbb", counts="published")
    assert (
        "faces: expected 227,630, found 7; templates: expected 12,115, found 5; comparisons:"
        " expected 8,010,270, found 5" in said
    )
    assert "mated: expected" not in said


def test_ijbb_has_file_names_of_its_own() -> None:
    tree = janus.Tree(
        {name.replace("ijbc", "ijbb"): data for name, data in package().content.items()}
    )
    assert janus.comparisons(read(tree, name="ijbb")) == janus.comparisons(read(package()))
    assert "meta/ijbc_face_tid_mid.txt: there is no such file" in refused(tree)


def test_without_images_and_embeddings_there_is_nothing_to_work_on() -> None:
    assert (
        "loose_crop/: there is no image; put the images there, or set dataset.options.embeddings"
        in refused(package(crops=False))
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (
            janus.npy(np.ones((6, 2), np.float32)),
            "float16, float32 or float64, of shape (7, any), found float32 of shape (6, 2)",
        ),
        (janus.npy(np.ones((7, 2), np.int32)), "found int32 of shape (7, 2)"),
        (janus.npy(np.ones((7, 2), ">f4")), "found >f4 of shape (7, 2)"),
        (janus.npy(np.ones((7,), np.float32)), "found float32 of shape (7,)"),
        (
            janus.npy(np.ones((7, 2), np.float32))[:-4],
            "its header announces 56 bytes of values, found 52",
        ),
        (
            janus.npy(np.ones((7, 2), np.float32)).replace(b"(7, 2)", b"(7,9999999999)"),
            "its header announces",
        ),
        (b"not an array", "it is no .npy file"),
        (b"", "it is no .npy file"),
    ],
)
def test_embeddings_that_do_not_fit_are_told(data: bytes, what: str) -> None:
    said = refused(package(**{"e.npy": data}), embeddings="e.npy")
    assert "e.npy: " in said
    assert what in said


def test_a_pickle_in_an_npy_file_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = np.empty(7, object)
    trap[0] = Trap()
    assert "found object" in refused(package(**{"e.npy": janus.npy(trap)}), embeddings="e.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["../e.npy", "none.npy"])
def test_embeddings_are_looked_for_in_the_package_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "e.npy").write_bytes(janus.npy(np.ones((7, 2), np.float32)))
    said = refused(open_files(package().write(tmp_path / "set")), embeddings=name)
    assert (
        "outside the data set" in said
        if ".." in name
        else "none.npy: there is no such file" in said
    )


def test_quality_of_other_images_or_another_length_is_told() -> None:
    text = "".join(f"{n}.jpg 0.5\n" for n in (10, 12, 11, 13, 14, 15, 16))
    assert "q.txt: line 2: '12.jpg', but the face list has '11.jpg'" in refused(
        package(**{"q.txt": text}), quality="q.txt"
    )
    assert "q.txt: expected 7 lines, as the face list has, found 2" in refused(
        package(**{"q.txt": "1\n2\n"}), quality="q.txt"
    )


def test_sources_are_lists_what_lies_beside_and_images() -> None:
    tree = package("a/", lists=True, **{"e.npy": b""})
    found = IjbReader(validate(IjbReader.Options, {"embeddings": "e.npy"}, "")).sources(tree)
    assert sorted(found) == tree.names()


def test_sources_of_an_incomplete_package_leave_it_to_read_to_say_so() -> None:
    assert IjbReader(IjbReader.Options()).sources(package(points=None))
    assert IjbReader(IjbReader.Options()).sources(janus.Tree({})) == []
