"""headline: which numbers of a rule table come first, in which order its rows stand, and what it says in words.

Conventions
    Main number    the first of the `fmr` asked for; without one, the strictest headline FMR that rests on at least 30
                   false matches in every row, else the strictest such FMR of all, else EER, else rank-1.
    Order          rows are grouped with the baseline they are compared with, which stands first; then best to worst
                   by the main number; rows that are compared with nothing come last.
    Words          a difference is called one only where its interval leaves out 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.session import Results
from stages.quantities import LOWER_IS_BETTER, Quantity, interval_written, written
from stages.report_options import ReportOptions, read_options
from stages.summary import Cell, Row, RuleTable, cells, rule_table

HEADLINE_FMR = (1e-3, 1e-4)
HEADLINE_FPIR = (1e-1, 1e-2)
MARKS = {1: "▲", -1: "▼", 0: ""}  # a direction that needs no colour


@dataclass(frozen=True)
class Group:
    """The rows compared with one baseline, best first; `baseline` is None for rows that are compared with nothing."""

    factors: Mapping[str, Any]  # what the rows have in common with their baseline, beside what makes it the baseline
    baseline: Row | None
    others: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.others if self.baseline is None else (self.baseline, *self.others)


@dataclass(frozen=True)
class Found:
    """What every part of a report is made from."""

    results: Results
    options: ReportOptions
    cells: Sequence[Cell]
    table: RuleTable
    main: Quantity | None
    columns: Sequence[Quantity]
    groups: Sequence[Group]


def gather(results: Results, options: Mapping[str, Any]) -> Found:
    """Read every cell once. Raises InvalidInput for options that do not fit the run."""
    checked = read_options(options)
    found = cells(results)
    table = rule_table(results, checked, found)
    main = primary(table, checked)
    return Found(results, checked, found, table, main, columns(table, checked), grouped(table, main))


def primary(table: RuleTable, options: ReportOptions) -> Quantity | None:
    """Return the main number; None where nothing was evaluated."""
    asked = [q for target in options.fmr or () for q in table.find("tar", target)]
    solid = [q for q in table.find("tar") if not any(row.entries[q].few for row in table.rows if q in row.entries)]
    strict = sorted(solid, key=lambda q: q.target or 0)
    usual = [q for q in strict if any(math.isclose(q.target or 0, target) for target in HEADLINE_FMR)]
    candidates = [*asked, *usual, *strict, *table.find("eer"), *table.find("rank", 1), *table.find("tpir")]
    return next(iter([*candidates, *table.quantities]), None)


def columns(table: RuleTable, options: ReportOptions) -> list[Quantity]:
    """Return the headline numbers that the table has, the main one first."""
    main = primary(table, options)
    chosen = [] if main is None else [main]
    for target in options.fmr or HEADLINE_FMR:
        chosen += table.find("tar", target)
    chosen += [*table.find("eer"), *table.find("accuracy"), *table.find("rank", 1)]
    for target in HEADLINE_FPIR:
        chosen += table.find("tpir", target)
    return list(dict.fromkeys(chosen))


def grouped(table: RuleTable, by: Quantity | None) -> list[Group]:
    """Return the rows in the order in which they are shown."""
    found: dict[tuple[tuple[str, Any], ...] | None, list[Row]] = {}
    for row in table.rows:
        key = None if row.reference is None else tuple(row.reference.items())
        found.setdefault(key, []).append(row)
    groups = []
    for key, rows in sorted(found.items(), key=lambda item: item[0] is None):
        first = next((row for row in rows if row.is_baseline), None)
        others = sorted((row for row in rows if row is not first), key=lambda row: -goodness(row, by))
        shared = {k: v for k, v in (key or ()) if k not in table.baseline}
        groups.append(Group(shared, first, tuple(others)))
    return groups


def goodness(row: Row, by: Quantity | None) -> float:
    """Return a value that is larger for better rows; -inf where the number is not there or not defined."""
    if by is None or by not in row.entries or math.isnan(row.entries[by].value):
        return -math.inf
    value = row.entries[by].value
    return -value if by.metric in LOWER_IS_BETTER else value


def direction(row: Row, by: Quantity) -> int:
    """1: clearly better than the baseline; -1: clearly worse; 0: not told apart, or not compared."""
    entry = row.entries.get(by)
    if entry is None or entry.difference is None or not entry.difference.clear:
        return 0
    better = (entry.difference.low > 0) != (by.metric in LOWER_IS_BETTER)
    return 1 if better else -1


def winner(group: Group, by: Quantity | None) -> Row | None:
    """Return the best row of a group if it is clearly better than the baseline."""
    if by is None or group.baseline is None or not group.others:
        return None
    return group.others[0] if direction(group.others[0], by) > 0 else None


def name_of(factors: Mapping[str, Any], without: Sequence[str] = ()) -> str:
    """Write factors in words, as in 'best · ediffiqa'; the weight rule comes first."""
    ordered = sorted(factors, key=lambda name: name != "rule")
    return " · ".join(str(factors[name]) for name in ordered if name not in without) or "all"


def sentences(groups: Sequence[Group], by: Quantity | None) -> list[str]:
    """Say what came out: one paragraph for each baseline."""
    if by is None:
        return ["This run evaluated nothing."]
    said = [_said(group, by) for group in groups if group.baseline is not None]
    return said or [_without_baseline(groups, by)]


def _without_baseline(groups: Sequence[Group], by: Quantity) -> str:
    rows = [row for group in groups for row in group.rows if by in row.entries]
    if len(rows) <= 1:
        return f"{by.label} is {_value(rows[0], by)}." if rows else "No row has the main number; see the table."
    best, worst = rows[0], rows[-1]
    return (
        f"By {by.label}, {name_of(best.factors)} comes first with {_value(best, by)} and {name_of(worst.factors)} last "
        f"with {_value(worst, by)}. There is no baseline among the rows, so nothing is said of differences."
    )


def _said(group: Group, by: Quantity) -> str:
    base = group.baseline
    if base is None or by not in base.entries:
        return ""
    where = f"With {name_of(group.factors)}: " if group.factors else ""
    shared = tuple(group.factors)
    start = f"{where}the baseline {name_of(base.factors, shared)} has {by.label} = {_value(base, by)}."
    rows = [row for row in group.others if by in row.entries and row.entries[by].difference is not None]
    if not rows:
        return start
    counts = {sign: sum(direction(row, by) == sign for row in rows) for sign in (1, -1, 0)}
    start += (
        f" Of {len(rows)} other {'row' if len(rows) == 1 else 'rows'}, {counts[1]} {_is(counts[1])} clearly better, "
        f"{counts[-1]} clearly worse, and {counts[0]} cannot be told apart from it."
    )
    start += f" Best: {name_of(rows[0].factors, shared)}, {_differs(rows[0], by)}."
    if len(rows) > 1:
        start += f" Worst: {name_of(rows[-1].factors, shared)}, {_differs(rows[-1], by)}."
    return start


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _value(row: Row, by: Quantity) -> str:
    e = row.entries[by]
    bounds = interval_written(by.metric, e.low, e.high)
    return f"{written(by.metric, e.value)} %{' ' + bounds if bounds else ''}"


def _differs(row: Row, by: Quantity) -> str:
    d = row.entries[by].difference
    if d is None:
        return "not compared"
    bounds = interval_written(by.metric, d.low, d.high, signed=True)
    verdict = "" if direction(row, by) else ", an interval that holds 0" if bounds else ", without an interval"
    return f"{written(by.metric, d.value, signed=True)} points{' ' + bounds if bounds else ''}{verdict}"
