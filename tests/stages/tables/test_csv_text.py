"""What `stages.tables.csv_text` promises: no field of a table is a formula to a spreadsheet, and
numbers stay numbers.
"""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.tables import csv_text

FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+cmd|x",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "--x",
    "+a",
    "=1",
]
HARMLESS = ["a=b", "t000003", "", " x", "'=1", "0", "−1"]
NUMBERS = ["-1", "+3", "-0.5e-7", "-.5", "-1,5", "-12%", "-inf", "-nan"]


def fields(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def written(values: list[str]) -> list[str]:
    """The values as a table of rows has them; one of a data frame has the same."""
    rows = csv_text.of_rows(["text"], [[value, 1] for value in values])
    assert (
        csv_text.of_frame(pd.DataFrame({"text": values, "one": 1})).split("\n", 1)[1]
        == rows.split("\n", 1)[1]
    )
    return [row[0] for row in fields(rows)[1:]]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_would_be_a_formula_has_an_apostrophe_before_it(text: str) -> None:
    assert written([text]) == [f"'{text}"]


@pytest.mark.parametrize("text", [*HARMLESS, *NUMBERS, "-", "+"])
def test_any_other_text_and_every_number_is_as_it_was(text: str) -> None:
    assert written([text]) == [text]


def test_what_is_guarded_is_not_guarded_twice() -> None:
    assert written(written(FORMULAS)) == written(FORMULAS)


def test_headings_are_guarded_too() -> None:
    assert (
        csv_text.of_rows(["=a", "b"], [])
        == csv_text.of_frame(pd.DataFrame({"=a": [], "b": []}))
        == "'=a,b\n"
    )


def test_a_line_break_of_any_kind_stays_within_its_field() -> None:
    values = ["a\r=b", "a\n=b", "a\r\n=b", 'a"\r=b']
    assert written(values) == values


def test_a_frame_is_written_as_pandas_writes_it() -> None:
    frame = pd.DataFrame(
        {
            "float": [1.5, -np.inf, np.nan],
            "single": np.float32([0.1, -0.2, 3]),
            "count": pd.array([1, None, -3], dtype="Int64"),
            "flag": [True, False, True],
            "mixed": ["a", -2.5, None],
        }
    )
    assert csv_text.of_frame(frame) == frame.to_csv(index=False, lineterminator="\n")


def test_nobody_else_writes_tables_for_people() -> None:
    writers = set()
    root = Path(csv_text.__file__).parents[2]
    for path in (*root.glob("pipeline/**/*.py"), *root.glob("stages/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (
                node.attr == "to_csv"
                or (node.attr in ("writer", "DictWriter") and ast.unparse(node.value) == "csv")
            ):
                writers.add(path.name)
    assert writers == {
        "csv_text.py",
        "write.py",
    }  # the latter writes IJB's own files, in which ids are numbers
