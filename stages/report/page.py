"""page: the summary of a run → one HTML page.

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
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from stages.draw import bars
from stages.report import charts, conventions, examples_page
from stages.report.cells import TONES, chosen_cell, count_cells, entry_cell, published_texts
from stages.report.charts import safe
from stages.results.choice import Chosen
from stages.results.published import PublishedNumber
from stages.results.quantities import Quantity, lower_is_better, name_of, signed, written
from stages.results.ranking import Group, Ranking, direction, equal_to, winner
from stages.results.rule_table import Entry, RuleTable
from stages.summary.quality_scores import Qualities
from stages.summary.summary import Provenance, Summary

TEMPLATES = Path(__file__).parent / "templates"
REACH = 3
LISTED = 1500  # numbers in the page's long table; all of them are in table.csv
Reach = tuple[float, float]  # the ends of the bars' scale


def render(summary: Summary) -> str:
    """Return the page."""
    headings = _headings(summary.ranking.table)
    view = {
        **_result(summary, headings),
        **charts.curves(summary.curves),
        "discards": [
            *charts.discards(summary.discards),
            *charts.discard_details(summary.discard_details),
        ],
        **examples_page.pairs(summary.examples, summary.ranking),
        **_qualities(summary.qualities),
        "acquired": summary.acquired,
        "fta": _fta(summary.ranking.table, headings),
        "fallen": _fallen(summary.ranking, headings),
        **_provenance(summary.provenance),
        **style_and_script(),
    }
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


def style_and_script() -> dict[str, Any]:
    """Return the page's style and script, with the digests by which its policy knows them."""
    view: dict[str, Any] = {}
    for name, file in (("style", "report.css"), ("script", "report.js")):
        text = "\n" + (TEMPLATES / file).read_text(encoding="utf-8")
        digest = hashlib.sha256(text.encode()).digest()
        view |= {name: safe(text), f"{name}_digest": f"sha256-{base64.b64encode(digest).decode()}"}
    return view


def _result(summary: Summary, headings: dict[Quantity, dict[str, Any]]) -> dict[str, Any]:
    ranking, table = summary.ranking, summary.ranking.table
    differences = _differences(ranking)
    reach = _reach(differences)
    notes = [
        *conventions.rates(ranking.columns, table.quantities),
        *conventions.variants(table),
        *conventions.undefined(table),
        *conventions.unreachable(table, ranking.columns),
        *conventions.no_errors(table, ranking.columns),
        conventions.intervals(table),
        conventions.differences(table),
    ]
    return {
        "title": summary.title,
        "name": summary.name,
        "question": summary.question,
        "sentences": summary.verdicts,
        "facts": [(name, f"{size:,}") for name, size in summary.sizes.items()],
        "factors": ranking.factors,
        "headers": [headings[q] for q in ranking.columns],
        "main": ranking.main,
        "asked": bool(ranking.options.fmr),
        "scale": safe(bars.bar_axis(reach, _points)) if reach[0] < reach[1] else "",
        "beyond": bool(((differences[:, 0] < reach[0]) | (differences[:, 0] > reach[1])).any()),
        "compared": bool(table.baseline),
        "groups": [_group(ranking, group, reach) for group in ranking.groups],
        "published": [_published(number) for number in summary.published],
        "choice": [_choice(ranking, chosen) for chosen in ranking.chosen],
        "chosen_by": ranking.chosen[0].quantity.label if ranking.chosen else "",
        "notes": notes,
        "other_notes": [note for note in conventions.everything(table) if note not in notes],
        "every": list(islice(_every(ranking, headings), LISTED)),
        "total": sum(len(row.entries) for row in table.rows),
    }


def _headings(table: RuleTable) -> dict[Quantity, dict[str, Any]]:
    """Return the heading of every number: what it is, and of how many trials.

    `lower` says whether less is better.
    """
    of = {"tar": "mated", "frr": "mated", "gfrr": "mated", "fta": "templates", "fte": "templates"}
    of |= dict.fromkeys(("rank", "tpir", "pooled_script"), "mated probes")
    headings = {}
    for q in table.quantities:
        steps = {other.step for other in table.quantities if other.kind == q.kind}
        trials = sorted({row.entries[q].trials for row in table.rows if q in row.entries})
        number = "–".join(f"{trials[i]:,}" for i in ((0, -1) if len(trials) > 1 else (0,)))
        name, _, at = q.label.partition(" @ ")
        headings[q] = {
            "label": q.label,
            "name": name,
            "at": at,
            "detail": f"{q.kind} · {q.step}" if len(steps) > 1 else q.kind,
            "of": "" if number == "0" else f"of {number} {of.get(q.metric, 'comparisons')}",
            "lower": lower_is_better(q.metric),
        }
    return headings


def _group(ranking: Ranking, group: Group, reach: Reach) -> dict[str, Any]:
    best, main, rows = winner(group, ranking.main), ranking.main, []
    for row in group.rows:
        entry, twin = row.entries.get(main) if main else None, equal_to(row, group.rows)
        others = {k: v for k, v in row.factors.items() if k in ranking.factors[1:]}
        tone = TONES[direction(row, main)] if main else ""
        cells = [(q, row.entries.get(q)) for q in ranking.columns]
        rows.append(
            {
                "factors": [str(row.factors.get(name, "–")) for name in ranking.factors],
                "also": name_of(others, empty=""),
                "baseline": row.is_baseline,
                "best": row is best,
                "equal": "" if twin is None else name_of(twin.factors),
                "bar": _bar(entry, reach, tone),
                "difference": entry.difference.value if entry and entry.difference else "",
                "cells": [None if each is None else entry_cell(each, q) for q, each in cells],
            }
        )
    return {"name": name_of(group.factors) if group.factors else "", "rows": rows}


def _differences(ranking: Ranking) -> NDArray[np.float64]:
    """Return (value, low, high) of the main number's differences, (n, 3).

    A bound that is not defined equals the value.
    """
    entries = [row.entries.get(ranking.main) for row in ranking.table.rows if ranking.main]
    compared = [e.difference for e in entries if e is not None and e.difference is not None]
    bounds = [(d.value, d.low, d.high) for d in compared if not math.isnan(d.value)]
    triples = np.array(bounds).reshape(-1, 3)
    return np.where(np.isnan(triples), triples[:, :1], triples)


def _reach(differences: NDArray[np.float64]) -> Reach:
    """Return the ends of the bars' scale.

    It holds 0 and every interval, but for those that exceed the usual ones REACH times.
    """
    usual = np.median(np.abs(differences).max(axis=1)) if len(differences) else 0.0
    limit = REACH * float(usual) or math.inf
    low, high = float(differences.min(initial=0.0)), float(differences.max(initial=0.0))
    return max(low, -limit), min(high, limit)


def _bar(entry: Entry | None, reach: Reach, tone: str) -> Any:
    if entry is None or (d := entry.difference) is None:
        return ""
    return safe(bars.interval_bar(d.value, d.low, d.high, reach, tone))


def _points(value: float) -> str:
    """Write an end of the bars' scale in percentage points."""
    return f"{value * 100:+.2g}".replace("-", "−") if value else "0"


def _published(number: PublishedNumber) -> dict[str, str]:
    value, seen, difference = published_texts(number)
    numbers = {"published": value, "seen": seen, "difference": difference}
    origin = {"means": number.entry.means, "source": number.entry.source}
    return {"row": name_of(number.factors), "label": number.quantity.label, **numbers, **origin}


def _choice(ranking: Ranking, chosen: Chosen) -> dict[str, Any]:
    steps = {each.quantity.step for each in ranking.chosen}
    return {
        "family": chosen.family + (f", {chosen.quantity.step}" if len(steps) > 1 else ""),
        "with": name_of(chosen.factors, empty="–"),
        "tried": ", ".join(map(str, chosen.tried)),
        "chosen": str(chosen.value),
        **chosen_cell(chosen),
    }


def _every(ranking: Ranking, headings: dict[Quantity, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every number of every row, those of the main table's rows first."""
    shown = {id(row) for row in ranking.rows}
    others = [row for row in ranking.table.rows if id(row) not in shown]
    for row in (*ranking.rows, *others):
        for q, entry in row.entries.items():
            cell = {**entry_cell(entry, q), **headings[q], **count_cells(entry)}
            yield {**cell, "row": name_of(row.factors)}


def _qualities(found: Qualities) -> dict[str, Any]:
    agreement = [] if found.agreement is None else found.agreement.tolist()
    return {
        "qualities": [charts.quality(each) for each in found.histograms],
        "crops": found.crops,
        "by": found.by,
        "scored": f"{found.scored:,}",
        "kinds_known": found.kinds_known,
        "wanted": found.wanted,
        "agreement": [
            (name, [signed(value) for value in row])
            for name, row in zip(found.names, agreement, strict=False)
        ],
    }


def _fta(table: RuleTable, headings: dict[Quantity, dict[str, Any]]) -> list[str]:
    """Say which share of the templates was lost, over all rows."""
    shares = []
    for q in (*table.find("fta"), *table.find("fte")):
        entries = [row.entries[q] for row in table.rows if q in row.entries]
        values, trials = [entry.value for entry in entries], max(e.trials for e in entries)
        ends = dict.fromkeys(written(q.metric, end) for end in (min(values), max(values)))
        shares.append(f"{q.label} {' to '.join(ends)} % of {trials:,} ({headings[q]['detail']})")
    return shares


def _fallen(ranking: Ranking, headings: dict[Quantity, dict[str, Any]]) -> tuple[bool, list[str]]:
    """Say whether templates whose weights all vanished were counted, and which rows have some.

    Each row is named with its evaluation.
    """
    counted = ranking.table.find("fused_fallback")
    affected = [
        f"{name_of(row.factors)} {written(q.metric, entry.value)} of {entry.trials:,}"
        f" ({headings[q]['detail']})"
        for q in counted
        for row in ranking.rows
        if (entry := row.entries.get(q)) is not None and entry.value > 0
    ]
    return bool(counted), affected


def _provenance(found: Provenance) -> dict[str, Any]:
    return {
        "steps": found.steps,
        "versions": found.versions,
        "dataset": found.dataset,
        "data": found.data,
        "files": found.notes,
        "ended": found.ended and f"{found.ended:%Y-%m-%d %H:%M} UTC",
        "config": yaml.safe_dump(found.config, sort_keys=False, allow_unicode=True, width=100),
    }
