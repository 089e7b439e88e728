"""verdict: what came out of a run, in sentences.

Conventions
    Words          a row is called better or worse only if the interval of its difference to the
                   baseline leaves out 0 and rests on errors enough. The row that comes first is
                   chosen after the fact: rows whose paired interval with it holds 0 are named
                   beside it.
    Equal rows     are counted once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stages.metrics import bootstrap
from stages.results.quantities import Quantity, flawless, interval_written, name_of, written
from stages.results.ranking import Group, direction, distinct, goodness
from stages.results.rule_table import ROUNDING, Difference, Row

MOST_NAMED = 3  # rows that cannot be told apart from the first


@dataclass(frozen=True)
class Verdict:
    """What came out, in a sentence; `more` goes on from there, and may be empty."""

    answer: str
    more: str = ""


def verdicts(groups: Sequence[Group], by: Quantity | None, level: float = 0.95) -> list[Verdict]:
    """Say what came out: once for each baseline.

    `level` is that of the intervals between the first row and the others.
    """
    if by is None:
        return [Verdict("This run evaluated nothing.")]
    if nothing := nothing_defined([row for group in groups for row in group.rows], by):
        return [Verdict(nothing)]
    answers = [
        _against(group, group.baseline, by, level)
        for group in groups
        if group.baseline is not None and by in group.baseline.entries
    ]
    return answers or [_without_baseline(groups, by)]


def nothing_defined(rows: Sequence[Row], by: Quantity) -> str:
    """Say that a number is defined in no row, and how many comparisons were lost.

    Failed templates took those. Empty if a row has it defined.
    """
    if any(goodness(row, by) > -math.inf for row in rows):
        return ""
    lost = max(
        (
            entry.value
            for row in rows
            for q, entry in row.entries.items()
            if (q.step, q.metric) == (by.step, "comparisons_lost")
        ),
        default=0,
    )
    why = f": up to {lost:,.0f} comparisons were lost because a template failed" if lost else ""
    return (
        f"No row has a defined {by.label}{why}. Nothing is compared; `qfuse status` names what"
        " failed."
    )


def _without_baseline(groups: Sequence[Group], by: Quantity) -> Verdict:
    rows = [row for group in groups for row in group.rows if goodness(row, by) > -math.inf]
    if rows and _without_error(rows, by):
        return _no_error("", rows, by)
    if len(rows) <= 1:
        return Verdict(f"{by.label} is {_value(rows[0], by)}.")
    best, worst = rows[0], rows[-1]
    return Verdict(
        f"{name_of(best.factors)} comes first of {len(rows)}: {by.label} is {_value(best, by)}.",
        f"Last comes {name_of(worst.factors)} with {_value(worst, by)}. There is no baseline among"
        " the rows, so nothing is said of differences.",
    )


def _against(group: Group, base: Row, by: Quantity, level: float) -> Verdict:
    """Say how the rows of a group fare against their baseline."""
    shared = tuple(group.factors)
    where = f"With {name_of(group.factors)}: " if group.factors else ""
    baseline = f"the baseline {name_of(base.factors, shared)}"
    rows = [
        row
        for row in group.others
        if (d := _difference(row, by)) is not None and not math.isnan(d.value)
    ]
    if math.isnan(base.entries[by].value):
        return Verdict(
            f"{where}{by.label} of {baseline} is not defined, so nothing is compared; see the"
            " table."
        )
    if _without_error([base, *rows], by):
        return _no_error(where, [base, *rows], by)
    rows = distinct(rows, base)
    if not rows:
        return Verdict(f"{where}{by.label} of {baseline} is {_value(base, by)}.")
    # the first of all may rest on few errors
    first = next((row for row in rows if direction(row, by) > 0), rows[0])
    leads = f"First by value comes {name_of(rows[0].factors, shared)}: {_differs(rows[0], by)}. "
    if len(rows) > 1 and direction(first, by) <= 0:
        return Verdict(
            f"{where}{'no' if where else 'No'} row is clearly better than {baseline}, whose"
            f" {by.label} is {_value(base, by)}.",
            leads + _rest(rows, by, shared),
        )
    beside = _beside(rows, by, level) if first is rows[0] else leads
    name = name_of(first.factors, shared)
    figures = (
        f"{by.label} is {_value(first, by)} against {_value(base, by)}, a difference of"
        f" {_differs(first, by)}"
    )
    return Verdict(
        f"{where}{_how(first, name, baseline, by)}: {figures}.", beside + _rest(rows, by, shared)
    )


def _how(row: Row, name: str, baseline: str, by: Quantity) -> str:
    """Say how a row fares against the baseline, as far as can be told."""
    sign, d = direction(row, by), _difference(row, by)
    if sign == 0 and d is not None and d.leaves_out_0:
        return f"{name} and {baseline} make too few errors to be told apart for certain"
    words = {1: "clearly better than", -1: "clearly worse than", 0: "not to be told apart from"}
    return f"{name} is {words[sign]} {baseline}"


def _without_error(rows: Sequence[Row], by: Quantity) -> bool:
    """Whether every row that has the number makes no error by it, so that none stands out."""
    held = [row.entries[by].value for row in rows if by in row.entries]
    return bool(held) and all(flawless(by.metric, value) for value in held)


def _no_error(where: str, rows: Sequence[Row], by: Quantity) -> Verdict:
    trials = min(row.entries[by].trials for row in rows)
    answer = (
        f"{'no' if where else 'No'} error was seen among {trials:,} trials: {by.label} is"
        f" {_value(rows[0], by)}"
    )
    if len(rows) == 1:
        return Verdict(f"{where}{answer}.")
    return Verdict(
        f"{where}{answer} in all {len(rows)} rows. This set cannot tell them apart by it."
    )


def _rest(rows: Sequence[Row], by: Quantity, shared: Sequence[str]) -> str:
    """Say how the rows fared together, and which came last."""
    if len(rows) == 1:
        return ""
    differences = [d for row in rows if (d := _difference(row, by)) is not None]
    better, worse = (sum(direction(row, by) == sign for row in rows) for sign in (1, -1))
    unsure = sum(d.leaves_out_0 and d.few for d in differences)
    same = len(rows) - better - worse - unsure
    parts = [f"{better} {'is' if better == 1 else 'are'} clearly better than the baseline"]
    parts += [f"{worse} clearly worse"]
    if same or not unsure:
        parts.append(f"{same} cannot be told apart from the baseline")
    if unsure:
        parts.append(f"of {unsure} the interval leaves out 0 but rests on few errors (†)")
    last = rows[-1]
    return (
        f"Of {len(rows)} different rows, {', '.join(parts[:-1])}, and {parts[-1]}. "
        f"Last comes {name_of(last.factors, shared)}: {_differs(last, by)}."
    )


def _beside(rows: Sequence[Row], by: Quantity, level: float) -> str:
    """Name the rows that cannot be told apart from the first, which was chosen after the fact."""
    if len(rows) == 1:
        return ""
    first, close = rows[0].entries[by], []
    for row in rows[1:]:
        other = row.entries[by]
        d = bootstrap.paired_difference(
            first.value, other.value, first.replicates, other.replicates, level
        )
        if not (d.lo > ROUNDING or d.hi < -ROUNDING):
            close.append(name_of(row.factors))
    names = close[:MOST_NAMED]
    if len(close) > MOST_NAMED:
        names.append(f"{len(close) - MOST_NAMED} more")
    named = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    apart = f", and {named} cannot be told apart from {name_of(rows[0].factors)}" if close else ""
    return f"It was picked as the best of {len(rows)} rows after the fact{apart}. "


def _difference(row: Row, by: Quantity) -> Difference | None:
    entry = row.entries.get(by)
    return None if entry is None else entry.difference


def _value(row: Row, by: Quantity) -> str:
    entry = row.entries[by]
    bounds = interval_written(by.metric, entry.low, entry.high)
    return f"{written(by.metric, entry.value)} %{' ' + bounds if bounds else ''}"


def _differs(row: Row, by: Quantity) -> str:
    d = _difference(row, by)
    if d is None:
        return "not compared"
    bounds = interval_written(by.metric, d.low, d.high, signed=True)
    points = f"{written(by.metric, d.value, signed=True)} points{' ' + bounds if bounds else ''}"
    if direction(row, by):
        return points
    if not bounds:
        return f"{points}, without an interval"
    if d.leaves_out_0:
        return f"{points}, an interval that rests on few errors (†)"
    return f"{points}, an interval that holds 0"
