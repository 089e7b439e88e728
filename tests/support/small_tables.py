"""Rule tables of a few rows, made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.results.quantities import Quantity
from stages.results.rule_table import Row, RuleTable

Make = Callable[..., Row]


MEAN = {"rule": "mean"}


def tar(target: float, rule: str = "at_most") -> Quantity:
    return Quantity("1:1", "v", "tar", target, rule)


EER, RANK = Quantity("1:1", "v", "eer", None, ""), Quantity("1:N", "i", "rank", 1.0, "")


def tpir(target: float) -> Quantity:
    return Quantity("1:N", "i", "tpir", target, "at_most")


def table(rows: Sequence[Row], baseline: Mapping[str, Any] = MEAN) -> RuleTable:
    quantities = tuple(dict.fromkeys(q for row in rows for q in row.entries))
    return RuleTable(tuple(rows), quantities, ("rule",), {}, baseline, 100, 0.95)


def of_one(row: Make, *numbers: Quantity, few: Sequence[Quantity] = ()) -> RuleTable:
    """A table of one row that has these numbers, some of them on fewer than 30 false matches."""
    solid, shaky = (
        row(MEAN, dict.fromkeys(numbers, 0.9)),
        row(MEAN, dict.fromkeys(few, 0.9), few=True),
    )
    return table([Row(MEAN, (), {**shaky.entries, **solid.entries})])


def compared(row: Make, q: Quantity = EER, **differences: tuple[float, float, float]) -> RuleTable:
    base = row(MEAN, {q: 0.5}, is_baseline=True, reference=MEAN)
    others = [
        row({"rule": name}, {q: (0.5 + d[0], *d)}, reference=MEAN)
        for name, d in differences.items()
    ]
    return table([*others, base])


def clean(row: Make, *names: str) -> list[Row]:
    """Rows that have no error: a TAR of 1, and differences of 0 that have no interval."""
    made = [
        row({"rule": name}, {tar(1e-3): (1.0, 0.0, math.nan, math.nan)}, reference=MEAN)
        for name in names
    ]
    return [row(MEAN, {tar(1e-3): 1.0}, is_baseline=True, reference=MEAN), *made]
