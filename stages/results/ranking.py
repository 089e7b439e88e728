"""ranking: which numbers of a rule table come first, and in which order its rows stand.

Conventions
    Main number    the first of the report's `fmr`; without one, TAR at the strictest headline FMR
                   that rests on at least 30 false matches in every row, else EER, else TAR at the
                   strictest such FMR of all, else rank-1.
    Headline       FMR and FPIR are those that the config's evaluation names (`fmr`, `fpir`); if it
                   leaves them at their defaults, two of these. A number that is not defined in any
                   row has no column, and a note says so.
    Order          rows are grouped with the baseline they are compared with, which stands first;
                   then best to worst by the main number; rows that are compared with nothing come
                   last.
    Equal rows     a row whose every number and replicate is another's says nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.config import Config
from pipeline.session import Results
from stages.evaluation.discard import STARTING
from stages.results.choice import Chosen, choices
from stages.results.quantities import AREA, KINDS, Kind, Quantity, lower_is_better, rule_first
from stages.results.report_options import ReportOptions, half_factor, read_options
from stages.results.rule_table import Cell, Row, RuleTable, cells, direction_of, rule_table

HEADLINE_FMR = (1e-3, 1e-4)
HEADLINE_FPIR = (1e-1, 1e-2)


@dataclass(frozen=True)
class Group:
    """The rows compared with one baseline, best first.

    `baseline` is None for rows that are compared with nothing.
    """

    # what the rows have in common with their baseline, beside what makes it the baseline
    factors: Mapping[str, Any]
    baseline: Row | None
    others: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.others if self.baseline is None else (self.baseline, *self.others)


@dataclass(frozen=True)
class Ranking:
    """The rows of a run in the order in which they are shown, and the numbers shown of them."""

    options: ReportOptions
    cells: Sequence[Cell]
    table: RuleTable
    chosen: Sequence[Chosen]
    main: Quantity | None  # None if nothing was evaluated
    columns: Sequence[Quantity]  # the headline numbers, the main one first
    groups: Sequence[Group]

    @property
    def rows(self) -> list[Row]:
        """The rows of the main table, in the order in which they are shown."""
        return [row for group in self.groups for row in group.rows]

    @property
    def factors(self) -> list[str]:
        """The factors that tell rows apart, in the order in which they are shown."""
        return rule_first(self.table.factors)


def rank(results: Results, options: Mapping[str, Any]) -> Ranking:
    """Read every cell once, and rank. Raises InvalidInput for options that do not fit the run."""
    config = results.plan.config
    checked = read_options(options, config.factors)
    evaluations = cells(results)
    table = rule_table(results, checked, evaluations)
    fmr, fpir = targets_named(config, "1:1", "fmr"), targets_named(config, "1:N", "fpir")
    main, shown = primary(table, checked, fmr), columns(table, checked, fmr, fpir)
    groups = [kept for group in grouped(table, main) if (kept := _with_any(group, shown)).rows]
    half = half_factor(config.factors)
    # The half on which a parameter is chosen comes last: its numbers are no result.
    groups.sort(key=lambda group: half is not None and group.factors.get(half) == "choose")
    chosen = choices(table, checked.choose, config.factors)
    return Ranking(checked, evaluations, table, chosen, main, shown, groups)


def _with_any(group: Group, shown: Sequence[Quantity]) -> Group:
    """Leave out the rows that have none of the numbers shown.

    Such are those of an evaluation that is never in the headline.
    """

    def has_any(row: Row) -> bool:
        return any(q in row.entries for q in shown)

    base = group.baseline if group.baseline and has_any(group.baseline) else None
    return Group(group.factors, base, tuple(filter(has_any, group.others)))


def targets_named(config: Config, kind: Kind, option: str) -> tuple[float, ...]:
    """Return the targets that the evaluating steps of a kind name, in their order.

    Empty if all are left at their defaults.
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
    """Return the main number; None if nothing was evaluated.

    `fmr`: the targets that the config names.
    """
    asked = [q for target in options.fmr or () for q in table.find("tar", target)]
    held = {
        q: [row.entries[q] for row in table.rows if q in row.entries] for q in table.find("tar")
    }
    # Which row is best must not depend on a threshold that a few false matches hold.
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
    # the first that the table has
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
    """Return the headline numbers that the table has, the main one first.

    `fmr`, `fpir`: the targets that the config names. A number that no row has defined is left out,
    but for the main one.
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

    # The order of columns is the same in every run, whichever numbers are marked †.
    def place(q: Quantity) -> tuple[bool, bool, int, float]:
        return q.metric == "erc_auc", q.rule == STARTING, steps.index(q.step), -(q.target or 0)

    chosen += sorted(areas(table, options), key=place)
    return [
        q
        for q in dict.fromkeys(chosen)
        if q is main or any(goodness(row, q) > -math.inf for row in table.rows)
    ]


def areas(table: RuleTable, options: ReportOptions) -> list[Quantity]:
    """Return the areas under error versus discard, in the order of the headline.

    Standard ones come before those of the legacy form, and each step has those up to its smallest
    limit. First come those at the first FMR asked for, then the strictest target that rests on 30
    false matches in every row; if none does, the most lenient. Those from a starting error come
    last.
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

    def order(q: Quantity) -> tuple[bool, bool, bool, float]:
        few = any(row.entries[q].few_matches for row in table.rows if q in row.entries)
        starting, target = q.rule == STARTING, q.target or 0
        asked = (
            q.kind == "discard"
            and not starting
            and any(math.isclose(target, each) for each in wanted)
        )
        # strictest first if enough false matches hold the threshold, else most lenient first
        return starting, not asked, few, -target if few else target

    standard = [q for q, limit in plain.items() if limit == least[q.step]]
    return [*sorted(standard, key=order), *sorted(table.find("erc_auc", rule="nearest"), key=order)]


def _any_failed(table: RuleTable, share: str) -> bool:
    """Whether any template failed: then FRR (GFRR) says more than 1 − TAR (FRR).

    `share` is fta for failures to acquire, fte for failures to enrol.
    """
    return any(
        row.entries[q].value > 0
        for q in table.find(share)
        for row in table.rows
        if q in row.entries
    )


def grouped(table: RuleTable, by: Quantity | None) -> list[Group]:
    """Return the rows in the order in which they are shown."""
    by_reference: dict[tuple[tuple[str, Any], ...] | None, list[Row]] = {}
    for row in table.rows:
        key = None if row.reference is None else tuple(row.reference.items())
        by_reference.setdefault(key, []).append(row)
    groups = []
    # rows that are compared with nothing last
    for key, rows in sorted(by_reference.items(), key=lambda item: item[0] is None):
        first = next((row for row in rows if row.is_baseline), None)
        others = sorted(
            (row for row in rows if row is not first), key=lambda row: -goodness(row, by)
        )
        shared = {k: v for k, v in key or () if k not in table.baseline}
        groups.append(Group(shared, first, tuple(others)))
    return groups


def goodness(row: Row, by: Quantity | None) -> float:
    """Return a value that is larger for better rows.

    It is -inf for a number that a row does not have, or that is not defined.
    """
    if by is None or by not in row.entries or math.isnan(row.entries[by].value):
        return -math.inf
    value = row.entries[by].value
    return -value if lower_is_better(by.metric) else value


def direction(row: Row, by: Quantity) -> int:
    """1: clearly better than the baseline; -1: clearly worse; 0: neither, or not compared."""
    entry = row.entries.get(by)
    return 0 if entry is None else direction_of(entry.difference, by)


def winner(group: Group, by: Quantity | None) -> Row | None:
    """Return the best row of a group if it is clearly better than the baseline."""
    if by is None or group.baseline is None or not group.others:
        return None
    return group.others[0] if direction(group.others[0], by) > 0 else None


def distinct(rows: Sequence[Row], base: Row | None) -> list[Row]:
    """Return the rows without those whose every number is the baseline's or an earlier row's."""
    kept: list[Row] = []
    for row in rows:
        if not any(_equal(row, other) for other in ([] if base is None else [base]) + kept):
            kept.append(row)
    return kept


def equal_to(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the first other row that has the very same numbers; None if no row has."""
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
