"""Published numbers beside those of a run: the shipped manifest, and a small run with one of its
own.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipeline.errors import InvalidInput
from pipeline.session import Results
from stages.report.cells import published_texts
from stages.report.page import render
from stages.report.report import write_report
from stages.report.terminal import terminal_table
from stages.results import published
from stages.results.published import PublishedNumber, published_numbers, read_published
from stages.results.ranking import rank
from stages.shipped_files import resource
from stages.summary.summary import summarise
from stages.tables.comparisons import Comparisons

Make = Callable[..., Any]
ROOT = Path(__file__).parents[3]
SHIPPED = read_published(ROOT / "data_manifests/published.yaml")


@pytest.fixture
def entry(results: Results) -> dict[str, Any]:
    """An entry that the row `mean` of the small run reproduces but for a tenth of a point."""
    tables = results.session.dataset.tables
    counts = {name: tables[name].rows for name in ("faces", "templates")}
    row = next(row for row in rank(results, {}).rows if row.factors == {"rule": "mean"})
    q = next(q for q in row.entries if (q.metric, q.target, q.rule) == ("tar", 0.01, "at_most"))
    return {
        "set": {
            "reader": "synthetic",
            "counts": {**counts, "comparisons": Comparisons.of(tables).rows},
        },
        "model": {"card": "given", "flip": "none"},
        "rule": "mean",
        "metric": "tar",
        "threshold_rule": "at_most",
        "values": {0.01: row.entries[q].value - 0.001},
        "means": "the plain mean",
        "source": "a paper, table 1",
    }


@pytest.fixture
def shown(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any], list[PublishedNumber]]:
    """Put entries into the place of the shipped ones, and return the lines that the small run has
    of them.
    """

    def put(*entries: Any) -> list[PublishedNumber]:
        path = tmp_path / "published.yaml"
        path.write_text(yaml.safe_dump({f"entry {i}": each for i, each in enumerate(entries)}))
        monkeypatch.setattr(published, "resource", lambda name: path)
        return published_numbers(results, rank(results, {}).rows)

    return put


def printed(results: Results, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_table(results, {}, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_shipped_manifest_is_valid_and_every_row_says_what_it_means_and_where_it_stood() -> (
    None
):
    assert resource(published.MANIFEST) == ROOT / "data_manifests/published.yaml"
    assert len(SHIPPED) == 7
    assert all(entry.means and entry.source for entry in SHIPPED.values())


def test_a_shipped_row_has_the_rule_and_the_flip_of_the_mode_that_its_source_names() -> None:
    modes = {}
    for entry in SHIPPED.values():
        if mode := re.search(r"TestMode\(N(\d)D(\d)F(\d)\)", entry.source):
            norm, detector, flip = mode.groups()
            modes[mode[0]] = entry.values
            assert entry.rule == f"insightface-script(norm={norm}, detector={detector})"
            assert entry.model.flip == {"0": "none", "2": "add"}[flip]
    assert len(modes) == 6
    # The notebook's last table (deepinsight/insightface,
    # evaluation/IJB/IJBC_Evaluation_MS1MV2.ipynb), one of its rows.
    assert modes["TestMode(N1D1F2)"] == {1e-6: 0.8985, 1e-5: 0.9447, 1e-4: 0.9628, 1e-3: 0.9753}


def test_the_shipped_rows_of_ijbc_are_of_the_whole_set_as_its_own_manifest_counts_it() -> None:
    counts = yaml.safe_load((ROOT / "data_manifests/ijbc.yaml").read_text())["counts"]
    for entry in SHIPPED.values():
        assert entry.set.counts == {
            name: counts[name] for name in ("faces", "templates", "comparisons", "mated")
        }


def test_a_line_is_the_published_number_what_was_seen_and_their_difference(
    shown: Make, entry: dict[str, Any]
) -> None:
    (line,) = shown(entry)
    assert line.factors == {"rule": "mean"}
    assert line.published == entry["values"][0.01]
    assert line.difference[0] == pytest.approx(0.001)
    assert line.difference[1:] == pytest.approx(
        (line.seen.low - line.published, line.seen.high - line.published)
    )


def test_a_number_without_an_interval_has_a_difference_without_one(
    shown: Make, entry: dict[str, Any]
) -> None:
    (line,) = shown({**entry, "threshold_rule": "script"})
    assert "[" not in "".join(published_texts(line))
    assert line.record()["difference_low"] is None


def test_an_entry_is_held_against_every_row_of_its_rule(shown: Make, entry: dict[str, Any]) -> None:
    methods = {line.factors["method"] for line in shown({**entry, "rule": "best"})}
    assert methods == {"given", "feature-norm"}


def test_a_rule_with_its_defaults_written_out_is_the_same_rule() -> None:
    assert published._same_rule("insightface-script", "insightface-script(norm=1, detector=1)")
    assert not published._same_rule("insightface-script", "insightface-script(norm=1, detector=0)")


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("set", "reader", "ijb"),
        ("set", "counts", {"faces": 469375}),
        ("set", "counts", {"mated": 1}),
        ("model", "card", "arcface_r100"),
        ("model", "flip", "add"),
        ("", "rule", "medoid"),
        ("", "metric", "eer"),
        ("", "values", {0.02: 0.5}),
    ],
)
def test_nothing_is_shown_of_another_set_model_rule_or_number(
    shown: Make, entry: dict[str, Any], part: str, field: str, value: Any
) -> None:
    other = deepcopy(entry)
    (other[part] if part else other)[field] = value
    assert shown(other) == []


def test_weights_of_another_digest_are_another_model(pictures: Results) -> None:
    embed = pictures.cells("embed")[0]
    digest = embed.stage.identity()["sha256"]
    wanted = {"card": embed.stage.options.model, "flip": embed.stage.options.flip}
    assert published._is_model(embed, published.PublishedModel(**wanted, sha256=digest))
    assert not published._is_model(embed, published.PublishedModel(**wanted, sha256="0" * 64))


def test_the_terminal_shows_published_numbers_below_the_table(
    results: Results, shown: Make, entry: dict[str, Any]
) -> None:
    shown(entry)
    text = printed(results)
    assert "published" in text
    assert "+0.10 [" in text
    assert "a paper, table 1" in text
    assert max(map(len, printed(results, 80).splitlines())) <= 80


def test_the_page_and_numbers_json_hold_published_numbers(
    results: Results,
    shown: Make,
    entry: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (line,) = shown({**entry, "source": "<b>a paper</b>"})
    page = render(summarise(results, {}))
    assert '<section id="published">' in page
    assert "&lt;b&gt;a paper&lt;/b&gt;" in page
    monkeypatch.setattr(type(results), "folder", tmp_path)
    (held,) = json.loads(write_report(results, {})[3].read_text())["published"]
    assert held == line.record()
    assert held["difference"] == pytest.approx(0.001)


def test_a_run_of_another_benchmark_shows_nothing(
    results: Results, page: str, report: Path
) -> None:
    assert published_numbers(results, rank(results, {}).rows) == []
    assert "published" not in printed(results)
    assert '<section id="published">' not in page
    assert json.loads((report / "numbers.json").read_text())["published"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": ""}, "source"),
        ({"rule": "meen"}, "meen"),
        ({"values": {0.01: 95.65}}, "fractions, from 0 to 1"),
        ({"set": {"reader": "ijb", "counts": {"pairs": 1}}}, "counts"),
        ({"where": "table 1"}, "where"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name_and_field(
    entry: dict[str, Any], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({"mine": {**entry, **change}}))
    with pytest.raises(InvalidInput) as refused:
        read_published(path)
    assert "mine" in str(refused.value)
    assert said in str(refused.value)
