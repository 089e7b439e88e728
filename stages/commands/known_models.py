"""known_models: the folders and cards that a verb of models looks in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.core.stage import Context

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name (`qfuse models list`).")]
Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help="Look for weights and their cards.yaml here; default: the folders that the shipped"
        " configs name.",
    ),
]
OfConfig = Annotated[
    Path | None,
    typer.Option("--config", metavar="CONFIG", help="Look where this config does."),
]


def model_folders() -> list[Path]:
    """Return the folders in which the shipped configs look for weights.

    These are $QFUSE_MODELS, or ./models without it, and $QFUSE_SHARED/models.
    """
    shared = os.environ.get("QFUSE_SHARED")
    return [
        Path(os.environ.get("QFUSE_MODELS", "models")),
        *([Path(shared) / "models"] if shared else []),
    ]


def surroundings(folders: list[Path] | None, config: Path | None = None) -> Context:
    """Return where to look: in these folders, where a config does, or where shipped configs do.

    Raises UsageError if both are given, InvalidInput as `load_config` does.
    """
    from pipeline.core.numerics import PROFILES, profile_of
    from pipeline.core.stage import Context

    if config is None:
        return Context(PROFILES["cpu-fp32"], model_folders=tuple(folders or model_folders()))
    if folders:
        raise UsageError("--folder and --config both say where to look: give one of them.")
    from pipeline.config.config import load_config

    read = load_config(config)
    return Context(
        profile_of(read.numerics),
        model_folders=tuple(map(read.resolve, read.models.folders)),
        model_cards=tuple(map(read.resolve, read.models.cards)),
    )


def silent(sentence: str) -> None:
    """Say nothing: what is printed is JSON."""
