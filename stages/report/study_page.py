"""study_page: the table of several benchmarks → one HTML page, which loads nothing and links to
each benchmark's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stages.report import conventions, discard_charts
from stages.report.page import TONES, environment, own
from stages.results.headline import MARKS, Found
from stages.results.quantities import interval_written, is_area, written
from stages.results.study_table import Area, Column, Line, factor_names, headings, labels


def render(
    found: Sequence[tuple[str, Found]], lines: Sequence[Line], columns: Sequence[Column]
) -> str:
    """Return the page."""
    config = found[0][1].results.plan.config
    quantities = list(
        dict.fromkeys(q for _, each in found for q in each.columns if is_area(q.metric))
    )
    names = factor_names(lines)
    view = {
        "title": found[0][1].options.title or config.name,
        "name": config.name,
        "question": config.description,
        "factors": names,
        "headers": [header.split(" @ ") for header in headings(columns)],
        "forms": _forms(columns),
        "benchmarks": [_benchmark(name, each, lines, columns, names) for name, each in found],
        "notes": [
            *conventions.rates(quantities),
            *dict.fromkeys(said for _, each in found for said in conventions.variants(each.table)),
            *_intervals(found),
        ],
        **own(),
    }
    text: str = environment().get_template("study.html.j2").render(view)
    return text


def _intervals(found: Sequence[tuple[str, Found]]) -> list[str]:
    """Say how the intervals were made, of each benchmark by its name where they differ."""
    benchmarks: dict[str, list[str]] = {}
    for name, each in found:
        benchmarks.setdefault(conventions.intervals(each.table), []).append(name)
    return [
        f"{', '.join(names)}: {said}" if len(benchmarks) > 1 else said
        for said, names in benchmarks.items()
    ]


def _forms(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return what stands above neighbouring columns, and above how many."""
    named = {"standard": "ISO/IEC 29794-1, FNM-EDC", "legacy": "legacy form"}
    forms = [
        f"{named[column.form]}{', but ' + column.but if column.but else ''}" for column in columns
    ]
    return [(form, forms.count(form)) for form in dict.fromkeys(forms)]


def _benchmark(
    name: str, found: Found, lines: Sequence[Line], columns: Sequence[Column], names: Sequence[str]
) -> dict[str, Any]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        if line.benchmark == name:
            row = {
                "labels": labels(line, names),
                "bound": line.bound,
                "cells": [_cell(line.areas.get(c)) for c in columns],
            }
            groups.setdefault(line.group, []).append(row)
    return {
        "name": name,
        "groups": list(groups.values()),
        "charts": discard_charts.charts(found),
        "page": f"{name}/report.html" if found.results.plan.config.report else "",
    }


def _cell(area: Area | None) -> dict[str, Any] | None:
    if area is None or math.isnan(area.value):
        return None
    over = "" if math.isnan(area.over_random) else written("erc_auc", area.over_random, signed=True)
    return {
        "value": area.value,
        "text": written("erc_auc", area.value),
        "interval": interval_written("erc_auc", area.low, area.high),
        "few": area.few,
        "best": area.best,
        "tone": TONES[area.direction],
        "mark": MARKS[area.direction],
        "over": over,
        "over_interval": interval_written(
            "erc_auc", area.over_random_low, area.over_random_high, signed=True
        )
        if over
        else "",
    }
