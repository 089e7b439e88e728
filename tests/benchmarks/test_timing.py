"""Timing: both ways in turn, a common method once for all lines that have it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.material import Row
from benchmarks.page import line
from benchmarks.timing import REPEATS, Timing, measured, of_common, side_by_side


@pytest.fixture
def called() -> list[str]:
    return []


@pytest.fixture
def row(called: list[str]) -> Row:
    def way(name: str) -> Callable[[], str]:
        def call() -> str:
            called.append(name)
            return name

        return call

    return Row("a step", way("ours"), way("theirs"), lambda theirs, ours: f"{theirs} and {ours}")


def test_both_ways_are_timed_in_turn(row: Row, called: list[str]) -> None:
    ours, theirs = side_by_side(row, budget=60)
    assert called == ["ours", "theirs"] * REPEATS
    assert (len(ours.seconds), len(theirs.seconds)) == (REPEATS, REPEATS)
    assert (ours.result, theirs.result) == ("ours", "theirs")


def test_each_way_is_timed_once_however_small_the_budget(row: Row, called: list[str]) -> None:
    side_by_side(row, budget=0)
    assert called == ["ours", "theirs"]


def test_a_common_method_of_several_lines_is_timed_for_the_first(
    row: Row, called: list[str]
) -> None:
    common: dict[object, Timing] = {}
    measured(row, common, budget=0)
    measured(Row("another", row.ours, row.common), common, budget=0)
    assert called == ["ours", "theirs", "ours"]


def test_a_line_made_of_lines_that_are_left_out_has_no_common_time(row: Row) -> None:
    assert of_common(Row("sum", row.ours, ("a step",)), {}, budget=0) is None
    assert line(Row("sum", row.ours, ("a step",)), Timing([1.0], "ours"), None).startswith(
        "| sum | – | 1 s (n=1) | – |"
    )


def test_a_line_tells_speeds_ratio_and_how_results_compare() -> None:
    row = Row("net", lambda: 1, lambda: 1, lambda theirs, ours: "same", 10, "images/s")
    told = line(row, Timing([2.0], 1), Timing([4.0], 1))
    assert told == "| net | 2 images/s (n=1) | 5 images/s (n=1) | 2 | same |"


def test_the_share_of_a_product_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.inference.product_rate", lambda precision: 50.0)
    row = Row("net", lambda: 1, amount=10, unit="images/s", gflop=80)
    told = line(row, Timing([2.0], 1), None)
    assert "40 GFLOP/s, 80% of PyTorch's product" in told
