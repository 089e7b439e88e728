"""What `stages.datasets.lfw` promises, on small trees in LFW's layout and once on LFW itself."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.validation import validate
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files, open_files
from stages.datasets.lfw import LfwReader, LfwTemplatesReader
from stages.tables.tables import LAYOUT

PAIRS = "2\t1\nAda\t1\t2\nAda\t1\tBob\t1\nBob\t2\t1\nBob\t2\tCleo_De\t1\n"


class Tree:
    """Files in memory: image bytes are their own name."""

    root = Path("tree")
    passed_over: ClassVar[dict[str, str]] = {}

    def __init__(self, images: dict[str, int], prefix: str = "", **others: str) -> None:
        names = [
            f"{prefix}{n}/{n}_{i + 1:04d}.jpg" for n, count in images.items() for i in range(count)
        ]
        self.content = {name: name.encode() for name in names}
        self.content |= {
            prefix + name.replace("_txt", ".txt"): text.encode() for name, text in others.items()
        }

    def names(self) -> list[str]:
        return sorted(self.content)

    def read(self, name: str) -> bytes:
        try:
            return self.content[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def digests(self, names: Iterable[str], limit: int | None = None) -> list[str]:
        return [
            hashlib.sha256(self.content[n]).hexdigest() if n in self.content else "" for n in names
        ]


def lfw(tree: Files, **options: object) -> dict[str, Batch]:
    return LfwReader(validate(LfwReader.Options, options, "options")).read(tree)


def templates(tree: Files, **options: object) -> dict[str, Batch]:
    return LfwTemplatesReader(validate(LfwTemplatesReader.Options, options, "options")).read(tree)


def small(pairs: str = PAIRS, prefix: str = "") -> Tree:
    return Tree({"Ada": 2, "Bob": 3, "Cleo_De": 1}, prefix, pairs_txt=pairs)


def faces_of(tables: dict[str, Batch]) -> dict[str, set[str]]:
    """Template id → ids of its faces."""
    made: dict[str, set[str]] = {}
    for template, face in zip(
        tables["members"]["template"], tables["members"]["face"], strict=True
    ):
        made.setdefault(tables["templates"]["template_id"][template], set()).add(
            tables["faces"]["face_id"][face]
        )
    return made


def having(tables: dict[str, Batch], role: str) -> set[str]:
    roles = tables["roles"]
    return set(tables["templates"]["template_id"][roles["template"][roles["role"] == role]])


def test_tables_fit_the_layout() -> None:
    for tables in (lfw(small()), templates(Tree({"Ada": 6, "Bob": 7}))):
        for name, schema in LAYOUT.schemas.items():
            schema.check(tables[name])


def test_pairs_become_comparisons_with_their_fold_in_file_order() -> None:
    tables = lfw(small())
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
        ("Ada_0001", "Ada_0002", True, 0),
        ("Ada_0001", "Bob_0001", False, 0),
        ("Bob_0002", "Bob_0001", True, 1),
        ("Bob_0002", "Cleo_De_0001", False, 1),
    ]


def test_faces_are_sorted_with_the_subject_of_their_name() -> None:
    faces = lfw(small())["faces"]
    assert faces["face_id"].tolist() == sorted(faces["face_id"])
    assert Counter(faces["subject"]) == {"Ada": 2, "Bob": 3, "Cleo_De": 1}


def test_every_image_has_the_sha256_of_its_bytes() -> None:
    faces = lfw(small())["faces"]
    assert faces["sha256"].tolist() == [
        hashlib.sha256(p.encode()).hexdigest() for p in faces["path"]
    ]


@pytest.mark.parametrize("prefix", ["", "lfw/", "somewhere/lfw-deepfunneled/"])
def test_the_tree_may_be_rooted_at_any_level(prefix: str) -> None:
    assert lfw(small(prefix=prefix))["faces"]["path"][0] == f"{prefix}Ada/Ada_0001.jpg"


def test_a_folder_and_a_zip_of_it_give_the_same_tables(tmp_path: Path) -> None:
    tree = small()
    with zipfile.ZipFile(tmp_path / "lfw.zip", "w") as archive:
        for name, content in tree.content.items():
            archive.writestr(name, content)
            (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "folder" / name).write_bytes(content)
    digests = [
        {name: batch.digest() for name, batch in lfw(open_files(tmp_path / root)).items()}
        for root in ("folder", "lfw.zip")
    ]
    assert digests[0] == digests[1]


def test_faces_outside_the_pairs_can_be_left_out() -> None:
    assert "Bob_0003" not in lfw(small(), faces="pairs")["faces"]["face_id"]


def test_an_image_that_vanishes_keeps_its_row_without_a_digest() -> None:
    tree = small()
    names = tree.names()
    del tree.content["Bob/Bob_0002.jpg"]
    tree.names = lambda: names  # type: ignore[method-assign]
    faces = lfw(tree)["faces"]
    assert faces["face_id"][faces["sha256"] == ""].tolist() == ["Bob_0002"]


def test_sources_are_the_pairs_and_all_images() -> None:
    tree = small(prefix="lfw/")
    assert set(LfwReader(LfwReader.Options()).sources(tree)) == set(tree.names())


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            PAIRS.replace("Bob\t2\t1", "Bob\t2\t9"),
            (
                r"line 4: a pair naming an unknown face: .* Bob/Bob_0009; .* set"
                r" dataset\.options\.counts to any"
            ),
        ),
        (
            PAIRS.replace("Ada\t1\t2", "Ada\t1"),
            r"line 2: expected NAME I J \(a mated pair\), found 'Ada\\t1'",
        ),
        (
            PAIRS.replace("Ada\t1\t2", "Ada\t1\tx"),
            "line 2: expected NAME I J .* with image numbers",
        ),
        (PAIRS.replace("Ada\t1\t2", "Ada\t1\t01"), "line 2: compares Ada_0001 with itself"),
        (
            PAIRS.replace("Ada\t1\tBob\t1", "Ada\t1\tAda\t2"),
            "line 3: called non-mated, but Ada_0001 and Ada_0002 are both of Ada",
        ),
        (PAIRS + "Ada\t1\t2\n", "line 1 announces 2 folds of 2 × 1 pairs = 4, found 5"),
        ("ten\t300\n", "line 1 should be the number of folds and of pairs"),
        ("99999\t1\n", "line 1 should be the number of folds and of pairs"),
        ("", "line 1 should be the number of folds and of pairs"),
    ],
)
def test_a_malformed_list_is_refused_naming_the_line(pairs: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        lfw(small(pairs))


LACKING = "2\t1\nAda\t1\t2\nAda\t1\tDora\t1\nBob\t2\t9\nBob\t2\tCleo_De\t1\n"


def test_a_pair_whose_image_lacks_is_left_out_and_counted_where_any_count_will_do() -> None:
    tables = lfw(small(LACKING), counts="any")
    ids, list_ = tables["templates"]["template_id"], tables["comparisons"]
    assert [*zip(ids[list_["a"]], ids[list_["b"]], list_["fold"].tolist(), strict=True)] == [
        ("Ada_0001", "Ada_0002", 0),
        ("Bob_0002", "Cleo_De_0001", 1),
    ]
    reader = LfwReader(validate(LfwReader.Options, {"counts": "any"}, "options"))
    (note,) = reader.notes(small(LACKING), tables)
    assert (
        note
        == "2 of 4 pairs of pairs.txt are left out; line 3: a pair naming an unknown face: there is"
        " no image Dora/Dora_0001"
    )
    assert reader.notes(small(), tables) == []


def test_a_list_of_which_no_pair_is_there_is_refused_whatever_the_counts() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"no pair has both of its images; line 2: .*Dora_0001; set dataset\.path",
    ):
        lfw(small("1\t1\nDora\t1\t2\nDora\t1\tAda\t1\n"), counts="any")


BARE = "\n".join(PAIRS.splitlines()[1:]) + "\n"


def pairs_of(tables: dict[str, Batch]) -> list[tuple[str, str, bool]]:
    ids, list_ = tables["templates"]["template_id"], tables["comparisons"]
    return [*zip(ids[list_["a"]], ids[list_["b"]], list_["mated"].tolist(), strict=True)]


def test_a_list_without_its_first_line_has_the_same_pairs() -> None:
    assert pairs_of(lfw(small(BARE))) == pairs_of(lfw(small()))


@pytest.mark.parametrize(
    "names",
    ["{0}_{1:04d}", "{0}/{0}_{1:04d}.jpg", "/data/lfw/{0}/{0}_{1:04d}.png", "lfw/{0}/{0}_{1:04d}"],
)
@pytest.mark.parametrize(("separator", "no"), [(" ", "0"), ("\t", "-1"), (",", "0")])
def test_a_flat_list_names_files_and_says_which_are_mated(
    names: str, separator: str, no: str
) -> None:
    pairs = [
        ("Ada", 1, "Ada", 2, "1"),
        ("Ada", 1, "Bob", 1, no),
        ("Bob", 2, "Bob", 1, "1"),
        ("Bob", 2, "Cleo_De", 1, no),
    ]
    lines = [
        separator.join([names.format(a, i), names.format(b, j), label])
        for a, i, b, j, label in pairs
    ]
    tables = lfw(small("\n".join(lines), prefix="lfw/"))
    assert pairs_of(tables) == pairs_of(lfw(small()))
    assert Counter(tables["faces"]["subject"]) == {"Ada": 2, "Bob": 3, "Cleo_De": 1}


def numbered(pairs: str, count: int = 5) -> Tree:
    tree = Tree({}, pairs_txt=pairs)
    tree.content |= {f"images/{i}.jpg": bytes([i]) for i in range(count)}
    return tree


def test_a_flat_list_may_name_any_images_whose_subjects_the_mated_pairs_tell() -> None:
    tables = lfw(numbered("0.jpg 1.jpg 1\n1.jpg 2.jpg 1\n2.jpg 3.jpg 0\n"))
    assert tables["faces"]["face_id"].tolist() == [f"images/{i}.jpg" for i in range(5)]
    assert tables["faces"]["subject"].tolist() == ["simages/0.jpg"] * 3 + [
        "simages/3.jpg",
        "simages/4.jpg",
    ]
    assert lfw(numbered("0.jpg 1.jpg 1\n"), faces="pairs")["faces"].rows == 2


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            "0.jpg 1.jpg 1\n0.jpg 1.jpg\n",
            "line 2: expected FILE FILE 1 or 0, as line 1 has it, found '0.jpg 1.jpg'",
        ),
        (
            "0.jpg 1.jpg 1\n0.jpg 2.jpg 2\n",
            r"line 2: expected the label 1 \(mated\), 0 or -1 \(non-mated\), found '2'",
        ),
        (
            "0.jpg 1.jpg 1\n1.jpg 0.jpg 0\n",
            "line 2: called non-mated, but images/1.jpg and images/0.jpg are both of",
        ),
        ("0.jpg 1.jpg 1\n0.jpg images/0.jpg 1\n", "line 2: compares images/0.jpg with itself"),
        (
            "0.jpg 9.jpg 1\n",
            "line 1: a pair naming an unknown face: there is no image 9.jpg; .*counts to any",
        ),
        ("Ada_0001.jpg 0.jpg 1\n", "there is no image Ada_0001.jpg"),
        ("0.jpg\n", "line 1 should be the number of folds .* NAME I NAME J, FILE FILE 1"),
    ],
)
def test_a_malformed_flat_list_is_refused_naming_the_line(pairs: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        lfw(numbered(pairs))


def masked(pairs: str) -> Tree:
    tree = small(pairs)
    tree.content |= {
        f"masked/{name}.jpg": name.encode() for name in ("Ada_0001", "Ada_0002", "Bob_0001")
    }
    return tree


def test_a_flat_list_compares_the_images_in_the_folders_that_it_names() -> None:
    tables = lfw(
        masked("Ada/Ada_0001.jpg masked/Ada_0002.jpg 1\nmasked/Bob_0001 Bob/Bob_0002.jpg 1\n")
    )
    assert pairs_of(tables) == [
        ("Ada_0001", "masked/Ada_0002.jpg", True),
        ("masked/Bob_0001.jpg", "Bob_0002", True),
    ]
    assert set(tables["faces"]["subject"]) == {"Ada", "Bob", "Cleo_De", "smasked/Ada_0001.jpg"}


def test_an_image_that_is_not_in_the_folder_that_a_flat_list_names_is_missing() -> None:
    message = (
        r"line 1: .* no image worn/Ada_0002\.jpg \(one of that name is Ada/Ada_0002\.jpg, in"
        r" another folder\); .*to any"
    )
    with pytest.raises(InvalidInput, match=message):
        lfw(small("Ada/Ada_0001.jpg worn/Ada_0002.jpg 1\n"))


def test_a_bare_name_that_two_folders_hold_is_refused() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"line 1: Ada_0002 could be any of Ada/Ada_0002\.jpg, masked/Ada_0002\.jpg; name",
    ):
        lfw(masked("Ada/Ada_0001 Ada_0002 1\n"))


def test_the_suffix_tells_images_of_one_name_apart() -> None:
    tree = numbered("0.png 1.jpg 1\n")
    tree.content["images/0.png"] = b"png"
    assert pairs_of(lfw(tree)) == [("images/0.png", "images/1.jpg", True)]


def test_a_flat_list_may_call_files_by_numbers() -> None:
    assert pairs_of(lfw(numbered("0 1 1\n1 2 1\n2 3 0\n"))) == [
        ("images/0.jpg", "images/1.jpg", True),
        ("images/1.jpg", "images/2.jpg", True),
        ("images/2.jpg", "images/3.jpg", False),
    ]


def test_people_called_by_numbers_stay_people_where_pairs_name_two() -> None:
    tree = Tree({"7": 2, "8": 1}, pairs_txt="7 1 2\n7 1 8 1\n")
    assert pairs_of(lfw(tree)) == [("7_0001", "7_0002", True), ("7_0001", "8_0001", False)]


@pytest.mark.parametrize(
    ("yes", "no"), [("1.0", "0.0"), ("True", "False"), ("true", "false"), ("1", "-1.0")]
)
def test_labels_may_be_numbers_with_a_point_or_words(yes: str, no: str) -> None:
    expected = pairs_of(lfw(numbered("0.jpg 1.jpg 1\n2.jpg 3.jpg 0\n")))
    assert pairs_of(lfw(numbered(f"0.jpg 1.jpg {yes}\n2.jpg 3.jpg {no}\n"))) == expected
    assert (
        pairs_of(lfw(numbered(f"0.jpg {yes}\n1.jpg {yes}\n2.jpg {no}\n3.jpg {no}\n"))) == expected
    )


@pytest.mark.parametrize("separator", [",", "\t", ";", ", "])
@pytest.mark.parametrize(
    "form", [PAIRS, BARE, "name\timagenum1\timagenum2\t\n" + BARE.replace("2\nAda", "2\t\nAda")]
)
def test_lfws_lists_may_be_separated_in_any_way_and_have_a_heading(
    form: str, separator: str
) -> None:
    assert pairs_of(lfw(small(form.replace("\t", separator)))) == pairs_of(lfw(small()))


@pytest.mark.parametrize("heading", ["file1,file2,label", "a,b,issame", "img1\timg2\tSame"])
def test_a_heading_of_a_flat_list_is_no_pair(heading: str) -> None:
    tables = lfw(numbered(f"{heading}\n0.jpg,1.jpg,1\n2.jpg,3.jpg,0\n"))
    assert pairs_of(tables) == pairs_of(lfw(numbered("0.jpg 1.jpg 1\n2.jpg 3.jpg 0\n")))


def test_what_may_be_a_heading_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"line 1: expected the label 1 .*, found 'alike'; if it is a heading, remove it",
    ):
        lfw(numbered("one two alike\n0.jpg 1.jpg 1\n"))


def test_blank_lines_of_a_list_do_not_count_and_lines_keep_their_numbers() -> None:
    for text in (PAIRS, BARE):
        assert pairs_of(lfw(small("\n \n" + text.replace("\n", "\n\n")))) == pairs_of(lfw(small()))
    with pytest.raises(InvalidInput, match="line 4: expected FILE FILE"):
        lfw(numbered("\n0.jpg 1.jpg 1\n\n0.jpg\n"))


@pytest.mark.parametrize(
    "path",
    ["lfw\\{0}\\{0}_{1}.jpg", "C:\\data\\lfw\\{0}\\{0}_{1}.jpg", "./{0}/{0}_{1}", "../{0}/{0}_{1}"],
)
def test_paths_may_have_backslashes_and_begin_in_the_lists_own_folder(path: str) -> None:
    line = f"{path.format('Ada', '0001')} {path.format('Bob', '0001')} 0\n"
    assert pairs_of(lfw(small(line, prefix="lfw/"))) == [("Ada_0001", "Bob_0001", False)]


@pytest.mark.parametrize(
    ("again", "word"),
    [("0.jpg 1.jpg 1\n", "1 pair of pairs.txt repeats"), ("1 0 1\n" * 2, "2 pairs of")],
)
def test_pairs_that_are_listed_again_are_counted_in_a_note(again: str, word: str) -> None:
    tree = numbered("0.jpg 1.jpg 1\n2.jpg 3.jpg 0\n" + again)
    reader = LfwReader(LfwReader.Options())
    (note,) = reader.notes(tree, reader.read(tree))
    assert note.startswith(word)
    assert (
        "an earlier one, as it is or the other way round (as images/0.jpg and images/1.jpg). Each"
        " counts as often" in note
    )


@pytest.mark.parametrize("no", ["0", "-1"])
def test_a_list_of_two_lines_a_pair_has_the_pairs_of_the_flat_one(no: str) -> None:
    flat = lfw(numbered(f"0.jpg 1.jpg 1\n1.jpg 2.jpg 1\n2.jpg 3.jpg {no}\n"))
    doubled = lfw(numbered(f"0.jpg 1\n1.jpg 1\n1.jpg 1\n2.jpg 1\n2.jpg\t{no}\n3.jpg\t{no}\n"))
    assert pairs_of(doubled) == pairs_of(flat)
    assert doubled["faces"]["subject"].tolist() == flat["faces"]["subject"].tolist()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("0.jpg 1\n1.jpg 1\n2.jpg 0\n", "line 3: expected two lines, FILE 1"),
        ("0.jpg 1\n1.jpg 0\n", "line 1: its pair has two labels, '1' and, on the next line, '0'"),
        (
            "0.jpg 1\n1.jpg 1\n0.jpg 7\n1.jpg 7\n",
            r"line 3: expected the label 1 \(mated\), 0 or -1 \(non-mated\), found '7'",
        ),
        ("0.jpg 1\n0.jpg 1\n", "line 1: compares 0.jpg with itself"),
        ("0.jpg 1\n1.jpg 2.jpg 1\n", "line 1: expected two lines"),
        ("0.jpg 1\n9.jpg 1\n", "line 1: a pair naming an unknown face: there is no image 9.jpg"),
    ],
)
def test_a_malformed_list_of_two_lines_a_pair_is_refused_naming_the_first(
    pairs: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        lfw(numbered(pairs))


def test_a_name_that_could_be_of_several_images_is_refused_until_its_path_is_given() -> None:
    tree = numbered("0.jpg 1.jpg 1\n")
    tree.content["other/0.jpg"] = b"other"
    with pytest.raises(
        InvalidInput,
        match=r"line 1: 0\.jpg could be any of images/0\.jpg, other/0\.jpg; name its path",
    ):
        lfw(tree)
    tree.content["pairs.txt"] = b"other/0.jpg 1.jpg 1\n"
    assert pairs_of(lfw(tree)) == [("other/0.jpg", "images/1.jpg", True)]


def test_a_mated_pair_of_two_names_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match="line 1: called mated, but Ada_0001 is of Ada and Bob_0001 of Bob"
    ):
        lfw(small("Ada_0001 Bob_0001 1\n"))


@pytest.mark.parametrize(
    ("mated", "folds"), [("10", [*range(10)]), ("01", [*range(10)]), ("1", [-1])]
)
def test_a_list_that_says_nothing_of_folds_has_ten_where_they_are_alike(
    mated: str, folds: list[int]
) -> None:
    kinds = {"1": "0.jpg 1.jpg 1", "0": "0.jpg 2.jpg 0"}
    lines = [kinds[kind] for kind in mated * 10] + ["0.jpg 3.jpg 0"] * (mated == "1")
    assert [
        *dict.fromkeys(lfw(numbered("\n".join(lines)))["comparisons"]["fold"].tolist())
    ] == folds


def test_all_problems_of_a_list_are_reported_at_once_up_to_ten() -> None:
    with pytest.raises(InvalidInput) as error:
        lfw(small("6\t1\n" + "Ada\t1\n" * 12))
    assert str(error.value).count("expected NAME I") == 10
    assert "(and 2 more)" in str(error.value)


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=60), st.text(max_size=60).map(lambda text: f"1\t1\n{text}".encode())
    )
)
def test_any_bytes_as_a_list_are_read_or_refused_in_a_sentence(data: bytes) -> None:
    tree = small()
    tree.content["pairs.txt"] = data
    try:
        said = f"pairs.txt: read {lfw(tree)['comparisons'].rows} pairs"
    except InvalidInput as error:
        said = str(error)
    assert "pairs.txt" in said


def test_a_tree_without_a_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no file 'pairs\.txt'"):
        lfw(Tree({"Ada": 2}))


def test_several_lists_of_one_name_are_refused_until_one_is_named() -> None:
    tree = small(prefix="a/")
    tree.content["b/pairs.txt"] = PAIRS.encode()
    with pytest.raises(InvalidInput, match="several files"):
        lfw(tree)
    assert lfw(tree, pairs="b/pairs.txt")["comparisons"].rows == 4


def test_two_images_of_one_face_are_refused_naming_both() -> None:
    tree = small()
    tree.content |= Tree({"Ada": 1}, "lfw-funneled/").content
    with pytest.raises(InvalidInput, match="'Ada_0001' has two images"):
        lfw(tree)


def test_a_reader_of_files_without_a_path_says_what_to_set() -> None:
    with pytest.raises(InvalidInput, match=r"set dataset\.path"):
        LfwReader(LfwReader.Options()).read(None)


MANY = {f"P{i:02d}": 4 + i for i in range(20)}  # 18 identities with six images or more


def test_templates_are_two_disjoint_halves_of_an_identity() -> None:
    made = faces_of(templates(Tree(MANY)))
    for name, count in MANY.items():
        if count >= 6:
            a, b = made[f"{name}/A"], made[f"{name}/B"]
            assert not a & b
            assert len(a) + len(b) == min(count, 16)
            assert len(a) - len(b) in (0, 1)


def test_identities_with_too_few_images_are_not_in_the_tables() -> None:
    assert set(templates(Tree(MANY))["faces"]["subject"]) == {
        name for name, count in MANY.items() if count >= 6
    }


def test_every_a_is_a_reference_and_every_b_a_probe_and_all_are_compared() -> None:
    tables = templates(Tree(MANY))
    assert {t[-1] for t in having(tables, "reference")} == {"A"}
    assert {t[-1] for t in having(tables, "probe")} == {"B"}
    assert tables["pairings"]["role_a"].tolist() == ["reference"]
    assert tables["pairings"]["role_b"].tolist() == ["probe"]


def test_the_gallery_lacks_the_rounded_fraction_of_identities() -> None:
    tables = templates(Tree(MANY), left_out=0.3)
    assert having(tables, "gallery") < having(tables, "reference")
    assert len(having(tables, "gallery")) == 18 - round(18 * 0.3)


def test_adding_an_identity_changes_no_other_templates() -> None:
    before, after = faces_of(templates(Tree(MANY))), faces_of(templates(Tree({**MANY, "Aaa": 9})))
    assert {**before, **after} == after
    assert len(after) == len(before) + 2


def test_another_seed_gives_another_split() -> None:
    assert faces_of(templates(Tree(MANY))) != faces_of(templates(Tree(MANY), seed=1))


def test_the_number_of_identities_can_be_limited() -> None:
    tables = templates(Tree(MANY), identities=5)
    assert tables["templates"].rows == 10
    assert having(tables, "reference") <= having(templates(Tree(MANY)), "reference")


def test_a_tree_without_enough_images_of_anyone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="none of 1 identities has 6 images"):
        templates(Tree({"Ada": 5}))


def test_fewer_images_can_be_used_than_an_identity_must_have() -> None:
    made = faces_of(templates(Tree(MANY), min_images=8, max_images=5))
    assert {name[-1]: len(faces) for name, faces in made.items()} == {"A": 3, "B": 2}


def real_lfw() -> Files:
    shared = Path(os.environ.get("QFUSE_SHARED", Path(__file__).parents[4] / "shared"))
    path = shared / "data" / "lfw.zip"
    if not path.exists():
        pytest.skip("LFW is not here: set QFUSE_SHARED to a folder that holds data/lfw.zip")
    return open_files(path)


def test_lfw_itself_has_its_published_counts() -> None:
    files = real_lfw()
    tables = lfw(files)
    assert tables["faces"].rows == 13_173
    assert len(set(tables["faces"]["subject"])) == 5_733
    assert np.bincount(tables["comparisons"]["fold"]).tolist() == [600] * 10
    assert int(tables["comparisons"]["mated"].sum()) == 3_000
    assert len(having(templates(files), "reference")) == 310
