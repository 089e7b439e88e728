"""discard_charts: error versus discard of a report's rows, drawn with the lines to hold it against.

Conventions
    Chart     rows that judge the same scores share one: their errors before any discard are equal, and so are its
              reference lines.
    Lines     at the strictest headline FMR that rests on 30 false matches; of cells averaged, the mean at equal discard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.schema import Array
from stages import bars, figures, headline
from stages.charts import safe
from stages.figures import Line
from stages.headline import Found
from stages.quantities import Quantity, number_label
from stages.sections import curve
from stages.summary import Cell, Row

GRID = np.linspace(0, 0.95, 191)
REFERENCES = ("random", "sample_oracle", "pair_oracle")  # drawn in the last slots
FORMS = {"standard": "FNM-EDC", "legacy": "ERC, legacy form"}


def charts(found: Found) -> list[dict[str, Any]]:
    """Return the charts of error versus discard, in the order of the table's rows."""
    areas = headline.areas(found.table, found.options)
    main = next((q for q in areas if q.kind == "discard" and q.metric != "erc_auc"), None)
    drawn = []
    for name, rows in _sharing(found).items():
        for form, title in FORMS.items():
            if main is not None and (lines := list(_lines(rows, main, form))):
                at = f"{title} @ FMR {number_label(main.target)}{' · ' + name if name else ''}"
                svg = figures.discard(at, lines)
                drawn.append({"name": at, "svg": safe(svg), "lines": _keys(lines), "said": _said(form)})
    return drawn


def _sharing(found: Found) -> dict[str, list[Row]]:
    """Return rows by the scores that they judge, named by the factors that those have."""
    by_scores: dict[str, list[Row]] = {}
    for row in found.rows:
        cells = [cell for cell in row.cells if cell.kind == "discard"]
        step = found.results.plan.steps[cells[0].step.inputs["scores"].step] if cells else None
        if step is not None:
            shown = {k: v for k, v in step.factors.items() if k not in found.table.average}
            by_scores.setdefault(headline.name_of(shown, empty=""), []).append(row)
    return by_scores


def _lines(rows: Sequence[Row], main: Quantity, form: str) -> Iterator[Line]:
    target = f"{main.target:g}"
    name = f"fnm-edc {target}" if form == "standard" else f"erc {target}"
    references = REFERENCES if form == "standard" else ()
    slots = figures.LINES - len(references)
    for slot, row in enumerate(rows[:slots]):
        y = _mean([cell for cell in row.cells if cell.step.base == main.step], name, form == "standard")
        if y is not None:
            yield Line(headline.name_of(row.factors), slot, GRID, y)
    mine = [cell for cell in rows[0].cells if cell.step.base == main.step] if rows else []
    for i, reference in enumerate(references):
        if reference == "random":
            start = _mean(mine, name, True)
            y = None if start is None else np.full(len(GRID), start[0])
        else:
            y = _mean(mine, f"{name} {reference}", True)
        if y is not None:
            yield Line(reference.replace("_", " "), slots + i, GRID, y)


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


def _said(form: str) -> str:
    if form == "standard":
        return "Threshold chosen once, on all comparisons. No quality of samples reaches the pair oracle."
    return "Threshold chosen anew at each of twenty steps; mated and non-mated are discarded together."
