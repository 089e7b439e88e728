"""What all verbs share: common options, and how text, tables and JSON are printed."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from pipeline.system.streams import put, say, visible, warn

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "AsJson",
    "ConfigPath",
    "Overrides",
    "StorePath",
    "console",
    "emit",
    "hand_over",
    "say",
    "show",
    "warn",
]

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A config file (.yaml); `qfuse init` writes one.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of the config, such as name=x or run.workers=2; repeatable.",
    ),
]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FOLDER",
        help="The store's folder; default: beside the config (run.store).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON instead of text.")]


def emit(value: Any) -> None:
    """Print JSON on standard output, in ASCII: so it is the same bytes for every reader."""
    from pipeline.session import plain

    put(json.dumps(plain(value), indent=1) + "\n")


def hand_over(content: str) -> None:
    """Print a file's content on standard output: as it is, but for a terminal."""
    put(visible(content) if sys.stdout.isatty() else content)


def console(file: IO[str] | None = None) -> Console:
    """Return standard output for tables.

    A pipe or a file is 120 columns wide, so that nothing wraps that need not. What is drawn goes
    into `file`, if one is given, as it would be drawn there.
    """
    from rich.console import Console

    there = Console()
    width = None if there.is_terminal or "COLUMNS" in os.environ else 120
    return Console(
        file=file, force_terminal=there.is_terminal, markup=False, highlight=False, width=width
    )


def show(renderable: Any) -> None:
    """Print a table."""
    from rich.segment import Segment, Segments

    drawn = io.StringIO()
    here = console(drawn)
    here.print(
        Segments([Segment(visible(part.text), part.style) for part in here.render(renderable)]),
        end="",
    )
    put(drawn.getvalue())
