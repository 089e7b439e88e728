"""choice: parameters chosen on one half of the subjects, with their numbers on the other.

Conventions
    Family    the values of a factor that differ in their parameters only, as quality-power(p=1) and
              quality-power(p=2); if no value has parameters, the values of the factor are one
              family. A family of one leaves nothing to choose.
    Choice    the value that is best on the half `choose`, the first of equals; apart for every
              combination of the other factors. Its numbers are those on the half `report`, whose
              subjects had no part in the choice, and its difference is to the baseline there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidInput
from stages.results.quantities import (
    Quantity,
    lower_is_better,
    number_label,
)
from stages.results.report_options import Choose, half_factor
from stages.results.rule_table import Entry, Row, RuleTable

Halves = dict[str, Row]  # the rows of one value by their half, `choose` or `report`


@dataclass(frozen=True)
class Chosen:
    """One choice: the value that was chosen, and its entries on both halves.

    `tried` are the values it was chosen from, under the other `factors`.
    """

    family: str
    factors: Mapping[str, Any]
    tried: tuple[Any, ...]
    value: Any
    quantity: Quantity
    choosing: Entry
    reported: Entry

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it; null for what is not defined."""
        d, e = self.reported.difference, self.reported
        numbers = {
            "value": e.value,
            "low": e.low,
            "high": e.high,
            "value_on_choose": self.choosing.value,
        }
        if d is not None:
            numbers |= {"difference": d.value, "difference_low": d.low, "difference_high": d.high}
        q = self.quantity
        return {
            **{
                "family": self.family,
                "factors": dict(self.factors),
                "tried": list(self.tried),
                "chosen": self.value,
            },
            **{
                "step": q.step,
                "kind": q.kind,
                "metric": q.metric,
                "target": q.target,
                "threshold_rule": q.rule,
            },
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            **{"few": e.few, "clear": d is not None and d.clear},
        }


def choices(
    table: RuleTable, choose: Choose | None, factors: Mapping[str, Sequence[Any]]
) -> list[Chosen]:
    """Return the choice in every family, in the order of the plan; none if none is asked for.

    Raises InvalidInput if the number to choose by was not evaluated, and if there is nothing to
    choose.
    """
    half = half_factor(factors)
    if choose is None or half is None:
        return []
    quantities = table.find(choose.metric, choose.target)
    asked = f"{choose.metric} {number_label(choose.target)}".strip()
    if not quantities:
        usual = (q for q in table.quantities if q.rule not in ("nearest", "script"))
        have = sorted({f"{q.metric} {number_label(q.target)}".strip() for q in usual})
        raise InvalidInput(
            f"report.options.choose: {asked!r} was not evaluated; there are {', '.join(have)}."
        )
    plain = not any("(" in str(value) for value in factors[choose.among])
    families: dict[tuple[str, tuple[tuple[str, Any], ...]], dict[Any, Halves]] = {}
    for row in table.rows:
        if half in row.factors and choose.among in row.factors:
            value = row.factors[choose.among]
            others = tuple((k, v) for k, v in row.factors.items() if k not in (half, choose.among))
            family = choose.among if plain else str(value).partition("(")[0]
            members = families.setdefault((family, others), {})
            members.setdefault(value, {})[str(row.factors[half])] = row
    chosen = []
    for (family, others), members in families.items():
        for q in quantities:
            able = _with_both_halves(members, q)
            if len(able) > 1:
                up = -1 if lower_is_better(q.metric) else 1
                best = max(able, key=lambda value: up * able[value][0].value)
                chosen.append(Chosen(family, dict(others), tuple(able), best, q, *able[best]))
    if not chosen:
        raise InvalidInput(
            f"report.options.choose: there is nothing to choose: no evaluation of {asked!r} has"
            f" both halves, or no family of {choose.among!r} has two values with it that are"
            f" defined. Give the evaluation `half: ${half}`, choose by a number that has the"
            " halves, or name values that differ in their parameters, as quality-power(p=1) and"
            " quality-power(p=2)."
        )
    return chosen


def _with_both_halves(members: Mapping[Any, Halves], q: Quantity) -> dict[Any, tuple[Entry, Entry]]:
    """Return (entry on `choose`, entry on `report`) of the values that can be chosen by a number.

    Rows of 1:N take no part in a choice by a 1:1 number, nor do numbers that are not defined.
    """
    pairs = {
        value: (rows["choose"].entries[q], rows["report"].entries[q])
        for value, rows in members.items()
        if rows.keys() >= {"choose", "report"} and all(q in row.entries for row in rows.values())
    }
    return {value: pair for value, pair in pairs.items() if not math.isnan(pair[0].value)}
