"""The table of several benchmarks: its rows and bounds, its marks, and that its files hold the same
numbers.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidInput
from pipeline.session import Results
from stages.report.cells import area_cell
from stages.report.latex import latex
from stages.report.study import write_study
from stages.results.ranking import rank
from stages.results.study_table import (
    Area,
    Column,
    StudyRow,
    column_heading,
    column_headings,
    columns_of,
    factor_names,
    labels,
    study_rows,
)
from stages.results.study_table import _with_best as with_best

Browse = Callable[..., tuple[str, str]]
FMR = Column("standard", "", "d", 0.2, "FMR", 1e-2)
FNMR = Column("standard", "", "d", 0.2, "FNMR", 1e-2)
LEGACY = Column("legacy", "", "d", None, "FMR", 1e-2)
BOUNDS = ["pair oracle", "sample oracle", "random, expected"]
OPTIONS: dict[str, Any] = {"title": "All <b>of</b> them", "crops": 0}
CONFIG: dict[str, Any] = {
    "name": "study",
    "description": "Of two synthetic sets",
    "dataset": {"reader": "synthetic", "options": {"scale": 0.01, "dimension": 32}},
    "factors": {"method": ["given", "feature-norm"]},
    "steps": {
        "embed": {"options": {"model": "given", "flip": "none"}},
        "quality": {"options": {"method": "$method"}},
        "template_quality": {},
        "fuse": {"options": {"rule": "mean"}},
        "compare": {},
        "evaluate_discard": {
            "inputs": {"quality": "template_quality"},
            "options": {"fmr": [1e-1, 1e-2], "fnmr": [1e-1], "limits": [0.2], "replicates": 40},
        },
    },
    "report": {"options": OPTIONS},
}
Made = tuple[dict[str, Results], dict[str, Path]]


def changed(**fields: Any) -> dict[str, Any]:
    """The config with sections replaced, as in changed(factors={…})."""
    return {**copy.deepcopy(CONFIG), **fields}


@pytest.fixture(scope="module")
def made(runs: Callable[..., Results], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two benchmarks, the second with a factor more, and the files of the study."""
    folder, steps = tmp_path_factory.mktemp("study"), copy.deepcopy(CONFIG["steps"])
    steps["fuse"]["options"]["rule"] = "$rule"
    more = changed(
        factors={**CONFIG["factors"], "rule": ["mean", "media-mean"]}, steps=steps, report=None
    )
    (folder / "plain").mkdir()
    (folder / "more").mkdir()
    results = {"plain": runs(CONFIG, folder / "plain"), "more": runs(more, folder / "more")}
    paths = write_study(list(results.items()), folder, OPTIONS)
    return results, {path.name: path for path in paths}


@pytest.fixture(scope="module")
def page(made: Made) -> str:
    return made[1]["study.html"].read_text(encoding="utf-8")


def judged(name: str, results: Results) -> list[StudyRow]:
    return list(study_rows(name, results, rank(results, OPTIONS)))


@pytest.fixture(scope="module")
def lines(made: Made) -> list[StudyRow]:
    return [
        line
        for name, results in made[0].items()
        for line in study_rows(name, results, rank(results, OPTIONS))
    ]


def line(value: float, name: str = "m", bound: str = "", **more: Any) -> StudyRow:
    factors = {} if bound else {"method": name}
    return StudyRow("lfw", 0, factors, bound, {FMR: Area(value, math.nan, math.nan, False, **more)})


def rows_of(page: str) -> list[list[str]]:
    """The body of the table, a list of texts a row."""
    table = page[page.index('<table class="rules study">') : page.index("</table>")]
    body = table[table.index("<tbody") :]
    rows = re.findall(r"<tr class=.*?</tr>", body, re.S)
    return [
        [
            unescape(re.sub("<[^>]*>", "", c))
            for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)
        ]
        for row in rows
    ]


# Rows and columns


def test_the_files_are_a_page_a_table_for_programs_one_for_a_paper_and_a_record(made: Made) -> None:
    assert list(made[1]) == ["study.html", "study.csv", "study.tex", "study.json"]


def test_under_the_rows_that_judge_the_same_scores_stand_their_bounds(
    lines: Sequence[StudyRow],
) -> None:
    first, *others = [
        [each for each in lines if (each.benchmark, each.group) == key] for key in _groups(lines)
    ]
    assert [each.bound for each in first] == ["", "", *BOUNDS]
    assert [len(group) for group in others] == [
        5,
        5,
    ]  # a group for each rule: these are scores of their own
    assert {each.factors["method"] for each in first[:2]} == {"given", "feature-norm"}
    assert all("method" not in each.factors for each in first[2:])
    assert {each.factors["rule"] for group in others for each in group if each.bound} == {
        "mean",
        "media-mean",
    }


def _groups(lines: Sequence[StudyRow]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((each.benchmark, each.group) for each in lines))


def test_a_bound_is_what_the_evaluation_found(made: Made, lines: Sequence[StudyRow]) -> None:
    found = rank(made[0]["plain"], OPTIONS)
    entries = {(q.metric, q.target, q.rule): entry for q, entry in found.rows[0].entries.items()}
    bounds = {each.bound: each.areas for each in lines if each.benchmark == "plain" and each.bound}
    for bound, metric in zip(BOUNDS, ("pair_oracle", "sample_oracle", "random"), strict=True):
        for column, area in bounds[bound].items():
            rule = "starting" if column.of == "FNMR" else "at_most"
            assert area.value == entries[f"fnm_pauc(0.2)_{metric}", column.target, rule].value


def test_columns_go_from_the_standard_form_to_the_legacy_one_and_from_lenient_to_strict(
    lines: Sequence[StudyRow],
) -> None:
    assert [column_heading(column) for column in columns_of(lines)] == [
        "pAUC(0.2) @ FMR 1e-1",
        "pAUC(0.2) @ FMR 1e-2",
        "pAUC(0.2) @ FNMR 1e-1",
        "ERC @ FMR 1e-1",
        "ERC @ FMR 1e-2",
    ]


def test_an_fmr_and_a_starting_error_of_the_same_size_are_two_columns() -> None:
    both = replace(line(0.1), areas={FMR: Area(0.1, 0, 1, False), FNMR: Area(0.2, 0, 1, False)})
    assert columns_of([both]) == [FMR, FNMR]


def test_a_heading_names_the_step_where_there_are_several() -> None:
    assert column_headings([FMR, LEGACY]) == ["pAUC(0.2) @ FMR 1e-2", "ERC @ FMR 1e-2"]
    assert column_headings([FMR, replace(FMR, step="joint")]) == [
        "pAUC(0.2) @ FMR 1e-2 (d)",
        "pAUC(0.2) @ FMR 1e-2 (joint)",
    ]


def test_factors_that_differ_between_benchmarks_leave_their_places_empty(
    lines: Sequence[StudyRow],
) -> None:
    names = factor_names(lines)
    assert set(names) == {"method", "rule"}
    by_benchmark = {
        each.benchmark: dict(zip(names, labels(each, names), strict=True))
        for each in lines
        if not each.bound
    }
    assert by_benchmark["plain"]["rule"] == ""
    assert by_benchmark["more"]["rule"] in {"mean", "media-mean"}
    bounds = [
        dict(zip(names, labels(each, names), strict=True))
        for each in lines
        if each.bound and each.benchmark == "more"
    ]
    assert [bound["method"] for bound in bounds] == BOUNDS * 2


def test_without_any_factor_bounds_have_a_place_of_their_own(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    steps = json.loads(json.dumps(CONFIG["steps"]).replace("$method", "given"))
    found = list(judged("only", runs(changed(factors={}, steps=steps), tmp_path)))
    assert factor_names(found) == ["bound"]
    assert [labels(each, ["bound"]) for each in found] == [[""], *([bound] for bound in BOUNDS)]
    assert not any(
        area.best for each in found for area in each.areas.values()
    )  # there is nothing to choose from


def test_scores_that_a_quality_helped_to_make_have_bounds_of_their_own(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    steps = copy.deepcopy(CONFIG["steps"])
    steps["fuse"]["options"]["rule"] = "best"
    found = judged("fused", runs(changed(steps=steps), tmp_path))
    assert [each.bound for each in found] == ["", *BOUNDS] * 2
    assert factor_names(found) == [
        "method",
        "bound",
    ]  # a bound is of one method's scores: its name needs another place
    assert labels(found[1], ["method", "bound"]) == [found[0].factors["method"], "pair oracle"]


def test_without_error_versus_discard_there_is_no_table(results: Results, tmp_path: Path) -> None:
    assert write_study([("small", results)], tmp_path, {}) == []
    assert list(tmp_path.iterdir()) == []


# Marks


def test_bold_is_the_least_of_those_that_are_defined() -> None:
    for values, best in (
        ([0.2, 0.1, 0.3], {0.1}),
        ([0.3, math.nan, 0.2], {0.2}),
        ([0.2, 0.2], {0.2}),
        ([0.2, math.nan], set()),
    ):
        marked = [each.areas[FMR] for each in with_best([line(value) for value in values])]
        assert {area.value for area in marked if area.best} == best


def test_nothing_is_bold_among_areas_of_different_comparisons() -> None:
    marked = [x.areas[FMR].best for x in with_best([line(0.1, trials=90), line(0.2, trials=100)])]
    assert marked == [False, False]
    assert [x.areas[FMR].best for x in with_best([line(0.1, trials=90), line(0.2, trials=90)])] == [
        True,
        False,
    ]


def test_areas_that_are_not_of_the_form_itself_say_so_wherever_they_stand(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    steps = copy.deepcopy(CONFIG["steps"])
    steps["evaluate_discard"]["options"] |= {
        "pair": "mean",
        "discard": "joint",
        "rule": "nearest",
        "unscored": "left_out",
    }
    results = runs(changed(steps=steps), tmp_path)
    paths = {path.name: path for path in write_study([("one", results)], tmp_path, OPTIONS)}
    both = "pair quality by mean, comparisons without a quality left out"
    standard = f"{both}, both kinds discarded together, threshold rule nearest"
    page = paths["study.html"].read_text(encoding="utf-8")
    assert f"ISO/IEC 29794-1, FNM-EDC, but {standard}</th>" in page
    assert f"legacy form, but {both}</th>" in page
    assert f"evaluate_discard is not the standard&#39;s form itself: {standard}." in page
    assert f"Not the form itself: {standard}." in page
    told = json.loads(paths["study.json"].read_text(encoding="utf-8"))
    assert {area["but"] for area in told["areas"]} == {both, standard}


def test_a_column_that_only_one_row_has_marks_nothing() -> None:
    one = replace(line(0.1), areas={LEGACY: Area(0.1, 0, 1, False)})
    assert not any(
        area.best for each in with_best([one, line(0.2)]) for area in each.areas.values()
    )


@pytest.mark.parametrize(
    ("low", "high", "few", "mark"),
    [
        (-0.1, -0.01, False, "▲"),
        (-0.1, 0.01, False, ""),
        (-0.1, -0.01, True, ""),
        (-0.1, -1e-17, False, ""),
        (0.01, 0.1, False, "▼"),
        (0.01, 0.1, True, ""),
        (math.nan, math.nan, False, ""),
    ],
)
def test_marks_are_of_better_and_worse_than_random_as_everywhere(
    low: float, high: float, few: bool, mark: str
) -> None:
    area = Area(0.1, 0.05, 0.2, few, over_random=-0.05, over_random_low=low, over_random_high=high)
    cell = area_cell(area)
    assert cell is not None
    assert (cell["mark"], cell["tone"], cell["few"]) == (
        mark,
        {"▲": "better", "▼": "worse", "": "level"}[mark],
        few,
    )


def test_marks_stand_where_the_numbers_say(page: str, lines: Sequence[StudyRow]) -> None:
    columns = columns_of(lines)
    for each, row in zip(lines, rows_of(page), strict=True):
        for column, text in zip(columns, row[-len(columns) :], strict=True):
            area = each.areas.get(column)
            sign = 0 if area is None else area.direction
            assert ("▲" in text, "▼" in text) == (sign == 1, sign == -1)
            assert ("†" in text) == (area is not None and area.few and not math.isnan(area.value))
    table = page[page.index("<tbody") : page.index("</table>")]
    assert (
        table.count("<b>") == sum(area.best for each in lines for area in each.areas.values()) > 0
    )


# Files


def test_the_page_shows_every_line_with_its_numbers(page: str, lines: Sequence[StudyRow]) -> None:
    columns, names = columns_of(lines), factor_names(lines)
    rows = rows_of(page)
    assert len(rows) == len(lines)
    before = None
    for each, row in zip(lines, rows, strict=True):
        key = each.benchmark, each.group
        assert row[0] == ("" if key == before else each.benchmark)
        assert row[1 : 1 + len(names)] == labels(each, names)
        for column, text in zip(columns, row[1 + len(names) :], strict=True):
            area = each.areas.get(column)
            assert text.startswith(
                f"{area.value * 100:.4f}"
                if area is not None and not math.isnan(area.value)
                else "–"
            )
        before = key


def test_csv_and_json_hold_the_same_numbers(made: Made, lines: Sequence[StudyRow]) -> None:
    with made[1]["study.csv"].open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    record = json.loads(made[1]["study.json"].read_text(encoding="utf-8"))
    assert len(table) == len(record["areas"]) == sum(len(each.areas) for each in lines)
    flat = [(each, column, area) for each in lines for column, area in each.areas.items()]
    for (each, column, area), in_csv, in_json in zip(flat, table, record["areas"], strict=True):
        assert in_csv["benchmark"] == in_json["benchmark"] == each.benchmark
        assert in_csv["bound"] == in_json["bound"] == each.bound
        assert (
            in_csv["factor.method"]
            == in_json.get("factor.method", "")
            == each.factors.get("method", "")
        )
        assert (in_json["form"], in_json["step"], in_json["of"]) == (
            column.form,
            column.step,
            column.of,
        )
        assert (in_csv["of"], float(in_csv["target"])) == (column.of, column.target)
        for name in ("value", "low", "high", "over_random", "over_random_low", "over_random_high"):
            value = getattr(area, name)
            assert float(in_csv[name] or "nan") == pytest.approx(value, nan_ok=True)
            assert in_json[name] == (None if math.isnan(value) else value)
        assert (in_csv["few"], in_csv["best"]) == (str(area.few), str(area.best))
    assert any("ISO/IEC 29794-1:2024" in note for note in record["conventions"])


def test_latex_has_as_many_cells_in_every_line_as_columns(
    made: Made, lines: Sequence[StudyRow]
) -> None:
    text, columns = made[1]["study.tex"].read_text(encoding="utf-8"), columns_of(lines)
    begin = re.search(r"\\begin\{tabular\}\{(l*)(r*)\}", text)
    assert begin is not None
    assert (len(begin[1]), len(begin[2])) == (1 + len(factor_names(lines)), len(columns))
    rows = [row for row in text.splitlines() if row.endswith(r"\\")]
    assert len(rows) == 1 + len(lines)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(begin[1]) + len(columns) - 1}
    assert text.count(r"\midrule") == len(_groups(lines))
    for each, row in zip(lines, rows[1:], strict=True):
        for column, cell in zip(
            columns, row.removesuffix(r" \\").split(" & ")[-len(columns) :], strict=True
        ):
            area = each.areas.get(column)
            if area is None or math.isnan(area.value):
                assert cell == "--"
                continue
            number = f"{area.value * 100:.4f}"
            assert cell == (rf"\textbf{{{number}}}" if area.best else number) + (
                r"$^\dagger$" if area.few else ""
            )


def test_latex_writes_names_as_text() -> None:
    hostile = "a_b & 50% #$ {x} \\y ~^ <b>|\nc"
    text = latex([line(0.1, hostile)], [FMR])
    plain = r"a\_b \& 50\% \#\$ \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{} "
    assert rf"lfw & {plain}\textless{{}}b\textgreater{{}}\textbar{{}} c & 10.0000 \\" in text
    assert latex([line(0.1), line(0.2)], [FMR]).count(r"\midrule") == 1


def test_the_options_of_all_count_and_not_those_of_a_benchmark(
    runs: Callable[..., Results], tmp_path: Path
) -> None:
    own = runs(changed(report={"options": {"title": "Mine"}}), tmp_path)
    options = {**OPTIONS, "average": "method"}
    paths = {path.name: path for path in write_study([("mine", own)], tmp_path, options)}
    record = json.loads(paths["study.json"].read_text(encoding="utf-8"))["areas"]
    assert not any(name.startswith("factor.") for area in record for name in area)
    page = paths["study.html"].read_text(encoding="utf-8")
    assert "means over method (2 values)" in page
    assert "<title>All &lt;b&gt;of&lt;/b&gt; them</title>" in page


# The page


def test_the_page_links_to_the_reports_that_there_are(page: str) -> None:
    assert re.findall(r'href="([^"]*)"', page) == ["data:,", "plain/report.html"]


def test_names_and_titles_are_text(page: str) -> None:
    assert "All &lt;b&gt;of&lt;/b&gt; them" in page
    assert "<b>of</b>" not in page


def test_the_page_asks_for_nothing_and_forbids_what_is_not_its_own(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(https?:|//)', page)
    assert not re.search(r"url\(|@import", page)
    for tag, policy in (("style", "style-src"), ("script", "script-src")):
        assert page.count(f"<{tag}>") == 1
        assert re.search(rf"{policy} 'sha256-[A-Za-z0-9+/=]+'", page)


def test_every_benchmark_has_its_charts(page: str) -> None:
    for name, count in (("plain", 2), ("more", 4)):
        section = page[page.index(f'<section id="{name}">') :]
        assert section[: section.index("</section>")].count('<svg class="chart"') == count


def test_a_browser_shows_the_table_in_silence(browse: Browse, made: Made) -> None:
    became, said = browse(made[1]["study.html"].as_uri())
    assert said == ""
    assert became.count("<tr") == made[1]["study.html"].read_text(encoding="utf-8").count("<tr")


@pytest.mark.parametrize("width", [420, 1280])
def test_every_name_is_seen_and_nothing_is_wider_than_the_window(
    browse: Browse, tmp_path: Path, page: str, width: int
) -> None:
    driver = """<script>
    const wide = document.documentElement.scrollWidth - innerWidth;
    const names = [...document.querySelectorAll(".study .name")];
    const seen = names.filter((cell) => cell.offsetWidth > 0);
    document.title = wide + " " + seen.length + " of " + names.length;
    </script></body>"""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "copy.html").write_text(free.replace("</body>", driver), encoding="utf-8")
    became, _ = browse(
        (tmp_path / "copy.html").as_uri(), f"--window-size={width},1200", "--hide-scrollbars"
    )
    found: Any = re.search(r"<title>(\d+) (\d+) of (\d+)</title>", became)
    assert found[1] == "0"
    assert found[2] == found[3] != "0"


def test_scrolled_aside_the_headings_stay_with_their_columns(
    browse: Browse, tmp_path: Path, page: str
) -> None:
    driver = """<script>
    const box = document.querySelector(".scroll"); box.scrollLeft = 1e4;
    const cells = [...document.querySelector(".study tbody tr").children];
    const under = cells.filter((cell) => cell.dataset.value);
    const heads = [...document.querySelectorAll(".study thead tr:last-child th")];
    const right = (cell) => Math.round(cell.getBoundingClientRect().right);
    const off = heads.map((head, i) => right(head) - right(under[i]));
    document.title = (box.scrollLeft > 400) + " " + off.join(",");
    </script></body>"""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "copy.html").write_text(free.replace("</body>", driver), encoding="utf-8")
    became, _ = browse(
        (tmp_path / "copy.html").as_uri(), "--window-size=420,1200", "--hide-scrollbars"
    )
    assert "<title>true 0,0,0,0,0</title>" in became


def test_options_of_the_study_are_checked(made: Made, tmp_path: Path) -> None:
    options: Mapping[str, Any] = {"tittle": "x"}
    with pytest.raises(InvalidInput, match="tittle"):
        write_study(list(made[0].items()), tmp_path, options)
