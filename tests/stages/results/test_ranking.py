"""Which number comes first, and the order of rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_tables import EER, MEAN, RANK, Make, compared, of_one, table, tar, tpir

from pipeline.config.config import Config, DatasetConfig
from stages.results.quantities import Quantity, name_of
from stages.results.ranking import (
    columns,
    direction,
    goodness,
    grouped,
    primary,
    targets_named,
    winner,
)
from stages.results.report_options import read_options


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


def test_a_row_is_named_by_its_rule_first() -> None:
    assert name_of({"method": "lightqnet", "rule": "best"}) == "best · lightqnet"
    assert name_of({}) == "all"
    assert name_of({"rule": "best", "model": "m"}, without=["model"]) == "best"


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
    assert targets_named(config, "1:1", "fmr") == (0.1, 0.01, 0.5)
    assert targets_named(config, "1:N", "fpir") == ()


def test_a_number_that_no_row_has_defined_has_no_column(row: Make) -> None:
    rows = [row(MEAN, {EER: 0.1, tpir(1e-1): math.nan, tpir(1e-2): math.nan})]
    assert columns(table(rows), read_options({})) == [EER]
    rows.append(row({"rule": "a"}, {EER: 0.1, tpir(1e-1): 0.5}))
    assert columns(table(rows), read_options({})) == [EER, tpir(1e-1)]


def test_few_mated_errors_alone_keep_a_difference_from_being_claimed(row: Make) -> None:
    entry = row(MEAN, {EER: 0.5}).entries[EER]
    assert (entry.few, replace(entry, misses=29).few, replace(entry, misses=30).few) == (
        False,
        True,
        False,
    )
    assert replace(entry, few_matches=True).few
