"""`qfuse quality calibrate` (a named reference set) and `qfuse quality apply` (scores of 0 to 100
by it).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.conftest import CONFIG, Answer, commands

Qfuse = Callable[..., Answer]
FACTOR = (
    "--set",
    "steps.quality.options.method=$method",
    "--set",
    "factors.method=[given, feature-norm]",
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Answer]]:
    """A folder in which the set of `c.yaml` is the reference set `small`, and the answers of the
    verbs.
    """
    folder = tmp_path_factory.mktemp("quality")
    (folder / "c.yaml").write_text(CONFIG)
    (folder / "sub").mkdir()
    many = (
        CONFIG.replace("method: given", "method: $method")
        + "factors: {method: [given, feature-norm, random]}\n"
    )
    (folder / "many.yaml").write_text(many.replace("name: small", "name: many"))
    head, other = (
        "dataset: {reader: synthetic, options: {scale: 0.001, seed: 1}}\n",
        CONFIG.splitlines(keepends=True),
    )
    (folder / "other.yaml").write_text("".join(["name: other\n", head, *other[2:]]))
    (folder / "none.yaml").write_text(
        "".join([*other[:2], "steps: {embed: {options: {model: given, flip: none}}}\n"])
    )
    (folder / "plain.csv").write_text("id,q\na,-100\nb,100\nc,\n")
    (folder / "lines.txt").write_text("a.jpg -100\nb c.jpg 100\nd.jpg nan\n")
    (folder / "series.csv").write_text(",0\na.jpg,-100\nb.jpg,100\n")
    (folder / "commas.tsv").write_text("a.jpg\t0,5\n")
    (folder / "empty.csv").write_text("")
    lines = {
        "calibrate": ("calibrate", "c.yaml", "--name", "small"),
        "again elsewhere": (
            "calibrate",
            "c.yaml",
            "--name",
            "small",
            "-o",
            "sub/again.json",
            "--store",
            "s2",
            "--json",
        ),
        "there already": ("calibrate", "c.yaml", "--name", "small"),
        "no name": ("calibrate", "c.yaml"),
        "bad name": ("calibrate", "c.yaml", "--name", "../up"),
        "empty name": ("calibrate", "c.yaml", "--name", ""),
        "no place": ("calibrate", "c.yaml", "--name", "x", "-o", "c.yaml/x.json"),
        "no quality": ("calibrate", "none.yaml", "--name", "x"),
        "several": ("calibrate", "many.yaml", "--name", "x"),
        "one of several": (
            "calibrate",
            "many.yaml",
            "--name",
            "norms",
            "--where",
            "method=feature-norm",
        ),
        "random": ("calibrate", "many.yaml", "--name", "chance", "--where", "method=random"),
        "apply": ("apply", "small.json", "c.yaml", "-o", "own.csv"),
        "apply, printed": ("apply", "small.json", "other.yaml"),
        "out there already": ("apply", "small.json", "c.yaml", "-o", "own.csv"),
        "other measure": ("apply", "norms.json", "c.yaml"),
        "norms": (
            "apply",
            "norms.json",
            "many.yaml",
            "--where",
            "method=feature-norm",
            "-o",
            "norms.csv",
        ),
        "other seed": (
            *("apply", "chance.json", "many.yaml", "--where", "method=random"),
            *("--set", "steps.quality.options.seed=1"),
        ),
        "swapped": ("apply", "c.yaml", "small.json"),
        "absent": ("apply", "absent.json", "c.yaml"),
        "table": ("apply", "small.json", "plain.csv", "--column", "q", "-o", "places.csv"),
        "lines": ("apply", "small.json", "lines.txt", "-o", "lines.csv"),
        "table without a column": ("apply", "small.json", "plain.csv"),
        "table with a choice": (
            "apply",
            "small.json",
            "plain.csv",
            "--column",
            "q",
            "--where",
            "method=given",
        ),
        "column of a config": ("apply", "small.json", "c.yaml", "--column", "q"),
        "series of pandas": (
            "apply",
            "small.json",
            "series.csv",
            "--column",
            "0",
            "-o",
            "series_places.csv",
        ),
        "decimal commas": ("apply", "small.json", "commas.tsv"),
        "empty table": ("apply", "small.json", "empty.csv"),
        "absent table": ("apply", "small.json", "absent.csv", "--column", "q"),
        "help": ("--help",),
        "help calibrate": ("calibrate", "--help"),
        "help apply": ("apply", "--help"),
        "statistics": (),
    }
    words = {name: ("quality", *line) for name, line in lines.items()}
    words["statistics"] = (
        "check",
        "c.yaml",
        "--set",
        "steps.statistics.options.reference=small.json",
    )
    words["there already"] = (*words["there already"], "--json")  # another line than the first
    words["out there already"] = (*words["out there already"], "--where", "x=y")
    answers = commands(folder, list(words.values()))
    return folder, {name: answers[line] for name, line in words.items()}


def table(content: str) -> dict[str, list[str]]:
    header, *rows = csv.reader(io.StringIO(content))
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def test_calibrate_writes_the_percentiles_of_the_configs_scores_under_a_name(scored: Any) -> None:
    folder, answers = scored
    answer = answers["calibrate"]
    assert answer.code == 0, answer.err
    assert "wrote small.json: the reference set small, given of 469 faces" in answer.out
    found = json.loads((folder / "small.json").read_text())
    assert {name: found[name] for name in ("format", "set", "count")} == {
        "format": "qfuse-reference/1",
        "set": "small",
        "count": 469,
    }
    assert found["measure"]["method"] == "given"
    assert len(found["percentiles"]) == 101
    assert len(found["digest"]) == 64


def test_equal_scores_give_equal_bytes(scored: Any) -> None:
    folder, answers = scored
    assert (folder / "sub/again.json").read_bytes() == (folder / "small.json").read_bytes()
    assert answers["again elsewhere"].json == json.loads((folder / "small.json").read_text())


def test_apply_writes_the_place_of_each_face_beside_its_raw_score(scored: Any) -> None:
    folder, answers = scored
    assert answers["apply"].code == 0, answers["apply"].err
    assert (
        "wrote own.csv: 469 scores in the reference set small (469 faces), the median at 50.0; 0"
        " below" in answers["apply"].out
    )
    found = table((folder / "own.csv").read_text())
    assert list(found) == [
        "face_id",
        "status",
        "reason",
        "quality",
        "calibrated",
        "calibrated_integer",
    ]
    assert set(found["status"]) == {"ok"}
    raw, place = (np.array(found[name], float) for name in ("quality", "calibrated"))
    assert (
        np.abs(place - 100 * np.argsort(np.argsort(raw)) / 468).max() < 1
    )  # of its own set: exact at whole percentiles
    levels = json.loads((folder / "small.json").read_text())["percentiles"]
    np.testing.assert_allclose(place, np.interp(raw, levels, np.arange(101)), atol=1e-3)
    assert [int(value) for value in found["calibrated_integer"]] == np.floor(place + 0.5).astype(
        int
    ).tolist()


def test_without_a_file_the_table_is_printed_and_what_is_told_is_not_in_it(scored: Any) -> None:
    answer = scored[1]["apply, printed"]
    assert answer.code == 0, answer.err
    found = table(answer.out)
    assert len(found["face_id"]) == len(set(found["face_id"])) > 100
    assert "scores in the reference set small (469 faces)" in answer.err
    assert "note: given scores do not say what they measure" in answer.err


def test_one_cell_of_several_is_chosen_by_its_factor(scored: Any) -> None:
    folder, answers = scored
    assert answers["norms"].code == 0, answers["norms"].err
    assert answers["norms"].err == ""  # a norm says what it measures
    assert "feature-norm of 469 faces" in answers["one of several"].out
    assert min(map(float, table((folder / "norms.csv").read_text())["calibrated"])) == 0


def test_a_reference_set_is_a_reference_of_statistics(scored: Any) -> None:
    assert scored[1]["statistics"].code == 0, scored[1]["statistics"].err


def test_a_csv_gets_two_columns_and_a_warning_that_nothing_was_checked(scored: Any) -> None:
    folder, answers = scored
    assert answers["table"].code == 0, answers["table"].err
    assert (
        folder / "places.csv"
    ).read_text() == "id,q,calibrated,calibrated_integer\na,-100,0.0,0\nb,100,100.0,100\nc,,,\n"
    assert (
        "2 scores in the reference set small (469 faces), the median at 50.0; 1 below its least, 1"
        " above" in answers["table"].out
    )
    assert "a table does not say what its scores measure" in answers["table"].err


def test_lines_of_a_name_and_a_score_need_no_column(scored: Any) -> None:
    folder, answers = scored
    assert answers["lines"].code == 0, answers["lines"].err
    assert "1 below its least, 1 above its greatest, 1 without a score" in answers["lines"].out
    rows = [*csv.reader(io.StringIO((folder / "lines.csv").read_text()))]
    assert rows[0] == ["face", "quality", "calibrated", "calibrated_integer"]
    assert [row[0] for row in rows[1:]] == ["a.jpg", "b c.jpg", "d.jpg"]


def test_the_heading_of_a_series_of_pandas_is_no_face(scored: Any) -> None:
    folder, answers = scored
    assert answers["series of pandas"].code == 0, answers["series of pandas"].err
    rows = [*csv.reader(io.StringIO((folder / "series_places.csv").read_text()))]
    assert [row[:2] for row in rows] == [["", "0"], ["a.jpg", "-100"], ["b.jpg", "100"]]


SENTENCES = {
    "there already": (3, "small.json exists already"),
    "no name": (2, "--name"),
    "bad name": (2, "--name '../up': give letters, digits"),
    "empty name": (2, "--name '': give letters, digits"),
    "no place": (3, "c.yaml/x.json cannot be written: c.yaml is a file and should be a folder"),
    "no quality": (3, "small has no `quality` step: add `quality: {}`"),
    "several": (
        3,
        (
            "there are 3 of them (quality[method=feature-norm], quality[method=given],"
            " quality[method=random]): choose"
        ),
    ),
    "out there already": (3, "own.csv exists already"),
    "other measure": (
        3,
        (
            "norms.json: the reference set 'norms' was scored by 'feature-norm', and these faces"
            " are by 'given'"
        ),
    ),
    "other seed": (3, "was scored by the same measure with another seed"),
    "swapped": (3, "c.yaml is not a reference file of format qfuse-reference/1"),
    "absent": (
        3,
        (
            "absent.json cannot be read (No such file or directory); `qfuse quality calibrate"
            " CONFIG --name NAME` writes"
        ),
    ),
    "table without a column": (
        2,
        "its header (id, q) is line 1: say which column holds them, as in --column q.",
    ),
    "decimal commas": (3, "commas.tsv: line 1: quality is '0,5', which has a decimal comma"),
    "empty table": (3, "empty.csv is empty: expected a table of scores"),
    "table with a choice": (2, "--where, --set and --store belong to a config"),
    "column of a config": (
        2,
        "--column belongs to a table of scores (.csv, .tsv, .txt), which c.yaml is not",
    ),
    "absent table": (3, "absent.csv cannot be read"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_cannot_be_done_is_a_sentence(scored: Any, name: str) -> None:
    code, said = SENTENCES[name]
    answer = scored[1][name]
    assert answer.code == code
    assert said in " ".join(answer.err.split())


@pytest.mark.parametrize("name", ["help", "help calibrate", "help apply"])
def test_help_shows_a_worked_example(scored: Any, name: str) -> None:
    answer = scored[1][name]
    assert answer.code == 0
    assert f"Example: qfuse quality {name.partition(' ')[2]}" in " ".join(answer.out.split())


def test_only_the_quality_that_is_chosen_is_computed(qfuse: Qfuse, tmp_path: Path) -> None:
    assert (
        qfuse(
            "quality", "calibrate", "c.yaml", "--name", "x", *FACTOR, "--where", "method=given"
        ).code
        == 0
    )
    assert {path.name for path in (tmp_path / ".qfuse/store").iterdir()}.isdisjoint(
        {"embed", "statistics", "fuse"}
    )
