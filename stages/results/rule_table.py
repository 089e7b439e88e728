"""rule_table: the numbers of every cell → rows that are averaged and compared with the baseline.

Conventions
    Cell        one evaluation (1:1 or 1:N) of one combination of factors.
    Row         one combination of the factors that are not averaged over: by default every factor
                but `seed`. 1:1 and 1:N cells of the same factors share a row.
    Averaging   a row's value is the plain mean over its cells; nan in one cell makes it nan.
                Replicate r draws the same subjects in every cell, so replicates are averaged one by
                one: the interval resamples subjects jointly and holds the seeds as they are.
    Difference  row − baseline, its interval from the paired differences of those averaged
                replicates. `clear`: the interval leaves out 0 and rests on errors enough: 30 false
                matches hold the threshold of both, and one of the two has 30 misses (many more than
                the other's, if the interval leaves out 0). One that is the same in every
                replicate, as between two rows without any error, has no interval. No correction is
                made for the number of rows compared. The baseline of a number is the row of the
                baseline's factors that has it.
    Counts      false matches, the pairs of subjects behind them, non-mated, misses, trials and
                subjects are the smallest over a row's cells; `few` marks a number that rests on
                fewer than 30 false matches (false positives) or on fewer than 30 misses in any of
                them; never one that is not defined.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.core.schema import Array, Batch
from pipeline.errors import InvalidInput, unknown
from pipeline.plan.graph import Step
from pipeline.session import Results
from stages.evaluation.discard import departures
from stages.exact import sums
from stages.metrics import bootstrap
from stages.metrics.verification import FEW
from stages.results.quantities import KINDS, Kind, Quantity, lower_is_better
from stages.results.report_options import ReportOptions

ROUNDING = 1e-12


@dataclass(frozen=True)
class Cell:
    """One evaluation, as it was stored."""

    step: Step
    factors: Mapping[str, Any]
    kind: Kind
    numbers: Batch
    curves: Batch


@dataclass(frozen=True)
class Difference:
    """Row − baseline, with its interval; nan bounds if nothing was resampled."""

    value: float
    low: float
    high: float
    few: bool = False

    @property
    def leaves_out_0(self) -> bool:
        # Rates are fractions of at least 1e-6 or so: what is nearer 0 than this is the rounding of
        # a difference of 0.
        return self.low > ROUNDING or self.high < -ROUNDING

    @property
    def clear(self) -> bool:
        return self.leaves_out_0 and not self.few


def direction_of(difference: Difference | None, quantity: Quantity) -> int:
    """1: clearly better; -1: clearly worse; 0: neither, or not compared."""
    if difference is None or not difference.clear:
        return 0
    return 1 if (difference.low > 0) != lower_is_better(quantity.metric) else -1


@dataclass(frozen=True)
class Entry:
    """One number of one row."""

    value: float
    low: float
    high: float
    achieved: float  # FMR or FPIR held, mean over cells
    threshold: float
    false_matches: int  # -1 if it does not apply, as for the three below
    nonmated: int
    subject_pairs: int
    misses: int
    trials: int
    subjects: int
    few_matches: bool  # fewer than 30 false matches hold the threshold, whatever the misses
    cells: int
    replicates: Array = field(repr=False, compare=False)
    difference: Difference | None = None

    @property
    def few(self) -> bool:
        """Whether it rests on fewer than 30 errors of a kind."""
        return self.few_matches or (0 <= self.misses < FEW and not math.isnan(self.value))


@dataclass(frozen=True)
class Row:
    """All numbers of one combination of factors.

    `reference` holds the factors of the row it is compared with.
    """

    factors: Mapping[str, Any]
    cells: tuple[Cell, ...]
    entries: Mapping[Quantity, Entry]
    is_baseline: bool = False
    reference: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RuleTable:
    """Rows in the order of the plan, and what was done to make them."""

    rows: tuple[Row, ...]
    quantities: tuple[Quantity, ...]
    factors: tuple[str, ...]
    # factor averaged over → its values, if there are two or more
    average: Mapping[str, tuple[Any, ...]]
    baseline: Mapping[str, Any]  # empty: there is none
    replicates: int
    level: float

    def find(
        self, metric: str, target: float | None = None, rule: str = "at_most"
    ) -> list[Quantity]:
        """Return the quantities of a metric (at a target), one for each evaluating step."""
        same = (q for q in self.quantities if q.metric == metric and q.rule in ("", rule))
        return [
            q
            for q in same
            if target is None or (q.target is not None and math.isclose(q.target, target))
        ]


def departures_by_step(table: RuleTable) -> dict[str, tuple[list[str], list[str]]]:
    """Return in what each step departs from the standard's form and from the legacy one.

    Steps that evaluate error versus discard are looked at, no others.
    """
    options = {
        cell.step.base: cell.step.stage.options
        for row in table.rows
        for cell in row.cells
        if cell.kind == "discard"
    }
    return {
        step: (departures(each, legacy=False), departures(each, legacy=True))
        for step, each in options.items()
    }


def sides_enrolled(table: RuleTable) -> list[tuple[str, bool]]:
    """Return the option `enrolled` of the 1:1 evaluations, and what came of it.

    That is whether the first side of their comparisons was taken for enrolled.
    """
    cells = (cell for row in table.rows for cell in row.cells if cell.kind == "1:1")
    sides = (
        (cell.step.stage.options.enrolled, "fte" in cell.numbers["metric"].tolist())
        for cell in cells
    )
    return list(dict.fromkeys(sides))


def cells(results: Results) -> list[Cell]:
    """Return every evaluation of a run, 1:1 before 1:N, in the order of the plan."""
    return [
        Cell(
            step,
            dict(step.factors),
            kind,
            results.read(step, "numbers"),
            results.read(step, "curves"),
        )
        for stage, kind in KINDS.items()
        for step in results.cells(stage)
    ]


def rule_table(
    results: Results, options: ReportOptions, found: Sequence[Cell] | None = None
) -> RuleTable:
    """Average cells into rows and compare each row with the baseline.

    `found`: the cells, if they have been read already. Raises InvalidInput for a factor or baseline
    that the config does not have, and for cells whose replicates were not drawn alike.
    """
    found = cells(results) if found is None else found
    factors = results.plan.config.factors
    average = _averaged(options, factors)
    level, replicates = _drawn_alike(found)
    groups: dict[tuple[tuple[str, Any], ...], list[Cell]] = {}
    for cell in found:
        groups.setdefault(
            tuple((k, v) for k, v in cell.factors.items() if k not in average), []
        ).append(cell)
    rows = [Row(dict(key), tuple(group), _entries(group, level)) for key, group in groups.items()]
    baseline = _baseline(options, factors, rows)
    return RuleTable(
        rows=tuple(_compared(row, rows, baseline, level) for row in rows),
        quantities=tuple(dict.fromkeys(quantity for row in rows for quantity in row.entries)),
        factors=tuple(
            name
            for name in factors
            if name not in average and any(name in row.factors for row in rows)
        ),
        average={
            name: tuple(factors[name])
            for name in average
            if len(factors[name]) > 1 and any(name in cell.factors for cell in found)
        },
        baseline=baseline,
        replicates=replicates,
        level=level,
    )


def _averaged(options: ReportOptions, factors: Mapping[str, Any]) -> tuple[str, ...]:
    if options.average is not None:
        return options.average
    return ("seed",) if "seed" in factors else ()


def _drawn_alike(found: Sequence[Cell]) -> tuple[float, int]:
    """Return (level, replicates), which are the same in every cell.

    Raises InvalidInput if they or the seeds differ: replicates drew other subjects then, and cannot
    be paired.
    """
    drawn = {
        (o.seed, o.replicates, o.level)
        for o in (cell.step.stage.options for cell in found)
        if hasattr(o, "replicates")
    }
    if len(drawn) > 1:
        raise InvalidInput(
            "the evaluating steps differ in seed, replicates or level, so their replicates cannot"
            " be paired; give them the same (a factor belongs in the steps above them)."
        )
    _, replicates, level = next(iter(drawn), (0, 0, 0.95))
    return float(level), int(replicates)


def _entries(group: Iterable[Cell], level: float) -> dict[Quantity, Entry]:
    parts: dict[Quantity, list[tuple[Batch, int]]] = {}
    for cell in group:
        n = cell.numbers
        for i in range(n.rows):
            # None, as nan is not equal to itself and could not be part of a key
            target = None if np.isnan(n["target"][i]) else float(n["target"][i])
            key = Quantity(
                cell.kind, cell.step.base, str(n["metric"][i]), target, str(n["rule"][i])
            )
            parts.setdefault(key, []).append((n, i))
    return {quantity: _entry(found, level) for quantity, found in parts.items()}


def _entry(parts: Sequence[tuple[Batch, int]], level: float) -> Entry:
    def column(name: str) -> Array:
        return np.array([batch[name][i] for batch, i in parts])

    drawn = np.stack([batch["replicates"][i].astype(np.float64) for batch, i in parts], axis=-1)
    # Replicate r drew the same subjects in every cell, so replicates are averaged one by one.
    replicates = sums.total(drawn) / len(parts)
    value, subjects = sums.mean(column("value")), int(column("subjects").min())
    low, high = bootstrap.rate_interval(value, replicates, level, subjects)
    return Entry(
        value=value,
        low=low,
        high=high,
        achieved=sums.mean(column("achieved")),
        threshold=sums.mean(column("threshold")),
        false_matches=int(column("false_matches").min()),
        nonmated=int(column("nonmated").min()),
        subject_pairs=int(column("subject_pairs").min()),
        misses=int(column("misses").min()),
        trials=int(column("trials").min()),
        subjects=subjects,
        few_matches=bool(column("few").any()) and not math.isnan(value),
        cells=len(parts),
        replicates=replicates,
    )


def _baseline(
    options: ReportOptions, factors: Mapping[str, Any], rows: Sequence[Row]
) -> dict[str, Any]:
    wanted = options.baseline
    if wanted is None:
        return {"rule": "mean"} if any(row.factors.get("rule") == "mean" for row in rows) else {}
    for name, value in wanted.items():
        if rows and not any(row.factors.get(name) == value for row in rows):
            nearest = unknown("value", str(value), map(str, factors[name]))
            raise InvalidInput(f"report.options.baseline.{name}: {nearest}")
    return dict(wanted)


def _matches(factors: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(factors.get(name) == value for name, value in wanted.items())


def _compared(row: Row, rows: Sequence[Row], baseline: Mapping[str, Any], level: float) -> Row:
    """Add to a row its differences to the baseline row.

    That is the row of the baseline that agrees with it in every other factor they share.
    """
    if not baseline:
        return row
    if _matches(row.factors, baseline):
        return Row(row.factors, row.cells, row.entries, True, row.factors)
    agreeing = [
        other
        for other in rows
        if _matches(other.factors, baseline)
        and all(row.factors.get(k, v) == v for k, v in other.factors.items() if k not in baseline)
    ]
    # Each number by itself: a row may have 1:1 and 1:N numbers whose baseline rows differ.
    against = {
        q: _nearest(row, [other for other in agreeing if q in other.entries]) for q in row.entries
    }
    entries = {
        q: entry if (other := against[q]) is None else _paired(entry, other.entries[q], level)
        for q, entry in row.entries.items()
    }
    served = Counter(id(other) for other in against.values() if other is not None)
    if not served:
        return row
    # A row stands below one baseline only: the one that most of its numbers are compared with.
    reference = next(other for other in agreeing if id(other) == served.most_common(1)[0][0])
    return Row(row.factors, row.cells, entries, False, reference.factors)


def _nearest(row: Row, others: Sequence[Row]) -> Row | None:
    """Return the row that differs in fewest factors, of those that one of the two lacks.

    None without such a row, and with several. An evaluation that a factor does not reach has rows
    without it.
    """
    apart = [len(row.factors.keys() ^ other.factors.keys()) for other in others]
    nearest = [other for other, count in zip(others, apart, strict=True) if count == min(apart)]
    return nearest[0] if len(nearest) == 1 else None


def _paired(entry: Entry, other: Entry, level: float) -> Entry:
    # Replicates are paired one by one, so there must be equally many.
    if entry.replicates.shape != other.replicates.shape:
        return entry
    d = bootstrap.paired_difference(
        entry.value, other.value, entry.replicates, other.replicates, level
    )
    # No replicate differs from another, for example because neither row has an error: bounds that
    # are equal would claim a certainty that so few errors do not give.
    low, high = (float(d.lo), float(d.hi)) if d.lo < d.hi else (math.nan, math.nan)
    few = few_behind((entry.few_matches, other.few_matches), (entry.misses, other.misses))
    return replace(entry, difference=Difference(float(d.value), low, high, few))


def few_behind(few_matches: Iterable[bool], misses: Iterable[int]) -> bool:
    """Whether a difference rests on few errors.

    Those are false matches of either threshold, or misses of both (-1: not counted).
    """
    return any(few_matches) or 0 <= max(misses) < FEW
