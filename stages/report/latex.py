"""latex: the table of a study as LaTeX, for the package booktabs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.results.study_table import Area, Column, StudyRow, column_headings, factor_names, labels

_SPECIAL = {
    "\\": "backslash",
    "~": "asciitilde",
    "^": "asciicircum",
    "<": "less",
    ">": "greater",
    "|": "bar",
}


def latex(rows: Sequence[StudyRow], columns: Sequence[Column]) -> str:
    """Return the table; its first line is a comment that says what is in it."""
    names = factor_names(rows)
    heads, body = ["benchmark", *names, *column_headings(columns)], []
    for i, row in enumerate(rows):
        before = rows[i - 1]
        if i and (row.benchmark, row.group) != (before.benchmark, before.group):
            body.append(r"\midrule")
        cells = [row.benchmark, *labels(row, names)]
        numbers = [_number(row.areas.get(column)) for column in columns]
        body.append(" & ".join([*map(_escaped, cells), *numbers]) + r" \\")
    marks = "bold: least of a group; dagger: few errors"
    return "\n".join(
        [
            f"% Areas under error versus discard, in percent; {marks}.",
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


def _number(area: Area | None) -> str:
    if area is None or math.isnan(area.value):
        return "--"
    text = f"{area.value * 100:.4f}"
    return (rf"\textbf{{{text}}}" if area.best else text) + (r"$^\dagger$" if area.few else "")


def _escaped(text: str) -> str:
    special = {c: rf"\text{name}{{}}" for c, name in _SPECIAL.items()}
    special |= {c: rf"\{c}" for c in "&%$#_{}"}
    return "".join(special.get(c, c) for c in " ".join(text.split()))
