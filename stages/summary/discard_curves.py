"""discard_curves: error versus discard of a run's rows, with the lines to hold it against.

Conventions
    Figure    rows that judge the same scores share one: their errors before any discard are equal,
              and so are its reference lines. Each evaluating step and each form has figures of its
              own.
    Target    that of the form's first headline number (see `ranking.areas`).
    Lines     of cells averaged, the mean at equal discard; if there are more rows than can be told
              apart, the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.core.schema import Array
from pipeline.session import Results
from stages.draw.figures import LINES, Series
from stages.evaluation.discard import departures, target_label
from stages.results.quantities import Quantity, name_of
from stages.results.ranking import Ranking, areas, goodness
from stages.results.rule_table import Cell, Row
from stages.summary.curves import cells_of, curve

# The legacy form has no point beyond 0.95, and beyond it few comparisons remain in any form.
GRID = np.linspace(0, 0.95, 191)
# Drawn in the last slots. The method `random` is one draw, the line is what draws have on average.
REFERENCES = {
    "random": "random, expected",
    "sample_oracle": "sample oracle",
    "pair_oracle": "pair oracle",
}
Form = Literal["standard", "legacy", "1:N"]
STORED: dict[Form, str] = {"standard": "fnm-edc", "legacy": "erc", "1:N": "fnir-edc"}


@dataclass(frozen=True)
class DiscardCurves:
    """One figure: rows on the same scores under one form of the curve.

    `but`: in what it departs from the form; `drawn`: how many of the `rows` have a line.
    """

    form: Form
    quantity: Quantity  # the area at whose target the threshold stands
    step: str  # the evaluating step; '' if there is one only
    scores: str  # what tells these scores from others
    lines: Sequence[Series]
    drawn: int
    rows: int
    but: Sequence[str]


@dataclass(frozen=True)
class DiscardDetails:
    """Of the row with the least area on some scores: DETs after discard, quality by kind."""

    name: str
    dets: Sequence[Series]
    qualities: Sequence[Series]


def discard_curves(results: Results, ranking: Ranking) -> list[DiscardCurves]:
    """Return the figures of error versus discard, in the order of the table's rows."""
    first: dict[tuple[str, Form], Quantity] = {}
    for q in areas(ranking.table, ranking.options):
        first.setdefault((q.step, _form(q)), q)
    several, figures = len({step for step, _ in first}) > 1, []
    for (step, form), q in first.items():
        for scores, rows in _sharing(results, ranking, step).items():
            # the last slots are those of the reference lines, which the legacy form does not have
            shown = rows[: LINES if form == "legacy" else LINES - len(REFERENCES)]
            options = cells_of(rows[0], step)[0].step.stage.options
            but = [] if form == "1:N" else departures(options, form == "legacy")
            if lines := list(_lines(shown, q, form)):
                named = step if several else ""
                counts = len(shown), len(rows)
                figures.append(DiscardCurves(form, q, named, scores, lines, *counts, but))
    return figures


def discard_details(results: Results, ranking: Ranking) -> list[DiscardDetails]:
    """Return the details of the best row on each scores, by their first headline number."""
    quantities = [q for q in areas(ranking.table, ranking.options) if q.kind == "discard"]
    first = {q.step: q for q in reversed(quantities)}
    details = []
    for step, q in first.items():
        for rows in _sharing(results, ranking, step).values():
            best = max(rows, key=lambda row: goodness(row, q))
            name = f"{name_of(best.factors)}{' · ' + step if len(first) > 1 else ''}"
            details.append(_details(cells_of(best, step)[0], name))
    return details


def _form(q: Quantity) -> Form:
    if q.kind == "discard, 1:N":
        return "1:N"
    return "legacy" if q.metric == "erc_auc" else "standard"


def _details(cell: Cell, name: str) -> DiscardDetails:
    """Return the DET after each share of discard, and the quality of comparisons by kind."""
    stored = dict.fromkeys(cell.curves["curve"].tolist())
    shares = [share for each in stored if (share := each.removeprefix("det ")) != each][:LINES]
    dets = [
        Series(f"{float(share) * 100:g} % discarded", slot, *curve(cell, f"det {share}"))
        for slot, share in enumerate(shares)
    ]
    kinds = [
        Series(kind, slot, *curve(cell, f"quality, {kind}"))
        for slot, kind in enumerate(("mated", "non-mated"), 1)
    ]
    return DiscardDetails(
        name,
        dets if any(len(line.x) for line in dets) else [],
        kinds if any(len(line.x) for line in kinds) else [],
    )


def _sharing(results: Results, ranking: Ranking, step: str) -> dict[str, list[Row]]:
    """Return the rows of one evaluating step by the comparison scores that they judge.

    The scores are named by their factors.
    """
    by_scores: dict[str, list[Row]] = {}
    for row in ranking.rows:
        if cells := cells_of(row, step):
            inputs = cells[0].step.inputs
            scores = results.plan.steps[(inputs.get("scores") or inputs["candidates"]).step]
            shown = {k: v for k, v in scores.factors.items() if k not in ranking.table.average}
            by_scores.setdefault(name_of(shown, empty=""), []).append(row)
    return by_scores


def _lines(rows: Sequence[Row], q: Quantity, form: Form) -> Iterator[Series]:
    steps = form != "legacy"
    name = f"{STORED[form]} {target_label(q.target or 0.0, q.rule)}"
    for slot, row in enumerate(rows):
        y = _mean(cells_of(row, q.step), name, steps)
        if y is not None:
            yield Series(name_of(row.factors), slot, GRID, y)
    if not steps:
        return
    cells = cells_of(rows[0], q.step)
    # Reference lines depend on the scores only, which all rows share: any row has them.
    for slot, (reference, label) in enumerate(REFERENCES.items(), LINES - len(REFERENCES)):
        if reference == "random":
            y = _mean(cells, name, True)
            # Discard at random keeps the error, on average, as it is before any discard.
            y = None if y is None else np.full(len(GRID), y[0])
        else:
            y = _mean(cells, f"{name} {reference}", True)
        if y is not None:
            yield Series(label, slot, GRID, y)


def _mean(cells: Sequence[Cell], name: str, steps: bool) -> Array | None:
    """Return the mean over cells on GRID; None if no cell has the curve.

    Between two points, steps keep the value of the one before; the legacy form draws a straight
    line.
    """
    parts = []
    for x, y in (curve(cell, name) for cell in cells):
        if len(x):
            at = np.searchsorted(x, GRID, side="right") - 1
            parts.append(y[at] if steps else np.interp(GRID, x, y))
    return np.mean(parts, axis=0) if parts else None
