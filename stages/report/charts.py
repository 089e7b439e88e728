"""charts: the curves and histograms of a report, and which rows they show.

Conventions
    Rows      every row where there are few; else each baseline and, under each, the best row of
              every quality measure by the main number.
    Scores    histograms show the first baseline and the best row under it, on the same axes, with
              the threshold of the main number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stages.draw import bars, figures
from stages.draw.figures import Line
from stages.results import curves_and_crops, headline
from stages.results.headline import Found
from stages.results.quantities import Kind
from stages.results.rule_table import Row


def curves(found: Found) -> dict[str, Any]:
    """Return what the template's sections on curves and comparison scores show."""
    drawable = [row for row in found.rows if any(cell.kind in ("1:1", "1:N") for cell in row.cells)]
    rows = [(slot, row) for slot, row in enumerate(_shown(found)) if row in drawable]
    verifying, identifying = _steps(found, "1:1"), _steps(found, "1:N")
    frame = figures.NARROW if 2 * len(verifying) + len(identifying) > 2 else figures.WIDE
    charts: list[dict[str, Any]] = []
    for step in verifying:
        lines = [
            Line(headline.name_of(r.factors), slot, *curves_and_crops.roc_of(r, step))
            for slot, r in rows
        ]
        unsure = 30 / min(
            (curves_and_crops.nonmated_trials(row, step) for _, row in rows), default=float("nan")
        )
        errors = [Line(line.label, line.slot, line.x, 1 - line.y) for line in lines]
        if any(len(line.x) for line in lines):
            shaded = f"Shaded: below FMR {100 * unsure:.2g} % fewer than 30 false matches decide."
            whole = (
                "Shaded: with fewer than 30 non-mated comparisons no point rests on 30 false"
                " matches."
            )
            said = "" if unsure != unsure else shaded if unsure < 1 else whole
            charts.append(
                {
                    "name": _named("ROC", step, verifying),
                    "svg": safe(figures.roc(lines, unsure, frame)),
                    "said": said,
                }
            )
            said = "Both axes are normal deviates; a line ends where no error of one kind is left."
            charts.append(
                {
                    "name": _named("DET", step, verifying),
                    "svg": safe(figures.det(errors, unsure, frame)),
                    "said": said,
                }
            )
    for step in identifying:
        lines = [
            Line(headline.name_of(r.factors), s, *curves_and_crops.mean_curve(r, step, "cmc"))
            for s, r in rows
        ]
        if any(len(line.x) for line in lines):
            said = "Closed set: over probes that have a mate in the gallery."
            charts.append(
                {
                    "name": _named("CMC", step, identifying),
                    "svg": safe(figures.cmc(lines, frame)),
                    "said": said,
                }
            )
    all_shown = len(rows) == len(drawable)
    return {
        "charts": charts,
        "narrow": frame is figures.NARROW,
        "keys_of_curves": [
            {"label": headline.name_of(r.factors), "svg": safe(bars.swatch(slot))}
            for slot, r in rows
        ],
        "chosen": (
            ""
            if all_shown
            else (
                f"{len(rows)} of {len(drawable)} rows are drawn: each baseline, and the best row of"
                " every quality measure (and of the rules that use none) by the main number."
            )
        ),
        "averaged": ", ".join(found.table.average),
        "histograms": list(_histograms(found)),
    }


def _named(name: str, step: str, steps: Sequence[str]) -> str:
    return f"{name}, {step}" if len(steps) > 1 else name


def _steps(found: Found, kind: Kind) -> list[str]:
    return list(dict.fromkeys(cell.step.base for cell in found.cells if cell.kind == kind))


def _shown(found: Found) -> list[Row]:
    """Return the rows whose curves are drawn, baselines first; as many as can be told apart."""
    everything = found.rows
    if len(everything) <= figures.LINES:
        return everything
    bests: list[Row] = []
    for group in found.groups:
        by_method: dict[str, Row] = {}
        for row in group.others:
            by_method.setdefault(curves_and_crops.method_of(found.results, row), row)
        bests += by_method.values()
    baselines = [group.baseline for group in found.groups if group.baseline is not None]
    bests.sort(key=lambda row: -headline.goodness(row, found.main))
    return [*baselines, *bests][: figures.LINES]


def _histograms(found: Found) -> Iterator[dict[str, Any]]:
    kinds: tuple[tuple[Kind, str, tuple[str, str]], ...] = (
        ("1:1", "comparison score", ("mated scores", "non-mated scores")),
        ("1:N", "score of the best candidate", ("top-1, mated probes", "top-1, non-mated probes")),
    )
    rows = [row for group in found.groups[:1] for row in group.rows[:2]]
    for kind, label, names in kinds:
        for step in _steps(found, kind):
            drawn = [
                [
                    Line(name, slot + 1, *curves_and_crops.mean_curve(row, step, name))
                    for slot, name in enumerate(names)
                ]
                for row in rows
            ]
            everything = [line for lines in drawn for line in lines]
            for row, lines in zip(rows, drawn, strict=True):
                if any(len(line.x) for line in lines):
                    q = found.main
                    at = (
                        row.entries[q].threshold
                        if q and q.step == step and q in row.entries
                        else float("nan")
                    )
                    mark = (
                        at,
                        f"threshold at {q.label.partition(' @ ')[2] or q.label}" if q else "",
                    )
                    name = _named(
                        f"{kind}, {headline.name_of(row.factors)}", step, _steps(found, kind)
                    )
                    svg = figures.histogram(
                        f"scores, {name}", label, lines, like=everything, mark=mark
                    )
                    yield {
                        "name": name + (" (baseline)" if row.is_baseline else ""),
                        "svg": safe(svg),
                        "lines": keys(lines),
                    }


def keys(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{"label": line.label, "svg": safe(bars.swatch(line.slot, area=True))} for line in lines]


def safe(svg: str) -> Any:
    """Mark what `figures` or `bars` drew as fit for a page: they escape what they are given."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704
