"""report: a finished run → one self-contained HTML page, CSV and JSON; and a table for the terminal.

Conventions
    Files     report.html, numbers.csv (every number of every cell), table.csv (rows averaged and compared with the
              baseline), numbers.json (both, with conventions, config and versions). Each replaces its former self by
              rename.
    The page  loads nothing from anywhere, and its policy forbids it to; it works without JavaScript.
    Numbers   are written rounded; the attribute data-value holds what the CSV holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.registry import register
from pipeline.session import Results, write_json
from stages import conventions, headline, sections
from stages.headline import MARKS, Found, gather
from stages.page import render
from stages.quantities import Quantity, interval_written, written
from stages.summary import Row, table_frame, to_frame

if TYPE_CHECKING:
    from rich.table import Table


@register("report", "html")
def write_report(results: Results, options: Mapping[str, Any]) -> list[Path]:
    """Write the report's files into the run's folder and return them, the page first."""
    found = gather(results, options)
    folder = results.folder
    numbers, table = to_frame(found.cells), table_frame(found.table)
    page = render(found)  # before anything is written: an option may turn out not to fit
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("report.html", "numbers.csv", "table.csv", "numbers.json")]
    _write(paths[0], page)
    _write(paths[1], numbers.to_csv(index=False, lineterminator="\n"))
    _write(paths[2], table.to_csv(index=False, lineterminator="\n"))
    record = {
        "conventions": conventions.everything(found.table),
        "config": sections.config_of(results),
        "dataset": results.session.dataset.key,
        "versions": sections.versions(),
        "table": table.to_dict("records"),
        "numbers": numbers.to_dict("records"),
    }
    write_json(paths[3], record)
    return paths


def terminal_table(results: Results, options: Mapping[str, Any]) -> Table:
    """Return the headline numbers and the difference to the baseline, for a terminal of 100 columns or more."""
    from rich.table import Table
    from rich.text import Text

    found = gather(results, options)
    main = found.main
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption_justify="left")
    shown.caption = _terminal_caption(found)
    factors = " · ".join(sorted(found.table.factors, key=lambda name: name != "rule"))
    shown.add_column(f"\n{factors or 'run'}", max_width=34, overflow="fold")
    wide = found.columns[:7]
    for q in wide:
        name, _, target = q.label.partition(" @ ")
        shown.add_column(f"{name}\n{target or '%'}", justify="right", no_wrap=True)
    if found.table.baseline and main is not None:
        shown.add_column(f"− baseline, points\n{main.label}", no_wrap=True)
    for group in found.groups:
        for row in group.rows:
            values = [Text(_short(row, q)) for q in wide]
            style = "bold" if row.is_baseline or row is headline.winner(group, main) else ""
            ends = [_difference_text(row, main)] if found.table.baseline and main is not None else []
            shown.add_row(Text(headline.name_of(row.factors)), *values, *ends, style=style)
        shown.add_section()
    return shown


def _terminal_caption(found: Found) -> str:
    level = f"{found.table.level * 100:g} % bootstrap over subjects" if found.table.replicates else "none"
    averaged = ", ".join(f"{k} ({len(v)})" for k, v in found.table.average.items())
    parts = ["score ≥ threshold; largest FMR ≤ target; †: fewer than 30 false matches", f"intervals: {level}"]
    return "\n".join([*parts[:1], " · ".join([*parts[1:], *([f"means over {averaged}"] if averaged else [])])])


def _short(row: Row, q: Quantity) -> str:
    entry = row.entries.get(q)
    return "" if entry is None else written(q.metric, entry.value) + ("†" if entry.few else "")


def _difference_text(row: Row, main: Quantity) -> Any:
    from rich.text import Text

    entry = row.entries.get(main)
    if row.is_baseline:
        return Text("baseline", style="dim")
    if entry is None or entry.difference is None:
        return Text("")
    d, sign = entry.difference, headline.direction(row, main)
    bounds = interval_written(main.metric, d.low, d.high, signed=True)
    style = {1: "green", -1: "red", 0: "dim"}[sign]
    return Text(f"{MARKS[sign] or ' '} {written(main.metric, d.value, signed=True)} {bounds}", style=style)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
