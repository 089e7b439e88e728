"""The table at the end of a run, in terminals of any width."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.core.registry import available
from pipeline.session import Results
from stages.report.terminal import terminal_table
from stages.results import ranking, rule_table


def printed(results: Results, width: int, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_table(results, options, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_prints_it() -> None:
    assert available("terminal report")["html"] is terminal_table


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_row_is_one_line_that_fits(results: Results, width: int) -> None:
    lines = printed(results, width).splitlines()
    assert max(map(len, lines)) <= width
    names = [line.split("  ")[0] for line in lines[3:9]]
    assert sorted(names) == sorted(
        [
            "mean",
            "media-mean",
            *(
                f"{rule} · {method}"
                for rule in ("quality-linear", "best")
                for method in ("given", "feature-norm")
            ),
        ]
    )


def test_a_narrow_terminal_drops_numbers_from_the_right_and_says_so(results: Results) -> None:
    narrow, wide = printed(results, 70), printed(results, 160)
    assert "rank-1" in wide
    assert "rank-1" not in narrow
    assert "more headline numbers in a wider terminal and in the report" in " ".join(narrow.split())
    assert "more headline" not in wide


def test_the_main_number_and_its_difference_are_always_there(results: Results) -> None:
    lines = printed(results, 66).splitlines()
    assert "difference, points" in lines[1]
    assert any("baseline" in line for line in lines)


def test_directions_are_marked_without_colour_and_conventions_stand_below(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so small a set has few mated errors, and every number is marked
    monkeypatch.setattr(rule_table, "FEW", 0)
    text = printed(results, 140, fmr=[1e-2])
    assert "▲ +" in text
    assert "▼ −" in text
    monkeypatch.setattr(ranking, "targets_named", lambda *_: ())
    assert "▲ −" in printed(results, 140)  # the EER: lower is better
    assert "score ≥ threshold" in text
    assert "95 % bootstrap over subjects" in text


def test_decimals_stand_under_each_other_whether_marked_or_not(results: Results) -> None:
    lines = [
        line
        for line in printed(results, 200).splitlines()
        if "†" in line and "%" not in line and "percent" not in line
    ]
    marked = {i for line in lines for i, letter in enumerate(line) if letter == "†"}
    rows = printed(results, 200).splitlines()[3:9]
    assert lines
    assert all(row[i] in "† " for row in rows for i in marked)


def test_a_table_without_a_baseline_has_no_column_of_differences(results: Results) -> None:
    text = printed(results, 160, average=["rule", "method"])
    assert "difference, points" not in text
    assert "means over rule (4), method (2)" in text


def test_a_run_that_evaluated_nothing_says_so_instead_of_a_table(
    tmp_path: Path, runs: Any, small: Any
) -> None:
    config = {
        "name": "bare",
        "dataset": small["dataset"],
        "steps": {"embed": small["steps"]["embed"]},
        "report": {},
    }
    assert printed(runs(config, tmp_path), 80) == "This run evaluated nothing.\n"
