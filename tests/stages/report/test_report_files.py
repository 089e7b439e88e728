"""The files of a report: they agree with each other to the digit, and nothing hostile becomes
markup.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InvalidInput
from pipeline.session import Results
from stages.report.report import write_report
from stages.results.rule_table import cells

HOSTILE = "<img src=x onerror=alert(1)>"


class Cells(HTMLParser):
    """Every tag with its attributes, and the data-value of every table cell of the class of table
    it stands in.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.values: dict[str, list[str]] = {}
        self._table = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "table":
            self._table = (found.get("class") or "plain").split()[0]
        if tag == "td" and found.get("data-value"):
            self.values.setdefault(self._table, []).append(str(found["data-value"]))


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same(text: str, value: Any) -> bool:
    """Whether a field of a CSV file says what JSON says."""
    if value is None:
        return text == ""
    return text == str(value) if isinstance(value, str | bool) else float(text) == value


@pytest.fixture(scope="module")
def record(report: Path) -> Any:
    return json.loads((report / "numbers.json").read_text(encoding="utf-8"))


def test_every_number_of_every_cell_is_in_numbers_csv(results: Results, report: Path) -> None:
    lines, found = lines_of(report / "numbers.csv"), cells(results)
    assert len(lines) == sum(cell.numbers.rows for cell in found)
    for name in (
        "value",
        "low",
        "high",
        "achieved",
        "threshold",
        "target",
        "false_matches",
        "nonmated",
        "trials",
    ):
        written = [float(line[name] or "nan") for line in lines]
        kept = np.concatenate([cell.numbers[name] for cell in found]).astype(float)
        if name in ("false_matches", "nonmated"):
            kept[kept < 0] = np.nan  # an empty field: the count does not apply
        np.testing.assert_array_equal(written, kept)
    few = [
        n["few"] | ((n["misses"] >= 0) & (n["misses"] < 30))
        for n in (cell.numbers for cell in found)
    ]
    assert [line["few"] for line in lines] == [
        str(mark) for marks in few for mark in marks.tolist()
    ]


@pytest.mark.parametrize(("name", "key"), [("numbers.csv", "numbers"), ("table.csv", "table")])
def test_json_and_csv_agree_to_the_digit(report: Path, record: Any, name: str, key: str) -> None:
    lines = lines_of(report / name)
    assert len(lines) == len(record[key]) > 0
    for line, found in zip(lines, record[key], strict=True):
        assert line.keys() == found.keys()
        assert all(same(line[column], found[column]) for column in found), (line, found)


def test_the_page_holds_what_the_table_holds_to_the_digit(report: Path, page: str) -> None:
    table = sorted(float(line["value"]) for line in lines_of(report / "table.csv"))
    found = Cells(page).values
    assert sorted(map(float, found["every"])) == table
    assert len(found["rules"]) >= 6 * 5  # six rows of headline numbers
    assert set(map(float, found["rules"])) <= set(table)


def test_json_is_strict_and_writes_what_is_not_there_as_null(report: Path, record: Any) -> None:
    text = (report / "numbers.json").read_text(encoding="utf-8")
    assert not re.search(r"\bNaN\b|\bInfinity\b", text)
    assert any(line["threshold"] is None for line in record["numbers"])


def test_json_holds_conventions_config_data_set_and_versions(results: Results, record: Any) -> None:
    assert any("score ≥ threshold" in sentence for sentence in record["conventions"])
    assert record["config"]["dataset"]["reader"] == "synthetic"
    assert record["dataset"] == results.session.dataset.key
    assert {"python", "numpy", "torch", "qfuse"} <= set(record["versions"])


def test_the_page_and_the_record_say_when_it_was_computed_and_where_the_data_lies(
    results: Results, tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_text('{"ended": "2026-11-30T21:05:00+01:00", "seconds": {}}')
    dataset = replace(results.session.dataset, path=Path("/data/<lfw>"))
    told = replace(results, session=replace(results.session, dataset=dataset, folder=tmp_path))
    paths = {path.name: path for path in write_report(told, {})}
    page, found = (
        paths["report.html"].read_text(encoding="utf-8"),
        json.loads(paths["numbers.json"].read_text()),
    )
    assert "Last computed 2026-11-30 20:05 UTC." in page
    assert "data <code>/data/&lt;lfw&gt;</code>" in page
    assert (found["ended"], found["data"]) == ("2026-11-30T20:05:00+00:00", "/data/<lfw>")


@pytest.mark.parametrize(
    "damaged",
    ["", "[]", '{"ended": 5}', '{"ended": "yesterday"}', '{"ended": "9999-12-31T23:59:59-20:00"}'],
)
def test_a_report_is_made_without_a_date_where_none_is_known(
    results: Results, tmp_path: Path, damaged: str
) -> None:
    (tmp_path / "summary.json").write_text(damaged)
    told = replace(results, session=replace(results.session, folder=tmp_path))
    page = write_report(told, {})[0].read_text(encoding="utf-8")
    assert "Last computed" not in page


def test_a_value_stands_between_what_it_is_of_and_its_interval_in_both_csv_files(
    report: Path,
) -> None:
    columns = [list(lines_of(report / name)[0]) for name in ("numbers.csv", "table.csv")]
    for names in columns:
        at = names.index("metric")
        assert names[at : at + 6] == ["metric", "target", "threshold_rule", "value", "low", "high"]
    assert [name for name in columns[1] if name in columns[0]] == columns[0]


def test_every_section_is_there(page: str) -> None:
    names = ("Result", "Curves", "Comparison scores", "Comparisons, face by face", "Quality")
    for name in (*names, "Failures to acquire", "Every number", "Provenance"):
        assert f"<h2>{name}</h2>" in page
    for chart in ("ROC: TAR against FMR", "DET: FNMR against FMR", "CMC: probes found, by rank"):
        assert page.count(f'aria-label="{chart}"') == 1
    assert (
        page.count('aria-label="scores, 1:') == 4
    )  # 1:1 and 1:N, of the baseline and of the best row
    assert page.count('aria-label="quality scores, ') == 2


def test_the_page_loads_nothing_and_its_policy_forbids_it_to(page: str) -> None:
    tags = Cells(page).tags
    addresses = [
        value
        for _, found in tags
        for name, value in found.items()
        if name in ("src", "href", "action", "data")
    ]
    assert all((address or "").startswith("data:") for address in addresses)
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in tags}
    assert not re.search(r"url\(|@import", page)
    (policy,) = (
        found["content"]
        for _, found in tags
        if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [
        name for _, found in tags for name in found if name == "style" or name.startswith("on")
    ]


def test_a_hostile_title_description_and_option_are_text(
    tmp_path: Path, runs: Any, small: Any
) -> None:
    steps = {**small["steps"], "fuse": {"options": {"rule": "$rule"}}}
    hostile = {
        **small,
        "description": HOSTILE,
        "factors": {"method": ["given"], "rule": ["mean", "best"]},
        "steps": steps,
    }
    page = write_report(runs(hostile, tmp_path), {"title": HOSTILE})[0].read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert (
        page.count("&lt;img src=x onerror=alert(1)&gt;") == 3
    )  # title, heading, description in the config
    assert not [tag for tag, _ in Cells(page).tags if tag == "img"]


def test_a_wrong_option_leaves_the_former_report_whole(results: Results, report: Path) -> None:
    before = {path.name: path.read_bytes() for path in report.iterdir() if path.is_file()}
    with pytest.raises(InvalidInput, match=r"report\.options\.method: .*did you mean 'given'"):
        write_report(results, {"method": "givn"})
    assert {path.name: path.read_bytes() for path in report.iterdir() if path.is_file()} == before


def test_writing_a_report_twice_gives_the_same_bytes_and_leaves_no_temporary_file(
    results: Results, report: Path
) -> None:
    before = [path.read_bytes() for path in sorted(report.glob("*.csv"))] + [
        (report / "report.html").read_bytes()
    ]
    write_report(results, {"title": "Small"})
    assert [path.read_bytes() for path in sorted(report.glob("*.csv"))] + [
        (report / "report.html").read_bytes()
    ] == before
    assert not [path for path in report.iterdir() if path.name.startswith(".")]


def test_a_run_without_an_evaluation_has_a_report_that_says_so(
    tmp_path: Path, runs: Any, small: Any
) -> None:
    config = {
        "name": "bare",
        "dataset": small["dataset"],
        "steps": {"embed": small["steps"]["embed"]},
        "report": {},
    }
    page = write_report(runs(config, tmp_path), {})[0].read_text(encoding="utf-8")
    assert "This run evaluated nothing." in page
    assert "<h2>Result</h2>" not in page
    assert "<h2>Provenance</h2>" in page


def test_what_the_reader_left_out_stands_on_the_page_and_in_the_record(
    results: Results, tmp_path: Path
) -> None:
    note = "32 files are used, 1 is passed over: 1 of suffix .mov (as <ann>/1.mov)."
    dataset = replace(results.session.dataset, notes=[note])
    told = replace(results, session=replace(results.session, dataset=dataset, folder=tmp_path))
    paths = {path.name: path for path in write_report(told, {})}
    assert "1 of suffix .mov (as &lt;ann&gt;/1.mov)" in paths["report.html"].read_text(
        encoding="utf-8"
    )
    assert json.loads(paths["numbers.json"].read_text(encoding="utf-8"))["notes"] == [note]
