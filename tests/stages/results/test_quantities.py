"""How numbers are named and written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.results.quantities import Quantity, interval_written, number_label, written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (1e-3, "1e-3"),
        (2.5e-4, "2.5e-4"),
        (0.1, "1e-1"),
        (5.0, "5"),
        (0.0, "0"),
        (10.0, "10"),
    ],
)
def test_a_target_is_written_shortly(value: float | None, text: str) -> None:
    assert number_label(value) == text


@pytest.mark.parametrize(
    ("metric", "value", "signed", "text"),
    [
        ("tar", 0.94184, False, "94.18"),
        ("tar", 1.0, False, "100.00"),
        ("tar", 0.0327, True, "+3.27"),
        ("tar", -0.2022, True, "−20.22"),
        ("tar", 0.00001, True, "0.00"),
        ("tar", -0.00001, True, "0.00"),
        ("tar", -0.00001, False, "0.00"),
        ("tar", math.nan, True, "–"),
        ("comparisons_lost", 12.0, False, "12"),
        ("comparisons_lost", 12.5, False, "12.5"),
        ("comparisons_lost", -3.0, True, "−3"),
    ],
)
def test_a_rate_is_written_in_percent_and_a_count_as_it_is(
    metric: str, value: float, signed: bool, text: str
) -> None:
    assert written(metric, value, signed) == text


@given(st.floats(-1, 1), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_written_rate_reads_back_to_half_a_digit(value: float, signed: bool) -> None:
    text = written("tar", value, signed)
    assert "-" not in text
    assert abs(float(text.replace("−", "-")) / 100 - value) <= 0.5e-4 + 1e-12


def test_an_interval_without_a_bound_is_not_written() -> None:
    assert interval_written("tar", math.nan, 0.5) == ""
    assert interval_written("tar", 0.5, math.nan) == ""
    assert interval_written("tar", -0.01, 0.02, signed=True) == "[−1.00, +2.00]"


@pytest.mark.parametrize(
    ("metric", "target", "rule", "label"),
    [
        ("tar", 1e-3, "at_most", "TAR @ FMR ≤ 1e-3"),
        ("tar", 1e-3, "nearest", "TAR @ FMR ≈ 1e-3"),
        ("frr", 1e-2, "at_most", "FRR @ FMR ≤ 1e-2"),
        ("tpir", 1e-1, "at_most", "TPIR @ FPIR ≤ 1e-1"),
        ("rank", 5.0, "", "rank-5"),
        ("eer", None, "", "EER"),
        ("comparisons_lost", None, "", "comparisons lost"),
        ("fused_fallback", None, "", "all weights vanished"),
        (
            "pooled_script",
            1e-2,
            "",
            "pooled script, not TPIR, @ the ⌈1e-2 · probes⌉-th pooled score",
        ),
        ("accuracy_deviation", None, "", "accuracy, SD of folds"),
    ],
)
def test_a_quantity_is_named_with_its_threshold_rule_and_target(
    metric: str, target: float | None, rule: str, label: str
) -> None:
    assert Quantity("1:1", "s", metric, target, rule).label == label
