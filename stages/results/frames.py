"""frames: the numbers of a run as pandas frames, one a row: what the csv and json files hold.

Conventions
    Counts    are empty if they do not apply.
    Factors   have a column each, after the step and the kind; a factor whose name is that of
              another column is called `factor.<name>`. The weight rule of a config is `rule`, so
              the rule that chose a threshold goes by its full name, `threshold_rule`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.metrics.verification import FEW
from stages.results.rule_table import Cell, Difference, RuleTable

if TYPE_CHECKING:
    import pandas as pd


# In their order, after the step, its kind and the factors.
_COLUMNS = (
    *("metric", "target", "threshold_rule", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "clear", "baseline"),
    *("achieved", "threshold", "false_matches", "nonmated", "subject_pairs"),
    *("misses", "trials", "subjects", "few", "few_matches", "cells"),
)
_COUNTS = ("false_matches", "nonmated", "subject_pairs", "misses", "subjects")
_TAKEN = frozenset({"step", "kind", *_COLUMNS})


def cell_frame(found: Sequence[Cell]) -> pd.DataFrame:
    """Return every number of every cell, one a row, without its replicates."""
    import pandas as pd

    frames = []
    for cell in found:
        columns: dict[str, Any] = {
            "threshold_rule" if name == "rule" else name: array
            for name, array in cell.numbers.items()
            if name != "replicates"
        }
        misses = columns["misses"]
        columns["few"] = columns["few"] | ((misses >= 0) & (misses < FEW))
        ordered = {name: columns.pop(name) for name in _COLUMNS if name in columns}
        named = {"step": cell.step.base, "kind": cell.kind, **_named(cell.factors)}
        frames.append(pd.DataFrame({**named, **ordered, **columns}))
    return _counted(pd.concat(frames, ignore_index=True)) if frames else pd.DataFrame()


def row_frame(table: RuleTable) -> pd.DataFrame:
    """Return the numbers of a rule table, one a row, with their differences to the baseline."""
    import pandas as pd

    nothing = Difference(np.nan, np.nan, np.nan)
    same = (
        *("value", "low", "high", "achieved", "threshold", "false_matches", "nonmated"),
        *("subject_pairs", "misses", "trials", "subjects", "few", "few_matches", "cells"),
    )
    lines = []
    for row in table.rows:
        for q, entry in row.entries.items():
            d = entry.difference or nothing
            known = {name: getattr(entry, name) for name in same}
            known |= {"metric": q.metric, "target": q.target, "threshold_rule": q.rule}
            known |= {"difference": d.value, "difference_low": d.low, "difference_high": d.high}
            known |= {"clear": d.clear, "baseline": row.is_baseline}
            ordered = {name: known[name] for name in _COLUMNS}
            lines.append({"step": q.step, "kind": q.kind, **_named(row.factors), **ordered})
    return _counted(pd.DataFrame(lines))


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    for name in _COUNTS:
        if name in frame:
            frame[name] = frame[name].astype("Int64").mask(frame[name] < 0)
    return frame


def _named(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Name the columns of factors; one that a number's column has taken gets a prefix."""
    return {f"factor.{name}" if name in _TAKEN else name: value for name, value in factors.items()}
