"""curves: the ROC, DET and CMC of a run's rows, and histograms of its comparison scores.

Conventions
    Rows      every row if there are few; else each baseline and, under each, the best row of every
              quality method by the main number.
    Averages  of a row over its cells at equal FMR (rank, bin), as the table's values are. A ROC
              between two stored points is that of the lower FMR: the largest FMR that does not
              exceed the target.
    Scores    histograms show the first baseline and the best row under it, on the same axes, with
              the threshold of the main number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.core.schema import Array
from pipeline.session import Results
from stages.draw.figures import LINES, Series
from stages.metrics.verification import FEW
from stages.results.quantities import Kind, name_of
from stages.results.ranking import Ranking, goodness
from stages.results.rule_table import Cell, Row

POINTS = 300  # of a ROC


@dataclass(frozen=True)
class Curve:
    """One figure of curves.

    `unsure`: the FMR below which fewer than 30 false matches decide; nan if it is not known.
    """

    kind: Literal["ROC", "DET", "CMC"]
    name: str
    lines: Sequence[Series]
    unsure: float = math.nan


@dataclass(frozen=True)
class Histogram:
    """Shares over bins, on axes that hold `alike` as well; a mark at `threshold`, nan for none."""

    name: str
    label: str
    lines: Sequence[Series]
    alike: Sequence[Series]
    threshold: float
    mark: str
    is_baseline: bool = False


@dataclass(frozen=True)
class Curves:
    """The curves of a run: its rows by name with the slot of their colour, and the figures."""

    rows: Sequence[tuple[str, int]]
    drawable: int  # rows that have curves; some may not be drawn
    averaged: Sequence[str]  # factors
    curves: Sequence[Curve]
    histograms: Sequence[Histogram]


def curves_of(results: Results, ranking: Ranking) -> Curves:
    """Return the curves of the rows that are drawn."""
    drawable = [row for row in ranking.rows if any(c.kind in ("1:1", "1:N") for c in row.cells)]
    shown = enumerate(_shown(results, ranking))
    rows = [(slot, row) for slot, row in shown if any(row is other for other in drawable)]
    return Curves(
        [(name_of(row.factors), slot) for slot, row in rows],
        len(drawable),
        list(ranking.table.average),
        [*_verification(ranking, rows), *_identification(ranking, rows)],
        list(_histograms(ranking)),
    )


def _verification(ranking: Ranking, rows: Sequence[tuple[int, Row]]) -> Iterator[Curve]:
    steps = _steps(ranking, "1:1")
    for step in steps:
        roc = [Series(name_of(row.factors), slot, *roc_of(row, step)) for slot, row in rows]
        det = [Series(line.label, line.slot, line.x, 1 - line.y) for line in roc]
        fewest = min((nonmated_trials(row, step) for _, row in rows), default=math.nan)
        if any(len(line.x) for line in roc):
            yield Curve("ROC", _named("ROC", step, steps), roc, FEW / fewest)
            yield Curve("DET", _named("DET", step, steps), det, FEW / fewest)


def _identification(ranking: Ranking, rows: Sequence[tuple[int, Row]]) -> Iterator[Curve]:
    steps = _steps(ranking, "1:N")
    for step in steps:
        cmc = [Series(name_of(r.factors), slot, *mean_curve(r, step, "cmc")) for slot, r in rows]
        if any(len(line.x) for line in cmc):
            yield Curve("CMC", _named("CMC", step, steps), cmc)


def _named(name: str, step: str, steps: Sequence[str]) -> str:
    return f"{name}, {step}" if len(steps) > 1 else name


def _steps(ranking: Ranking, kind: Kind) -> list[str]:
    return list(dict.fromkeys(cell.step.base for cell in ranking.cells if cell.kind == kind))


def _shown(results: Results, ranking: Ranking) -> list[Row]:
    """Return the rows whose curves are drawn, baselines first; as many as can be told apart."""
    if len(ranking.rows) <= LINES:
        return ranking.rows
    bests: list[Row] = []
    for group in ranking.groups:
        by_method: dict[str, Row] = {}
        for row in group.others:
            by_method.setdefault(method_of(results, row), row)
        bests += by_method.values()
    baselines = [group.baseline for group in ranking.groups if group.baseline is not None]
    # Groups are in the plan's order: without sorting, LINES could cut off the best of a later one.
    bests.sort(key=lambda row: -goodness(row, ranking.main))
    return [*baselines, *bests][:LINES]


def method_of(results: Results, row: Row) -> str:
    """Return the quality method that a row's templates are weighted by; '' for none."""
    step = results.upstream(row.cells[0].step, "quality")
    return "" if step is None else str(step.stage.options.method)


def _histograms(ranking: Ranking) -> Iterator[Histogram]:
    kinds: tuple[tuple[Kind, str, tuple[str, str]], ...] = (
        ("1:1", "comparison score", ("mated scores", "non-mated scores")),
        ("1:N", "score of the best candidate", ("top-1, mated probes", "top-1, non-mated probes")),
    )
    rows, main = [row for group in ranking.groups[:1] for row in group.rows[:2]], ranking.main
    mark = f"threshold at {main.label.partition(' @ ')[2] or main.label}" if main else ""
    for kind, label, names in kinds:
        steps = _steps(ranking, kind)
        for step in steps:
            of_rows = [
                [Series(name, i, *mean_curve(row, step, name)) for i, name in enumerate(names, 1)]
                for row in rows
            ]
            alike = [line for lines in of_rows for line in lines]
            for row, lines in zip(rows, of_rows, strict=True):
                if any(len(line.x) for line in lines):
                    entry = row.entries.get(main) if main and main.step == step else None
                    at = math.nan if entry is None else entry.threshold
                    name = _named(f"{kind}, {name_of(row.factors)}", step, steps)
                    yield Histogram(name, label, lines, alike, at, mark, row.is_baseline)


def roc_of(row: Row, step: str) -> tuple[Array, Array]:
    """Return (FMR, TAR) of a row's 1:1 cells of one evaluating step, averaged at equal FMR.

    Both are empty if there are no such cells.
    """
    parts = [part for part in (curve(cell, "roc") for cell in cells_of(row, step)) if len(part[0])]
    if not parts:
        return np.empty(0), np.empty(0)
    parts = [(x[order], y[order]) for x, y in parts for order in [np.lexsort((y, x))]]
    # Below the largest of the cells' smallest FMRs above 0, some cell has no point to average.
    first = max(float(x[x > 0].min()) if (x > 0).any() else 1.0 for x, _ in parts)
    of_cells = [cell.numbers["target"].tolist() for cell in cells_of(row, step)]
    targets = [target for each in of_cells for target in each if first <= target <= 1]
    # The targets are in the grid, so that the drawn curve passes through the table's values.
    grid = np.unique([*np.geomspace(first, 1, POINTS), *targets])
    # the last stored point whose FMR does not exceed that of the grid, but for rounding
    at = [np.searchsorted(x, grid * (1 + 1e-12), side="right") - 1 for x, _ in parts]
    each = [y[np.maximum(i, 0)] for i, (_, y) in zip(at, parts, strict=True)]
    return grid, np.mean(each, axis=0)


def mean_curve(row: Row, step: str, name: str) -> tuple[Array, Array]:
    """Return (x, y) of a CMC or a histogram, averaged over cells.

    Cells whose x is not that of the first one are left out; the shortest decides the length.
    """
    parts = [part for part in (curve(cell, name) for cell in cells_of(row, step)) if len(part[0])]
    length = min((len(x) for x, _ in parts), default=0)
    if not length:
        return np.empty(0), np.empty(0)
    first = parts[0][0][:length]
    # Histograms of cells need not have the same bins, and only equal bins can be averaged.
    alike = [y[:length] for x, y in parts if np.array_equal(x[:length], first)]
    return first, np.mean(alike, axis=0)


def curve(cell: Cell, name: str) -> tuple[Array, Array]:
    """Return the points of one stored curve."""
    mine = cell.curves["curve"] == name
    return cell.curves["x"][mine], cell.curves["y"][mine]


def cells_of(row: Row, step: str) -> list[Cell]:
    """Return the cells of one evaluating step."""
    return [cell for cell in row.cells if cell.step.base == step]


def nonmated_trials(row: Row, step: str) -> float:
    """Return the number of non-mated comparisons, the fewest of a row's cells.

    nan if no cell has counted them.
    """
    counts = [n for cell in cells_of(row, step) for n in cell.numbers["nonmated"].tolist() if n > 0]
    return min(counts, default=math.nan)
