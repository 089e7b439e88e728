"""study: the runs of several benchmarks → one table of quality measures: study.html, study.csv,
study.tex and study.json.

The table itself is `results.study_table`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.registry import register
from pipeline.session import Results, write_json
from pipeline.system.atomic_text import replace_text
from stages.report import conventions
from stages.report.study_page import render
from stages.results.headline import gather
from stages.results.study_table import (
    Area,
    Column,
    Line,
    columns_of,
    factor_names,
    headings,
    labels,
    lines_of,
    records,
)
from stages.tables import csv_text


@register("study report", "html")
def write_study(
    runs: Sequence[tuple[str, Results]], folder: Path, options: Mapping[str, Any]
) -> list[Path]:
    """Write the table of several runs into a folder and return its files, the page first.

    None where no run has error versus discard: then each benchmark's own report says all.
    """
    import pandas as pd

    found = [(name, gather(results, options)) for name, results in runs]
    lines = [line for name, each in found for line in lines_of(name, each)]
    if not lines:
        return []
    columns = columns_of(lines)
    paths = [folder / f"study.{kind}" for kind in ("html", "csv", "tex", "json")]
    page = render(found, lines, columns)
    replace_text(paths[0], page)
    rows = list(records(lines))
    replace_text(paths[1], csv_text.of_frame(pd.DataFrame(rows)))
    replace_text(paths[2], latex(lines, columns))
    quantities = list(dict.fromkeys(q for _, each in found for q in each.table.quantities))
    told = [
        *conventions.rates(quantities),
        *(said for _, each in found for said in conventions.variants(each.table)),
    ]
    write_json(paths[3], {"conventions": list(dict.fromkeys(told)), "areas": rows})
    return paths


def latex(lines: Sequence[Line], columns: Sequence[Column]) -> str:
    """Return the table as LaTeX, for the package booktabs; its first line is a comment that says
    what is in it.
    """
    names = factor_names(lines)
    heads, body = ["benchmark", *names, *headings(columns)], []
    for i, line in enumerate(lines):
        if i and (line.benchmark, line.group) != (lines[i - 1].benchmark, lines[i - 1].group):
            body.append(r"\midrule")
        cells = [line.benchmark, *labels(line, names)]
        numbers = [_latex_number(line.areas.get(column)) for column in columns]
        body.append(" & ".join([*map(_escaped, cells), *numbers]) + r" \\")
    return "\n".join(
        [
            (
                "% Areas under error versus discard, in percent; bold: least of a group; dagger:"
                " few errors."
            ),
            rf"\begin{{tabular}}{{{'l' * (1 + len(names))}{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join(map(_escaped, heads)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_number(area: Area | None) -> str:
    if area is None or math.isnan(area.value):
        return "--"
    text = f"{area.value * 100:.4f}"
    return (rf"\textbf{{{text}}}" if area.best else text) + (r"$^\dagger$" if area.few else "")


_SPECIAL = {
    "\\": "backslash",
    "~": "asciitilde",
    "^": "asciicircum",
    "<": "less",
    ">": "greater",
    "|": "bar",
}


def _escaped(text: str) -> str:
    special = {c: rf"\text{name}{{}}" for c, name in _SPECIAL.items()} | {
        c: rf"\{c}" for c in "&%$#_{}"
    }
    return "".join(special.get(c, c) for c in " ".join(text.split()))
