"""What came out, in sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from small_tables import EER, MEAN, Make, clean, compared, table, tar

from stages.results.quantities import Quantity
from stages.results.ranking import (
    equal_to,
    grouped,
)
from stages.results.rule_table import RuleTable
from stages.results.verdict import nothing_defined, verdicts


def said(found: RuleTable, q: Quantity) -> tuple[str, str]:
    (one,) = verdicts(grouped(found, q), q)
    return one.answer, one.more


def test_the_answer_names_a_clear_winner_with_both_values_and_the_difference(row: Make) -> None:
    answer, more = said(
        compared(row, tar(1e-3), a=(0.1, 0.05, 0.2), b=(-0.1, -0.2, -0.05), c=(0.0, -0.1, 0.1)),
        tar(1e-3),
    )
    assert (
        answer
        == "a is clearly better than the baseline mean: TAR @ FMR ≤ 1e-3 is 60.00 % [59.00, 61.00]"
        " against 50.00 % [49.00, 51.00], a difference of +10.00 points [+5.00, +20.00]."
    )
    assert (
        more
        == "It was picked as the best of 3 rows after the fact. Of 3 different rows, 1 is clearly"
        " better than the baseline, 1 clearly worse, and 1 cannot be told apart from the"
        " baseline. Last comes b: −10.00 points [−20.00, −5.00]."
    )


def test_rows_that_cannot_be_told_apart_from_the_first_are_named(row: Make) -> None:
    found = compared(row, EER, a=(-0.2, -0.3, -0.1), b=(-0.19, -0.3, -0.1), c=(-0.1, -0.2, -0.05))
    rng = np.random.default_rng(0)
    noise = {
        "a": rng.normal(0, 0.01, 50),
        "b": rng.normal(0, 0.05, 50),
        "c": rng.normal(0, 0.01, 50),
    }
    rows = [
        (
            replace(
                r,
                entries={
                    EER: replace(
                        r.entries[EER], replicates=r.entries[EER].value + noise[r.factors["rule"]]
                    )
                },
            )
            if r.factors["rule"] in noise
            else r
        )
        for r in found.rows
    ]
    _, more = said(table(rows), EER)
    assert (
        "It was picked as the best of 3 rows after the fact, and b cannot be told apart from a."
        in more
    )


def test_a_row_that_repeats_anothers_numbers_is_counted_once_and_names_it(row: Make) -> None:
    found = compared(row, EER, a=(-0.2, -0.3, -0.1), b=(-0.2, -0.3, -0.1), c=(0.1, 0.05, 0.2))
    drawn = np.linspace(0.1, 0.2, 50)
    rows = [
        replace(r, entries={EER: replace(e, replicates=drawn + e.value)})
        for r in found.rows
        for e in [r.entries[EER]]
    ]
    assert "Of 2 different rows" in said(table(rows), EER)[1]
    twin = equal_to(rows[1], rows)
    assert twin is not None
    assert twin.factors == {"rule": "a"}
    assert equal_to(rows[2], rows) is None


def test_the_answer_claims_nothing_where_the_best_interval_holds_0(row: Make) -> None:
    answer, more = said(
        compared(row, tar(1e-3), a=(0.1, -0.05, 0.2), b=(0.0, -0.1, 0.1)), tar(1e-3)
    )
    assert (
        answer
        == "No row is clearly better than the baseline mean, whose TAR @ FMR ≤ 1e-3 is 50.00 %"
        " [49.00, 51.00]."
    )
    assert "a: +10.00 points [−5.00, +20.00], an interval that holds 0." in more
    assert "0 are clearly better" in more


def test_an_interval_on_few_false_matches_claims_nothing_and_says_so(row: Make) -> None:
    found = compared(row, tar(1e-3), a=(0.1, 0.05, 0.2))
    few = [
        replace(
            r,
            entries={
                q: replace(
                    e, few_matches=True, difference=e.difference and replace(e.difference, few=True)
                )
                for q, e in r.entries.items()
            },
        )
        for r in found.rows
    ]
    answer = " ".join(said(table(few), tar(1e-3)))
    assert "+10.00 points [+5.00, +20.00], an interval that rests on few errors (†)" in answer


def test_of_one_row_whose_interval_rests_on_few_errors_neither_better_nor_equal_is_said(
    row: Make,
) -> None:
    found = compared(row, tar(1e-3), a=(0.1, 0.05, 0.2))
    few = [
        replace(
            r,
            entries={
                q: replace(e, difference=e.difference and replace(e.difference, few=True))
                for q, e in r.entries.items()
            },
        )
        for r in found.rows
    ]
    answer, _ = said(table(few), tar(1e-3))
    assert answer.startswith(
        "a and the baseline mean make too few errors to be told apart for certain: TAR @ FMR ≤"
        " 1e-3 is"
    )


def test_a_row_that_is_clearly_better_is_named_though_another_on_few_errors_comes_first(
    row: Make,
) -> None:
    found = compared(row, tar(1e-3), a=(0.2, 0.1, 0.3), b=(0.1, 0.05, 0.2))
    few = [
        (
            replace(
                r,
                entries={
                    q: replace(e, difference=e.difference and replace(e.difference, few=True))
                    for q, e in r.entries.items()
                },
            )
            if r.factors["rule"] == "a"
            else r
        )
        for r in found.rows
    ]
    answer, more = said(table(few), tar(1e-3))
    assert answer.startswith("b is clearly better than the baseline mean")
    assert more.startswith(
        "First by value comes a: +20.00 points [+10.00, +30.00], an interval that rests on few"
        " errors (†)."
    )
    assert (
        "1 is clearly better than the baseline, 0 clearly worse, and of 1 the interval leaves out 0"
        " but rests on few" in more
    )


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        ((0.1, 0.05, 0.2), "a is clearly worse than the baseline mean"),
        ((-0.1, -0.2, -0.05), "a is clearly better than the baseline mean"),
        ((0.1, -0.05, 0.2), "a is not to be told apart from the baseline mean"),
    ],
)
def test_a_single_row_is_judged_by_itself(
    row: Make, difference: tuple[float, float, float], verdict: str
) -> None:
    answer, more = said(compared(row, EER, a=difference), EER)
    assert answer.startswith(verdict)
    assert more == ""


def test_without_intervals_no_row_is_called_better(row: Make) -> None:
    answer, more = said(
        compared(row, tar(1e-3), a=(0.1, math.nan, math.nan), b=(0.0, math.nan, math.nan)),
        tar(1e-3),
    )
    assert answer.startswith("No row is clearly better")
    assert "a: +10.00 points, without an interval" in more


def test_a_row_whose_number_is_not_defined_is_not_spoken_of(row: Make) -> None:
    _, more = said(
        compared(row, tar(1e-3), a=(0.1, 0.05, 0.2), b=(0.1, 0.05, 0.2), n=(math.nan,) * 3),
        tar(1e-3),
    )
    assert "Of 2 different rows" in more
    assert "n:" not in more


def test_a_table_without_a_baseline_is_ranked_and_nothing_said_of_differences(row: Make) -> None:
    found = table([row({"rule": "x"}, {EER: 0.2}), row({"rule": "y"}, {EER: 0.1})], {})
    answer, more = said(found, EER)
    assert answer == "y comes first of 2: EER is 10.00 % [9.00, 11.00]."
    assert "Last comes x" in more
    assert "nothing is said of differences" in more


def test_a_run_that_evaluated_nothing_says_so() -> None:
    assert [one.answer for one in verdicts([], None)] == ["This run evaluated nothing."]


def test_where_no_row_has_an_error_nothing_is_compared_and_the_set_is_said_to_tell_nothing(
    row: Make,
) -> None:
    answer, more = said(table(clean(row, "a", "b")), tar(1e-3))
    assert answer.startswith("No error was seen among 100 trials: TAR @ FMR ≤ 1e-3 is 100.00 %")
    assert answer.endswith("in all 3 rows. This set cannot tell them apart by it.")
    assert more == ""


def test_one_row_without_an_error_is_said_to_have_none(row: Make) -> None:
    answer, _ = said(table([row({"rule": "a"}, {EER: 0.0})], {}), EER)
    assert answer.startswith("No error was seen among 100 trials: EER is 0.00 %")


def test_where_no_row_has_the_number_nothing_is_said_to_be_compared_and_why(row: Make) -> None:
    lost = Quantity("1:1", EER.step, "comparisons_lost", None, "")
    rows = [
        row(MEAN, {EER: math.nan, lost: 27.0}, is_baseline=True, reference=MEAN),
        row({"rule": "a"}, {EER: math.nan}),
    ]
    told = (
        "No row has a defined EER: up to 27 comparisons were lost because a template failed."
        " Nothing is compared"
    )
    for found in (table(rows), table(rows, {})):
        assert said(found, EER)[0].startswith(told)
    assert nothing_defined(rows, EER).startswith(told)
    assert nothing_defined([*rows, row({"rule": "b"}, {EER: 0.1})], EER) == ""


def test_a_baseline_without_the_number_is_said_to_have_none(row: Make) -> None:
    base, other = (
        row(MEAN, {EER: math.nan}, is_baseline=True, reference=MEAN),
        row({"rule": "a"}, {EER: 0.1}),
    )
    answer, _ = said(table([base, replace(other, reference=MEAN)]), EER)
    assert (
        answer == "EER of the baseline mean is not defined, so nothing is compared; see the table."
    )
