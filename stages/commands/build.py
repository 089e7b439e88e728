"""The verbs that hand results to others: build (templates) and reference (quality statistics)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipeline.cli.terminal import AsJson, ConfigPath, Overrides, StorePath, emit, say, warn
from pipeline.errors import InvalidInput, cannot_write, counted

if TYPE_CHECKING:
    from pipeline.plan.graph import Step
    from pipeline.session import Session
    from stages.fusion.templates_file import WrittenTemplates

T = TypeVar("T")
BUILD = "Example: qfuse build configs/gallery.yaml templates.h5"
REFERENCE = "Example: qfuse reference configs/folder.yaml lightqnet.json"
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="FACTOR=VALUE", help="Use only cells with this value; repeatable."
    ),
]


def build(
    config: ConfigPath,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help=(
                "The HDF5 file to write; several cells give one file each. An existing file of"
                " templates is replaced."
            ),
        ),
    ],
    where: Where = None,
    overrides: Overrides = None,
    store: StorePath = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Total number of threads.")
    ] = None,
    view: Annotated[
        bool,
        typer.Option(
            "--view/--copy",
            metavar="",
            help=(
                "View the store's shards, or copy them (the default). A view is small, but it needs"
                " the store: if the store is moved or cleaned up, or too few files may be open,"
                " templates read as status 255 and nan."
            ),
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the templates of a config and write them to one HDF5 file.

    The file also has the members of each template, their weights and their quality scores.
    """
    from stages.commands.destination import need_name
    from stages.fusion.templates_file import need_templates_file, write_templates

    need_name(out, "build writes HDF5", ".h5", ".hdf5")

    def targets(steps: Sequence[Step]) -> None:
        paths = [_file_of_step(out, step, len(steps)) for step in steps]
        if len(set(paths)) < len(paths):
            raise InvalidInput(
                f"several cells would be written to one file ({paths[0]}): choose one with --where."
            )
        for path in paths:
            need_templates_file(path)

    def write(session: Session, steps: Sequence[Step]) -> list[WrittenTemplates]:
        try:
            return [
                write_templates(_file_of_step(out, step, len(steps)), session, step, view)
                for step in steps
            ]
        except OSError as error:
            raise cannot_write(out, error) from None

    written, made, seconds = with_cells(
        config, overrides, store, "fuse", where, targets, write, workers, as_json, out
    )
    speed = made / seconds if seconds else None
    if as_json:
        emit(
            {
                "files": [{**asdict(one), "path": str(one.path)} for one in written],
                "fused": made,
                "fuse_seconds": seconds,
                "templates_per_second": speed,
            }
        )
        return
    for one in written:
        failed = one.templates - one.status.get("ok", 0)
        more = (f", {failed:,} without a usable face" if failed else "") + (
            f", {one.fallback:,} whose weights all vanished" if one.fallback else ""
        )
        say(
            f"{one.path}: {counted(one.templates, 'template')} of {counted(one.faces, 'face')}"
            f" ({one.step}){more}"
        )
    if speed:
        say(f"fused {counted(made, 'template')}, {speed:,.0f} a second")
    else:
        say("all templates were in the store already")


def reference(
    config: ConfigPath,
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="The JSON file to write; it must not exist yet.")
    ],
    where: Where = None,
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Write the statistics of a data set's quality scores to a file.

    Other configs name this file in `statistics.reference`.
    """
    from pipeline.session import write_json
    from stages.commands.destination import need_absent, need_name
    from stages.quality.quality import Quality
    from stages.quality.reference_statistics import reference_content

    need_name(out, "reference writes JSON", ".json")
    need_absent(out)

    def one(steps: Sequence[Step]) -> None:
        if len(steps) > 1:
            names = ", ".join(step.name for step in steps[:4])
            raise InvalidInput(
                f"there are {len(steps)} of them ({names}): choose one with --where FACTOR=VALUE."
            )
        if not isinstance(steps[0].stage.above.get("quality"), Quality):
            raise InvalidInput(
                f"steps.{steps[0].base} takes its statistics from a file already; pass that"
                " file on."
            )

    def read(session: Session, steps: Sequence[Step]) -> tuple[str, dict[str, Any]]:
        scored: Any = steps[0].stage.above["quality"]
        read = session.read(steps[0])
        found = reference_content(session.config.full_name, scored.measure, read)
        if not found["count"]:
            raise InvalidInput(
                f"{session.config.full_name} has no face with a quality score, so it is not a"
                " reference set."
            )
        return str(scored.options.method), found

    (method, found), *_ = with_cells(
        config, overrides, store, "statistics", where, one, read, None, as_json, out
    )
    try:
        write_json(out, found)
    except OSError as error:
        raise cannot_write(out, error) from None
    if as_json:
        emit(found)
        return
    say(
        f"wrote {out}: {method} of {counted(found['count'], 'face')}, {found['minimum']:.4g} to"
        f" {found['maximum']:.4g}"
    )
    say(
        f"use it as steps: {{statistics: {{options: {{reference: {out}}}}}}} (relative to the"
        " config that names it)"
    )


def with_cells(
    config: Path,
    overrides: Sequence[str] | None,
    store: Path | None,
    stage: str,
    where: Sequence[str] | None,
    accept: Callable[[Sequence[Step]], None],
    use: Callable[[Session, Sequence[Step]], T],
    workers: int | None,
    quiet: bool,
    out: Path | None,
) -> tuple[T, int, float]:
    """Run the chosen cells of a stage, and nothing that they do not read.

    `accept` looks at the cells first, and may raise. `out`: the file that is going to be written,
    None if there is none. Returns what `use` makes of the session and these cells, and the rows and
    seconds of the stage, 0 if all was stored.
    """
    from pipeline.cli.sessions import compute_missing
    from pipeline.config.config import load_config
    from pipeline.session import with_session
    from stages.commands.destination import need_apart
    from stages.explain.compared_pair import agreeing_steps

    loaded = load_config(config, overrides or [])
    if not any(stage == (section.stage or name) for name, section in loaded.steps.items()):
        raise InvalidInput(
            f"{loaded.full_name} has no `{stage}` step: add `{stage}: {{}}` to its steps, as a line"
            f" of its own below `steps:`, or give --set 'steps.{stage}={{}}'."
        )
    if out is not None:
        need_apart(out, loaded, store)

    rows, seconds = 0, 0.0  # of all beginnings

    def computed(session: Session) -> T:
        nonlocal rows, seconds
        steps = agreeing_steps(session, list(session.plan.cells(stage)), where or [])
        if not steps:
            raise InvalidInput(f"no cell of `{stage}` agrees with {' '.join(where or [])}.")
        accept(steps)
        session.plan.narrow(step.name for step in steps)
        summary = compute_missing(session, quiet, workers, session.config.cluster)
        _, more, spent = summary.by_stage().get(stage, (0, 0, 0.0))
        rows, seconds = rows + more, seconds + spent
        return use(session, steps)

    return with_session(loaded, store, computed, warn, until=stage), rows, seconds


def _file_of_step(out: Path, step: Step, cells: int) -> Path:
    """Return the file of a step: the one asked for, or one beside it named after the cell."""
    if cells == 1:
        return out
    label = ",".join(f"{name}={value}" for name, value in step.factors.items()) or step.name
    return out.with_name(
        f"{out.stem}-{re.sub(r'[^A-Za-z0-9._=-]+', '_', label).strip('_')}{out.suffix or '.h5'}"
    )
