"""What every verb of the command line shares: its common options, and how text and JSON are printed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A config file (.yaml); `qfuse init` writes one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Override a field of the config, as name=x or run.workers=2; repeatable."
    ),
]
StorePath = Annotated[
    Path | None,
    typer.Option("--store", metavar="FOLDER", help="The store's folder; default: beside the config (run.store)."),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON instead of text.")]


def emit(value: Any) -> None:
    """Print JSON on standard output."""
    from pipeline.session import plain

    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def say(sentence: str) -> None:
    """Print a line; bytes of a file name that is not UTF-8 are shown escaped."""
    print(sentence.encode("utf-8", "backslashreplace").decode())


def warn(sentence: str) -> None:
    """Print a line on standard error."""
    print(sentence.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def console() -> Console:
    """Return standard output for tables. A pipe or a file is 120 columns wide, so that nothing wraps that need not."""
    from rich.console import Console

    found = Console(markup=False, highlight=False)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(markup=False, highlight=False, width=120)


def show(renderable: Any) -> None:
    """Print a table."""
    console().print(renderable)
