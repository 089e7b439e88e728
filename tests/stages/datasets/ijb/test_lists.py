"""What `stages.datasets.ijb.lists` promises of blanks, digits, quotes and byte-order marks,
whichever reader reads.
"""

from __future__ import annotations

import janus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from janus import FACES, PAIRS, package, points, read, read_nist

from pipeline.errors import InvalidInput
from stages.datasets.ijb import lists
from stages.datasets.ijb.lists import read_csv
from stages.datasets.problems import Problems

HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\n"
NIST = {
    "ijbc_1N_gallery_G1.csv": HEAD + "3,Ada,img/1.png,s1,1,2,30,40\n",
    "ijbc_1N_gallery_G2.csv": HEAD + "20,Bob,img/3.png,,1,2,30,40\n",
    "ijbc_1N_probe_mixed.csv": HEAD + "7,Ada,img/7.png,s9,1,2,30,40\n21,Bob,img/8.png,,1,2,30,40\n",
    "ijbc_11_G1_G2_matches.csv": "3,7\n3,21\n20,21\n",
}
PAIR_LIST = "meta/ijbc_template_pair_label.txt"
MARK = b"\xef\xbb\xbf"


def refused(tree: object, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(tree, **options)
    return str(caught.value)


# -- blanks
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comma",
    [", ", " ,", " , ", "\t,", ",\u00a0"],
    ids=["after", "before", "both", "tab", "no-break"],
)
def test_blanks_beside_commas_change_no_table_of_the_nist_tree(comma: str) -> None:
    wide = {
        name: data.replace(",", comma) if comma[-1] in " ," else data for name, data in NIST.items()
    }
    if comma[-1] not in " ,":  # a blank that is no plain one: beside texts only
        wide = {
            name: data.replace(",Ada", f"{comma}Ada").replace(",img", f"{comma}img")
            for name, data in NIST.items()
        }
    plain, found = read_nist(janus.Tree(NIST)), read_nist(janus.Tree(wide))
    assert found["comparisons"]["mated"].tolist() == [True, False, True]
    assert {name: batch.digest() for name, batch in found.items()} == {
        name: batch.digest() for name, batch in plain.items()
    }


def test_a_blank_behind_one_subject_leaves_its_comparisons_mated() -> None:
    gallery = "TEMPLATE_ID , SUBJECT_ID\n3,Ada \n"
    tables = read(package(lists=True, gallery_1=gallery))
    assert janus.subjects(tables)["3"] == janus.subjects(tables)["7"] == "Ada"


def test_a_subject_of_blanks_alone_is_none() -> None:
    tables = read(
        package(
            lists=True,
            gallery_1="TEMPLATE_ID,SUBJECT_ID\n3,  \n",
            probes="TEMPLATE_ID\n7\n21\n30\n",
        )
    )
    assert janus.subjects(tables)["3"] == "s3"


def test_blanks_within_a_name_stay() -> None:
    problems = Problems("here")
    columns = read_csv(janus.Tree({"a.csv": "N\n Ada  Byron \n"}), "a.csv", {"N": "text"}, problems)
    assert columns["N"].tolist() == ["Ada  Byron"]
    assert not problems


# -- digits
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["+3", "3e0", "3.0", "-0", "0x3", "3 ", "\t3", "³", "３"])
def test_an_id_is_digits_alone(value: str) -> None:
    said = refused(package(pairs=PAIRS.replace("20 7 0", f"20 {value} 0")))
    assert f"{PAIR_LIST}: line 4" in said
    assert f"found {value!r}" in said or "expected 'template 1 template 2 label'" in said


@pytest.mark.parametrize("value", ["+1", "1e0", "1.0", "-0", "+0"])
def test_a_label_is_one_digit(value: str) -> None:
    said = refused(package(pairs=PAIRS.replace("20 21 1", f"20 21 {value}")))
    assert f"{PAIR_LIST}: line 3, column 'label': expected 0 or 1, found {value!r}" in said


@pytest.mark.parametrize("value", ["+7", "7e0", "7.0", "7 7"])
def test_an_id_in_a_csv_file_is_digits_alone(value: str) -> None:
    said = refused(package(lists=True, probes=janus.PROBES.replace("7,Ada", f"{value},Ada")))
    assert f"line 2, column 'TEMPLATE_ID': expected a whole number from 0, found {value!r}" in said


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet="0123456789+-.eE _x", min_size=1, max_size=5), st.sampled_from([" ", ","]))
def test_an_id_is_read_exactly_where_it_is_digits(value: str, separator: str) -> None:
    problems = Problems("here")
    kinds = {"a": "id", "b": "text"}
    tree = janus.Tree({"l": f"5{separator}x\n{value}{separator}y.1\n"})
    columns = lists.join_pieces(lists.read_pieces(tree, "l", kinds, separator, problems), kinds)
    digits = value.strip(" ") if separator == "," else value
    assert bool(problems) != digits.isdecimal()
    if not problems:
        assert columns["a"].tolist() == [5, int(digits)]


# -- byte-order marks
# --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 4), st.integers(60, 120))
def test_a_byte_order_mark_is_taken_at_the_start_of_the_file_only(line: int, size: int) -> None:
    lines = PAIRS.encode().splitlines(keepends=True)
    lines[line] = MARK + lines[line]
    tree = package(pairs=b"".join(lines))
    before, lists.PIECE = lists.PIECE, size
    try:
        if line == 0:
            assert janus.comparisons(read(tree)) == janus.comparisons(read(package()))
        else:
            assert (
                f"{PAIR_LIST}: line {line + 1}: expected a byte-order mark at the start of the file"
                " only" in refused(tree)
            )
    finally:
        lists.PIECE = before


def test_a_byte_order_mark_behind_a_header_is_told() -> None:
    head, rest = janus.PROBES.encode().split(b"\n", 1)
    said = refused(package(lists=True, probes=head + b"\n" + MARK + rest))
    assert (
        "meta/ijbc_1N_probe_mixed.csv: line 2: expected a byte-order mark at the start of the file"
        " only" in said
    )
    assert read(package(lists=True, probes=MARK + head + b"\n" + rest))


def test_an_image_name_that_starts_a_later_piece_with_a_mark_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lists, "PIECE", 100)
    said = refused(package(faces=FACES.replace("13.jpg", "\ufeff13.jpg"), points=points()))
    assert (
        "meta/ijbc_face_tid_mid.txt: line 4: expected a byte-order mark at the start of the file"
        " only" in said
    )


# -- quotes
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probes", "what"),
    [
        (
            '"TEMPLATE_ID","SUBJECT_ID"\n"7","Ada"\n',
            "line 1: there is no column TEMPLATE_ID, found ",
        ),
        ('TEMPLATE_ID,"SUBJECT_ID"\n7,"Ada"\n', "line 1: found 'TEMPLATE_ID,\"SUBJECT_ID\"'"),
        (
            'TEMPLATE_ID,SUBJECT_ID\n7,"Ada"\n',
            "line 2, column 'SUBJECT_ID': expected UTF-8 text, found '\"Ada\"'",
        ),
        (
            'TEMPLATE_ID,SUBJECT_ID\n7, "Ada"\n',
            "line 2, column 'SUBJECT_ID': expected UTF-8 text, found '\"Ada\"'",
        ),
        (
            'TEMPLATE_ID,SUBJECT_ID\n"7",Ada\n',
            "line 2, column 'TEMPLATE_ID': expected a whole number from 0, found '\"7\"'",
        ),
        (
            'TEMPLATE_ID,SUBJECT_ID\n7,"Byron, Ada"\n',
            "line 2: expected 'TEMPLATE_ID,SUBJECT_ID', found '7,\"Byron, Ada\"'",
        ),
    ],
)
def test_a_quoted_csv_file_is_refused_with_the_reason(probes: str, what: str) -> None:
    said = refused(package(lists=True, probes=probes))
    assert f"meta/ijbc_1N_probe_mixed.csv: {what}" in said
    assert "quotes are not understood: write the file without them" in said


def test_a_quote_within_a_name_is_a_character() -> None:
    assert "quotes" not in refused(
        package(lists=True, probes='TEMPLATE_ID,SUBJECT_ID\n7,A"da\nx,Bob\n')
    )
    tables = read(package(probes='TEMPLATE_ID,SUBJECT_ID\n7,A"da\n', pairs="3 20 0\n"))
    assert janus.subjects(tables)["7"] == 'A"da'


# -- what lies beside
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{q}\n", "{n}.jpg {q}\n"])
def test_a_quality_that_is_no_number_is_told_without_a_count_of_lines(form: str) -> None:
    lines = [form.format(n=n, q="bad" if n == 12 else 0.5) for n in range(10, 17)]
    said = refused(package(**{"q.txt": "".join(lines)}), quality="q.txt")
    assert (
        "q.txt: line 3, column 'score': expected a finite number, or nan for none, found 'bad'"
        in said
    )
    assert "lines" not in said


def test_columns_have_the_types_of_their_kinds() -> None:
    kinds = {"N": "text", "I": "id", "X": "number"}
    columns = read_csv(
        janus.Tree({"a.csv": "other,I,N,X\n?, 7 , Ada , 1.5 \n"}), "a.csv", kinds, Problems("here")
    )
    assert [columns[name].dtype for name in kinds] == [
        np.dtype(object),
        np.dtype(np.int64),
        np.dtype(np.float64),
    ]
    assert [columns[name].tolist() for name in kinds] == [["Ada"], [7], [1.5]]
