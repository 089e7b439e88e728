"""report: a finished run → one self-contained HTML page, CSV and JSON; and a table for the
terminal.

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
from stages.results import headline, provenance, published
from stages.results.choice import Chosen
from stages.results.headline import MARKS, Found, gather
from stages.results.quantities import Quantity, interval_written, written
from stages.results.rule_table import Row, table_frame, to_frame
from stages.tables import csv_text

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group, RenderableType


@register("report", "html")
def write_report(results: Results, options: Mapping[str, Any]) -> list[Path]:
    """Write the report's files into the run's folder and return them, the page first."""
    found = gather(results, options)
    folder = results.folder
    numbers, table = to_frame(found.cells), table_frame(found.table)
    page = render(found)  # before anything is written: an option may turn out not to fit
    paths = [folder / name for name in ("report.html", "numbers.csv", "table.csv", "numbers.json")]
    replace_text(paths[0], page)
    replace_text(paths[1], csv_text.of_frame(numbers))
    replace_text(paths[2], csv_text.of_frame(table))
    ended = provenance.ended(results)
    record = {
        "conventions": conventions.everything(found.table),
        "config": provenance.config_of(results),
        "dataset": results.session.dataset.key,
        "data": provenance.data_path(results),
        "ended": ended and ended.isoformat(),
        "notes": list(results.session.dataset.notes),
        "versions": provenance.versions(results),
        "intervals": {"level": found.table.level, "replicates": found.table.replicates},
        "store": str(results.session.store.root),
        "headline": [
            {
                "step": q.step,
                "kind": q.kind,
                "metric": q.metric,
                "target": q.target,
                "threshold_rule": q.rule,
            }
            for q in found.columns
        ],
        "rows": _rows(found.table.rows),
        "published": [line.record() for line in published.lines(results, found.rows)],
        "chosen": [chosen.record() for chosen in found.chosen],
        "table": _records(table),
        "numbers": _records(numbers),
    }
    write_json(paths[3], record)
    return paths


def _rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return of each row its factors, its lines in the table, and the evaluations (with replicates)
    that it averages.
    """
    found, first = [], 0
    for row in rows:
        evaluations = [
            {
                "step": step.base,
                "output": step.output("numbers"),
                "key": step.tasks[0].keys["numbers"],
            }
            for step in (cell.step for cell in row.cells)
        ]
        found.append(
            {
                "factors": row.factors,
                "lines": [first, first + len(row.entries)],
                "evaluations": evaluations,
            }
        )
        first += len(row.entries)
    return found


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON holds them: what is not there is null."""
    kept = frame.astype(object).where(frame.notna(), None)
    return [
        dict(zip(map(str, kept.columns), row, strict=True))
        for row in kept.itertuples(index=False, name=None)
    ]


@register("terminal report", "html")
def terminal_table(results: Results, options: Mapping[str, Any], width: int) -> Group:
    """Return as many headline numbers as `width` columns hold, the main one first, and its
    difference to the baseline.

    Rows are never folded; 80 columns hold one number and its difference, or more. Below stands what
    was published of the run.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = gather(results, options)
    if found.main is None:
        return Group(Text(" ".join(said.answer for said in headline.sentences(found.groups, None))))
    main = found.main if found.table.baseline else None
    rows = [(row, headline.name_of(row.factors)) for group in found.groups for row in group.rows]
    ends = {name: _difference_text(row, main) for row, name in rows} if main is not None else {}
    texts = {q: _right([_heading(q), *_column([row for row, _ in rows], q)]) for q in found.columns}
    names = [" · ".join(found.factors) or "run", *(name for _, name in rows)]
    left = width - max(map(len, names)) - max((len(end) + 2 for end in ends.values()), default=0)
    shown: list[Quantity] = []
    for q, written_so in texts.items():
        left -= 2 + max(len(line) for text in written_so for line in text.split("\n"))
        if left < 0 and shown:
            break
        shown.append(q)

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(f"\n\n{names[0]}", no_wrap=True)
    for q in shown:
        table.add_column(texts[q][0], no_wrap=True)
    if main is not None:
        table.add_column(f"\ndifference, points\n{main.label}", no_wrap=True)
    winners = [headline.winner(group, main) for group in found.groups]
    for i, (row, name) in enumerate(rows, 1):
        style = "bold" if row.is_baseline or any(row is winner for winner in winners) else ""
        end = [ends[name]] if ends else []
        table.add_row(Text(name), *(Text(texts[q][i]) for q in shown), *end, style=style)
    legend = Text(_terminal_caption(found, len(texts) - len(shown)), style="table.caption")
    known = published.lines(results, found.rows)
    return Group(table, legend, *(["", *_published_table(known)] if known else []))


def _published_table(known: Sequence[published.Line]) -> list[RenderableType]:
    """Return the published numbers beside what was seen, and their legend; a row's name stands
    where it begins.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    sources = "\n".join(dict.fromkeys(f"{line.entry.means}: {line.entry.source}" for line in known))
    legend = (
        f"difference: seen − published, in points; what was published is taken as exact\n{sources}"
    )
    table.add_column("", overflow="fold")
    for name in ("published", "seen", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for line in known:
        if (name := headline.name_of(line.factors, empty="run")) != before:
            table.add_row(Text(name, style="bold"))
        before = name
        table.add_row(Text(line.quantity.label), *map(Text, line.texts()))
    return [table, Text(legend, style="table.caption")]


def _heading(q: Quantity) -> str:
    """Three short lines, as in 'TAR', 'FMR', '≤ 1e-3', the last of them filled first."""
    name, _, target = q.label.partition(" @ ")
    lines = [name, *target.split(" ", 1)] if target else name.rsplit(", ", 1)
    return "\n".join([*[""] * (3 - len(lines)), *lines])


def _terminal_caption(found: Found, left_out: int) -> str:
    level = (
        f"{found.table.level * 100:g} % bootstrap over subjects"
        if found.table.replicates
        else "none"
    )
    averaged = ", ".join(f"{name} ({len(values)})" for name, values in found.table.average.items())
    lines = ["percent; score ≥ threshold; largest FMR ≤ target; †: fewer than 30 errors of a kind"]
    lines += [f"intervals: {level}" + (f"; means over {averaged}" if averaged else "")]
    if found.table.baseline:
        lines[1] += "; ▲ better, ▼ worse: the interval leaves out 0 and rests on 30 errors"
    nothing = headline.undefined(found.rows, found.main) if found.main else ""
    lines += [nothing] if nothing else []
    lines += conventions.undefined(found.table) if found.main and not nothing else []
    lines += conventions.unreachable(found.table, found.columns)
    lines += [
        said.partition(". The interval")[0]
        for said in conventions.no_errors(found.table, found.columns)
    ]
    lines += [_chosen_text(found.chosen)] if found.chosen else []
    more = (
        f"{left_out} more headline {'number' if left_out == 1 else 'numbers'} in a wider terminal"
        " and in the report"
    )
    return "\n".join([*lines, *([more] if left_out else [])])


def _chosen_text(chosen: Sequence[Chosen]) -> str:
    """One line: what was chosen on one half, with its number on the other."""
    parts = []
    for c in chosen:
        metric, e = c.quantity.metric, c.reported
        against = f" ({c.against()})" if e.difference is not None else ""
        others = headline.name_of(c.factors, empty="")
        named = f"{c.value} · {others}" if others else str(c.value)
        parts.append(f"{named} {written(metric, e.value)}{'†' if e.few else ''}{against}")
    return f"chosen on one half, {chosen[0].quantity.label} on the other: {'; '.join(parts)}"


def _right(texts: Sequence[str]) -> list[str]:
    """Put texts, some of several lines, to the right of a common width; a space at the end, where a
    mark could be, stays.
    """
    width = max(len(line) for text in texts for line in text.split("\n"))
    return ["\n".join(line.rjust(width) for line in text.split("\n")) for text in texts]


def _column(rows: Sequence[Row], q: Quantity) -> list[str]:
    """Write a column's values so that their decimals stand under each other, marked or not."""
    entries = [row.entries.get(q) for row in rows]
    plain = " " if any(entry is not None and entry.few for entry in entries) else ""
    return [
        "" if e is None else written(q.metric, e.value) + ("†" if e.few else plain) for e in entries
    ]


def _difference_text(row: Row, main: Quantity) -> Any:
    from rich.text import Text

    entry = row.entries.get(main)
    if row.is_baseline:
        return Text("baseline", style="dim")
    if entry is None or entry.difference is None:
        return Text("")
    d, sign = entry.difference, headline.direction(row, main)
    bounds = interval_written(main.metric, d.low, d.high, signed=True)
    style = {1: "green", -1: "red", 0: "dim"}[sign]
    return Text(
        f"{MARKS[sign] or ' '} {written(main.metric, d.value, signed=True)} {bounds}", style=style
    )
