"""diff: two finished runs, A and B → what differs in their configs, and their numbers side by side.

Conventions
    Numbers     are those of the report's table: one row a combination of factors, averaged as each
                report averages.
    Difference  B − A, between rows with the same factors, of the number of the same step, metric,
                target and threshold rule.
    Paired      If both evaluations are over the same comparisons and subjects and drew them with
                the same seed, replicate r drew the same subjects in both: the interval is the
                percentile interval of the replicates' differences. Row r of the draws depends on
                the seed and r only, so if one run has more replicates, the surplus is left out.
    Unpaired    Otherwise the interval comes from the two intervals as if the runs were independent
                (MOVER; Zou and Donner, Statistics in Medicine 27, 2008):  d − √((b − l_b)² + (u_a −
                a)²) … d + √((u_b − b)² + (a − l_a)²). Runs that share subjects share errors, which
                would cancel: then it is wider than it need be.
    Clear       as in a report (`rule_table`): the interval leaves out 0 and rests on errors enough.
                No correction is made for the number of differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidInput
from pipeline.system.canonical_json import canonical
from stages.metrics import bootstrap
from stages.results.finished_runs import RecordedNumber, Run
from stages.results.quantities import NO_DIRECTION, Quantity, lower_is_better
from stages.results.rule_table import Difference, few_behind

# sections of a config in which nothing changes a number
NO_NUMBER = ("name", "description", "report", "run")
ABSENT = object()
WHY = {
    "data": "they are over other comparisons or subjects",
    "version": "the evaluation's code is of another version",
    "seed": "their replicates were drawn with other seeds",
    "half": "they are over other halves of the subjects",
}


@dataclass(frozen=True)
class Change:
    """A field of a config, or a version, that differs between two runs.

    ABSENT stands for the side that does not have it.
    """

    field: str
    old: Any
    new: Any

    @property
    def changes_numbers(self) -> bool:
        return self.field.partition(".")[0] not in NO_NUMBER


@dataclass(frozen=True)
class Compared:
    """One number of both runs. `unpaired`: why its difference is; empty if it is paired."""

    factors: Mapping[str, Any]
    quantity: Quantity
    a: RecordedNumber
    b: RecordedNumber
    difference: Difference
    unpaired: str

    @property
    def same(self) -> bool:
        """Whether value and interval are equal in both, and so is every replicate."""
        equal = (self.a.value, self.a.low, self.a.high) == (self.b.value, self.b.low, self.b.high)
        # Intervals may agree by chance; a paired difference of 0 to 0 shows equal replicates.
        return equal and (self.a.low is None or self.difference.low == self.difference.high == 0)

    @property
    def overlap(self) -> bool | None:
        """Whether the two intervals overlap; None if one is missing."""
        low_a, high_a, low_b, high_b = map(
            _number, (self.a.low, self.a.high, self.b.low, self.b.high)
        )
        if math.isnan(low_a + high_a + low_b + high_b):
            return None
        return max(low_a, low_b) <= min(high_a, high_b)

    @property
    def direction(self) -> int:
        """1: B is clearly better; -1: clearly worse; 0: not told apart."""
        metric = self.quantity.metric
        if not self.difference.clear or metric in NO_DIRECTION:
            return 0
        return 1 if (self.difference.value > 0) != (lower_is_better(metric)) else -1


@dataclass(frozen=True)
class Diff:
    """Everything in which two runs differ.

    `stale`: for a run that was named by its config, the fields of it that have changed since.
    """

    a: Run
    b: Run
    fields: tuple[Change, ...]
    versions: tuple[Change, ...]
    stale: tuple[tuple[Change, ...], tuple[Change, ...]]
    compared: tuple[Compared, ...]
    only_a: tuple[Mapping[str, Any], ...]
    only_b: tuple[Mapping[str, Any], ...]
    headline: tuple[Quantity, ...]

    @property
    def same_data(self) -> bool:
        return self.a.record.dataset == self.b.record.dataset


def diff(a: Run, b: Run) -> Diff:
    """Compare two runs. Raises InvalidInput if both are the same one."""
    if a.folder.resolve() == b.folder.resolve():
        raise InvalidInput(
            f"A and B are the same run, {a.folder}: a run of another `name` has a folder of its"
            " own."
        )
    rows_a, rows_b = (
        {_name(row.factors): i for i, row in enumerate(run.record.rows)} for run in (a, b)
    )
    compared = [
        c for name, i in rows_a.items() if name in rows_b for c in _row(a, b, i, rows_b[name])
    ]
    return Diff(
        a=a,
        b=b,
        fields=tuple(changes(a.record.config, b.record.config)),
        versions=tuple(changes(a.record.versions, b.record.versions)),
        stale=(_stale(a), _stale(b)),
        compared=tuple(compared),
        only_a=tuple(a.record.rows[i].factors for name, i in rows_a.items() if name not in rows_b),
        only_b=tuple(b.record.rows[i].factors for name, i in rows_b.items() if name not in rows_a),
        headline=tuple(
            dict.fromkeys(named.quantity for run in (a, b) for named in run.record.headline)
        ),
    )


def changes(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """Yield the fields in which two configs differ; a list is one field."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from changes(
                old.get(name, ABSENT), new.get(name, ABSENT), f"{path}.{name}" if path else name
            )
    # Canonical JSON is compared, as for `!=` 1, 1.0 and True are all equal.
    elif ABSENT in (old, new) or canonical(old) != canonical(new):
        yield Change(path, old, new)


def _stale(run: Run) -> tuple[Change, ...]:
    if run.config is None:
        return ()
    return tuple(
        c
        for c in changes(run.record.config, run.config.model_dump(mode="json", exclude={"base"}))
        if c.changes_numbers
    )


def _name(factors: Mapping[str, Any]) -> str:
    # as text, since 0.5 in one config and "0.5" in the other name the same row
    return canonical({name: str(value) for name, value in factors.items()})


def _row(a: Run, b: Run, i: int, j: int) -> Iterator[Compared]:
    """Yield the numbers that row i of A and row j of B both have."""
    other = b.lines(j)
    for quantity, line in a.lines(i).items():
        if quantity in other:
            difference, unpaired = _difference(a, b, i, j, quantity, line, other[quantity])
            yield Compared(
                a.record.rows[i].factors, quantity, line, other[quantity], difference, unpaired
            )


def _difference(
    a: Run, b: Run, i: int, j: int, quantity: Quantity, x: RecordedNumber, y: RecordedNumber
) -> tuple[Difference, str]:
    """Return B − A, and why it is unpaired.

    It has no bounds if a number has no interval, or the two intervals are of different levels.
    """
    few, value = _few(x, y), _number(y.value) - _number(x.value)
    level = a.record.intervals.level
    if None in (x.low, x.high, y.low, y.high):
        return Difference(value, math.nan, math.nan, few), ""
    if level != b.record.intervals.level:
        return Difference(value, math.nan, math.nan, few), "their intervals are of other levels"
    drawn_a, drawn_b = a.drawn(i, quantity.step), b.drawn(j, quantity.step)
    if drawn_a and drawn_b:
        unpaired = "; ".join(
            words for name, words in WHY.items() if drawn_a.how[name] != drawn_b.how[name]
        )
    else:
        gone = " and ".join(
            name for name, drawn in (("A", drawn_a), ("B", drawn_b)) if drawn is None
        )
        unpaired = f"the replicates of {gone} are not in the store any more"
    if unpaired or drawn_a is None or drawn_b is None:
        return (
            Difference(
                value, *mover(*map(_number, (x.value, x.low, x.high, y.value, y.low, y.high))), few
            ),
            unpaired,
        )
    of_a, of_b = drawn_a.replicates[quantity], drawn_b.replicates[quantity]
    count = min(len(of_a), len(of_b))  # replicate r drew the same subjects, however many there are
    d = bootstrap.paired_difference(
        _number(y.value), _number(x.value), of_b[:count], of_a[:count], level
    )
    return Difference(value, float(d.lo), float(d.hi), few), ""


def _few(x: RecordedNumber, y: RecordedNumber) -> bool:
    if x.few_matches is None or y.few_matches is None:  # written by a former version
        return x.few or y.few
    return few_behind(
        (x.few_matches, y.few_matches),
        [-1 if line.misses is None else line.misses for line in (x, y)],
    )


def mover(
    a: float, low_a: float, high_a: float, b: float, low_b: float, high_b: float
) -> tuple[float, float]:
    """Return the interval of b − a for independent a and b from their own intervals.

    The method is MOVER (Zou and Donner 2008).
    """
    # A percentile interval may leave out its own estimate: then that side adds nothing.
    below, above = (
        (max(b - low_b, 0.0), max(high_a - a, 0.0)),
        (max(high_b - b, 0.0), max(a - low_a, 0.0)),
    )
    return b - a - math.hypot(*below), b - a + math.hypot(*above)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
