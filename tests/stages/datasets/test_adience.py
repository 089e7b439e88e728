"""What `stages.datasets.adience` promises, on small lists in Adience's format."""

from __future__ import annotations

import hashlib
from itertools import combinations
from pathlib import Path

import pytest
from bench_sets import ADIENCE, adience, adience_list, adience_rows, numbers, run, tree

from pipeline.config.validation import validate
from pipeline.core.schema import Batch
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.adience import AdienceReader
from stages.tables.comparisons import Comparisons
from stages.tables.tables import LAYOUT

FOLDS = [
    {"7153718@N04": 3, "101@N01": 1},
    {"102@N02": 4},
    {"103@N03": 2},
    {"104@N04": 1},
    {"105@N05": 5},
]


def read(root: Path, **options: object) -> dict[str, Batch]:
    return AdienceReader(validate(AdienceReader.Options, options, "options")).read(open_files(root))


def test_every_pair_of_faces_is_compared_once(tmp_path: Path) -> None:
    tables = read(adience(tmp_path, FOLDS))
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])
    comparisons = Comparisons.of(tables)
    comparisons.refuse_itself(tables)
    a, b = comparisons.pairs(0, comparisons.rows)
    assert [*zip(a.tolist(), b.tolist(), strict=True)] == [*combinations(range(16), 2)]
    assert tables["comparisons"].rows == 0


def test_a_face_is_a_template_of_its_person_with_its_image(tmp_path: Path) -> None:
    faces = read(adience(tmp_path, FOLDS))["faces"]
    assert faces["face_id"][0] == "7153718@N04/0.1000_ab_o.jpg"
    assert faces["path"][0] == "aligned/7153718@N04/landmark_aligned_face.0.1000_ab_o.jpg"
    assert faces["subject"].tolist()[:4] == ["0"] * 3 + ["3"]
    assert faces["sha256"].tolist() == [
        hashlib.sha256((tmp_path / p).read_bytes()).hexdigest() for p in faces["path"]
    ]


def test_the_faces_that_were_only_turned_upright_can_be_read_instead(tmp_path: Path) -> None:
    faces = read(adience(tmp_path, FOLDS), images="faces")["faces"]
    assert faces["path"][0] == "faces/7153718@N04/coarse_tilt_aligned_face.0.1000_ab_o.jpg"
    assert "" not in faces["sha256"].tolist()


def test_folds_can_be_chosen(tmp_path: Path) -> None:
    tables = read(adience(tmp_path, FOLDS), folds=[3, 1])
    assert tables["faces"]["subject"].tolist() == ["10"] + ["4"] * 4


def test_an_image_that_is_not_there_keeps_its_row_without_a_digest(tmp_path: Path) -> None:
    adience(tmp_path, FOLDS)
    (tmp_path / "aligned/101@N01/landmark_aligned_face.3.1003_ab_o.jpg").unlink()
    faces = read(tmp_path)["faces"]
    assert faces["face_id"][faces["sha256"] == ""].tolist() == ["101@N01/3.1003_ab_o.jpg"]


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    adience(tmp_path, [FOLDS[0]])
    lines = [line.split("\t") for line in (tmp_path / "fold_0_data.txt").read_text().splitlines()]
    (tmp_path / "fold_0_data.txt").write_text(
        "".join("\t".join(line[::-1]) + "\n" for line in lines)
    )
    assert read(tmp_path, folds=[0])["faces"]["face_id"][0] == "7153718@N04/0.1000_ab_o.jpg"


GOOD = adience_list(adience_rows({"1@N1": 2}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD.replace("face_id", "face"),
            "line 1 should name tab-separated columns, and face_id among them",
        ),
        (
            GOOD.replace("\t", " "),
            "line 1 should name .* user_id, original_image, face_id among them",
        ),
        ("", "line 1 should name"),
        (GOOD + "1@N1\tx.jpg\n", "line 4: expected 12 columns, found 2"),
        (
            GOOD + GOOD.splitlines()[1].replace("(25, 32)", "(38, 43)") + "\n",
            (
                r"line 4: face 1@N1/0\.1000_ab_o\.jpg is listed already, and otherwise, in"
                r" fold_0_data\.txt, line 2"
            ),
        ),
        (GOOD.replace("1@N1", ".."), "line 2: '..', .* name no image"),
        (GOOD.replace("1000_ab", "../../1000_ab"), "line 2: .* name no image"),
        (GOOD.replace("1@N1\t1000", "\t1000"), "line 2: '', .* name no image"),
        ("\t".join(ADIENCE) + "\n", "the lists name no face"),
    ],
)
def test_a_malformed_list_is_refused_naming_the_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(tree(tmp_path, {"fold_0_data.txt": text}), folds=[0])


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"fold_0_data\.txt: it is not UTF-8 text"):
        read(tree(tmp_path, {"fold_0_data.txt": b"\xff\xff"}), folds=[0])


def test_a_list_that_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"fold_4_data\.txt: there is no such file; .*options\.folds"
    ):
        read(adience(tmp_path, FOLDS[:4]))


def test_lists_that_contradict_each_other_are_refused_naming_both(tmp_path: Path) -> None:
    lists = {"fold_0_data.txt": GOOD, "fold_1_data.txt": GOOD.replace("\tf\t", "\tm\t")}
    with pytest.raises(
        InvalidInput,
        match=r"fold_1_data\.txt: line 2: face .* otherwise, in fold_0_data\.txt, line 2",
    ):
        read(tree(tmp_path, lists), folds=[0, 1])


def test_two_people_in_one_photograph_of_one_user_are_two_subjects(tmp_path: Path) -> None:
    row, other = adience_rows({"1@N1": 2})
    text = adience_list([row, other, {**row, "face_id": 7}])
    faces = read(tree(tmp_path, {"fold_0_data.txt": text}), folds=[0])["faces"]
    assert faces["subject"].tolist() == ["0", "0", "7"]


def test_a_line_that_repeats_another_exactly_counts_once(tmp_path: Path) -> None:
    repeated = GOOD + GOOD.splitlines()[1] + "\n"
    root = tree(tmp_path, {"fold_0_data.txt": repeated})
    tables = read(root, folds=[0])
    assert tables["faces"].rows == 2
    notes = AdienceReader(validate(AdienceReader.Options, {"folds": [0]}, "options")).notes(
        open_files(root), tables
    )
    assert notes == ["lines of the lists that repeat another exactly count once: 1 such"]


@pytest.mark.parametrize("end", [" ", "\t", "\t \t"])
def test_blanks_at_a_lines_end_and_blank_lines_do_not_count(tmp_path: Path, end: str) -> None:
    plain = read(tree(tmp_path / "plain", {"fold_0_data.txt": GOOD}), folds=[0])
    spaced = "".join(f"{line}{end}\n\n" for line in GOOD.splitlines()) + GOOD.splitlines()[1] + "\n"
    found = read(tree(tmp_path / "spaced", {"fold_0_data.txt": spaced}), folds=[0])
    assert all(found[name].digest() == plain[name].digest() for name in plain)


def test_the_published_counts_are_held_against_the_lists_where_asked_for(tmp_path: Path) -> None:
    message = (
        "not the whole of adience: faces: expected 19,370, found 16; subjects: .* 2,284.* 6; mated:"
        " .* 686,268.* 20; .*any"
    )
    with pytest.raises(InvalidInput, match=message):
        read(adience(tmp_path, FOLDS), counts="published")


def test_sources_are_the_lists_and_the_images_of_the_chosen_kind(tmp_path: Path) -> None:
    files = open_files(adience(tmp_path, FOLDS))
    sources = AdienceReader(validate(AdienceReader.Options, {"folds": [0, 1]}, "options")).sources(
        files
    )
    assert sources[:2] == ["fold_0_data.txt", "fold_1_data.txt"]
    assert set(sources[2:]) == {name for name in files.names() if name.startswith("aligned/")}


CONFIG = """
name: small
dataset: {reader: adience, path: set}
steps:
  align: {options: {detector: none}}
  embed: {options: {model: tiny}}
  compare: {inputs: {templates: embed}}
  evaluate_verification: {options: {fmr: [0.1], replicates: 20}}
"""


def test_the_lists_go_through_to_their_numbers(tmp_path: Path, tiny: Context) -> None:
    adience(tmp_path / "set", FOLDS)
    found = numbers(run(tmp_path, CONFIG, tiny))
    assert found["eer"]["trials"] == 120
    assert found["tar"]["trials"] == 3 + 6 + 1 + 10  # of people with 3, 4, 2 and 5 faces
    assert found["eer"]["low"] <= found["eer"]["high"]
