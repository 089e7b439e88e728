"""What comes first: the main number, the order of rows, and the words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.config.config import Config, DatasetConfig
from stages.results.headline import (
    columns,
    direction,
    equal_to,
    goodness,
    grouped,
    name_of,
    named,
    primary,
    sentences,
    undefined,
    winner,
)
from stages.results.quantities import Quantity
from stages.results.report_options import read_options
from stages.results.rule_table import Row, RuleTable

Make = Callable[..., Row]
MEAN = {"rule": "mean"}


def tar(target: float, rule: str = "at_most") -> Quantity:
    return Quantity("1:1", "v", "tar", target, rule)


EER, RANK = Quantity("1:1", "v", "eer", None, ""), Quantity("1:N", "i", "rank", 1.0, "")


def tpir(target: float) -> Quantity:
    return Quantity("1:N", "i", "tpir", target, "at_most")


def table(rows: Sequence[Row], baseline: Mapping[str, Any] = MEAN) -> RuleTable:
    quantities = tuple(dict.fromkeys(q for row in rows for q in row.entries))
    return RuleTable(tuple(rows), quantities, ("rule",), {}, baseline, 100, 0.95)


def of_one(row: Make, *numbers: Quantity, few: Sequence[Quantity] = ()) -> RuleTable:
    """A table of one row that has these numbers, some of them on fewer than 30 false matches."""
    solid, shaky = (
        row(MEAN, dict.fromkeys(numbers, 0.9)),
        row(MEAN, dict.fromkeys(few, 0.9), few=True),
    )
    return table([Row(MEAN, (), {**shaky.entries, **solid.entries})])


def compared(row: Make, q: Quantity = EER, **differences: tuple[float, float, float]) -> RuleTable:
    base = row(MEAN, {q: 0.5}, is_baseline=True, reference=MEAN)
    others = [
        row({"rule": name}, {q: (0.5 + d[0], *d)}, reference=MEAN)
        for name, d in differences.items()
    ]
    return table([*others, base])


def said(found: RuleTable, q: Quantity) -> tuple[str, str]:
    (one,) = sentences(grouped(found, q), q)
    return one.answer, one.more


def test_the_main_number_is_the_strictest_headline_fmr_with_30_false_matches(row: Make) -> None:
    assert primary(
        of_one(row, tar(1e-1), tar(1e-3), EER, few=[tar(1e-4)]), read_options({})
    ) == tar(1e-3)
    assert primary(of_one(row, tar(1e-1), tar(1e-3), tar(1e-4), EER), read_options({})) == tar(1e-4)


def test_without_a_solid_headline_fmr_the_main_number_is_the_eer(row: Make) -> None:
    assert primary(of_one(row, tar(1e-1), EER, few=[tar(1e-3)]), read_options({})) == EER


def test_one_shaky_row_keeps_an_fmr_from_being_the_main_number(row: Make) -> None:
    solid, shaky = (
        row(MEAN, {tar(1e-3): 0.9, EER: 0.1}),
        row({"rule": "best"}, {tar(1e-3): 0.9}, few=True),
    )
    assert primary(table([solid, shaky]), read_options({})) == EER


def test_an_fmr_that_is_undefined_in_one_row_is_not_the_main_number(row: Make) -> None:
    defined, undefined = (
        row(MEAN, {tar(1e-3): 0.9, EER: 0.1}),
        row({"rule": "best"}, {tar(1e-3): math.nan}),
    )
    assert primary(table([defined, undefined]), read_options({})) == EER


def test_the_fmr_that_is_asked_for_is_the_main_number_however_shaky(row: Make) -> None:
    assert primary(
        of_one(row, tar(1e-1), EER, few=[tar(1e-3)]), read_options({"fmr": [1e-3, 1e-1]})
    ) == tar(1e-3)


def test_a_run_of_searches_only_is_led_by_rank_1(row: Make) -> None:
    five = Quantity("1:N", "i", "rank", 5.0, "")
    assert primary(of_one(row, five, RANK), read_options({})) == RANK


def test_the_point_nearest_an_fmr_is_never_a_headline(row: Make) -> None:
    found = of_one(row, tar(1e-3, "nearest"), tar(1e-3), RANK)
    assert columns(found, read_options({})) == [tar(1e-3), RANK]


def test_frr_stands_beside_the_main_tar_where_templates_failed(row: Make) -> None:
    frr, fta = (
        Quantity("1:1", "v", metric, target, rule)
        for metric, target, rule in (("frr", 1e-3, "at_most"), ("fta", None, ""))
    )
    for share, shown in ((0.0, False), (0.1, True)):
        found = table([row(MEAN, {tar(1e-3): 0.9, frr: 0.2, fta: share})])
        assert (frr in columns(found, read_options({}))) is shown


def test_rows_stand_under_their_baseline_from_best_to_worst_and_undefined_last(row: Make) -> None:
    found = compared(
        row, tar(1e-3), c=(-0.1, -0.2, 0.0), a=(0.2, 0.1, 0.3), n=(math.nan,) * 3, b=(0.1, 0.0, 0.2)
    )
    (group,) = grouped(found, tar(1e-3))
    assert [r.factors["rule"] for r in group.rows] == ["mean", "a", "b", "c", "n"]


def test_where_lower_is_better_the_lowest_row_comes_first(row: Make) -> None:
    (group,) = grouped(compared(row, EER, worse=(0.1, 0.0, 0.2), better=(-0.1, -0.2, 0.0)), EER)
    assert [r.factors["rule"] for r in group.others] == ["better", "worse"]
    assert goodness(group.others[0], EER) > goodness(group.others[1], EER)


def test_rows_compared_with_nothing_come_last(row: Make) -> None:
    found = table([row({"rule": "x"}, {EER: 0.0}), *compared(row, EER, a=(0.1, 0.05, 0.2)).rows])
    assert [group.baseline is None for group in grouped(found, EER)] == [False, True]


@pytest.mark.parametrize(
    ("q", "interval", "sign"),
    [
        (EER, (-0.2, -0.1), 1),
        (EER, (0.1, 0.2), -1),
        (tar(1e-3), (0.1, 0.2), 1),
        (tar(1e-3), (-0.2, -0.1), -1),
        (tar(1e-3), (-0.1, 0.2), 0),
        (tar(1e-3), (0.0, 0.2), 0),
        (tar(1e-3), (math.nan, math.nan), 0),
    ],
)
def test_a_direction_is_given_only_where_the_interval_leaves_out_0(
    row: Make, q: Quantity, interval: tuple[float, float], sign: int
) -> None:
    assert direction(row(MEAN, {q: (0.5, 0.1, *interval)}), q) == sign


def test_the_best_row_wins_only_if_it_is_clearly_better(row: Make) -> None:
    q = tar(1e-3)
    (clear,), (unclear,) = (
        grouped(compared(row, q, a=(0.1, low, 0.2)), q) for low in (0.05, -0.05)
    )
    best = winner(clear, q)
    assert best is not None
    assert best.factors == {"rule": "a"}
    assert winner(unclear, q) is None


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
    assert [one.answer for one in sentences([], None)] == ["This run evaluated nothing."]


def test_a_row_is_named_by_its_rule_first() -> None:
    assert name_of({"method": "lightqnet", "rule": "best"}) == "best · lightqnet"
    assert name_of({}) == "all"
    assert name_of({"rule": "best", "model": "m"}, without=["model"]) == "best"


def clean(row: Make, *names: str) -> list[Row]:
    """Rows that have no error: a TAR of 1, and differences of 0 that have no interval."""
    made = [
        row({"rule": name}, {tar(1e-3): (1.0, 0.0, math.nan, math.nan)}, reference=MEAN)
        for name in names
    ]
    return [row(MEAN, {tar(1e-3): 1.0}, is_baseline=True, reference=MEAN), *made]


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


def test_the_targets_that_the_config_names_are_shown_and_one_of_them_is_the_main_number(
    row: Make,
) -> None:
    found = of_one(row, tar(1e-1), tar(1e-2), tar(1e-3), EER, tpir(1e-1), tpir(1e-3))
    assert columns(found, read_options({})) == [tar(1e-3), EER, tpir(1e-1)]
    assert columns(found, read_options({}), [1e-1, 1e-2], [1e-3]) == [
        tar(1e-2),
        tar(1e-1),
        EER,
        tpir(1e-3),
    ]
    assert columns(found, read_options({"fmr": [1e-3]}), [1e-1, 1e-2]) == [
        tar(1e-3),
        EER,
        tpir(1e-1),
    ]


def test_only_what_evaluating_steps_of_the_kind_name_themselves_counts_as_named() -> None:
    steps = {
        "evaluate_verification": {"options": {"fmr": [0.1, 0.01]}},
        "again": {"stage": "evaluate_verification", "options": {"fmr": [0.01, 0.5]}},
        "evaluate_discard": {"options": {"fmr": [0.25]}},
        "evaluate_identification": {},
    }
    config = Config(name="c", dataset=DatasetConfig(reader="lfw"), steps=steps)  # type: ignore[arg-type]
    assert named(config, "1:1", "fmr") == (0.1, 0.01, 0.5)
    assert named(config, "1:N", "fpir") == ()


def test_a_number_that_no_row_has_defined_has_no_column(row: Make) -> None:
    rows = [row(MEAN, {EER: 0.1, tpir(1e-1): math.nan, tpir(1e-2): math.nan})]
    assert columns(table(rows), read_options({})) == [EER]
    rows.append(row({"rule": "a"}, {EER: 0.1, tpir(1e-1): 0.5}))
    assert columns(table(rows), read_options({})) == [EER, tpir(1e-1)]


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
    assert undefined(rows, EER).startswith(told)
    assert undefined([*rows, row({"rule": "b"}, {EER: 0.1})], EER) == ""


def test_a_baseline_without_the_number_is_said_to_have_none(row: Make) -> None:
    base, other = (
        row(MEAN, {EER: math.nan}, is_baseline=True, reference=MEAN),
        row({"rule": "a"}, {EER: 0.1}),
    )
    answer, _ = said(table([base, replace(other, reference=MEAN)]), EER)
    assert (
        answer == "EER of the baseline mean is not defined, so nothing is compared; see the table."
    )


def test_few_mated_errors_alone_keep_a_difference_from_being_claimed(row: Make) -> None:
    entry = row(MEAN, {EER: 0.5}).entries[EER]
    assert (entry.few, replace(entry, misses=29).few, replace(entry, misses=30).few) == (
        False,
        True,
        False,
    )
    assert replace(entry, few_matches=True).few
