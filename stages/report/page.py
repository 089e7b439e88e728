"""page: what was gathered of a run → one HTML page.

Conventions
    Escaping  the template escapes everything; only SVG, which escapes its own text, goes in as it
              is.
    Policy    the page may load nothing, and run and be styled by nothing but its own script and
              style, named by digest.
    Bars      the differences of the main number, on one scale for the whole table, beside the main
              number.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from stages.draw import bars, figures
from stages.draw.figures import Line
from stages.metrics.verification import FEW
from stages.report import charts, conventions, discard_charts, examples_page
from stages.report.charts import safe
from stages.results import choice, curves_and_crops, headline, provenance, published
from stages.results.acquisition import acquired
from stages.results.choice import Chosen
from stages.results.headline import MARKS, Found
from stages.results.quantities import Quantity, interval_written, lower_is_better, signed, written
from stages.results.rule_table import Entry, Row
from stages.tables.comparisons import Comparisons, role_rows

TEMPLATES = Path(__file__).parent / "templates"
REACH = 3
LISTED = 1500  # numbers in the page's long table; all of them are in table.csv
TONES = {1: "better", -1: "worse", 0: "level"}


def render(found: Found) -> str:
    """Return the page. Raises InvalidInput for a quality measure that the run does not have."""
    view = {**_result(found), **charts.curves(found), **examples_page.pairs(found), **_faces(found)}
    view |= {"discards": [*discard_charts.charts(found), *discard_charts.details(found)]}
    view |= {**_provenance(found), **own()}
    text: str = environment().get_template("report.html.j2").render(view)
    return text


def environment() -> Any:
    """Return the templates, which escape whatever they are given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    made.trim_blocks = made.lstrip_blocks = True
    return made


def own() -> dict[str, Any]:
    """The page's style and script, with the digests by which its policy knows them."""
    own: dict[str, Any] = {}
    for name, file in (("style", "report.css"), ("script", "report.js")):
        text = "\n" + (TEMPLATES / file).read_text(encoding="utf-8")
        digest = hashlib.sha256(text.encode()).digest()
        own |= {name: safe(text), f"{name}_digest": f"sha256-{base64.b64encode(digest).decode()}"}
    return own


def _result(found: Found) -> dict[str, Any]:
    config, table, differences = found.results.plan.config, found.table, _differences(found)
    reach = _reach(differences)
    notes = [
        *conventions.rates(found.columns, table.quantities),
        *conventions.variants(table),
        *conventions.undefined(table),
        *conventions.unreachable(table, found.columns),
        *conventions.no_errors(table, found.columns),
        conventions.intervals(table),
        conventions.differences(table),
    ]
    return {
        "title": found.options.title or config.full_name,
        "name": config.full_name,
        "question": config.description,
        "sentences": headline.sentences(found.groups, found.main, found.table.level),
        "facts": _facts(found),
        "factors": found.factors,
        "headers": [_header(found, q) for q in found.columns],
        "main": found.main,
        "asked": bool(found.options.fmr),
        "scale": safe(bars.bar_axis(reach, _points)) if reach[0] < reach[1] else "",
        "beyond": bool(((differences[:, 0] < reach[0]) | (differences[:, 0] > reach[1])).any()),
        "compared": bool(table.baseline),
        "groups": [_group(found, group, reach) for group in found.groups],
        "published": [line.view() for line in published.lines(found.results, found.rows)],
        "choice": [_choice(found, chosen) for chosen in found.chosen],
        "chosen_by": found.chosen[0].quantity.label if found.chosen else "",
        "notes": notes,
        "other_notes": [note for note in conventions.everything(table) if note not in notes],
        "every": list(islice(_every(found), LISTED)),
        "total": sum(len(row.entries) for row in table.rows),
    }


def _facts(found: Found) -> list[tuple[str, str]]:
    """The sizes that a reader wants first."""
    tables = found.results.session.dataset.tables
    sizes = {
        "subjects": len(set(tables["templates"]["subject"]) - {""}),
        "faces": tables["faces"].rows,
    }
    sizes |= {"templates": tables["templates"].rows, "comparisons": Comparisons.of(tables).rows}
    sizes |= {
        "probes": (
            len(role_rows(tables["roles"], "probe"))
            if any(cell.kind == "1:N" for cell in found.cells)
            else 0
        )
    }
    sizes |= {"rows in the table": len(found.rows)}
    for name, values in found.table.average.items():
        sizes[f"{name.removesuffix('y') + 'ie' if name.endswith('y') else name}s averaged"] = len(
            values
        )
    sizes["bootstrap replicates"] = found.table.replicates
    return [(name, f"{size:,}") for name, size in sizes.items() if size]


def _header(found: Found, q: Quantity) -> dict[str, Any]:
    """What a column measures, of how many, and which way is better where it may be mistaken."""
    steps = {other.step for other in found.table.quantities if other.kind == q.kind}
    trials = sorted({row.entries[q].trials for row in found.table.rows if q in row.entries})
    number = (
        f"{trials[0]:,}" if len(trials) == 1 else f"{trials[0]:,}–{trials[-1]:,}" if trials else ""
    )
    name, _, at = q.label.partition(" @ ")
    of = {"tar": "mated", "frr": "mated", "gfrr": "mated", "fta": "templates", "fte": "templates"}
    of |= dict.fromkeys(("rank", "tpir", "pooled_script"), "mated probes")
    return {
        "label": q.label,
        "name": name,
        "at": at,
        "detail": f"{q.kind} · {q.step}" if len(steps) > 1 else q.kind,
        "of": f"of {number} {of.get(q.metric, 'comparisons')}" if number not in ("", "0") else "",
        "lower": lower_is_better(q.metric),
    }


def _group(found: Found, group: headline.Group, reach: tuple[float, float]) -> dict[str, Any]:
    best = headline.winner(group, found.main)
    rows = []
    for row in group.rows:
        main = row.entries.get(found.main) if found.main else None
        rows.append(
            {
                "factors": [str(row.factors.get(name, "–")) for name in found.factors],
                "also": headline.name_of(
                    {k: v for k, v in row.factors.items() if k in found.factors[1:]}, empty=""
                ),
                "baseline": row.is_baseline,
                "best": row is best,
                "equal": (
                    ""
                    if (twin := headline.equal_to(row, group.rows)) is None
                    else headline.name_of(twin.factors)
                ),
                "bar": (
                    _bar(main, reach, TONES[headline.direction(row, found.main)])
                    if found.main
                    else ""
                ),
                "difference": main.difference.value if main and main.difference else "",
                "cells": [_cell(row, q) for q in found.columns],
            }
        )
    return {"name": headline.name_of(group.factors) if group.factors else "", "rows": rows}


def _differences(found: Found) -> NDArray[np.float64]:
    """Return (value, low, high) of the main number's differences, (n, 3); bounds that are not there
    equal the value.
    """
    entries = (row.entries.get(found.main) for row in found.table.rows) if found.main else ()
    compared = [e.difference for e in entries if e is not None and e.difference is not None]
    triples = np.array(
        [(d.value, d.low, d.high) for d in compared if not math.isnan(d.value)]
    ).reshape(-1, 3)
    return np.where(np.isnan(triples), triples[:, :1], triples)


def _reach(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the bars' scale: it holds 0 and all intervals, but for those over REACH
    times the usual ones.
    """
    usual = np.median(np.abs(differences).max(axis=1)) if len(differences) else 0.0
    limit = REACH * float(usual) or math.inf
    return max(float(differences.min(initial=0.0)), -limit), min(
        float(differences.max(initial=0.0)), limit
    )


def _bar(entry: Entry | None, reach: tuple[float, float], tone: str) -> Any:
    if entry is None or (d := entry.difference) is None:
        return ""
    return safe(bars.interval_bar(d.value, d.low, d.high, reach, tone))


def _points(value: float) -> str:
    """Write an end of the bars' scale in percentage points."""
    return f"{value * 100:+.2g}".replace("-", "−") if value else "0"


def _cell(row: Row, q: Quantity) -> dict[str, Any] | None:
    entry = row.entries.get(q)
    if entry is None:
        return None
    sign, d = headline.direction(row, q), entry.difference
    return {
        "value": entry.value,
        "text": written(q.metric, entry.value),
        "few": entry.few,
        "why_few": _why_few(entry) if entry.few else "",
        "interval": interval_written(q.metric, entry.low, entry.high),
        "difference": "" if d is None else written(q.metric, d.value, signed=True),
        "difference_interval": (
            "" if d is None else interval_written(q.metric, d.low, d.high, signed=True)
        ),
        "tone": TONES[sign],
        "mark": MARKS[sign],
    }


def _why_few(entry: Entry) -> str:
    """Say on how little a number rests that is marked."""
    where = " in the cell that has fewest" if entry.cells > 1 else ""
    pairs = f"{entry.subject_pairs:,} {'pair' if entry.subject_pairs == 1 else 'pairs'} of subjects"
    matches = f"{entry.false_matches:,} false {'match' if entry.false_matches == 1 else 'matches'}"
    behind = f" of {pairs}" if entry.false_matches > 0 and entry.subject_pairs >= 0 else ""
    found = [f"{matches}{behind}"] if 0 <= entry.false_matches < FEW else []
    found += (
        [f"{entry.misses:,} mated {'error' if entry.misses == 1 else 'errors'}"]
        if 0 <= entry.misses < FEW
        else []
    )
    return f"{' and '.join(found) or 'false matches at one of the steps'}{where}: fewer than {FEW}"


def _every(found: Found) -> Iterator[dict[str, Any]]:
    for row in (
        *found.rows,
        *(row for row in found.table.rows if not any(row is other for other in found.rows)),
    ):
        for q, e in row.entries.items():
            counts = {
                "achieved": f"{100 * e.achieved:.3g}" if e.achieved == e.achieved else "",
                "threshold": f"{e.threshold:.4f}" if e.threshold == e.threshold else "",
                "false_matches": (
                    f"{e.false_matches:,} of {e.nonmated:,}" if e.false_matches >= 0 else ""
                ),
                "subject_pairs": f"{e.subject_pairs:,}" if e.subject_pairs >= 0 else "",
                "misses": f"{e.misses:,}" if e.misses >= 0 else "",
                "trials": f"{e.trials:,}",
            }
            yield {
                **(_cell(row, q) or {}),
                **_header(found, q),
                **counts,
                "row": headline.name_of(row.factors),
            }


def _faces(found: Found) -> dict[str, Any]:
    rows = (row for group in found.groups for row in (*group.others, *group.rows))
    best = next(
        (method for row in rows if (method := curves_and_crops.method_of(found.results, row))), ""
    )
    # the best row's method first
    scores = sorted(curves_and_crops.quality_scores(found.results), key=lambda s: s.method != best)
    grid = curves_and_crops.choose(found.results, scores, found.options.method)
    return {
        "qualities": [
            _quality(s, lines) for s in scores if (lines := curves_and_crops.quality_lines(s))
        ],
        "crops": (
            curves_and_crops.crop_grid(found.results, grid, found.options.crops) if grid else []
        ),
        "grid": grid,
        "by": _by(grid) if grid else "",
        "scored": f"{int(np.isfinite(grid.quality).sum()):,}" if grid else "",
        "wanted": found.options.crops,
        "agreement": agreement(scores),
        "acquired": acquired(found.results),
        "files": list(found.results.session.dataset.notes),
        "fta": _fta(found),
        "fallen": _fallen(found),
    }


def _quality(scores: curves_and_crops.Scores, lines: Sequence[Line]) -> dict[str, Any]:
    title, label = f"quality scores, {scores.method}", "quality score (higher = more useful)"
    if len(lines) > 1:
        return {
            "name": _by(scores),
            "apart": True,
            "svg": safe(figures.ridges(title, label, lines)),
        }
    return {
        "name": _by(scores),
        "apart": False,
        "svg": safe(figures.histogram(title, label, lines, figures.NARROW)),
    }


def agreement(scores: Sequence[curves_and_crops.Scores]) -> list[tuple[str, list[str]]]:
    """Return of each measure its rank correlation with every one, in words; nothing where there is
    only one.
    """
    if len(scores) < 2:
        return []
    # Here, as scipy.stats takes half a second and every command imports this module.
    from stages.metrics.correlation import rank_correlation

    matrix = rank_correlation([each.quality for each in scores])
    return [
        (_by(s), [signed(value) for value in row])
        for s, row in zip(scores, matrix.tolist(), strict=True)
    ]


def _by(scores: curves_and_crops.Scores) -> str:
    """Name the measure, and the cell that was taken if there are several."""
    chosen = ", ".join(
        f"{name} = {value}" for name, value in scores.step.factors.items() if value != scores.method
    )
    return f"{scores.method} ({chosen})" if chosen else scores.method


def _fta(found: Found) -> list[str]:
    """Say which share of the templates was lost, over all rows."""
    said = []
    for q in (q for metric in ("fta", "fte") for q in found.table.find(metric)):
        entries = [row.entries[q] for row in found.table.rows if q in row.entries]
        ends = (f(entry.value for entry in entries) for f in (min, max))
        share = " to ".join(dict.fromkeys(written(q.metric, end) for end in ends))
        said.append(
            f"{q.label} {share} % of {max(entry.trials for entry in entries):,}"
            f" ({_header(found, q)['detail']})"
        )
    return said


def _fallen(found: Found) -> tuple[bool, list[str]]:
    """Whether templates whose weights all vanished were counted, and in which rows and evaluations
    there are some.
    """
    counted, said = found.table.find("fused_fallback"), []
    for q in counted:
        for row in found.rows:
            if q in row.entries and row.entries[q].value > 0:
                e, detail = row.entries[q], _header(found, q)["detail"]
                said.append(
                    f"{headline.name_of(row.factors)} {written(q.metric, e.value)} of {e.trials:,}"
                    f" ({detail})"
                )
    return bool(counted), said


def _choice(found: Found, chosen: Chosen) -> dict[str, Any]:
    metric, e, d = chosen.quantity.metric, chosen.reported, chosen.reported.difference
    sign = 0 if d is None else choice.sign(d, chosen.quantity)
    steps = {each.quantity.step for each in found.chosen}
    return {
        "family": chosen.family + (f", {chosen.quantity.step}" if len(steps) > 1 else ""),
        "with": headline.name_of(chosen.factors, empty="–"),
        "tried": ", ".join(map(str, chosen.tried)),
        "chosen": str(chosen.value),
        "choosing": written(metric, chosen.choosing.value),
        "value": written(metric, e.value),
        "few": e.few,
        "why_few": _why_few(e) if e.few else "",
        "interval": interval_written(metric, e.low, e.high),
        "difference": "" if d is None else written(metric, d.value, signed=True),
        "difference_interval": (
            "" if d is None else interval_written(metric, d.low, d.high, signed=True)
        ),
        "tone": TONES[sign],
        "mark": MARKS[sign],
    }


def _provenance(found: Found) -> dict[str, Any]:
    config, ended = provenance.config_of(found.results), provenance.ended(found.results)
    return {
        "steps": provenance.step_lines(found.results),
        "versions": provenance.versions(found.results),
        "dataset": found.results.session.dataset.key,
        "data": provenance.data_path(found.results),
        "ended": ended and f"{ended:%Y-%m-%d %H:%M} UTC",
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
    }
