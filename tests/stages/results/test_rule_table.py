"""From cells to rows: averaging, paired differences, the choice of a baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.config.config import Config, DatasetConfig
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.session import Results
from stages.results.frames import row_frame
from stages.results.quantities import Quantity
from stages.results.report_options import check_options, read_options
from stages.results.rule_table import (
    Cell,
    Difference,
    Row,
    RuleTable,
    _compared,
    cells,
    few_behind,
    rule_table,
)


def table(results: Results, found: list[Cell] | None = None, **options: Any) -> RuleTable:
    return rule_table(results, read_options(options, results.plan.config.factors), found)


def row_of(found: RuleTable, **factors: Any) -> Row:
    (row,) = (row for row in found.rows if all(row.factors.get(k) == v for k, v in factors.items()))
    return row


def cells_of(results: Results, kind: str, **factors: Any) -> list[Cell]:
    return [
        c
        for c in cells(results)
        if c.kind == kind and all(c.factors.get(k) == v for k, v in factors.items())
    ]


def value_of(cell: Cell, metric: str, target: float) -> tuple[float, np.ndarray]:
    n = cell.numbers
    (i,) = np.flatnonzero(
        (n["metric"] == metric) & np.isclose(n["target"], target) & (n["rule"] == "at_most")
    )
    return float(n["value"][i]), n["replicates"][i].astype(np.float64)


def test_rules_that_use_no_quality_have_one_row_whatever_the_method(results: Results) -> None:
    rows = table(results).rows
    assert [row.factors for row in rows if row.factors["rule"] in ("mean", "media-mean")] == [
        {"rule": "mean"},
        {"rule": "media-mean"},
    ]
    assert len(rows) == 2 + 2 * 2


def test_a_row_holds_the_numbers_of_both_kinds_of_evaluation(results: Results) -> None:
    for row in table(results).rows:
        assert {q.kind for q in row.entries} == {"1:1", "1:N"}


def test_averaging_is_the_mean_of_values_and_of_replicates_one_by_one(results: Results) -> None:
    found = table(results, average=["method"])
    (q,) = found.find("tar", 1e-2)
    entry = row_of(found, rule="best").entries[q]
    parts = [value_of(cell, "tar", 1e-2) for cell in cells_of(results, "1:1", rule="best")]
    assert entry.cells == len(parts) == 2
    assert entry.value == pytest.approx(np.mean([value for value, _ in parts]))
    assert entry.replicates == pytest.approx(np.mean([drawn for _, drawn in parts], axis=0))
    assert (entry.low, entry.high) == pytest.approx(np.quantile(entry.replicates, [0.025, 0.975]))
    assert found.average == {"method": ("given", "feature-norm")}


def test_a_factor_of_one_value_is_not_said_to_be_averaged(results: Results) -> None:
    config = results.plan.config.model_copy(
        update={"factors": {**results.plan.config.factors, "method": ["given"]}}
    )
    one = replace(
        results, session=replace(results.session, plan=replace(results.plan, config=config))
    )
    found = table(
        one,
        [c for c in cells(results) if c.factors.get("method", "given") == "given"],
        average=["method"],
    )
    assert found.average == {}
    assert found.factors == ("rule",)


def test_a_number_missing_in_one_cell_is_missing_in_the_mean(results: Results) -> None:
    found = [c for c in cells(results) if c.factors.get("rule") == "best" and c.kind == "1:1"]
    first = found[0]
    spoilt = {
        **first.numbers.columns,
        "value": np.where(first.numbers["metric"] == "eer", np.nan, first.numbers["value"]),
    }
    broken = [Cell(first.step, first.factors, "1:1", Batch(spoilt), first.curves), *found[1:]]
    made = table(results, broken, average=["method"])
    (row,) = made.rows
    assert np.isnan(row.entries[made.find("eer")[0]].value)
    assert np.isfinite(row.entries[made.find("tar", 1e-2)[0]].value)


def test_counts_are_the_smallest_and_one_shaky_cell_marks_the_row(results: Results) -> None:
    found = table(results, average=["method"])
    (q,) = found.find("tpir", 1e-2)
    entry = row_of(found, rule="best").entries[q]
    parts = [c.numbers for c in cells_of(results, "1:N", rule="best")]
    at = [(n["metric"] == "tpir") & np.isclose(n["target"], 1e-2) for n in parts]
    assert entry.false_matches == min(
        int(n["false_matches"][i][0]) for n, i in zip(parts, at, strict=True)
    )
    assert entry.few_matches == any(bool(n["few"][i][0]) for n, i in zip(parts, at, strict=True))


def test_a_number_that_is_not_defined_is_not_said_to_rest_on_few_false_matches(
    results: Results,
) -> None:
    first = next(c for c in cells(results) if c.kind == "1:1")
    for value, few in ((0.5, True), (np.nan, False)):
        n = first.numbers
        spoilt = Batch({**n.columns, "value": np.full(n.rows, value), "few": np.ones(n.rows, bool)})
        (row,) = table(results, [Cell(first.step, first.factors, "1:1", spoilt, first.curves)]).rows
        assert {entry.few for entry in row.entries.values()} == {few}


def test_a_quantity_is_found_at_its_own_target_however_small() -> None:
    small = [Quantity("1:1", "v", "tar", target, "at_most") for target in (1e-8, 1e-9)]
    found = RuleTable((), tuple(small), (), {}, {}, 0, 0.95)
    assert found.find("tar", 1e-9) == [small[1]]
    assert found.find("tar", 1e-3) == []


def test_a_difference_is_paired_replicate_by_replicate(results: Results) -> None:
    found = table(results)
    (q,) = found.find("tar", 1e-2)
    mean, base = value_of(cells_of(results, "1:1", rule="mean")[0], "tar", 1e-2)
    value, drawn = value_of(
        cells_of(results, "1:1", rule="best", method="feature-norm")[0], "tar", 1e-2
    )
    d = row_of(found, rule="best", method="feature-norm").entries[q].difference
    assert d is not None
    assert d.value == pytest.approx(value - mean)
    assert (d.low, d.high) == pytest.approx(np.quantile(drawn - base, [0.025, 0.975]), abs=1e-6)
    assert d.high - d.low < (drawn.max() - drawn.min()) + (base.max() - base.min())


def test_the_baseline_is_the_mean_unless_told_otherwise(results: Results) -> None:
    found = table(results)
    assert found.baseline == {"rule": "mean"}
    assert [row.factors["rule"] for row in found.rows if row.is_baseline] == ["mean"]
    assert all(row.reference == {"rule": "mean"} for row in found.rows)


def test_rows_are_compared_with_the_baseline_that_agrees_in_all_else(results: Results) -> None:
    found = table(results, baseline={"rule": "quality-linear"})
    assert row_of(found, rule="best", method="given").reference == {
        "rule": "quality-linear",
        "method": "given",
    }
    assert sum(row.is_baseline for row in found.rows) == 2


def test_a_row_that_fits_two_baselines_is_compared_with_neither(results: Results) -> None:
    row = row_of(table(results, baseline={"rule": "quality-linear"}), rule="media-mean")
    assert row.reference is None
    assert all(entry.difference is None for entry in row.entries.values())


def test_without_a_mean_there_is_no_baseline_and_no_difference(results: Results) -> None:
    found = table(results, [c for c in cells(results) if c.factors["rule"] != "mean"])
    assert found.baseline == {}
    assert all(entry.difference is None for row in found.rows for entry in row.entries.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"average": ["methd"]}, r"report\.options\.average: .*'methd'.*did you mean 'method'"),
        ({"baseline": {"rul": "mean"}}, r"report\.options\.baseline: .*'rul'.*did you mean 'rule'"),
        (
            {"baseline": {"rule": "mena"}},
            r"report\.options\.baseline\.rule: .*'mena'.*did you mean 'mean'",
        ),
    ],
)
def test_a_factor_or_value_unknown_to_the_config_is_named_with_the_nearest(
    results: Results, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        table(results, **options)


def test_an_unknown_option_is_refused(results: Results) -> None:
    with pytest.raises(InvalidInput, match="'tittle': did you mean 'title'"):
        read_options({"tittle": "x"})


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [
        (0.01, 0.02, True),
        (-0.02, -0.01, True),
        (-0.1, 0.1, False),
        (0.0, 0.1, False),
        (float("nan"), float("nan"), False),
    ],
)
def test_a_difference_is_clear_only_where_its_interval_leaves_out_0(
    low: float, high: float, clear: bool
) -> None:
    assert Difference(0.01, low, high).clear is clear


def test_what_is_left_of_rounding_is_no_difference() -> None:
    # Ten TARs of k/310 and their replicates: a bound that is 0 comes out as some 1e-17, and is no
    # direction.
    assert not Difference(0.01, 3e-17, 0.02).clear
    assert not Difference(-0.01, -0.02, -3e-17).clear


def test_a_difference_of_numbers_that_rest_on_few_false_matches_is_never_clear() -> None:
    assert not Difference(0.01, 0.005, 0.02, few=True).clear


@pytest.mark.parametrize(
    ("few_matches", "misses", "few"),
    [
        ((False, False), (17, 49), False),  # 32 more errors are no chance
        ((False, False), (29, 29), True),
        ((False, False), (30, 0), False),
        ((True, False), (90, 90), True),
        ((False, True), (90, 90), True),
        ((False, False), (-1, -1), False),  # not counted, as of an AUC
    ],
)
def test_a_difference_rests_on_few_errors_of_either_threshold_or_of_both_numbers(
    few_matches: tuple[bool, bool], misses: tuple[int, int], few: bool
) -> None:
    assert few_behind(few_matches, misses) is few


def test_a_number_is_compared_with_the_row_of_the_baseline_that_has_it(row: Any) -> None:
    tar, area = (
        Quantity("1:1", "v", "tar", 1e-2, "at_most"),
        Quantity("discard", "d", "fnm_pauc(0.2)", 1e-2, "at_most"),
    )
    rows = [
        row({"rule": "mean"}, {tar: 0.5}),
        row({"rule": "mean", "method": "given"}, {area: 0.1}),
        row({"rule": "linear", "method": "given"}, {tar: 0.75, area: 0.05}),
    ]
    compared = _compared(rows[2], rows, {"rule": "mean"}, 0.95)
    assert {q.metric: e.difference.value for q, e in compared.entries.items() if e.difference} == {
        "tar": 0.25,
        "fnm_pauc(0.2)": -0.05,
    }


def test_a_factor_named_like_a_column_keeps_both(results: Results) -> None:
    first = cells(results)[0]
    renamed = [
        Cell(first.step, {"kind": "red", "rule": "mean"}, first.kind, first.numbers, first.curves)
    ]
    frame = row_frame(table(results, renamed))
    assert set(frame["factor.kind"]) == {"red"}
    assert set(frame["kind"]) == {"1:1"}


def test_steps_whose_replicates_cannot_be_paired_are_told_before_any_work() -> None:
    def checked(**options: object) -> None:
        steps = {
            "evaluate_verification": {},
            "nn": {"stage": "evaluate_identification", "options": options},
            "compare": {},
        }
        check_options({}, Config(name="c", dataset=DatasetConfig(reader="lfw"), steps=steps))  # type: ignore[arg-type]

    checked()
    checked(replicates=1000, fpir=[0.1])
    with pytest.raises(
        InvalidInput, match=r"evaluate_verification: 0, 1000, 0\.95; nn: 0, 10, 0\.95\)"
    ):
        checked(replicates=10)


def test_a_report_cannot_ask_for_an_fmr_that_is_not_evaluated() -> None:
    def checked(fmr: list[float], evaluated: object) -> None:
        steps = {"evaluate_verification": {"options": {"fmr": evaluated}}, "compare": {}}
        check_options(
            {"fmr": fmr}, Config(name="c", dataset=DatasetConfig(reader="lfw"), steps=steps)
        )  # type: ignore[arg-type]

    checked([0.01, 0.1], [0.1, 0.01])
    checked([0.5], "$fmr")
    with pytest.raises(
        InvalidInput, match=r"report\.options\.fmr: 5e-1 is not evaluated: .* which has 1e-1, 1e-2"
    ):
        checked([0.1, 0.5], [0.1, 0.01])
