"""study: the runs of several benchmarks → one table of quality methods.

It is written as study.html, study.csv, study.tex and study.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.registry import register
from pipeline.session import Results, write_json
from pipeline.system.atomic_text import replace_text
from stages.report import conventions, study_page
from stages.report.latex import latex
from stages.results.study_table import records
from stages.summary.study import summarise_study
from stages.tables import csv_text


@register("study report", "html")
def write_study(
    runs: Sequence[tuple[str, Results]], folder: Path, options: Mapping[str, Any]
) -> list[Path]:
    """Write the table of several runs into a folder and return its files, the page first.

    Nothing is written if no run has error versus discard: then each benchmark's own report says
    all.
    """
    import pandas as pd

    study = summarise_study(runs, options)
    if not study.rows:
        return []
    page, rows = study_page.render(study), list(records(study.rows))
    notes = conventions.rates(study.quantities)
    for each in study.benchmarks:
        notes += conventions.variants(each.ranking.table)
    paths = [folder / f"study.{kind}" for kind in ("html", "csv", "tex", "json")]
    replace_text(paths[0], page)
    replace_text(paths[1], csv_text.of_frame(pd.DataFrame(rows)))
    replace_text(paths[2], latex(study.rows, study.columns))
    write_json(paths[3], {"conventions": list(dict.fromkeys(notes)), "areas": rows})
    return paths
