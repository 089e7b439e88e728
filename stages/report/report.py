"""report: a finished run → one self-contained HTML page, CSV and JSON.

Conventions
    Files     report.html, numbers.csv (every number of every cell), table.csv (rows averaged and
              compared with the baseline), numbers.json (both, with conventions, config, versions,
              and the evaluations in the store that each row is made of). Each replaces its former
              self by rename.
    The page  loads nothing from anywhere, and its policy forbids it to; it works without
              JavaScript.
    Numbers   are written rounded; the attribute data-value holds what the CSV holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.registry import register
from pipeline.session import Results, write_json
from pipeline.system.atomic_text import replace_text
from stages.report import conventions
from stages.report.page import render
from stages.results.frames import cell_frame, row_frame
from stages.results.quantities import Quantity
from stages.summary.summary import Summary, summarise
from stages.tables import csv_text

if TYPE_CHECKING:
    import pandas as pd


@register("report", "html")
def write_report(results: Results, options: Mapping[str, Any]) -> list[Path]:
    """Write the report's files into the run's folder and return them, the page first."""
    # All is made before anything is written: an option may turn out not to fit.
    summary = summarise(results, options)
    page = render(summary)
    numbers, table = cell_frame(summary.ranking.cells), row_frame(summary.ranking.table)
    names = ("report.html", "numbers.csv", "table.csv", "numbers.json")
    paths = [results.folder / name for name in names]
    replace_text(paths[0], page)
    replace_text(paths[1], csv_text.of_frame(numbers))
    replace_text(paths[2], csv_text.of_frame(table))
    write_json(paths[3], _record(summary, numbers, table))
    return paths


def _record(summary: Summary, numbers: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    """Return what numbers.json holds."""
    ranking, made = summary.ranking, summary.provenance
    return {
        "conventions": conventions.everything(ranking.table),
        "config": made.config,
        "dataset": made.dataset,
        "data": made.data,
        "ended": made.ended and made.ended.isoformat(),
        "notes": made.notes,
        "versions": made.versions,
        "intervals": {"level": ranking.table.level, "replicates": ranking.table.replicates},
        "store": made.store,
        "headline": [_named(q) for q in ranking.columns],
        "rows": _rows(summary),
        "published": [number.record() for number in summary.published],
        "chosen": [chosen.record() for chosen in ranking.chosen],
        "table": _records(table),
        "numbers": _records(numbers),
    }


def _named(q: Quantity) -> dict[str, Any]:
    named = {"step": q.step, "kind": q.kind, "metric": q.metric, "target": q.target}
    return {**named, "threshold_rule": q.rule}


def _rows(summary: Summary) -> list[dict[str, Any]]:
    """Return of each row its factors, its lines in the table, and its evaluations.

    The evaluations, which hold the replicates, are those that the row averages.
    """
    found, first = [], 0
    rows = summary.ranking.table.rows
    for row, evaluations in zip(rows, summary.provenance.evaluations, strict=True):
        lines = [first, first + len(row.entries)]
        found.append({"factors": row.factors, "lines": lines, "evaluations": evaluations})
        first = lines[1]
    return found


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON holds them: a missing value is null."""
    kept = frame.astype(object).where(frame.notna(), None)
    rows: Sequence[Any] = list(kept.itertuples(index=False, name=None))
    return [dict(zip(map(str, kept.columns), row, strict=True)) for row in rows]
