"""headline: which numbers of a rule table come first, in which order its rows stand, and what it
says in words.

Conventions
    Main number    the first of the report's `fmr`; without one, TAR at the strictest headline FMR
                   that rests on at least 30 false matches in every row, else EER, else TAR at the
                   strictest such FMR of all, else rank-1.
    Headline       FMR and FPIR are those that the config's evaluation names (`fmr`, `fpir`); where
                   it leaves them at their defaults, two of these. A number that is not defined in
                   any row has no column, and a note says so.
    Order          rows are grouped with the baseline they are compared with, which stands first;
                   then best to worst by the main number; rows that are compared with nothing come
                   last.
    Words          a row is called better or worse only where the interval of its difference leaves
                   out 0. The row that comes first is chosen after the fact: rows whose paired
                   interval with it holds 0 are named beside it.
    Equal rows     a row whose every number and replicate is another's says nothing new, and is
                   counted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.config import Config
from pipeline.session import Results
from stages.evaluation.discard import STARTING
from stages.metrics import bootstrap
from stages.results.choice import MARKS as MARKS
from stages.results.choice import Chosen, choices, sign
from stages.results.quantities import (
    AREA,
    KINDS,
    Kind,
    Quantity,
    flawless,
    interval_written,
    lower_is_better,
    written,
)
from stages.results.report_options import ReportOptions, half_factor, read_options
from stages.results.rule_table import ROUNDING, Cell, Difference, Row, RuleTable, cells, rule_table

HEADLINE_FMR = (1e-3, 1e-4)
HEADLINE_FPIR = (1e-1, 1e-2)


@dataclass(frozen=True)
class Group:
    """The rows compared with one baseline, best first; `baseline` is None for rows that are
    compared with nothing.
    """

    # what the rows have in common with their baseline, beside what makes it the baseline
    factors: Mapping[str, Any]
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
    chosen: Sequence[Chosen]
    main: Quantity | None
    columns: Sequence[Quantity]
    groups: Sequence[Group]

    @property
    def rows(self) -> list[Row]:
        """The rows of the main table, in the order in which they are shown."""
        return [row for group in self.groups for row in group.rows]

    @property
    def factors(self) -> list[str]:
        """The factors that tell rows apart, in the order in which they are shown."""
        return rule_first(self.table.factors)


def gather(results: Results, options: Mapping[str, Any]) -> Found:
    """Read every cell once. Raises InvalidInput for options that do not fit the run."""
    checked = read_options(options, results.plan.config.factors)
    found = cells(results)
    table = rule_table(results, checked, found)
    config = results.plan.config
    fmr, fpir, factors = named(config, "1:1", "fmr"), named(config, "1:N", "fpir"), config.factors
    main, shown, half = (
        primary(table, checked, fmr),
        columns(table, checked, fmr, fpir),
        half_factor(factors),
    )
    groups = [kept for group in grouped(table, main) if (kept := _with_any(group, shown)).rows]
    # what is chosen on is no result
    groups.sort(key=lambda group: half is not None and group.factors.get(half) == "choose")
    return Found(
        results, checked, found, table, choices(table, checked.choose, factors), main, shown, groups
    )


def _with_any(group: Group, shown: Sequence[Quantity]) -> Group:
    """Leave out rows that have none of the numbers shown, such as those of an evaluation that is
    never in the headline.
    """
    base = (
        group.baseline
        if group.baseline and any(q in group.baseline.entries for q in shown)
        else None
    )
    return Group(
        group.factors,
        base,
        tuple(row for row in group.others if any(q in row.entries for q in shown)),
    )


def named(config: Config, kind: Kind, option: str) -> tuple[float, ...]:
    """Return the targets that the evaluating steps of a kind name themselves, in their order; none
    where all are defaults.
    """
    steps = ((section.stage or name, section.options) for name, section in config.steps.items())
    lists = [
        options[option]
        for stage, options in steps
        if KINDS.get(stage) == kind and option in options
    ]
    return tuple(
        dict.fromkeys(
            target for targets in lists if isinstance(targets, list | tuple) for target in targets
        )
    )


def primary(table: RuleTable, options: ReportOptions, fmr: Sequence[float] = ()) -> Quantity | None:
    """Return the main number; None where nothing was evaluated. `fmr`: as of `columns`."""
    asked = [q for target in options.fmr or () for q in table.find("tar", target)]
    held = {
        q: [row.entries[q] for row in table.rows if q in row.entries] for q in table.find("tar")
    }
    solid = [
        q
        for q, entries in held.items()
        if not any(e.few_matches or math.isnan(e.value) for e in entries)
    ]
    strict = sorted(solid, key=lambda q: q.target or 0)
    usual = [
        q
        for q in strict
        if any(math.isclose(q.target or 0, target) for target in fmr or HEADLINE_FMR)
    ]
    candidates = [
        *asked,
        *usual,
        *table.find("eer"),
        *strict,
        *table.find("rank", 1),
        *table.find("tpir"),
    ]
    candidates += areas(table, options)
    return next(iter([*candidates, *table.quantities]), None)


def columns(
    table: RuleTable, options: ReportOptions, fmr: Sequence[float] = (), fpir: Sequence[float] = ()
) -> list[Quantity]:
    """Return the headline numbers that the table has, the main one first. `fmr`, `fpir`: those that
    the config names.

    A number that no row has defined is left out, but for the main one.
    """
    main = primary(table, options, fmr)
    chosen = [] if main is None else [main]
    if main is not None and main.metric == "tar":
        chosen += table.find("frr", main.target) if _any_failed(table, "fta") else []
        chosen += table.find("gfrr", main.target) if _any_failed(table, "fte") else []
    for target in options.fmr or fmr or HEADLINE_FMR:
        chosen += table.find("tar", target)
    chosen += [*table.find("eer"), *table.find("accuracy"), *table.find("rank", 1)]
    for target in fpir or HEADLINE_FPIR:
        chosen += table.find("tpir", target)
    steps = list(dict.fromkeys(q.step for q in table.quantities))

    def place(
        q: Quantity,
    ) -> tuple[bool, bool, int, float]:  # the same in every run, whichever numbers are marked †
        return q.metric == "erc_auc", q.rule == STARTING, steps.index(q.step), -(q.target or 0)

    chosen += sorted(areas(table, options), key=place)
    return [
        q
        for q in dict.fromkeys(chosen)
        if q is main or any(goodness(row, q) > -math.inf for row in table.rows)
    ]


def areas(table: RuleTable, options: ReportOptions) -> list[Quantity]:
    """Return the areas under error versus discard: standard ones up to each step's smallest limit,
    then the legacy form's.

    First come those at the first FMR asked for, then the strictest target that rests on 30 false
    matches in every row; where none does, the most lenient. Those from a starting error come last.
    """
    plain = {
        q: float(area[2])
        for q in table.quantities
        if (area := AREA.fullmatch(q.metric)) and area[1] in ("fnm", "fnir") and not area[3]
    }
    least = {
        step: min(limit for q, limit in plain.items() if q.step == step)
        for step in {q.step for q in plain}
    }
    wanted = (options.fmr or ())[:1]

    def rank(q: Quantity) -> tuple[bool, bool, bool, float]:
        few = any(row.entries[q].few_matches for row in table.rows if q in row.entries)
        starting, target = q.rule == STARTING, q.target or 0
        asked = (
            q.kind == "discard"
            and not starting
            and any(math.isclose(target, each) for each in wanted)
        )
        return starting, not asked, few, -target if few else target

    standard = [q for q, limit in plain.items() if limit == least[q.step]]
    return [*sorted(standard, key=rank), *sorted(table.find("erc_auc", rule="nearest"), key=rank)]


def _any_failed(table: RuleTable, share: str) -> bool:
    """Whether failures to acquire make FRR say more than 1 − TAR, or those to enrol GFRR more than
    FRR.
    """
    return any(
        row.entries[q].value > 0
        for q in table.find(share)
        for row in table.rows
        if q in row.entries
    )


def grouped(table: RuleTable, by: Quantity | None) -> list[Group]:
    """Return the rows in the order in which they are shown."""
    found: dict[tuple[tuple[str, Any], ...] | None, list[Row]] = {}
    for row in table.rows:
        key = None if row.reference is None else tuple(row.reference.items())
        found.setdefault(key, []).append(row)
    groups = []
    for key, rows in sorted(found.items(), key=lambda item: item[0] is None):
        first = next((row for row in rows if row.is_baseline), None)
        others = sorted(
            (row for row in rows if row is not first), key=lambda row: -goodness(row, by)
        )
        shared = {k: v for k, v in key or () if k not in table.baseline}
        groups.append(Group(shared, first, tuple(others)))
    return groups


def goodness(row: Row, by: Quantity | None) -> float:
    """Return a value that is larger for better rows; -inf where the number is not there or not
    defined.
    """
    if by is None or by not in row.entries or math.isnan(row.entries[by].value):
        return -math.inf
    value = row.entries[by].value
    return -value if lower_is_better(by.metric) else value


def direction(row: Row, by: Quantity) -> int:
    """1: clearly better than the baseline; -1: clearly worse; 0: not told apart, or not
    compared."""
    return sign(_difference(row, by), by)


def winner(group: Group, by: Quantity | None) -> Row | None:
    """Return the best row of a group if it is clearly better than the baseline."""
    if by is None or group.baseline is None or not group.others:
        return None
    return group.others[0] if direction(group.others[0], by) > 0 else None


def rule_first(names: Iterable[str]) -> list[str]:
    """Put the weight rule, which a row is about, before every other factor."""
    return sorted(names, key=lambda name: name != "rule")


def name_of(factors: Mapping[str, Any], without: Sequence[str] = (), empty: str = "all") -> str:
    """Write factors in words, as in 'best · lightqnet'."""
    return (
        " · ".join(str(factors[name]) for name in rule_first(factors) if name not in without)
        or empty
    )


@dataclass(frozen=True)
class Said:
    """What came out, in a sentence; `more` goes on from there, and may be empty."""

    answer: str
    more: str = ""


def sentences(groups: Sequence[Group], by: Quantity | None, level: float = 0.95) -> list[Said]:
    """Say what came out: once for each baseline. `level` is that of the intervals between the first
    row and the others.
    """
    if by is None:
        return [Said("This run evaluated nothing.")]
    if nothing := undefined([row for group in groups for row in group.rows], by):
        return [Said(nothing)]
    said = [
        _said(group, group.baseline, by, level)
        for group in groups
        if group.baseline is not None and by in group.baseline.entries
    ]
    return said or [_without_baseline(groups, by)]


def undefined(rows: Sequence[Row], by: Quantity) -> str:
    """Say that a number is defined in no row, and how many comparisons failed templates took; empty
    if it is in one.
    """
    if any(goodness(row, by) > -math.inf for row in rows):
        return ""
    lost = [
        e.value
        for row in rows
        for q, e in row.entries.items()
        if (q.step, q.metric) == (by.step, "comparisons_lost")
    ]
    why = (
        f": up to {max(lost):,.0f} comparisons were lost because a template failed"
        if lost and max(lost) > 0
        else ""
    )
    return (
        f"No row has a defined {by.label}{why}. Nothing is compared; `qfuse status` names what"
        " failed."
    )


def _without_baseline(groups: Sequence[Group], by: Quantity) -> Said:
    rows = [row for group in groups for row in group.rows if goodness(row, by) > -math.inf]
    if rows and without_error(rows, by):
        return _no_error("", rows, by)
    if len(rows) <= 1:
        return Said(f"{by.label} is {_value(rows[0], by)}.")
    best, worst = rows[0], rows[-1]
    return Said(
        f"{name_of(best.factors)} comes first of {len(rows)}: {by.label} is {_value(best, by)}.",
        f"Last comes {name_of(worst.factors)} with {_value(worst, by)}. There is no baseline among"
        " the rows, so nothing is said of differences.",
    )


def _said(group: Group, base: Row, by: Quantity, level: float) -> Said:
    shared = tuple(group.factors)
    where = f"With {name_of(group.factors)}: " if group.factors else ""
    baseline = f"the baseline {name_of(base.factors, shared)}"
    rows = [
        row
        for row in group.others
        if (d := _difference(row, by)) is not None and not math.isnan(d.value)
    ]
    if math.isnan(base.entries[by].value):
        return Said(
            f"{where}{by.label} of {baseline} is not defined, so nothing is compared; see the"
            " table."
        )
    if without_error([base, *rows], by):
        return _no_error(where, [base, *rows], by)
    rows = distinct(rows, base)
    if not rows:
        return Said(f"{where}{by.label} of {baseline} is {_value(base, by)}.")
    # the first of all may rest on few errors
    first = next((row for row in rows if direction(row, by) > 0), rows[0])
    sign = direction(first, by)
    name, clear = (
        name_of(first.factors, shared),
        {1: "clearly better than", -1: "clearly worse than"},
    )
    against = (
        f"{by.label} is {_value(first, by)} against {_value(base, by)}, a difference of"
        f" {_differs(first, by)}"
    )
    leads = f"First by value comes {name_of(rows[0].factors, shared)}: {_differs(rows[0], by)}. "
    if len(rows) == 1 or sign > 0:
        more = (_beside(rows, by, level) if first is rows[0] else leads) + _rest(rows, by, shared)
        if sign == 0 and (d := _difference(first, by)) is not None and d.leaves_out_0:
            return Said(
                f"{where}{name} and {baseline} make too few errors to be told apart for certain:"
                f" {against}.",
                more,
            )
        return Said(
            f"{where}{name} is {clear.get(sign, 'not to be told apart from')} {baseline}:"
            f" {against}.",
            more,
        )
    return Said(
        f"{where}{'no' if where else 'No'} row is clearly better than {baseline}, whose {by.label}"
        f" is {_value(base, by)}.",
        leads + _rest(rows, by, shared),
    )


def without_error(rows: Sequence[Row], by: Quantity) -> bool:
    """Whether every row that has a number has no error by it, so that it tells none from
    another."""
    held = [row.entries[by].value for row in rows if by in row.entries]
    return bool(held) and all(flawless(by.metric, value) for value in held)


def _no_error(where: str, rows: Sequence[Row], by: Quantity) -> Said:
    trials = min(row.entries[by].trials for row in rows)
    answer = (
        f"{'no' if where else 'No'} error was seen among {trials:,} trials: {by.label} is"
        f" {_value(rows[0], by)}"
    )
    if len(rows) == 1:
        return Said(f"{where}{answer}.")
    return Said(f"{where}{answer} in all {len(rows)} rows. This set cannot tell them apart by it.")


def _rest(rows: Sequence[Row], by: Quantity, shared: Sequence[str]) -> str:
    """Say how the rows fared together, and which came last."""
    if len(rows) == 1:
        return ""
    better, worse = (sum(direction(row, by) == sign for row in rows) for sign in (1, -1))
    unsure = sum(
        d.leaves_out_0 and d.few for row in rows if (d := _difference(row, by)) is not None
    )
    same, last = len(rows) - better - worse - unsure, rows[-1]
    told = [f"{better} {_is(better)} clearly better than the baseline", f"{worse} clearly worse"]
    told += [f"{same} cannot be told apart from the baseline"] if same or not unsure else []
    told += [f"of {unsure} the interval leaves out 0 but rests on few errors (†)"] if unsure else []
    return (
        f"Of {len(rows)} different rows, {', '.join(told[:-1])}, and {told[-1]}. "
        f"Last comes {name_of(last.factors, shared)}: {_differs(last, by)}."
    )


def _beside(rows: Sequence[Row], by: Quantity, level: float) -> str:
    """Name the rows that cannot be told apart from the first one, which was chosen after the
    fact."""
    if len(rows) == 1:
        return ""
    first, close = rows[0].entries[by], []
    for row in rows[1:]:
        d = bootstrap.paired_difference(
            first.value, row.entries[by].value, first.replicates, row.entries[by].replicates, level
        )
        if not (d.lo > ROUNDING or d.hi < -ROUNDING):
            close.append(name_of(row.factors))
    shown = [*close[:3], *([f"{len(close) - 3} more"] if len(close) > 3 else [])]
    named = " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))
    told = f", and {named} cannot be told apart from {name_of(rows[0].factors)}" if close else ""
    return f"It was picked as the best of {len(rows)} rows after the fact{told}. "


def distinct(rows: Sequence[Row], base: Row | None) -> list[Row]:
    """Return the rows without those whose every number is the baseline's or an earlier row's."""
    kept: list[Row] = []
    for row in rows:
        if not any(_equal(row, other) for other in ([] if base is None else [base]) + kept):
            kept.append(row)
    return kept


def equal_to(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the first other row that has the very same numbers; None where there is none."""
    return next((other for other in rows if other is not row and _equal(row, other)), None)


def _equal(row: Row, other: Row) -> bool:
    if row.entries.keys() != other.entries.keys():
        return False
    pairs = [(entry, other.entries[q]) for q, entry in row.entries.items()]
    # without replicates, equal values may be chance
    drawn = any(entry.replicates.size > 1 for entry, _ in pairs)
    return drawn and all(
        np.array_equal(a.value, b.value, equal_nan=True)
        and np.array_equal(a.replicates, b.replicates, equal_nan=True)
        for a, b in pairs
    )


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _difference(row: Row, by: Quantity) -> Difference | None:
    entry = row.entries.get(by)
    return None if entry is None else entry.difference


def _value(row: Row, by: Quantity) -> str:
    e = row.entries[by]
    bounds = interval_written(by.metric, e.low, e.high)
    return f"{written(by.metric, e.value)} %{' ' + bounds if bounds else ''}"


def _differs(row: Row, by: Quantity) -> str:
    d = _difference(row, by)
    if d is None:
        return "not compared"
    bounds = interval_written(by.metric, d.low, d.high, signed=True)
    unclear = "that rests on few errors (†)" if d.leaves_out_0 else "that holds 0"
    verdict = (
        ""
        if direction(row, by)
        else f", an interval {unclear}"
        if bounds
        else ", without an interval"
    )
    return (
        f"{written(by.metric, d.value, signed=True)}"
        f" points{' ' + bounds if bounds else ''}{verdict}"
    )
