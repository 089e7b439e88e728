"""discard_charts: error versus discard of a report's rows, drawn with the lines to hold it against.

Conventions
    Chart     rows that judge the same scores share one: their errors before any discard are equal,
              and so are its reference lines. Each evaluating step and each form has charts of its
              own.
    Target    that of the form's first headline number (see `headline.areas`).
    Lines     of cells averaged, the mean at equal discard; where there are more rows than can be
              told apart, the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.schema import Array
from stages.draw import bars, figures
from stages.draw.figures import Line
from stages.evaluation.discard import departures, target_label
from stages.report.charts import safe
from stages.results import headline
from stages.results.curves_and_crops import curve
from stages.results.headline import Found
from stages.results.quantities import Quantity
from stages.results.rule_table import Cell, Row

GRID = np.linspace(0, 0.95, 191)
# Drawn in the last slots. The measure `random` is one draw, the line is what draws have on average.
REFERENCES = {
    "random": "random, expected",
    "sample_oracle": "sample oracle",
    "pair_oracle": "pair oracle",
}


@dataclass(frozen=True)
class _Form:
    """A form of the curve: its title, the name of its stored curves, what is discarded, the rate,
    and how it is made.
    """

    title: str
    curve: str
    of: str
    rate: str
    said: str


FORMS = {
    "standard": _Form(
        "FNM-EDC", "fnm-edc", "comparisons", "FNMR", "Threshold chosen once, on all comparisons."
    ),
    "legacy": _Form(
        *("ERC, legacy form", "erc", "comparisons", "FNMR"),
        "Threshold chosen anew at each of twenty steps; mated and non-mated are discarded"
        " together.",
    ),
    "1:N": _Form(
        "FNIR-EDC", "fnir-edc", "mated probes", "FNIR", "Threshold chosen once, on all probes."
    ),
}


def charts(found: Found) -> list[dict[str, Any]]:
    """Return the charts of error versus discard, in the order of the table's rows."""
    first: dict[tuple[str, str], Quantity] = {}
    for q in headline.areas(found.table, found.options):
        form = (
            "1:N" if q.kind == "discard, 1:N" else "legacy" if q.metric == "erc_auc" else "standard"
        )
        first.setdefault((q.step, form), q)
    several, drawn = len({step for step, _ in first}) > 1, []
    for (step, form), q in first.items():
        for name, rows in _sharing(found, step).items():
            shown = rows[: figures.LINES if form == "legacy" else figures.LINES - len(REFERENCES)]
            lines = list(_lines(shown, q, form))
            kind = FORMS[form]
            parts = f"{kind.title} @ {q.label.partition(' @ ')[2]}", step if several else "", name
            title, said = " · ".join(filter(None, parts)), [kind.said]
            if form != "1:N" and (
                but := departures(_of(rows[0], step)[0].step.stage.options, form == "legacy")
            ):
                said = [f"Not the form itself: {', '.join(but)}."]
            if any(line.label == "pair oracle" for line in lines):
                said.append("No quality of samples reaches the pair oracle.")
            if len(shown) < len(rows):
                said.append(f"The first {len(shown)} of {len(rows)} rows of the table are drawn.")
            if lines:
                svg = safe(figures.discard(title, lines, kind.of, kind.rate))
                drawn.append(
                    {"name": title, "svg": svg, "lines": _keys(lines), "said": " ".join(said)}
                )
    return drawn


def details(found: Found) -> list[dict[str, Any]]:
    """Return of the best row on each scores, by their first headline number, the DETs and the
    quality of comparisons.
    """
    drawn: list[dict[str, Any]] = []
    first = {
        q.step: q
        for q in reversed(headline.areas(found.table, found.options))
        if q.kind == "discard"
    }
    for step, q in first.items():
        for rows in _sharing(found, step).values():
            best = max(rows, key=lambda row: headline.goodness(row, q))
            drawn += _beside(
                best,
                step,
                f"{headline.name_of(best.factors)}{' · ' + step if len(first) > 1 else ''}",
            )
    return drawn


def _beside(row: Row, step: str, name: str) -> Iterator[dict[str, Any]]:
    """Give the DET after each share of discard of a row's first cell, and the quality of its
    comparisons by kind.
    """
    cell = _of(row, step)[0]
    names = dict.fromkeys(cell.curves["curve"].tolist())
    shares = [share for each in names if (share := each.removeprefix("det ")) != each][
        : figures.LINES
    ]
    dets = [
        Line(f"{float(s) * 100:g} % discarded", slot, *curve(cell, f"det {s}"))
        for slot, s in enumerate(shares)
    ]
    if any(len(line.x) for line in dets):
        said = (
            "The DET of what remains after each discard, of the row with the least area among those"
            " on these scores."
        )
        yield {
            "name": f"DET · {name}",
            "svg": safe(figures.det(dets)),
            "lines": _keys(dets),
            "said": said,
        }
    kinds = [
        Line(kind, slot + 1, *curve(cell, f"quality, {kind}"))
        for slot, kind in enumerate(("mated", "non-mated"))
    ]
    if any(len(line.x) for line in kinds):
        svg = safe(
            figures.histogram(f"quality of comparisons, {name}", "quality of a comparison", kinds)
        )
        areas = [
            {"label": line.label, "svg": safe(bars.swatch(line.slot, area=True))} for line in kinds
        ]
        yield {
            "name": f"Quality of comparisons · {name}",
            "svg": svg,
            "lines": areas,
            "said": "Each kind adds up to 100 %.",
        }


def _sharing(found: Found, step: str) -> dict[str, list[Row]]:
    """Return the rows of one evaluating step by the scores that they judge, named by the factors
    that those have.
    """
    by_scores: dict[str, list[Row]] = {}
    for row in found.rows:
        if cells := _of(row, step):
            inputs = cells[0].step.inputs
            scores = found.results.plan.steps[(inputs.get("scores") or inputs["candidates"]).step]
            shown = {k: v for k, v in scores.factors.items() if k not in found.table.average}
            by_scores.setdefault(headline.name_of(shown, empty=""), []).append(row)
    return by_scores


def _of(row: Row, step: str) -> list[Cell]:
    return [cell for cell in row.cells if cell.step.base == step]


def _lines(rows: Sequence[Row], q: Quantity, form: str) -> Iterator[Line]:
    steps = form != "legacy"
    name = f"{FORMS[form].curve} {target_label(q.target or 0.0, q.rule)}"
    for slot, row in enumerate(rows):
        y = _mean(_of(row, q.step), name, steps)
        if y is not None:
            yield Line(headline.name_of(row.factors), slot, GRID, y)
    for i, (reference, label) in enumerate(REFERENCES.items() if steps else ()):
        y = _mean(
            _of(rows[0], q.step), name if reference == "random" else f"{name} {reference}", True
        )
        if y is not None:
            y = np.full(len(GRID), y[0]) if reference == "random" else y
            yield Line(label, figures.LINES - len(REFERENCES) + i, GRID, y)


def _mean(cells: Sequence[Cell], name: str, steps: bool) -> Array | None:
    """Return the mean over cells on GRID: of steps, the value of the point before; of the legacy
    form, on straight lines.
    """
    parts = []
    for x, y in (curve(cell, name) for cell in cells):
        if len(x):
            at = np.searchsorted(x, GRID, side="right") - 1
            parts.append(y[at] if steps else np.interp(GRID, x, y))
    return np.mean(parts, axis=0) if parts else None


def _keys(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{"label": line.label, "svg": safe(bars.swatch(line.slot))} for line in lines]
