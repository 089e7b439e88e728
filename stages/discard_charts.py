"""discard_charts: error versus discard of a report's rows, drawn with the lines to hold it against.

Conventions
    Chart     rows that judge the same scores share one: their errors before any discard are equal, and so are its
              reference lines. Each evaluating step and each form has charts of its own.
    Target    that of the form's first headline number (see `headline.areas`).
    Lines     of cells averaged, the mean at equal discard; where there are more rows than can be told apart, the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.schema import Array
from stages import bars, figures, headline
from stages.charts import safe
from stages.evaluate_discard import place
from stages.figures import Line
from stages.headline import Found
from stages.quantities import Quantity
from stages.sections import curve
from stages.summary import Cell, Row

GRID = np.linspace(0, 0.95, 191)
# Drawn in the last slots. A quality measure may be called random as well.
REFERENCES = {"random": "discard at random", "sample_oracle": "sample oracle", "pair_oracle": "pair oracle"}
FORMS = {"standard": "FNM-EDC", "legacy": "ERC, legacy form"}
SAID = {
    "standard": "Threshold chosen once, on all comparisons.",
    "legacy": "Threshold chosen anew at each of twenty steps; mated and non-mated are discarded together.",
}


def charts(found: Found) -> list[dict[str, Any]]:
    """Return the charts of error versus discard, in the order of the table's rows."""
    first: dict[tuple[str, str], Quantity] = {}
    for q in headline.areas(found.table, found.options):
        if q.kind == "discard":
            first.setdefault((q.step, "legacy" if q.metric == "erc_auc" else "standard"), q)
    several, drawn = len({step for step, _ in first}) > 1, []
    for (step, form), q in first.items():
        for name, rows in _sharing(found, step).items():
            shown = rows[: figures.LINES - len(REFERENCES)] if form == "standard" else rows[: figures.LINES]
            lines = list(_lines(shown, q, form))
            parts = f"{FORMS[form]} @ {q.label.partition(' @ ')[2]}", step if several else "", name
            title, said = " · ".join(filter(None, parts)), [SAID[form]]
            if any(line.label == "pair oracle" for line in lines):
                said.append("No quality of samples reaches the pair oracle.")
            if len(shown) < len(rows):
                said.append(f"The first {len(shown)} of {len(rows)} rows of the table are drawn.")
            if lines:
                svg = safe(figures.discard(title, lines))
                drawn.append({"name": title, "svg": svg, "lines": _keys(lines), "said": " ".join(said)})
    return drawn


def _sharing(found: Found, step: str) -> dict[str, list[Row]]:
    """Return the rows of one evaluating step by the scores that they judge, named by the factors that those have."""
    by_scores: dict[str, list[Row]] = {}
    for row in found.rows:
        if cells := _of(row, step):
            scores = found.results.plan.steps[cells[0].step.inputs["scores"].step]
            shown = {k: v for k, v in scores.factors.items() if k not in found.table.average}
            by_scores.setdefault(headline.name_of(shown, empty=""), []).append(row)
    return by_scores


def _of(row: Row, step: str) -> list[Cell]:
    return [cell for cell in row.cells if cell.step.base == step]


def _lines(rows: Sequence[Row], q: Quantity, form: str) -> Iterator[Line]:
    standard = form == "standard"
    name = f"{'fnm-edc' if standard else 'erc'} {place(q.target or 0.0, q.rule)}"
    for slot, row in enumerate(rows):
        y = _mean(_of(row, q.step), name, standard)
        if y is not None:
            yield Line(headline.name_of(row.factors), slot, GRID, y)
    for i, (reference, label) in enumerate(REFERENCES.items() if standard else ()):
        y = _mean(_of(rows[0], q.step), name if reference == "random" else f"{name} {reference}", True)
        if y is not None:
            y = np.full(len(GRID), y[0]) if reference == "random" else y
            yield Line(label, figures.LINES - len(REFERENCES) + i, GRID, y)


def _mean(cells: Sequence[Cell], name: str, steps: bool) -> Array | None:
    """Return the mean over cells on GRID: of steps, the value of the point before; of the legacy form, on straight lines."""
    parts = []
    for x, y in (curve(cell, name) for cell in cells):
        if len(x):
            at = np.searchsorted(x, GRID, side="right") - 1
            parts.append(y[at] if steps else np.interp(GRID, x, y))
    return np.mean(parts, axis=0) if parts else None


def _keys(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{"label": line.label, "svg": safe(bars.swatch(line.slot))} for line in lines]
