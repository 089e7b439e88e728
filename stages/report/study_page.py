"""study_page: the table of several benchmarks → one HTML page.

It loads nothing, and links to each benchmark's own page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.report import charts, conventions
from stages.report.cells import area_cell
from stages.report.page import environment, style_and_script
from stages.results.quantities import is_area
from stages.results.study_table import Column, column_headings, factor_names, labels
from stages.summary.study import Judged, Study


def render(study: Study) -> str:
    """Return the page."""
    columns = (q for each in study.benchmarks for q in each.ranking.columns)
    areas = list(dict.fromkeys(q for q in columns if is_area(q.metric)))
    names = factor_names(study.rows)
    variants = (conventions.variants(each.ranking.table) for each in study.benchmarks)
    view = {
        "title": study.title,
        "name": study.name,
        "question": study.question,
        "factors": names,
        "headers": [header.split(" @ ") for header in column_headings(study.columns)],
        "forms": _forms(study.columns),
        "benchmarks": [_benchmark(study, each, names) for each in study.benchmarks],
        "notes": [
            *conventions.rates(areas),
            *dict.fromkeys(sentence for sentences in variants for sentence in sentences),
            *_intervals(study),
        ],
        **style_and_script(),
    }
    text: str = environment().get_template("study.html.j2").render(view)
    return text


def _intervals(study: Study) -> list[str]:
    """Say how the intervals were made, of each benchmark by its name if they differ."""
    benchmarks: dict[str, list[str]] = {}
    for each in study.benchmarks:
        benchmarks.setdefault(conventions.intervals(each.ranking.table), []).append(each.name)
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


def _benchmark(study: Study, judged: Judged, names: Sequence[str]) -> dict[str, Any]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in study.rows:
        if row.benchmark == judged.name:
            shown = {
                "labels": labels(row, names),
                "bound": row.bound,
                "cells": [area_cell(row.areas.get(column)) for column in study.columns],
            }
            groups.setdefault(row.group, []).append(shown)
    return {
        "name": judged.name,
        "groups": list(groups.values()),
        "charts": charts.discards(judged.discards),
        "page": f"{judged.name}/report.html" if judged.has_page else "",
    }
