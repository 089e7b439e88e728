"""Error versus discard in a report: its headline numbers, its charts, its conventions."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.table import Table

from pipeline.core.stage import Context
from pipeline.session import Results
from stages.draw.figures import LINES
from stages.report import charts, conventions
from stages.report.page import render
from stages.report.report import write_report
from stages.report.terminal import terminal_table
from stages.results import ranking
from stages.results.quantities import Quantity, is_area, lower_is_better, name_of
from stages.results.ranking import Ranking, rank
from stages.results.report_options import read_options
from stages.results.rule_table import Row, RuleTable
from stages.summary import discard_curves
from stages.summary.summary import Summary, summarise

Make = Callable[..., Row]
RANDOM = {"method": "random"}
CONFIG: dict[str, Any] = {
    "name": "judged",
    "description": "Error versus discard of a small synthetic set",
    "dataset": {"reader": "synthetic", "options": {"scale": 0.01, "dimension": 32}},
    "factors": {"method": ["given", "feature-norm", "random"]},
    "steps": {
        "embed": {"options": {"model": "given", "flip": "none"}},
        "quality": {"options": {"method": "$method"}},
        "template_quality": {},
        "fuse": {"options": {"rule": "mean"}},
        "compare": {},
        "evaluate_discard": {
            "inputs": {"quality": "template_quality"},
            "options": {
                "fmr": [1e-1, 1e-2, 1e-3],
                "fnmr": [0.1],
                "limits": [0.2, 0.3],
                "replicates": 40,
            },
        },
    },
    "report": {"options": {"title": "Judged", "crops": 0, "baseline": RANDOM}},
}


@pytest.fixture(scope="session")
def judged(runs: Callable[..., Results], tmp_path_factory: pytest.TempPathFactory) -> Results:
    return runs(CONFIG, tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def found(judged: Results) -> Ranking:
    return rank(judged, CONFIG["report"]["options"])


@pytest.fixture(scope="module")
def summary(judged: Results) -> Summary:
    return summarise(judged, CONFIG["report"]["options"])


@pytest.fixture(scope="module")
def page(summary: Summary) -> str:
    return render(summary)


def area(
    target: float, rule: str = "at_most", limit: float = 0.2, step: str = "d", kind: Any = "discard"
) -> Quantity:
    return Quantity(
        kind, step, f"{'fnir' if kind == 'discard, 1:N' else 'fnm'}_pauc({limit:g})", target, rule
    )


def table(row: Make, solid: Any = (), few: Any = ()) -> RuleTable:
    entries = {
        **row({}, dict.fromkeys(solid, 0.1)).entries,
        **row({}, dict.fromkeys(few, 0.1), few=True).entries,
    }
    return RuleTable((Row({}, (), entries),), tuple(entries), (), {}, {}, 100, 0.95)


# Which numbers come first


def test_the_main_area_is_the_strictest_that_rests_on_30_false_matches(row: Make) -> None:
    found = table(row, [area(1e-1), area(1e-2)], [area(1e-3)])
    assert ranking.areas(found, read_options({})) == [area(1e-2), area(1e-1), area(1e-3)]
    assert ranking.primary(found, read_options({})) == area(1e-2)


def test_where_every_area_rests_on_few_the_most_lenient_comes_first(row: Make) -> None:
    few = [area(1e-3), area(1e-1), area(1e-2)]
    assert ranking.areas(table(row, few=few), read_options({})) == [
        area(1e-1),
        area(1e-2),
        area(1e-3),
    ]


def test_an_fmr_asked_for_comes_first_and_a_starting_error_last(row: Make) -> None:
    found = table(row, [area(1e-2), area(1e-1, "starting"), area(1e-1)])
    assert ranking.areas(found, read_options({"fmr": [1e-1]})) == [
        area(1e-1),
        area(1e-2),
        area(1e-1, "starting"),
    ]


def test_areas_are_up_to_the_smallest_limit_of_each_step_and_the_legacy_form_follows(
    row: Make,
) -> None:
    legacy = Quantity("discard", "d", "erc_auc", 1e-2, "nearest")
    n = area(1e-2, limit=0.1, step="n", kind="discard, 1:N")
    others = [area(1e-2, limit=0.3), Quantity("discard", "d", "fm_pauc(0.2)", 1e-2, "at_most")]
    lines = [
        Quantity("discard", "d", f"fnm_pauc(0.2)_{line}", 1e-2, "at_most")
        for line in ("random", "over_random")
    ]
    found = ranking.areas(table(row, [legacy, *others, *lines, area(1e-2), n]), read_options({}))
    assert found == [area(1e-2), n, legacy]


def test_a_true_accept_rate_comes_before_any_area(row: Make) -> None:
    tar = Quantity("1:1", "v", "tar", 1e-3, "at_most")
    assert ranking.columns(table(row, [area(1e-2), tar]), read_options({})) == [tar, area(1e-2)]


@pytest.mark.parametrize(
    ("quantity", "label"),
    [
        (area(1e-3), "FNM-EDC pAUC(0.2) @ FMR ≤ 1e-3"),
        (area(0.05, "starting"), "FNM-EDC pAUC(0.2) @ FNMR ≤ 5e-2"),
        (area(1e-3, "interpolated"), "FNM-EDC pAUC(0.2) @ FMR ≤ 1e-3, interpolated"),
        (area(1e-2, kind="discard, 1:N"), "FNIR-EDC pAUC(0.2) @ FPIR ≤ 1e-2"),
        (
            Quantity("discard", "d", "fnm_pauc(0.3)_pair_oracle", 1e-3, "at_most"),
            "FNM-EDC pAUC(0.3), pair oracle @ FMR ≤ 1e-3",
        ),
        (Quantity("discard", "d", "erc_auc", 1e-3, "nearest"), "ERC AUC, legacy @ FMR ≈ 1e-3"),
        (Quantity("discard", "d", "fnmr", 1e-3, "at_most"), "FNMR @ FMR ≤ 1e-3"),
    ],
)
def test_a_number_of_error_versus_discard_is_named_by_what_it_measures(
    quantity: Quantity, label: str
) -> None:
    assert quantity.label == label
    assert lower_is_better(quantity.metric)
    assert is_area(quantity.metric) == (quantity.metric != "fnmr")


# The page


def test_the_headline_numbers_are_areas_with_the_main_one_first(found: Ranking, page: str) -> None:
    assert found.main == found.columns[0] == area(1e-2, step="evaluate_discard")
    assert {q.metric for q in found.columns} == {"fnm_pauc(0.2)", "erc_auc"}
    assert f"The main number is <strong>{found.main.label}</strong>" in page
    entry = found.rows[0].entries[found.main]
    assert f'data-value="{entry.value}"' in page
    assert f"<b>{entry.value * 100:.4f}" in page


def test_a_chart_of_each_form_has_its_rows_its_reference_lines_and_a_key(page: str) -> None:
    section = page[page.index('<section id="discard">') :]
    figures = re.findall(r"<figure>.*?</figure>", section[: section.index("</section>")], re.S)[:2]
    assert [re.findall(r"<strong>(.*?)</strong>", figure) for figure in figures] == [
        ["FNM-EDC @ FMR ≤ 1e-2"],
        ["ERC, legacy form @ FMR ≈ 1e-1"],
    ]
    rows, references = (
        {"given", "feature-norm", "random"},
        {"random, expected", "sample oracle", "pair oracle"},
    )
    for figure, expected in zip(figures, (rows | references, rows), strict=True):
        keys = re.findall(r"<span>([^<]*)</span></li>", figure)
        assert set(keys) == set(re.findall(r"<title>([^<]*)</title>", figure)) == expected
        assert len(set(re.findall(r'class="line s(\d)"', figure))) == len(keys)


def test_the_best_row_shows_what_is_left_after_discard_and_the_quality_of_comparisons(
    summary: Summary, page: str
) -> None:
    det, quality = charts.discard_details(summary.discard_details)
    found = summary.ranking
    best = name_of(max(found.rows, key=lambda row: ranking.goodness(row, found.main)).factors)
    assert (det["name"], quality["name"]) == (f"DET · {best}", f"Quality of comparisons · {best}")
    assert [key["label"] for key in det["lines"]] == [
        f"{share} % discarded" for share in (0, 10, 20, 30)
    ]
    assert [key["label"] for key in quality["lines"]] == ["mated", "non-mated"]
    assert det["svg"] in page
    assert quality["svg"] in page


def test_probes_discarded_have_a_chart_of_their_own(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["steps"]["search"] = {"options": {"k": 5}}
    config["steps"]["nn"] = {
        "stage": "evaluate_discard_identification",
        "options": {"fpir": [0.5], "limits": [0.2], "replicates": 40},
    }
    del config["steps"]["evaluate_discard"], config["steps"]["compare"]
    found = summarise(runs(config, tmp_path), {})
    (chart,) = charts.discards(found.discards)
    assert chart["name"] == "FNIR-EDC @ FPIR ≤ 5e-1"
    assert {"given", "feature-norm", "random", "random, expected"} == {
        key["label"] for key in chart["lines"]
    }
    assert "mated probes discarded, %" in chart["svg"]
    assert not charts.discard_details(found.discard_details)


def test_the_curves_of_a_chart_are_those_that_were_stored(found: Ranking) -> None:
    row, main = found.rows[0], cast(Quantity, found.main)
    lines = {line.label: line for line in discard_curves._lines([row], main, "standard")}
    start, pauc = (
        row.entries[replace(main, metric=metric)].value for metric in ("fnmr", main.metric)
    )
    for line in lines.values():
        assert line.y[0] == pytest.approx(start)
    mine = lines[name_of(row.factors)]
    assert np.trapezoid(
        mine.y[mine.x <= 0.2 + 1e-9], mine.x[mine.x <= 0.2 + 1e-9]
    ) == pytest.approx(pauc, rel=0.05)
    assert (lines["random, expected"].y == lines["random, expected"].y[0]).all()
    assert (lines["pair oracle"].y <= mine.y + 1e-9).all()


def test_a_chart_says_how_many_of_its_rows_are_drawn(judged: Results, found: Ranking) -> None:
    row = found.rows[0]
    many = tuple(replace(row, factors={"method": f"m{i}"}) for i in range(9))
    group = ranking.Group({}, None, many)
    drawn = discard_curves.discard_curves(judged, replace(found, groups=[group]))
    standard, legacy = charts.discards(drawn)
    assert len(standard["lines"]) == len(legacy["lines"]) == LINES
    assert standard["said"].endswith(f"The first {LINES - 3} of 9 rows of the table are drawn.")
    assert legacy["said"].endswith(f"The first {LINES} of 9 rows of the table are drawn.")


def test_a_starting_error_alone_has_a_chart_of_its_own_target(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["steps"]["evaluate_discard"]["options"] |= {"fmr": [], "replicates": 0}
    found = charts.discards(summarise(runs(config, tmp_path), {}).discards)
    assert [chart["name"] for chart in found] == ["FNM-EDC @ FNMR ≤ 1e-1"]
    assert len(found[0]["lines"]) == 6


def test_steps_that_judge_in_two_ways_have_charts_of_their_own(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["steps"]["evaluate_discard"]["options"] = {"fmr": [0.1], "replicates": 0}
    joint = {
        "inputs": {"quality": "template_quality"},
        "options": {"fmr": [0.1], "replicates": 0, "discard": "joint", "legacy": False},
    }
    config["steps"]["joint"] = {"stage": "evaluate_discard", **joint}
    found = charts.discards(summarise(runs(config, tmp_path), {}).discards)
    assert [chart["name"] for chart in found] == [
        "FNM-EDC @ FMR ≤ 1e-1 · evaluate_discard",
        "FNM-EDC @ FMR ≤ 1e-1 · joint",
        "ERC, legacy form @ FMR ≈ 1e-1 · evaluate_discard",
    ]
    assert "pair oracle" in found[0]["said"]
    assert "pair oracle" not in found[1]["said"]  # it bounds the standard form alone
    assert [line["label"] for line in found[1]["lines"]][-1] == "random, expected"


def test_the_definitions_stand_beside_the_numbers(page: str) -> None:
    notes = page[page.index('<ul class="notes">') : page.index('<section id="discard">')]
    for words in (
        "ISO/IEC 29794-1:2024",
        "pAUC(L)",
        "twenty steps",
        "† rests on fewer than 30 errors of a kind",
        "40 replicates",
    ):
        assert words in notes


@pytest.mark.parametrize("metric", ["fnm_pauc(0.2)", "erc_auc"])
def test_a_mark_of_few_is_explained_wherever_areas_stand(metric: str) -> None:
    said = " ".join(conventions.rates([Quantity("discard", "d", metric, 1e-2, "at_most")]))
    assert "† rests on fewer than 30 errors of a kind" in said
    assert ("ISO/IEC 29794-1" in said, "twenty steps" in said) == (True, metric == "erc_auc")


def test_what_was_left_out_is_told(judged: Results) -> None:
    said = " ".join(conventions.everything(rank(judged, {}).table))
    assert "Comparisons without quality: comparisons of which a template has no quality" in said


def test_every_number_is_in_the_table_with_its_interval(judged: Results, found: Ranking) -> None:
    paths = {path.name: path for path in write_report(judged, CONFIG["report"]["options"])}
    with paths["table.csv"].open(encoding="utf-8", newline="") as file:
        lines = {
            (line["method"], line["metric"], line["target"], line["threshold_rule"]): line
            for line in csv.DictReader(file)
        }
    assert len(lines) == sum(len(row.entries) for row in found.table.rows)
    for row in found.table.rows:
        for q, entry in row.entries.items():
            line = lines[
                row.factors["method"], q.metric, "" if q.target is None else str(q.target), q.rule
            ]
            assert float(line["value"] or "nan") == pytest.approx(entry.value, nan_ok=True)
            assert float(line["high"] or "nan") == pytest.approx(entry.high, nan_ok=True)
    assert f"{found.rows[0].entries[found.columns[0]].value * 100:.4f}" in paths[
        "report.html"
    ].read_text(encoding="utf-8")


def test_the_terminal_shows_areas_as_the_page_does(judged: Results, found: Ranking) -> None:
    shown, *_ = terminal_table(judged, CONFIG["report"]["options"], 200).renderables
    assert isinstance(shown, Table)
    cells = [str(cell).strip() for column in shown.columns for cell in column.cells]
    for row in found.rows:
        assert any(
            cell.startswith(f"{row.entries[found.columns[0]].value * 100:.4f}") for cell in cells
        )


def test_without_error_versus_discard_a_page_has_no_such_section(results: Results) -> None:
    assert charts.discards(summarise(results, {}).discards) == []
    page = render(summarise(results, {}))
    assert 'id="discard"' not in page
    assert "discard" not in page[: page.index("</header>")]


def test_names_that_are_markup_are_written_as_text(
    runs: Callable[..., Results], tmp_path: Path, tiny: Context
) -> None:
    hostile, rng = "<b>&", np.random.default_rng(3)
    for subject in ("ann", "bob", "cid"):
        (tmp_path / "faces" / subject).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 20 + 40 * i, (112, 112, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / subject / f"{i}.png")
    card = yaml.safe_load(Path(tiny.model_cards[0]).read_text())["tiny"]
    (tmp_path / "cards.yaml").write_text(json.dumps({hostile: card, "plain": card}))
    steps: Mapping[str, Any] = {
        "align": {"options": {"detector": "none"}},
        "embed": {"options": {"model": "$model", "flip": "none"}},
        "quality": {"options": {"method": "feature-norm"}},
        "template_quality": {},
        "fuse": {"options": {"rule": "mean"}},
        "compare": {},
        "evaluate_discard": {
            "inputs": {"quality": "template_quality"},
            "options": {"fmr": [0.5], "replicates": 4},
        },
    }
    config = {
        "name": "hostile",
        "dataset": {
            "reader": "folder",
            "path": str(tmp_path / "faces"),
            "options": {"probe_fraction": 0.5},
        },
        "models": {
            "folders": list(map(str, tiny.model_folders)),
            "cards": [str(tmp_path / "cards.yaml")],
        },
        "factors": {"model": [hostile, "plain"]},
        "steps": steps,
        "report": {},
    }
    page = render(summarise(runs(config, tmp_path), {}))
    assert hostile not in page
    section = page[page.index('<section id="discard">') :]
    assert "<strong>FNM-EDC @ FMR ≤ 5e-1 · &lt;b&gt;&amp;</strong>" in section
