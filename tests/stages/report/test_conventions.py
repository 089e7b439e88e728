"""The sentences beside the numbers say what was done."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

import pytest

from pipeline.session import Results
from stages.evaluation.verification import EvaluateVerification, VerificationOptions
from stages.report import conventions
from stages.results.quantities import Quantity
from stages.results.report_options import read_options
from stages.results.rule_table import RuleTable, rule_table


@pytest.fixture(scope="module")
def table(results: Results) -> RuleTable:
    return rule_table(results, read_options({}))


def quantity(metric: str) -> Quantity:
    return Quantity("1:1", "v", metric, None, "")


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        ("tar", "score ≥ threshold"),
        ("frr", "FTA + FNMR · (1 − FTA)"),
        ("eer", "score ≥ threshold"),
        ("tar", "fewer than 30 errors of a kind"),
        ("rank", "rank-k is the share of mated probes"),
        ("tpir", "rank 1 with score ≥ threshold"),
        ("tpir", "the gallery is not"),
        ("accuracy", "the threshold chosen on the other folds"),
    ],
)
def test_every_rate_has_its_definition_beside_it(metric: str, word: str) -> None:
    assert word in " ".join(conventions.rates([quantity(metric)]))


def test_definitions_of_rates_that_are_not_shown_are_left_out() -> None:
    assert conventions.rates([]) == []
    assert "1:N" not in " ".join(conventions.rates([quantity("tar")]))


def test_failures_to_enrol_of_1_n_say_nothing_of_the_1_1_sides() -> None:
    tar, fte = quantity("tar"), Quantity("1:N", "i", "fte", None, "")
    assert "share of the compared templates" in conventions.rates([tar, fte])[0]
    assert "share of the probes" in conventions.rates([tar], [fte, quantity("fte")])[0]


def test_templates_that_fell_back_are_explained_under_the_name_they_have_in_tables() -> None:
    assert (
        "All weights vanished: templates of which no face has a weight above 0"
        in conventions.rates([quantity("fused_fallback")])[0]
    )


def test_which_side_was_enrolled_and_why_stands_beside_the_numbers(table: RuleTable) -> None:
    assert conventions.enrolment(table) == [
        "1:1, enrolled: auto: as no template stands on both sides, the first side of the"
        " comparisons is enrolled; its failures are FTE, and FTA is of the second side."
    ]
    assert conventions.enrolment(table)[0] in conventions.everything(table)
    row = next(row for row in table.rows if any(cell.kind == "1:1" for cell in row.cells))
    cell = next(cell for cell in row.cells if cell.kind == "1:1")
    kept = cell.numbers.take(cell.numbers["metric"] != "fte")
    for option, apart, words in (
        (
            "auto",
            False,
            (
                "as templates stand on both sides of the comparisons, none is enrolled; every"
                " failure is one to acquire"
            ),
        ),
        ("first", True, "the first side of the comparisons is enrolled, as the config says"),
        ("none", False, "no side of the comparisons is enrolled, as the config says"),
    ):
        stage = EvaluateVerification(VerificationOptions(enrolled=option), cell.step.stage.context)
        other = replace(
            cell, step=replace(cell.step, stage=stage), numbers=cell.numbers if apart else kept
        )
        (said,) = conventions.enrolment(replace(table, rows=(replace(row, cells=(other,)),)))
        assert f"enrolled: {option}: {words}" in said


def test_the_interval_names_its_level_replicates_and_what_was_averaged(table: RuleTable) -> None:
    averaged = replace(table, average={"seed": (0, 1, 2)})
    assert (
        "percentile 95 % of a subject-clustered bootstrap, 60 replicates"
        in conventions.intervals(table)
    )
    assert "means over seed (3 values)" in conventions.intervals(averaged)
    assert "means over" not in conventions.intervals(table)
    assert "No intervals" in conventions.intervals(replace(table, replicates=0))


def test_an_auc_without_an_interval_is_explained(table: RuleTable) -> None:
    rows = [
        replace(row, entries={q: replace(e, low=nan, high=nan) for q, e in row.entries.items()})
        for row in table.rows
    ]
    assert "AUC has one up to 100,000 comparisons" in conventions.intervals(
        replace(table, rows=tuple(rows))
    )
    assert "AUC has one" not in conventions.intervals(table)


def test_the_difference_names_its_baseline_and_how_many_rows_were_compared(
    table: RuleTable,
) -> None:
    assert "(rule = mean; " in conventions.differences(table)
    assert "5 rows are compared" in conventions.differences(table)
    assert "no baseline" in conventions.differences(replace(table, baseline={}))


def without_errors(table: RuleTable) -> tuple[RuleTable, Quantity]:
    (eer,) = table.find("eer")
    rows = [
        replace(row, entries={**row.entries, eer: replace(row.entries[eer], value=0.0)})
        for row in table.rows
    ]
    return replace(table, rows=tuple(rows)), eer


def test_numbers_by_which_no_row_has_an_error_are_named_as_telling_nothing(
    table: RuleTable,
) -> None:
    clean, eer = without_errors(table)
    (said,) = conventions.no_errors(clean, [eer, *table.find("tar", 1e-2)])
    assert said.startswith(
        "No row has a single error in EER: this set cannot tell the rows apart by it."
    )
    assert "rule of 3" in said
    assert conventions.no_errors(table, [eer]) == []


def test_targets_of_less_than_one_trial_are_said_to_be_held_as_0(row: Any) -> None:
    rates = [Quantity("1:1", "v", "tar", target, "at_most") for target in (1e-1, 1e-2, 1e-3)]
    found = row({}, dict.fromkeys(rates, 0.9))
    entries = {q: replace(e, nonmated=81) for q, e in found.entries.items()}
    small = RuleTable((replace(found, entries=entries),), tuple(rates), (), {}, {}, 100, 0.95)
    (said,) = conventions.unreachable(small, rates)
    assert (
        said
        == "FMR ≤ 1e-2, 1e-3: of 81 non-mated comparisons that is less than one, so it is held as"
        " 0; for 30 errors at 1e-2 it would take 3,000."
    )
    assert conventions.unreachable(small, rates[:1]) == []


def test_rates_that_are_not_defined_are_named_with_the_option_that_gives_probes_without_a_mate(
    row: Any,
) -> None:
    tpir = Quantity("1:N", "i", "tpir", 0.1, "at_most")
    found = row({}, {tpir: nan})
    closed = {tpir: replace(found.entries[tpir], nonmated=0)}
    whole = RuleTable((replace(found, entries=closed),), (tpir,), (), {}, {}, 100, 0.95)
    (said,) = conventions.undefined(whole)
    assert said.startswith(
        "Not defined in any row, and not shown: TPIR @ FPIR ≤ 1e-1: every probe has a mate in the"
        " gallery"
    )
    (said,) = conventions.undefined(replace(whole, rows=(found,)))
    assert said == "Not defined in any row, and not shown: TPIR @ FPIR ≤ 1e-1."
    assert conventions.undefined(replace(whole, rows=(row({}, {tpir: 0.5}),))) == []


def test_intervals_over_few_subjects_are_said_to_be_narrow(table: RuleTable) -> None:
    subjects = min(
        entry.subjects for row in table.rows for entry in row.entries.values() if entry.subjects > 0
    )
    assert f"With {subjects} subjects they are somewhat too narrow." in conventions.intervals(table)
    rows = [
        replace(
            row,
            entries={q: replace(e, subjects=max(100, e.subjects)) for q, e in row.entries.items()},
        )
        for row in table.rows
    ]
    assert "too narrow" not in conventions.intervals(replace(table, rows=tuple(rows)))
