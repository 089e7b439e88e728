"""Galleries averaged, parameters chosen on one half of the subjects, the pooled script: a small run
with all of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.session import Results
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.datasets.tables_file import write_tables
from stages.evaluation.numbers import find_number
from stages.metrics import bootstrap
from stages.report.cells import chosen_difference
from stages.report.report import write_report
from stages.report.terminal import terminal_table
from stages.results.choice import choices
from stages.results.quantities import Quantity
from stages.results.ranking import rank
from stages.results.report_options import Choose, read_options
from stages.results.rule_table import Difference, cells, rule_table
from stages.tables.comparisons import role_rows

Make = Callable[..., Any]
POWERS = ["quality-power(p=1)", "quality-power(p=4)"]
CHOOSE = {
    "choose": {"among": "rule", "metric": "tar", "target": 0.01},
    "average": ["gallery", "seed"],
}
EVALUATED: dict[str, Any] = {"replicates": 40, "half": "$half", "templates": True}


@pytest.fixture(scope="module")
def two(runs: Make, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The small set with its gallery in two: gallery_1 of the first subjects, gallery_2 of the
    others.
    """
    folder = tmp_path_factory.mktemp("two")
    (folder / "set").mkdir()
    _two_galleries(folder / "set" / "tables.h5")
    config = {
        **small,
        "name": "two",
        "dataset": {"reader": "tables", "path": str(folder / "set")},
        "factors": {
            "half": ["choose", "report"],
            "gallery": ["gallery_1", "gallery_2"],
            "rule": ["mean", *POWERS, "best"],
        },
        "steps": {
            **{name: small["steps"][name] for name in ("embed", "statistics", "compare")},
            "quality": {"options": {"method": "given"}},
            "fuse": {"options": {"rule": "$rule"}},
            "evaluate_verification": {"options": {**EVALUATED, "fmr": [0.1, 0.01]}},
            "search": {"options": {"k": 10, "gallery": "$gallery"}},
            "evaluate_identification": {
                "options": {**EVALUATED, "gallery": "$gallery", "fpir": [0.1, 1e-3]}
            },
            "both": {"stage": "search", "options": {"k": 40}},
            "evaluate_pooled_script": {
                "inputs": {"candidates": "both"},
                "options": {"targets": [0.1]},
            },
        },
        "report": {"options": {"average": ["gallery"]}},
    }
    return runs(config, folder)


def _two_galleries(path: Path) -> None:
    tables = synthesise(SynthOptions(scale=0.02, dimension=32))
    roles = tables["roles"]
    enrolled = role_rows(roles, "gallery")
    first = np.isin(roles["template"], enrolled[: len(enrolled) // 2])
    role = np.where(first, "gallery_1", "gallery_2").astype(object)
    mine = roles.take(roles["role"] == "gallery")
    more = {"template": mine["template"], "role": role[roles["role"] == "gallery"]}
    both = {name: np.concatenate([roles[name], more[name]]) for name in ("template", "role")}
    write_tables(path, {**tables, "roles": Batch(both)})


@pytest.fixture(scope="module")
def written(two: Results) -> Path:
    return write_report(two, CHOOSE | {"average": ["gallery"]})[0].parent


def test_probes_of_the_other_gallerys_subjects_are_the_non_mated_ones(two: Results) -> None:
    tables = two.session.dataset.tables
    subject, probes = tables["templates"]["subject"], role_rows(tables["roles"], "probe")
    for cell in (cell for cell in cells(two) if cell.kind == "1:N"):
        gallery = set(subject[role_rows(tables["roles"], cell.factors["gallery"])])
        n = cell.numbers
        at = (n["metric"] == "tpir") & (n["target"] == 0.1)
        assert n["trials"][at][0] + n["nonmated"][at][0] <= len(probes)
        whole = sum(name in gallery for name in subject[probes])
        halves = [
            int(other.numbers["trials"][other.numbers["metric"] == "rank"][0])
            for other in cells(two)
            if other.kind == "1:N" and other.factors | {"half": 0} == cell.factors | {"half": 0}
        ]
        assert sum(halves) == whole
        assert n["few"][(n["metric"] == "tpir") & (n["target"] == 1e-3)].all()


def test_the_table_holds_the_mean_over_galleries_with_replicates_averaged_one_by_one(
    two: Results,
) -> None:
    found = rank(two, {"average": ["gallery"]})
    row = next(row for row in found.table.rows if row.factors == {"half": "report", "rule": "mean"})
    (tpir,) = found.table.find("tpir", 0.1)
    entry = row.entries[tpir]
    parts = [
        (cell.numbers["value"][i], cell.numbers["replicates"][i])
        for cell in row.cells
        if cell.kind == "1:N"
        for i in [
            int(
                np.flatnonzero(
                    (cell.numbers["metric"] == "tpir") & (cell.numbers["target"] == 0.1)
                )[0]
            )
        ]
    ]
    assert [cell.factors["gallery"] for cell in row.cells if cell.kind == "1:N"] == [
        "gallery_1",
        "gallery_2",
    ]
    assert entry.value == np.mean([value for value, _ in parts])
    drawn = np.mean([replicates for _, replicates in parts], axis=0)
    np.testing.assert_array_equal(entry.replicates, drawn)
    assert (entry.low, entry.high) == tuple(map(float, bootstrap.interval(drawn)))


def test_each_gallerys_own_numbers_are_in_the_csv(written: Path) -> None:
    frame = pd.read_csv(written / "numbers.csv")
    tpir = frame[
        (frame.metric == "tpir")
        & (frame.target == 0.1)
        & (frame.half == "report")
        & (frame.rule == "mean")
    ]
    assert sorted(tpir.gallery) == ["gallery_1", "gallery_2"]
    assert (tpir.subject_pairs <= tpir.false_matches).all()
    assert tpir.subject_pairs.notna().all()
    assert frame[frame.metric == "eer"].subject_pairs.isna().all()


def test_a_parameter_is_chosen_on_one_half_and_reported_on_the_other(
    two: Results, written: Path
) -> None:
    (chosen,) = json.loads((written / "numbers.json").read_text())["chosen"]
    found = rank(two, {"average": ["gallery"]})
    (tar,) = found.table.find("tar", 0.01)
    values = {
        half: {
            row.factors["rule"]: row.entries[tar]
            for row in found.table.rows
            if row.factors.get("half") == half
        }
        for half in ("choose", "report")
    }
    best = max(POWERS, key=lambda rule: values["choose"][rule].value)
    assert (chosen["family"], chosen["tried"], chosen["chosen"]) == ("quality-power", POWERS, best)
    entry = values["report"][best]
    assert (chosen["value"], chosen["low"], chosen["high"]) == (entry.value, entry.low, entry.high)
    assert chosen["value_on_choose"] == values["choose"][best].value
    assert chosen["difference"] == pytest.approx(entry.value - values["report"]["mean"].value)
    page = (written / "report.html").read_text()
    assert "Chosen on one half of the subjects" in page
    assert "quality-power(p=1), quality-power(p=4)" in page


def test_the_terminal_says_in_one_line_what_was_chosen(two: Results) -> None:
    caption = str(terminal_table(two, CHOOSE | {"average": ["gallery"]}, 200).renderables[1])
    (line,) = [
        line
        for line in caption.split("\n")
        if line.startswith("chosen on one half, TAR @ FMR ≤ 1e-2 on the other")
    ]
    assert re.search(
        r"quality-power\(p=.\) [0-9.]+†? \(([▲▼] )?[+−]?[0-9.]+ \[[+−]?[0-9.]+, [+−]?[0-9.]+\]\)",
        line,
    ), line
    assert "chosen" not in str(terminal_table(two, {"average": ["gallery"]}, 200).renderables[1])


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        ({"among": "rul"}, r"choose\.among: .*'rul'.*did you mean 'rule'"),
        ({"among": "rule", "target": 0.5}, "'tar 5e-1' was not evaluated; there are"),
        ({"among": "gallery"}, "needs the values of 'gallery' apart: take it out of"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(
    two: Results, choose: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        rank(two, {"average": ["gallery"], "choose": choose})


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (
            {"among": "rule", "metric": "pooled_script"},
            "no evaluation of 'pooled_script' has both halves",
        ),
        (
            {"among": "rule"},
            r"no family of 'rule' has two values with it that are defined\. Give .* `half: \$half`",
        ),
    ],
)
def test_a_choice_that_would_choose_nothing_is_refused(
    two: Results, choose: dict[str, Any], message: str
) -> None:
    checked = read_options({"average": ["gallery"]})
    table = rule_table(two, checked)
    rows = (
        table.rows
        if "metric" in choose
        else [row for row in table.rows if row.factors.get("rule") != POWERS[1]]
    )
    with pytest.raises(InvalidInput, match=message):
        choices(replace(table, rows=tuple(rows)), Choose(**choose), two.plan.config.factors)


def test_the_difference_of_a_choice_is_written_with_its_interval_and_direction(
    two: Results,
) -> None:
    (chosen,) = rank(two, CHOOSE | {"average": ["gallery"]}).chosen

    def against(quantity: Quantity, d: Difference | None) -> str:
        reported = replace(chosen.reported, difference=d)
        return chosen_difference(replace(chosen, quantity=quantity, reported=reported))

    tar, eer = (replace(chosen.quantity, metric=metric) for metric in ("tar", "eer"))
    assert against(tar, Difference(0.01, 0.005, 0.02)) == "▲ +1.00 [+0.50, +2.00]"
    assert against(eer, Difference(0.01, 0.005, 0.02)) == "▼ +1.00 [+0.50, +2.00]"
    assert against(tar, Difference(0.01, 0.005, 0.02, few=True)) == "+1.00 [+0.50, +2.00]"
    assert against(tar, Difference(0.01, -0.005, 0.02)) == "+1.00 [−0.50, +2.00]"
    assert against(tar, Difference(0.01, math.nan, math.nan)) == "+1.00"
    assert against(tar, None) == ""


def test_without_halves_a_choice_is_refused_with_what_to_add(results: Results) -> None:
    with pytest.raises(InvalidInput, match=r"add `half: \[choose, report\]` to the factors"):
        rank(results, {"choose": {"among": "rule"}})


def test_the_pooled_script_cannot_be_mistaken_for_tpir(two: Results, written: Path) -> None:
    found = rank(two, {"average": ["gallery"]})
    (q,) = found.table.find("pooled_script")
    assert q.label == "pooled script, not TPIR, @ the ⌈1e-1 · probes⌉-th pooled score"
    assert q not in found.columns
    # Its rows, which no factor of half or gallery reaches, hold nothing of the main table, and are
    # nobody's baseline.
    assert all("half" in row.factors for row in found.rows)
    assert [row.factors["half"] for row in found.rows] == ["report"] * 4 + ["choose"] * 4
    assert all(row.reference["half"] == row.factors["half"] for row in found.rows)
    page = (written / "report.html").read_text()
    assert q.label in page
    assert "It is not TPIR at an FPIR." in page


def test_fallbacks_and_failures_to_enrol_stand_beside_the_others(
    two: Results, written: Path
) -> None:
    tables = two.session.dataset.tables
    for cell in (cell for cell in cells(two) if cell.kind != "1:N, pooled script"):
        fallback, fte = (
            find_number(cell.numbers, "fused_fallback"),
            find_number(cell.numbers, "fte"),
        )
        assert (fallback["value"], fte["value"]) == (0, 0)
        if cell.kind == "1:N":
            assert fte["trials"] == len(role_rows(tables["roles"], cell.factors["gallery"]))
    page = (written / "report.html").read_text()
    assert "says what they are: none." in page
    assert "FTE 0.00 % of" in page
