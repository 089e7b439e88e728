"""page: what was gathered of a run → one HTML page.

Conventions
    Escaping  the template escapes everything; only SVG from `figures`, which escapes its own text, goes in as it is.
    Curves    every row where there are few; else each baseline and, under each, the best row of every quality method by
              the main number. Histograms of comparison scores show the first baseline and the best row under it.
    Bars      the differences of the main number, on one scale for the whole table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stages import conventions, figures, headline, sections
from stages.figures import Line
from stages.headline import MARKS, Found
from stages.quantities import Kind, Quantity, interval_written, number_label, written
from stages.summary import Entry, Row

TEMPLATES = Path(__file__).parent / "templates"
LISTED = 1500  # numbers in the page's long table; all of them are in table.csv
TONES = {1: "better", -1: "worse", 0: "level"}


def render(found: Found) -> str:
    """Return the page. Raises InvalidInput for a quality method that the run does not have."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    view = {**_result(found), **_curves(found), **_faces(found), **_provenance(found)}
    return environment.get_template("report.html.j2").render(view)


def _result(found: Found) -> dict[str, Any]:
    config, table = found.results.plan.config, found.table
    return {
        "title": found.options.title or config.name,
        "name": config.name,
        "question": config.description,
        "sentences": headline.sentences(found.groups, found.main),
        "facts": _facts(found),
        "factors": table.factors,
        "headers": [_header(found, q) for q in found.columns],
        "main": found.main,
        "asked": bool(found.options.fmr),
        "compared": bool(table.baseline),
        "groups": [_group(found, group) for group in found.groups],
        "notes": [*conventions.rates(found.columns), conventions.intervals(table), conventions.differences(table)],
        "all_notes": conventions.everything(table),
        "every": list(islice(_every(found), LISTED)),
        "total": sum(len(row.entries) for row in table.rows),
    }


def _facts(found: Found) -> list[tuple[str, str]]:
    """The sizes that a reader wants first."""
    tables = found.results.session.dataset.tables
    sizes = {"faces": tables["faces"].rows, "templates": tables["templates"].rows}
    sizes |= {"evaluations": len(found.cells), "rows compared": len(found.table.rows)}
    for name, values in found.table.average.items():
        sizes[f"{name}s averaged"] = len(values)
    sizes["bootstrap replicates"] = found.table.replicates
    return [(name, f"{size:,}") for name, size in sizes.items() if size]


def _header(found: Found, q: Quantity) -> dict[str, str]:
    steps = {other.step for other in found.table.quantities if other.kind == q.kind}
    return {"label": q.label, "detail": f"{q.kind} · {q.step}" if len(steps) > 1 else q.kind}


def _group(found: Found, group: headline.Group) -> dict[str, Any]:
    best, reach = headline.winner(group, found.main), _reach(found)
    rows = []
    for row in group.rows:
        main = row.entries.get(found.main) if found.main else None
        rows.append(
            {
                "factors": [str(row.factors.get(name, "–")) for name in found.table.factors],
                "baseline": row.is_baseline,
                "best": row is best,
                "bar": _bar(main, reach, TONES[headline.direction(row, found.main)]) if found.main else "",
                "difference": main.difference.value if main and main.difference else "",
                "cells": [_cell(row, q) for q in found.columns],
            }
        )
    return {"name": headline.name_of(group.factors) if group.factors else "", "rows": rows}


def _reach(found: Found) -> tuple[float, float]:
    """Return the ends of the bars' scale: it holds 0 and every interval."""
    ends = [0.0]
    for row in found.table.rows:
        entry = row.entries.get(found.main) if found.main else None
        if entry is not None and (d := entry.difference) is not None:
            ends += [end for end in (d.value, d.low, d.high) if end == end]
    return min(ends), max(ends)


def _bar(entry: Entry | None, reach: tuple[float, float], tone: str) -> Any:
    if entry is None or (d := entry.difference) is None or d.value != d.value:
        return ""
    return _safe(figures.interval_bar(d.value, d.low, d.high, reach, tone))


def _cell(row: Row, q: Quantity) -> dict[str, Any] | None:
    entry = row.entries.get(q)
    if entry is None:
        return None
    sign, d = headline.direction(row, q), entry.difference
    return {
        "value": entry.value,
        "text": written(q.metric, entry.value),
        "few": entry.few,
        "interval": interval_written(q.metric, entry.low, entry.high),
        "difference": "" if d is None else written(q.metric, d.value, signed=True),
        "difference_interval": "" if d is None else interval_written(q.metric, d.low, d.high, signed=True),
        "tone": TONES[sign],
        "mark": MARKS[sign],
    }


def _every(found: Found) -> Iterator[dict[str, Any]]:
    for row in (row for group in found.groups for row in group.rows):
        for q, e in row.entries.items():
            counts = {
                "achieved": f"{e.achieved:.2e}" if e.achieved == e.achieved else "",
                "threshold": f"{e.threshold:.4f}" if e.threshold == e.threshold else "",
                "errors": f"{e.errors:,}" if e.errors >= 0 else "",
                "trials": f"{e.trials:,}",
            }
            yield {**(_cell(row, q) or {}), **_header(found, q), **counts, "row": headline.name_of(row.factors)}


def _curves(found: Found) -> dict[str, Any]:
    rows = list(enumerate(_shown(found)))
    charts: list[dict[str, Any]] = []
    for step in _steps(found, "1:1"):
        lines = [Line(headline.name_of(r.factors), slot, *sections.roc_of(r, step)) for slot, r in rows]
        unsure = 30 / min((sections.nonmated_trials(row, step) for _, row in rows), default=float("nan"))
        errors = [Line(line.label, line.slot, line.x, 1 - line.y) for line in lines]
        if any(len(line.x) for line in lines):
            said = f"Shaded: below FMR {number_label(float(f'{unsure:.1e}'))} fewer than 30 false matches decide."
            said = said if unsure == unsure else ""
            charts.append({"name": f"ROC ({step})", "svg": _safe(figures.roc(lines, unsure)), "said": said, "lines": []})
            said = "Both axes are normal deviates."
            charts.append({"name": f"DET ({step})", "svg": _safe(figures.det(errors, unsure)), "said": said, "lines": []})
    for step in _steps(found, "1:N"):
        lines = [Line(headline.name_of(r.factors), s, *sections.mean_curve(r, step, "cmc")) for s, r in rows]
        if any(len(line.x) for line in lines):
            said = "Closed set: over probes that have a mate in the gallery."
            charts.append({"name": f"CMC ({step})", "svg": _safe(figures.cmc(lines)), "said": said, "lines": []})
    all_shown = len(rows) == len(found.table.rows)
    return {
        "charts": charts,
        "keys_of_curves": [{"label": headline.name_of(r.factors), "svg": _safe(figures.swatch(slot))} for slot, r in rows],
        "chosen": ""
        if all_shown
        else f"{len(rows)} of {len(found.table.rows)} rows are drawn: each baseline, and the "
        "best row of every quality method (and of the rules that use none) by the main number.",
        "averaged": ", ".join(found.table.average),
        "histograms": list(_histograms(found)),
    }


def _steps(found: Found, kind: Kind) -> list[str]:
    return list(dict.fromkeys(cell.step.base for cell in found.cells if cell.kind == kind))


def _shown(found: Found) -> list[Row]:
    """Return the rows whose curves are drawn, baselines first; as many as can be told apart."""
    everything = [row for group in found.groups for row in group.rows]
    if len(everything) <= figures.LINES:
        return everything
    bests: list[Row] = []
    for group in found.groups:
        by_method: dict[str, Row] = {}
        for row in group.others:
            by_method.setdefault(sections.method_of(found.results, row), row)
        bests += by_method.values()
    baselines = [group.baseline for group in found.groups if group.baseline is not None]
    bests.sort(key=lambda row: -headline.goodness(row, found.main))
    return [*baselines, *bests][: figures.LINES]


def _histograms(found: Found) -> Iterator[dict[str, Any]]:
    named = {"1:1": ("mated scores", "non-mated scores"), "1:N": ("top-1, mated probes", "top-1, non-mated probes")}
    rows = [row for group in found.groups[:1] for row in group.rows[:2]]
    for kind in ("1:1", "1:N"):
        for step in _steps(found, "1:1" if kind == "1:1" else "1:N"):
            for row in rows:
                lines = [Line(name, slot + 1, *sections.mean_curve(row, step, name)) for slot, name in enumerate(named[kind])]
                if any(len(line.x) for line in lines):
                    label = "cosine" if kind == "1:1" else "cosine of the best candidate"
                    svg = _safe(figures.histogram(f"scores, {step}", label, lines))
                    yield {"name": f"{headline.name_of(row.factors)} ({step})", "svg": svg, "lines": _keys(lines)}


def _faces(found: Found) -> dict[str, Any]:
    scores = sections.quality_scores(found.results)
    grid = sections.choose(found.results, scores, found.options.method)
    lost, looked_at = sections.failures(found.results)
    return {
        "qualities": [_quality(s) for s in scores if sections.quality_lines(s)],
        "crops": sections.crop_grid(found.results, grid, found.options.crops) if grid else [],
        "grid": grid,
        "scored": f"{int(np.isfinite(grid.quality).sum()):,}" if grid else "",
        "wanted": found.options.crops,
        "failures": lost,
        "looked_at": looked_at,
    }


def _quality(scores: sections.Scores) -> dict[str, Any]:
    lines = sections.quality_lines(scores)
    figure = figures.histogram(f"quality scores, {scores.method}", "quality score (higher = more useful)", lines)
    return {"name": scores.method, "step": scores.step.name, "lines": _keys(lines), "svg": _safe(figure)}


def _provenance(found: Found) -> dict[str, Any]:
    config = sections.config_of(found.results)
    return {
        "steps": sections.step_lines(found.results),
        "versions": sections.versions(),
        "dataset": found.results.session.dataset.key,
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
    }


def _keys(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{"label": line.label, "svg": _safe(figures.swatch(line.slot))} for line in lines]


def _safe(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704  figures.py escapes what it is given
