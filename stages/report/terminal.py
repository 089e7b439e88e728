"""terminal: the table that a run prints, as wide as the terminal and no wider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.core.registry import register
from pipeline.session import Results
from stages.report import conventions
from stages.report.cells import chosen_difference, published_texts
from stages.report.text_table import add_numbers, text_table
from stages.results.choice import Chosen
from stages.results.published import PublishedNumber, published_numbers
from stages.results.quantities import MARKS, Quantity, interval_written, name_of, written
from stages.results.ranking import Ranking, direction, rank, winner
from stages.results.rule_table import Row
from stages.results.verdict import nothing_defined, verdicts

if TYPE_CHECKING:
    from rich.console import Group, RenderableType


@register("terminal report", "html")
def terminal_table(results: Results, options: Mapping[str, Any], width: int) -> Group:
    """Return the table of a run, with its legend and what was published of it.

    It has as many headline numbers as `width` columns hold, the main one first, and the main one's
    difference to the baseline. Rows are never folded; 80 columns hold one number and its
    difference, or more.
    """
    from rich.console import Group
    from rich.text import Text

    ranking = rank(results, options)
    if ranking.main is None:
        return Group(Text(" ".join(verdict.answer for verdict in verdicts(ranking.groups, None))))
    table, left_out = _table(ranking, ranking.main, width)
    legend = Text(_legend(ranking, ranking.main, left_out), style="table.caption")
    known = published_numbers(results, ranking.rows)
    return Group(table, legend, *(["", *_published(known)] if known else []))


def _table(ranking: Ranking, main: Quantity, width: int) -> tuple[RenderableType, int]:
    """Return the table, and how many headline numbers it has no room for."""
    from rich.text import Text

    rows = ranking.rows
    columns = {q: _right([_heading(q), *_column(rows, q)]) for q in ranking.columns}
    names = [" · ".join(ranking.factors) or "run", *(name_of(row.factors) for row in rows)]
    compared = bool(ranking.table.baseline)
    ends = [_difference(row, main) for row in rows] if compared else []
    left = width - max(map(len, names)) - max((len(end) + 2 for end in ends), default=0)
    shown: list[Quantity] = []
    for q, texts in columns.items():
        left -= 2 + max(len(line) for text in texts for line in text.split("\n"))
        if left < 0 and shown:
            break
        shown.append(q)

    table = text_table()
    table.add_column(f"\n\n{names[0]}", no_wrap=True)
    for q in shown:
        table.add_column(columns[q][0], no_wrap=True)
    if compared:
        table.add_column(f"\ndifference, points\n{main.label}", no_wrap=True)
    winners = [winner(group, main if compared else None) for group in ranking.groups]
    for i, row in enumerate(rows):
        bold = row.is_baseline or any(row is best for best in winners)
        numbers = [Text(columns[q][i + 1]) for q in shown]
        style = "bold" if bold else ""
        table.add_row(Text(names[i + 1]), *numbers, *ends[i : i + 1], style=style)
    return table, len(columns) - len(shown)


def _published(known: Sequence[PublishedNumber]) -> list[RenderableType]:
    """Return the published numbers beside what was seen, and their legend.

    A row's name stands once, above the first of its numbers.
    """
    from rich.text import Text

    table = text_table()
    table.add_column("", overflow="fold")
    add_numbers(table, "published", "seen", "difference")
    before = None
    for number in known:
        if (name := name_of(number.factors, empty="run")) != before:
            table.add_row(Text(name, style="bold"))
        before = name
        table.add_row(Text(number.quantity.label), *map(Text, published_texts(number)))
    sources = "\n".join(dict.fromkeys(f"{n.entry.means}: {n.entry.source}" for n in known))
    legend = (
        f"difference: seen − published, in points; what was published is taken as exact\n{sources}"
    )
    return [table, Text(legend, style="table.caption")]


def _heading(q: Quantity) -> str:
    """Three short lines, as in 'TAR', 'FMR', '≤ 1e-3', the last of them filled first."""
    name, _, target = q.label.partition(" @ ")
    lines = [name, *target.split(" ", 1)] if target else name.rsplit(", ", 1)
    return "\n".join([*[""] * (3 - len(lines)), *lines])


def _legend(ranking: Ranking, main: Quantity, left_out: int) -> str:
    """Say what the numbers are, and why some are missing."""
    table = ranking.table
    level = f"{table.level * 100:g} % bootstrap over subjects" if table.replicates else "none"
    lines = ["percent; score ≥ threshold; largest FMR ≤ target; †: fewer than 30 errors of a kind"]
    intervals = f"intervals: {level}"
    if averaged := ", ".join(f"{name} ({len(values)})" for name, values in table.average.items()):
        intervals += f"; means over {averaged}"
    if table.baseline:
        intervals += "; ▲ better, ▼ worse: the interval leaves out 0 and rests on 30 errors"
    lines.append(intervals)
    if nothing := nothing_defined(ranking.rows, main):
        lines.append(nothing)
    else:
        lines += conventions.undefined(table)
    lines += conventions.unreachable(table, ranking.columns)
    errorless = conventions.no_errors(table, ranking.columns)
    lines += [sentence.partition(". The interval")[0] for sentence in errorless]
    if ranking.chosen:
        lines.append(_chosen_text(ranking.chosen))
    if left_out:
        numbers = "number" if left_out == 1 else "numbers"
        lines.append(f"{left_out} more headline {numbers} in a wider terminal and in the report")
    return "\n".join(lines)


def _chosen_text(chosen: Sequence[Chosen]) -> str:
    """One line: what was chosen on one half, with its number on the other."""
    parts = []
    for c in chosen:
        metric, entry = c.quantity.metric, c.reported
        against = f" ({chosen_difference(c)})" if entry.difference is not None else ""
        others = name_of(c.factors, empty="")
        named = f"{c.value} · {others}" if others else str(c.value)
        parts.append(f"{named} {written(metric, entry.value)}{'†' if entry.few else ''}{against}")
    return f"chosen on one half, {chosen[0].quantity.label} on the other: {'; '.join(parts)}"


def _right(texts: Sequence[str]) -> list[str]:
    """Put texts, some of several lines, to the right of a common width.

    A space at the end stands for a mark that others have, and stays.
    """
    width = max(len(line) for text in texts for line in text.split("\n"))
    return ["\n".join(line.rjust(width) for line in text.split("\n")) for text in texts]


def _column(rows: Sequence[Row], q: Quantity) -> list[str]:
    """Write a column's values so that their decimals stand under each other, marked or not."""
    entries = [row.entries.get(q) for row in rows]
    plain = " " if any(entry is not None and entry.few for entry in entries) else ""
    return [
        "" if entry is None else written(q.metric, entry.value) + ("†" if entry.few else plain)
        for entry in entries
    ]


def _difference(row: Row, main: Quantity) -> Any:
    from rich.text import Text

    entry = row.entries.get(main)
    if row.is_baseline:
        return Text("baseline", style="dim")
    if entry is None or entry.difference is None:
        return Text("")
    d, sign = entry.difference, direction(row, main)
    bounds = interval_written(main.metric, d.low, d.high, signed=True)
    style = {1: "green", -1: "red", 0: "dim"}[sign]
    return Text(
        f"{MARKS[sign] or ' '} {written(main.metric, d.value, signed=True)} {bounds}", style=style
    )
