"""diff_text: what `qfuse diff` prints.

That is: the two runs, the fields that differ, and a block of rows for each number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.system.canonical_json import canonical
from stages.report.text_table import shortened, text_table
from stages.results.diff import ABSENT, Change, Compared, Diff
from stages.results.quantities import (
    MARKS,
    Quantity,
    interval_written,
    name_of,
    rule_first,
    written,
)

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS, MOST_LETTERS = 10, 44


def to_json(diff: Diff) -> dict[str, Any]:
    """Return everything in which the runs differ, every number of every row included."""
    return {
        "a": {
            "name": diff.a.name,
            "folder": str(diff.a.folder),
            "changed_since": _fields(diff.stale[0]),
        },
        "b": {
            "name": diff.b.name,
            "folder": str(diff.b.folder),
            "changed_since": _fields(diff.stale[1]),
        },
        "config": [
            {**field, "changes_numbers": c.changes_numbers} for c, field in _with(diff.fields)
        ],
        "versions": _fields(diff.versions),
        "same_data": diff.same_data,
        "level": diff.a.record.intervals.level,
        "only_a": list(diff.only_a),
        "only_b": list(diff.only_b),
        "numbers": [_number(c, diff.headline) for c in diff.compared],
    }


def heading(diff: Diff) -> Iterator[str]:
    """Say which runs these are and in what they differ, numbers aside."""
    for letter, run, stale in zip("AB", (diff.a, diff.b), diff.stale, strict=True):
        yield f"{letter}  {run.name}: {run.folder}"
        if stale:
            named = ", ".join(change.field for change in stale[:3]) + (
                ", …" if len(stale) > 3 else ""
            )
            yield f"   its config has changed since this run ({named}): what follows is of the run"
    yield ""
    if not diff.same_data:
        yield "the data sets differ: other files, another reader, or other options of it"
    telling = [change for change in diff.fields if change.changes_numbers]
    if telling:
        yield "config, A → B"
        width = max(len(change.field) for change in telling)
        yield from (f"  {change.field:<{width}}  {_change(change)}" for change in telling)
    else:
        yield "config: no field differs that could change a number"
    if silent := [change.field for change in diff.fields if not change.changes_numbers]:
        yield f"  changing no number: {', '.join(silent)}"
    if diff.versions:
        yield "versions: " + ", ".join(
            f"{change.field} {_change(change)}" for change in diff.versions
        )
    for letter, rows in (("A", diff.only_a), ("B", diff.only_b)):
        if rows:
            named = ", ".join(name_of(factors) for factors in rows[:MOST_ROWS])
            yield f"only in {letter}: {named}" + (
                f" and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else ""
            )


def numbers_table(diff: Diff, every: bool) -> Table:
    """Return a table with one block for each number.

    It has the numbers of the reports' first table, all of them with `every`. Clear differences come
    first, then the largest.
    """
    factors = rule_first(dict.fromkeys(name for c in diff.compared for name in c.factors))
    table = text_table(" · ".join(factors))
    for title in ("A", "", "B", "", "B − A", ""):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for quantity in quantities(diff, every):
        rows = [c for c in diff.compared if c.quantity == quantity]
        differing = sorted(
            (c for c in rows if every or not c.same),
            key=lambda c: (not c.difference.clear, -_size(c)),
        )
        shown = differing if every else differing[:MOST_ROWS]
        table.add_row(shortened(quantity.label, "bold"))
        few = any(line.few for c in shown for line in (c.a, c.b))
        for c in shown:
            table.add_row(shortened(f"  {name_of(c.factors)}"), *_columns(c, few))
        rest = {"more": len(differing) - len(shown), "the same": len(rows) - len(differing)}
        if any(rest.values()):
            words = ", ".join(f"{count} {what}" for what, count in rest.items() if count)
            table.add_row(shortened(f"  … {words}", "dim"))
        table.add_row()
    return table


def quantities(diff: Diff, every: bool) -> list[Quantity]:
    """Return what is shown, the reports' main number first."""
    there = dict.fromkeys(c.quantity for c in diff.compared)
    first = [q for q in diff.headline if q in there]
    return first + [q for q in there if q not in first] if every or not first else first


def legend(diff: Diff) -> Iterator[str]:
    """Say what the numbers are, and how the intervals of the differences were made."""
    if not diff.compared:
        yield "no row of A has the factors of a row of B, so no number is compared"
        return
    if all(c.same for c in diff.compared):
        yield (
            f"all {len(diff.compared):,} numbers are the same in both, to the last digit and"
            " replicate"
        )
        return
    why = Counter(c.unpaired for c in diff.compared if not math.isnan(c.difference.low))
    level = f"{diff.a.record.intervals.level * 100:g} %"
    yield "rates in percent, differences in percentage points; †: fewer than 30 errors of a kind"
    if not why:
        yield "no intervals: at least one of the runs drew no replicates, or their levels differ"
        return
    if paired := why.pop("", 0):
        whose = "" if not why else f" of {paired:,} of the {paired + why.total():,} differences"
        yield f"intervals{whose}: {level}, paired: replicate r drew the same subjects in A and in B"
    for reason, count in why.items():
        whose = "" if len(why) == 1 and not paired else f" of {count:,} differences"
        yield f"intervals{whose}: {level}, UNPAIRED, because {reason}:"
        yield (
            "  made from both intervals as if A and B were independent; wider than need be where"
            " they share subjects"
        )
    yield "clear differences first, then the largest; --all shows every row and number"
    yield (
        "▲ B better, ▼ B worse: the interval leaves out 0 and rests on 30 errors; not widened for"
        " many rows"
    )


def _columns(c: Compared, few: bool) -> tuple[Any, ...]:
    from rich.text import Text

    metric, d = c.quantity.metric, c.difference
    sides: list[str] = []
    # the place of a mark that other rows have, so that decimals stand under each other
    unmarked = " " if few else ""
    for line in (c.a, c.b):
        value, low, high = (math.nan if x is None else x for x in (line.value, line.low, line.high))
        mark = "†" if line.few else unmarked
        sides += [written(metric, value) + mark, interval_written(metric, low, high)]
    moved = f"{MARKS[c.direction]} {written(metric, d.value, signed=True)}"
    style = {1: "green", -1: "red", 0: ""}[c.direction]
    return (
        *sides,
        Text(moved, style),
        Text(interval_written(metric, d.low, d.high, signed=True), style),
    )


def _size(c: Compared) -> float:
    return -1.0 if math.isnan(c.difference.value) else abs(c.difference.value)


def _number(c: Compared, headline: Sequence[Quantity]) -> dict[str, Any]:
    q, d = c.quantity, c.difference
    sides = {
        name: {"value": x.value, "low": x.low, "high": x.high, "few": x.few}
        for name, x in (("a", c.a), ("b", c.b))
    }
    made = {
        "paired": not c.unpaired and not math.isnan(d.low),
        "unpaired_because": c.unpaired,
        "overlap": c.overlap,
    }
    difference = {
        "value": d.value,
        "low": d.low,
        "high": d.high,
        "clear": d.clear,
        "better": c.direction,
        **made,
    }
    named = {"factors": dict(c.factors), **asdict(q), "headline": q in headline}
    return {**named, **sides, "difference": difference}


def _with(fields: Sequence[Change]) -> Iterator[tuple[Change, dict[str, Any]]]:
    for change in fields:
        sides = {
            name: value
            for name, value in (("old", change.old), ("new", change.new))
            if value is not ABSENT
        }
        yield change, {"field": change.field, **sides}


def _fields(fields: Sequence[Change]) -> list[dict[str, Any]]:
    return [field for _, field in _with(fields)]


def _change(change: Change) -> str:
    """Write old → new; of a list what left it and what came."""
    if isinstance(change.old, list) and isinstance(change.new, list):
        gone = [value for value in change.old if value not in change.new]
        come = [value for value in change.new if value not in change.old]
        parts = [
            f"{sign} {', '.join(map(_words, values))}"
            for sign, values in (("−", gone), ("+", come))
            if values
        ]
        return "; ".join(parts) or "the same in another order"
    old, new = _words(change.old), _words(change.new)
    short = _short(old), _short(new)
    return " → ".join(short if short[0] != short[1] else (old, new))


def _words(value: Any) -> str:
    if value is ABSENT:
        return "(not given)"
    return value if isinstance(value, str) and value else canonical(value)


def _short(words: str) -> str:
    return words if len(words) <= MOST_LETTERS else f"{words[:22]}…{words[-14:]}"
