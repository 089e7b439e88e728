"""The verbs that put quality scores on a common scale: quality calibrate and quality apply.

`commands.add_to` adds them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import (
    AsJson,
    ConfigPath,
    Overrides,
    StorePath,
    emit,
    hand_over,
    say,
    warn,
)
from pipeline.errors import InvalidInput, UsageError, cannot_write, counted
from stages.commands.build import Where

if TYPE_CHECKING:
    from pipeline.core.schema import Array, Batch
    from pipeline.plan.graph import Step
    from pipeline.session import Session

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")  # how the name of a table of scores ends
FEWEST_FACES = 101  # faces: with fewer, some of the percentiles stand between two faces

quality_app = typer.Typer(
    help="Turn raw quality scores into percentiles (0 to 100) of a named reference set.",
    epilog="Example: qfuse quality calibrate configs/gallery.yaml --name gallery",
    no_args_is_help=True,
)


@quality_app.command(
    epilog="Example: qfuse quality calibrate configs/gallery.yaml --name gallery -o gallery.json"
)
def calibrate(
    config: ConfigPath,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The name of the reference set: letters, digits, '.', '_' and '-'.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The JSON file to write; it must not exist yet. Default: NAME.json.",
        ),
    ] = None,
    where: Where = None,
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Make a named reference set from the quality scores of a config's faces.

    Scores the faces, and writes the percentiles of the scores.

    `qfuse quality apply` converts other scores to these percentiles; `statistics.reference` accepts
    the same file.
    """
    from pipeline.session import write_json
    from stages.commands.destination import need_absent, need_name
    from stages.quality.calibration import reference_set

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"--name {name!r}: give letters, digits, '.', '_' and '-', the first a letter or a"
            " digit."
        )
    path = out or Path(f"{name}.json")
    need_name(path, "quality calibrate writes JSON", ".json")
    need_absent(path)
    stage, face_ids, scored = _computed_scores(config, overrides, store, where, as_json, path)
    found = reference_set(name, stage.measure, face_ids, scored, stage.context)
    try:
        write_json(path, found)
    except OSError as error:
        raise cannot_write(path, error) from None
    if as_json:
        emit(found)
        return
    say(
        f"wrote {path}: the reference set {name}, {stage.options.method} of"
        f" {counted(found['count'], 'face')}, {found['minimum']:.4g} to {found['maximum']:.4g}"
    )
    if found["count"] < FEWEST_FACES:
        warn(
            f"note: {counted(found['count'], 'face')}: few for 101 percentiles; scores in between"
            " are interpolated."
        )
    say(f"next: qfuse quality apply {path} CONFIG -o scores.csv")


@quality_app.command(
    epilog="Example: qfuse quality apply gallery.json configs/folder.yaml -o scores.csv"
)
def apply(
    reference: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The reference set that `qfuse quality calibrate` wrote."
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A config whose faces are to be scored, or a table of scores: .csv, .tsv, .txt.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT.csv",
            help="The table to write; it must not exist yet. Default: print it.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column of the table that holds the raw scores, such as quality.",
        ),
    ] = None,
    where: Where = None,
    overrides: Overrides = None,
    store: StorePath = None,
) -> None:
    """Write each face's raw quality score and its percentile (0 to 100) in a reference set.

    Columns: face_id, status, reason, quality, calibrated, calibrated_integer. A score below the
    lowest of the set gives 0, and one above the highest gives 100. A table has a header and
    --column (like OFIQ's), or lines of a name and a score (like CR-FIQA's). It keeps its columns
    and gets the last two of these. What its scores measure cannot be checked.
    """
    from stages.commands.destination import need_absent, need_name
    from stages.quality import calibration

    table = source.suffix.lower() in TABLE_SUFFIXES
    if column is not None and not table:
        raise UsageError(
            f"--column belongs to a table of scores ({', '.join(TABLE_SUFFIXES)}), which {source}"
            " is not: leave it out."
        )
    if table and (where or overrides or store):
        raise UsageError(
            "--where, --set and --store belong to a config, not to a table of scores: leave them"
            " out."
        )
    if out is not None:
        need_name(out, "quality apply writes CSV", ".csv", ".txt")
        need_absent(out)
    found = calibration.read_reference(reference)
    if table:
        header, columns, scores = calibration.read_scores(source, column)
        content = calibration.completed_table(header, columns, scores, found)
        unchecked = (
            "a table does not say what its scores measure: that they are as those of"
            f" {found['set']} was not checked."
        )
    else:
        stage, face_ids, scored = _computed_scores(source, overrides, store, where, False, out)
        calibration.refuse_other(found, stage.measure, reference)
        scores = scored["quality"]
        content = calibration.scores_table(face_ids, scored, found)
        given = stage.options.method == "given"
        unchecked = (
            f"given scores do not say what they measure: that they are as those of {found['set']}"
            " was not checked."
        )
        unchecked = unchecked if given else ""
    _written(content, out)
    tell = warn if out is None else say
    tell(("" if out is None else f"wrote {out}: ") + calibration.placement_sentence(scores, found))
    if unchecked:
        warn(f"note: {unchecked}")


def _computed_scores(
    config: Path,
    overrides: Sequence[str] | None,
    store: Path | None,
    where: Sequence[str] | None,
    quiet: bool,
    out: Path | None,
) -> tuple[Any, Array, Batch]:
    """Compute the one chosen quality cell; return its stage, face ids and rows (QUALITIES)."""
    from stages.commands.build import with_cells

    def one(steps: Sequence[Step]) -> None:
        if len(steps) > 1:
            names = ", ".join(step.name for step in steps[:4]) + (", …" if len(steps) > 4 else "")
            raise InvalidInput(
                f"there are {len(steps)} of them ({names}): choose one with --where FACTOR=VALUE."
            )

    def read(session: Session, steps: Sequence[Step]) -> tuple[Any, Array, Batch]:
        ids = session.dataset.tables["faces"]["face_id"]
        return steps[0].stage, ids, session.read(steps[0])

    found, *_ = with_cells(config, overrides, store, "quality", where, one, read, None, quiet, out)
    return found


def _written(content: str, out: Path | None) -> None:
    from pipeline.system.atomic_text import replace_text

    if out is None:
        hand_over(content)
        return
    try:
        replace_text(out, content)
    except OSError as error:
        raise cannot_write(out, error) from None
