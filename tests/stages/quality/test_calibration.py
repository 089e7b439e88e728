"""Places of 0 to 100 in a reference set: what they are, the file of a set, and the tables they are
written to.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, Status, text
from pipeline.errors import InvalidInput, UsageError
from stages.quality.calibration import (
    as_integers,
    calibrated,
    completed_table,
    placement_sentence,
    read_reference,
    read_scores,
    reference_set,
    refuse_other,
    scores_table,
)
from stages.quality.quality import Quality, QualityOptions
from stages.quality.reference_statistics import Statistics, StatisticsOptions

Make = Callable[..., Any]
properties = settings(deadline=None, max_examples=80)
# Eighths, few of them, so that scores meet percentiles and percentiles meet.
eighths = st.integers(-12, 12).map(lambda i: i / 8)
MEASURE = {"method": "given", "version": 1, "identity": None}


def qualities(values: Any, failed: Any = ()) -> Batch:
    quality, status = np.array(values, np.float32), np.zeros(len(values), np.uint8)
    status[list(failed)], quality[list(failed)] = Status.NOT_FOUND, np.nan
    return Batch(
        {
            "status": status,
            "reason": text("no face" if s else "" for s in status),
            "quality": quality,
        }
    )


def a_set(context: Make, values: Any, failed: Any = ()) -> dict[str, Any]:
    return reference_set(
        "a set", MEASURE, text(range(len(values))), qualities(values, failed), context()
    )


def slow_place(score: float, levels: list[float]) -> float:
    """The definition, one score at a time."""
    met = [p for p, level in enumerate(levels) if level == score]
    if met:
        return (met[0] + met[-1]) / 2
    if score < levels[0] or score > levels[-1]:
        return 0 if score < levels[0] else 100
    low = max(p for p, level in enumerate(levels) if level < score)
    return low + (score - levels[low]) / (levels[low + 1] - levels[low])


# The numbers


@properties
@given(
    scores=st.lists(eighths, min_size=1, max_size=20),
    reference=st.lists(eighths, min_size=1, max_size=40),
)
def test_a_place_is_the_percentile_the_middle_of_those_that_meet_and_linear_between(
    scores: list[float], reference: list[float]
) -> None:
    levels = np.percentile(reference, np.arange(101))
    np.testing.assert_allclose(
        calibrated(scores, levels), [slow_place(s, levels.tolist()) for s in scores], atol=1e-9
    )


@properties
@given(
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=30),
    reference=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
)
def test_a_better_score_has_no_lower_place_and_none_outside_0_to_100(
    scores: list[float], reference: list[float]
) -> None:
    levels = np.sort(np.percentile(reference, np.arange(101)))
    found = calibrated(np.sort([*scores, *reference]), levels)
    assert (np.diff(found) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 100


def test_places_by_hand() -> None:
    # The p-th percentile is p, but those from 40 to 60 are all 50.
    levels = [*range(40), *[50] * 21, *range(61, 101)]
    assert len(levels) == 101
    scores = [-1, 0, 7.25, 39, 44.5, 50, 55.5, 100, 1000, float("inf"), -float("inf"), float("nan")]
    places = [0, 0, 7.25, 39, 39.5, 50, 60.5, 100, 100, 100, 0, float("nan")]
    np.testing.assert_allclose(calibrated(scores, levels), places)


def test_a_set_of_one_score_knows_below_at_and_above() -> None:
    assert calibrated([1, 2, 3], np.full(101, 2.0)).tolist() == [0, 50, 100]


def test_the_faces_of_the_set_itself_are_spread_evenly(context: Make) -> None:
    scores = np.random.default_rng(0).permutation(1001).astype(np.float32) ** 3
    found = calibrated(scores, a_set(context, scores)["percentiles"])
    rank = np.argsort(np.argsort(scores)) / 10
    assert (
        np.abs(found - rank).max() < 1
    )  # exact at each whole percentile, linear in the cubes between two of them
    np.testing.assert_allclose(found[rank % 1 == 0], rank[rank % 1 == 0], atol=1e-9)


def test_integers_are_rounded_half_up() -> None:
    found = as_integers([0, 0.49, 0.5, 1.5, 2.5, 99.5, 100, np.nan])
    np.testing.assert_array_equal(found, [0, 0, 1, 2, 3, 100, 100, np.nan])


# The file of a reference set


def test_a_set_is_its_name_measure_count_percentiles_and_the_digest_of_its_scores(
    context: Make,
) -> None:
    found = a_set(context, [4, 1, 9, 3, 2], failed=[2])
    assert (found["set"], found["measure"], found["count"]) == ("a set", MEASURE, 4)
    assert (found["percentiles"][0], found["percentiles"][50], found["percentiles"][100]) == (
        1,
        2.5,
        4,
    )
    same, other = (
        a_set(context, [4, 1, 9, 3, 2], failed=[2]),
        a_set(context, [1, 4, 9, 3, 2], failed=[2]),
    )
    assert json.dumps(same) == json.dumps(found)
    assert other["digest"] != found["digest"]
    assert other["percentiles"] == found["percentiles"]


def test_a_set_without_a_score_is_none(context: Make) -> None:
    with pytest.raises(InvalidInput, match="a set has no face with a quality score"):
        a_set(context, [1, 2], failed=[0, 1])


def test_the_file_of_a_set_is_one_that_statistics_take(context: Make, tmp_path: Path) -> None:
    path, found = tmp_path / "set.json", a_set(context, [1, 2, 3])
    path.write_text(json.dumps(found))
    assert read_reference(path) == found
    stage = Statistics(StatisticsOptions(reference=str(path)), context())
    stage.refuse_other(MEASURE)
    assert stage.compute(None)[""]["percentiles"][0].tolist() == found["percentiles"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: small\n", "is not a reference file of format qfuse-reference/1"),
        (b'{"format": "qfuse-reference/1"}', "percentiles, measure should hold"),
        (b"0" * (2 << 20), "has more than 1,048,576 bytes"),
        (
            b'{"format": "qfuse-reference/1", "maximum": 1%b}' % (b"0" * 400),
            "maximum, .* should hold the finite numbers",
        ),
    ],
    ids=["a config", "nothing", "large", "beyond float64"],
)
def test_what_is_no_reference_set_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_reference(tmp_path / "r.json")


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_a_reference_set_that_cannot_be_read_says_what_writes_one(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"cannot be read .*`qfuse quality calibrate CONFIG --name NAME` writes one",
    ):
        read_reference(tmp_path / name)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            {**MEASURE, "method": "lightqnet"},
            "'a set' was scored by 'lightqnet', and these faces are by 'given'",
        ),
        ({**MEASURE, "version": 2}, "by the same measure with another version"),
        (
            {**MEASURE, "identity": 1, "from": 2},
            "another weights or preprocessing and model or detector above it",
        ),
        ("words", "in no way that it names"),
    ],
)
def test_scores_of_another_measure_are_refused_in_a_sentence(found: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        refuse_other({"set": "a set", "measure": found}, MEASURE, Path("r.json"))


def test_scores_of_the_same_measure_are_taken(context: Make, tmp_path: Path) -> None:
    measure = Quality(QualityOptions(method="random", seed=3), context()).measure
    (tmp_path / "r.json").write_text(json.dumps({**a_set(context, [1, 2]), "measure": measure}))
    read = read_reference(tmp_path / "r.json")
    refuse_other(read, measure, tmp_path)
    with pytest.raises(InvalidInput, match="the same measure with another seed"):
        refuse_other(read, Quality(QualityOptions(method="random"), context()).measure, tmp_path)


# Tables


def test_a_table_has_the_raw_score_its_place_and_that_as_an_integer_and_blanks_for_what_failed(
    context: Make,
) -> None:
    reference = a_set(context, [0, 1])
    content = scores_table(
        text(["a", 'b,"c"', "d"]), qualities([0.1, 5, 0.756], failed=[2]), reference
    )
    assert (
        content == "face_id,status,reason,quality,calibrated,calibrated_integer\n"
        'a,ok,,0.1,10.0,10\n"b,""c""",ok,,5.0,100.0,100\nd,not_found,no face,,,\n'
    )


def test_a_csv_keeps_its_columns_and_gets_the_places_of_one_of_them(
    context: Make, tmp_path: Path
) -> None:
    scores = np.float32([0.1, 0.3, 0.7])
    path = tmp_path / "scores.csv"
    path.write_text(
        "face,q\n" + "".join(f'"x,{i}",{s!s}\n' for i, s in enumerate(scores)) + "y, \nz,nan\n",
        encoding="utf-8-sig",
    )
    header, columns, found = read_scores(path, "q")
    assert np.array_equal(found[:3], scores)
    assert np.isnan(found[3:]).all()
    rows = list(
        csv.reader(io.StringIO(completed_table(header, columns, found, a_set(context, scores))))
    )
    assert rows[0] == ["face", "q", "calibrated", "calibrated_integer"]
    assert rows[1:] == [
        ["x,0", "0.1", "0.0", "0"],
        ["x,1", "0.3", "50.0", "50"],
        ["x,2", "0.7", "100.0", "100"],
        ["y", " ", "", ""],
        ["z", "nan", "", ""],
    ]


OFIQ = """\
Filename;UnifiedQualityScore;HeadPoseYaw;UnifiedQualityScore.scalar;HeadPoseYaw.scalar;assessment_time_in_ms;
a.png;27.5;-1;81;-1;5.1;
b.png;-1;0;-1;100;5.2;
"""


@pytest.mark.parametrize(
    ("column", "scores"),
    [
        ("UnifiedQualityScore", [27.5, np.nan]),
        ("UnifiedQualityScore.scalar", [81, np.nan]),
        ("HeadPoseYaw.scalar", [np.nan, 100]),
        ("HeadPoseYaw", [-1, 0]),
    ],
)
def test_a_table_of_ofiqs_is_read_with_minus_one_for_no_assessment(
    tmp_path: Path, column: str, scores: list[float]
) -> None:
    (tmp_path / "s.csv").write_text(OFIQ)
    header, columns, found = read_scores(tmp_path / "s.csv", column)
    assert header == OFIQ.splitlines()[0].rstrip(";").split(";")
    assert columns[0] == ["a.png", "b.png"]
    np.testing.assert_array_equal(found, np.float32(scores))


@pytest.mark.parametrize("column", ["Sharpness.scalar", "UnifiedQualityScore.scalar"])
def test_minus_one_is_no_assessment_where_a_table_of_ofiqs_holds_only_some_measures(
    tmp_path: Path, column: str
) -> None:
    (tmp_path / "s.csv").write_text(f"Filename;Sharpness;{column};\na.png;0.4;40;\nb.png;-1;-1;\n")
    np.testing.assert_array_equal(
        read_scores(tmp_path / "s.csv", column)[2], np.float32([40, np.nan])
    )


def test_minus_one_is_a_score_in_any_other_table(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("Filename;quality\na;-1\n")
    assert read_scores(tmp_path / "s.csv", "quality")[2].tolist() == [-1]


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", "   "])
@pytest.mark.parametrize("name", ["images/a.jpg", "images/a b.jpg"])
def test_lines_of_a_name_and_a_score_need_no_header(
    tmp_path: Path, separator: str, name: str
) -> None:
    (tmp_path / "s.txt").write_text(f"{name}{separator}1.25\n{name}{separator}nan\n")
    header, columns, scores = read_scores(tmp_path / "s.txt")
    assert (header, columns[0]) == (["face", "quality"], [name, name])
    np.testing.assert_array_equal(scores, np.float32([1.25, np.nan]))


def test_a_column_names_the_scores_of_lines_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a.jpg 1.5\n")
    assert read_scores(tmp_path / "s.txt", "q")[0] == ["face", "q"]


def test_lines_may_be_scores_alone(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("1.5\n\n-2\n")
    header, _, scores = read_scores(tmp_path / "s.txt")
    assert (header, scores.tolist()) == (["quality"], [1.5, -2])


@pytest.mark.parametrize("separator", ["\t", ";", " "])
def test_a_header_may_be_separated_in_any_way(tmp_path: Path, separator: str) -> None:
    (tmp_path / "s.csv").write_text(f"face{separator}q\na{separator}3\n")
    assert read_scores(tmp_path / "s.csv", "q")[2].tolist() == [3]


@pytest.mark.parametrize(
    ("content", "column"),
    [
        (",0\na.jpg,0.5\n", "0"),  # pandas.Series.to_csv
        ("face,0\na,0.5\n", "0"),
        ("path,2024\na,0.5\n", "2024"),
        ("what,2024\na.jpg,0.5\n", "2024"),
        ("what 2024\nanna/a 0.5\n", "2024"),
        ("0\n0.5\n", "0"),
        ("x,0\na,0.5\n", "0"),
    ],
)
def test_a_heading_that_ends_in_a_number_is_no_face(
    tmp_path: Path, content: str, column: str
) -> None:
    (tmp_path / "s.csv").write_text(content)
    header, _, scores = read_scores(tmp_path / "s.csv", column)
    assert (header[-1], scores.tolist()) == (column, [0.5])


def test_a_heading_that_ends_in_a_number_asks_for_the_column(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(",0\na.jpg,0.5\n")
    with pytest.raises(
        UsageError,
        match=r"its header \(, 0\) is line 1: say which column holds them, as in --column 0",
    ):
        read_scores(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("content", "column"),
    [("a.jpg,0\nb.jpg,1\n", "0"), ("a,0\nb,1\n", None), ("a/1 0\nb/2 1\n", None)],
)
def test_a_line_1_that_looks_as_all_others_is_a_face(
    tmp_path: Path, content: str, column: str | None
) -> None:
    (tmp_path / "s.csv").write_text(content)
    assert read_scores(tmp_path / "s.csv", column)[2].tolist() == [0, 1]


def test_the_first_face_may_be_without_a_score(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("a,\nb,0.5\n")
    np.testing.assert_array_equal(read_scores(tmp_path / "s.csv")[2], np.float32([np.nan, 0.5]))


def test_names_of_files_in_a_list_between_blanks_may_hold_commas(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a, b/1.jpg 0.5\nc/2.jpg 0.25\n")
    _, columns, scores = read_scores(tmp_path / "s.txt")
    assert (columns[0], scores.tolist()) == (["a, b/1.jpg", "c/2.jpg"], [0.5, 0.25])


@pytest.mark.parametrize("value", ["1", "-1.5", "+.5", "5.", "5e-1", "1E3", "1e30"])
def test_a_decimal_or_scientific_number_is_a_score(tmp_path: Path, value: str) -> None:
    (tmp_path / "s.csv").write_text(f"face,q\na, {value} \n")
    assert read_scores(tmp_path / "s.csv", "q")[2].tolist() == [np.float32(value)]


@pytest.mark.parametrize(
    "value", ["1_0", "inf", "-Infinity", "0x1", "\u0663", "1e", ".", "NA", "-nan", "1 2"]
)
def test_a_score_in_no_decimal_or_scientific_form_is_refused_with_its_line(
    tmp_path: Path, value: str
) -> None:
    (tmp_path / "s.csv").write_text(f"face,q\na,1\nb,{value}\n", encoding="utf-8")
    with pytest.raises(
        InvalidInput,
        match=rf"s\.csv: line 3: q is {re.escape(repr(value))}, which is not a number, such as",
    ):
        read_scores(tmp_path / "s.csv", "q")


@pytest.mark.parametrize("value", ["1e400", "-1e31", "9" * 400])
def test_a_score_beyond_any_measure_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "s.txt").write_text(f"a.jpg 1\nb.jpg {value}\n")
    with pytest.raises(
        InvalidInput,
        match=r"line 2: quality is .*, which is larger than any score may be, 1e30 in size",
    ):
        read_scores(tmp_path / "s.txt")


@pytest.mark.parametrize("content", ["a.jpg\t0,5\n", "a.jpg;0,5\n", "a.jpg 0,5\n", 'a.jpg,"0,5"\n'])
def test_decimal_commas_are_refused_as_such(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.tsv").write_text(content)
    with pytest.raises(
        InvalidInput,
        match=r"line 1: quality is '0,5', which has a decimal comma: write numbers with a point",
    ):
        read_scores(tmp_path / "s.tsv")


@pytest.mark.parametrize(
    ("content", "said"),
    [("path score\na 0.5\n", "--column score."), ("my score\n0.5\n", "--column 'my score'.")],
)
def test_the_column_that_is_proposed_can_be_given_on_the_command_line(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "s.txt").write_text(content)
    with pytest.raises(UsageError) as caught:
        read_scores(tmp_path / "s.txt")
    assert said in str(caught.value)
    column = shlex.split(said.removesuffix("."))[1]
    assert read_scores(tmp_path / "s.txt", column)[2].tolist() == [0.5]


def test_a_single_column_may_have_a_name_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("my quality\n3\n")
    assert read_scores(tmp_path / "s.csv", "my quality")[2].tolist() == [3]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (OFIQ, None, "say which column holds them, as in --column UnifiedQualityScore"),
        (OFIQ, "quality", "whose fields are read between semicolons: unknown column 'quality'"),
        (
            "a.jpg 0.1 0.2 0.3\n",
            None,
            "line 1 should be a header, or a face's name .*; found 4 fields between blanks",
        ),
        (
            "a;1;2\n",
            None,
            (
                "line 1 should be a header, or a face's name and its score; found 3 fields between"
                " semicolons"
            ),
        ),
        ("a 1\n\nb high\n", None, "line 3: quality is 'high', which is not a number"),
        ('"a\nb",1\nc,high\n', None, "line 3: quality is 'high', which is not a number"),
        ("a,1\nb 2\n", None, "line 2 has 1 field between commas, and the first has 2"),
    ],
)
def test_what_is_not_in_the_form_of_line_1_is_a_sentence(
    tmp_path: Path, content: str, column: str | None, message: str
) -> None:
    (tmp_path / "s.csv").write_text(content)
    with pytest.raises((InvalidInput, UsageError), match=message):
        read_scores(tmp_path / "s.csv", column)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: expected a table of scores"),
        (b" \n\n", "is empty: expected a table of scores"),
        (b"face,qualty\na,1\n", "unknown column 'quality': did you mean 'qualty'"),
        (b"quality\n1\nhigh\n", "line 3: quality is 'high', which is not a number"),
        (b"face,quality\na,1\nb\n", "line 3 has 1 field between commas, and the first has 2"),
        (b"face,quality,quality\na,1,2\n", "has 2 columns 'quality'"),
        (b"quality,calibrated\n1,2\n", "has a column 'calibrated' already"),
        (b"\xff\xfe\x00", "is no CSV in UTF-8"),
        (b'quality\n"1\n', "is no CSV in UTF-8"),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_a_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_scores(tmp_path / "s.csv", "quality")


def test_it_is_told_how_many_scores_lie_beyond_the_set(context: Make) -> None:
    said = placement_sentence(np.float32([-1, 0.5, 2, 3, np.nan]), a_set(context, [0, 1]))
    assert (
        said
        == "4 scores in the reference set a set (2 faces), the median at 75.0; 1 below its least, 2"
        " above its greatest, 1 without a score"
    )
    assert "median" not in placement_sentence(np.float32([np.nan]), a_set(context, [0, 1]))
