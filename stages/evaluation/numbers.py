"""numbers: rows of NUMBERS, curves, histograms as evaluations write them; subjects as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.schema import Array, Batch, text
from stages.metrics import bootstrap
from stages.metrics.subjects import Half, in_second_half
from stages.tables.schemas import NUMBERS


class Numbers:
    """Collects rows of NUMBERS."""

    def __init__(self, replicates: int, level: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._none = np.full(replicates, np.nan)
        self._level = level

    def add(
        self, metric: str, value: float, replicates: Array | None = None, **fields: Any
    ) -> None:
        """Add a number with its replicates (R,), which give its interval; None for no interval."""
        row = {"target": np.nan, "rule": "", "achieved": np.nan, "threshold": np.nan, "few": False}
        counts = {
            "false_matches": -1,
            "nonmated": -1,
            "subject_pairs": -1,
            "misses": -1,
            "trials": 0,
            "subjects": -1,
        }
        kept = self._none if replicates is None or not len(self._none) else replicates
        given = {**row, **counts, **fields}
        low, high = bootstrap.rate_interval(value, kept, self._level, given["subjects"])
        made = {"metric": metric, "value": value, "low": low, "high": high, "replicates": kept}
        self.rows.append({**given, **made})

    def batch(self) -> Batch:
        columns: dict[str, Array] = {}
        for field in NUMBERS.fields:
            values = [row[field.name] for row in self.rows]
            columns[field.name] = (
                text(values) if field.dtype == "text" else np.array(values, dtype=field.dtype)
            )
        columns["replicates"] = columns["replicates"].reshape(len(self.rows), -1)
        return Batch(columns)


def find_number(
    table: Batch, metric: str, target: float | None = None, rule: str | None = None
) -> Mapping[str, Any]:
    """Return the first row of NUMBERS that matches. Raises KeyError if there is none."""
    for i in range(table.rows):
        same = table["metric"][i] == metric and (rule is None or table["rule"][i] == rule)
        if same and (target is None or math.isclose(table["target"][i], target)):
            return {name: array[i] for name, array in table.items()}
    raise KeyError(f"no number {metric} at {target} under rule {rule}")


def curve_rows(parts: Iterable[tuple[str, Array, Array]]) -> Batch:
    """Return CURVES from (name, x, y) parts; points whose x or y is not finite are left out."""
    kept = [(name, x[f], y[f]) for name, x, y in parts for f in [np.isfinite(x) & np.isfinite(y)]]
    return Batch(
        {
            "curve": text(name for name, x, _ in kept for _ in range(len(x))),
            "x": np.concatenate([x for _, x, _ in kept] or [np.empty(0)]).astype(np.float64),
            "y": np.concatenate([y for _, _, y in kept] or [np.empty(0)]).astype(np.float64),
        }
    )


def score_edges(*ascending: Array) -> Array:
    """Return 101 edges for histograms of scores: from −1 to 1, or wider if scores lie outside.

    The ends are whole numbers, as the cells of a row are averaged bin by bin. A score that rounding
    pushed past an end moves no edge.
    """
    least = min((float(scores[0]) for scores in ascending if len(scores)), default=-1.0)
    most = max((float(scores[-1]) for scores in ascending if len(scores)), default=1.0)
    return np.linspace(min(-1, math.floor(least + 1e-4)), max(1, math.ceil(most - 1e-4)), 101)


def histogram_curve(name: str, scores: Array, edges: Array) -> tuple[str, Array, Array]:
    """Return a curve with the share of scores in each bin; `scores` ascend.

    A score that rounding pushed past the last edge stays in the last bin.
    """
    # in their own type: float64 edges would widen every score
    inner = edges[1:-1].astype(scores.dtype)
    inner = np.where(inner < edges[1:-1], np.nextafter(inner, inner.dtype.type(np.inf)), inner)
    counts = np.diff(np.searchsorted(scores, inner), prepend=0, append=len(scores))
    return name, edges[:-1], counts / max(1, counts.sum())


def number_subjects(templates: Batch) -> tuple[NDArray[np.int64], int, NDArray[np.bool_]]:
    """Number the subjects of templates in the order of their names.

    Returns (number of each template, how many there are, whether each template has a subject at
    all). A template without one has a number of its own.
    """
    names, known = _subject_names(templates)
    unique, number = np.unique(names, return_inverse=True)
    return number.astype(np.int64), len(unique), known


def count_distinct(*numbers: Array) -> int:
    """Return how many distinct numbers ≥ 0, those of subjects, are in some arrays together."""
    seen = np.zeros(1 + max((int(each.max(initial=-1)) for each in numbers), default=-1), bool)
    for each in numbers:
        seen[each] = True
    return int(seen.sum())


def number_half(templates: Batch, half: Half) -> tuple[NDArray[np.int64], int]:
    """Number the subjects of one half, or of all: (each template's number, how many there are).

    A template outside the half has -1. A template without a subject is in neither half, as another
    one of the same person might be in the other.
    """
    names, known = _subject_names(templates)
    unique, number = np.unique(names, return_inverse=True)
    inside = np.ones(len(unique), bool)
    if half != "all":
        inside = in_second_half(unique) == (half == "report")
        inside[number[~known]] = False
    return np.where(inside, np.cumsum(inside) - 1, -1)[number].astype(np.int64), int(inside.sum())


def _subject_names(templates: Batch) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Return each template's subject, or a unique made-up one, and whether it has a subject."""
    names = templates["subject"].astype(str)
    known = names != ""
    return np.where(known, names, np.char.add("\0row ", np.arange(len(names)).astype(str))), known
