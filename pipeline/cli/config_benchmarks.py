"""A verb's work on each benchmark of a config that has several, and the page of all of them.

A benchmark that fails (a QfuseError) is reported at once and does not keep the others from their
work; the command ends with the exit code of the first such error. An interruption, and whatever is
no QfuseError, ends everything.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from pipeline.cli.terminal import emit, say, warn
from pipeline.config.config import Config, ReportConfig, config_of, load_layers, report_of
from pipeline.config.layers import Layers
from pipeline.errors import Interrupted, InvalidInput, QfuseError

if TYPE_CHECKING:
    from pipeline.cli.outcome import FinishedRun
    from pipeline.plan.check import ConfigCheck
    from pipeline.session import Session

T = TypeVar("T")


def on_each(
    path: Path, overrides: Sequence[str] | None, work: Callable[[Config], Any], as_json: bool
) -> None:
    """Do a verb's work on a config or, below a heading each, on every benchmark that it has.

    With `as_json` what `work` returns is printed: as it is, or in a mapping by benchmark, an error
    as {"error": SENTENCE}.
    """
    found = load_layers(path, overrides or [])
    if not found.several:
        value = work(config_of(found, found.only_benchmark()))
        if as_json:
            emit(value)
        return
    done = attempted(found, work, as_json)
    if as_json:
        emit({name: as_value(one) for name, one in done.items()})
    leave(done.values())


def attempted(found: Layers, work: Callable[[Config], T], quiet: bool) -> dict[str, T | QfuseError]:
    """Return by benchmark what `work` returns for its config, or the error that it raised.

    The error has been printed by then.
    """
    done: dict[str, T | QfuseError] = {}
    for name in found.benchmarks:
        try:
            config = config_of(found, name)
            if not quiet:
                say(("\n" if done else "") + config.full_name)
            done[name] = work(config)
        except Interrupted:
            raise
        except QfuseError as error:
            done[name] = print_error(error, name)
    return done


def print_error(error: QfuseError, name: str = "") -> QfuseError:
    """Print an error like the one that ends a command, with its benchmark's name; return it."""
    # If both streams go into one file, the error then stands below its heading.
    sys.stdout.flush()
    warn(f"qfuse: {name}{': ' if name else ''}{error}")
    return error


def as_value(one: Any) -> Any:
    """Return the outcome of an attempt in the form that `--json` prints."""
    return {"error": str(one)} if isinstance(one, QfuseError) else one


def leave(done: Iterable[Any]) -> None:
    """End the command with the exit code of the first error among what was done, if any."""
    for one in done:
        if isinstance(one, QfuseError):
            raise typer.Exit(one.exit_code)


def live_artifacts(path: Path, root: Path) -> set[tuple[str, str]]:
    """Return (output, key) of all that a config and its benchmarks would keep in that store.

    Raises the first QfuseError: nobody knows what a benchmark needs whose plan cannot be made.
    """
    from pipeline.cli.sessions import looked_at

    found, kept = load_layers(path), set[tuple[str, str]]()
    for name in found.benchmarks or [""]:
        try:
            kept |= looked_at(
                config_of(found, name), root, lambda session: session.plan.live_artifacts()
            )
        except QfuseError as error:
            if name:
                error.args = (f"benchmark {name}: {error}",)
            raise
    return kept


def store_of(path: Path) -> Path:
    """Return the store of a config, or of all its benchmarks. Raises as `load_config`."""
    found = load_layers(path)
    return config_of(found, next(iter(found.benchmarks), "")).store_folder()


def check_all(path: Path, overrides: Sequence[str] | None) -> dict[str, ConfigCheck]:
    """Return what is wrong with a config, by "", or with each of its benchmarks."""
    from pipeline.plan.check import ConfigCheck, check_config

    try:
        found = load_layers(path, overrides or [])
    except InvalidInput as problem:
        return {"": ConfigCheck([str(problem)], str(problem))}
    if not found.several:
        return {"": check_config(path, lambda: config_of(found, found.only_benchmark()))}
    return {name: check_config(path, partial(config_of, found, name)) for name in found.benchmarks}


def run_all(
    found: Layers, run: Callable[[Config], FinishedRun], report: bool, as_json: bool
) -> None:
    """Run every benchmark below its heading, then write the page of all, where `report` says so."""
    from pipeline.store.mending import mended

    section = report_section(found) if report else None

    def one(config: Config) -> FinishedRun:
        ran = run(config)
        if not as_json:
            ran.tell(found.path)
        return ran

    done = attempted(found, one, as_json)
    ran = {name: one for name, one in done.items() if not isinstance(one, QfuseError)}
    met = [one for one in done.values() if isinstance(one, QfuseError)]
    passes = itertools.count()

    def page() -> list[Path]:
        # On every pass but the first, compute again what the last one found damaged and set aside.
        if next(passes):
            ran.update({name: run(one.session.config) for name, one in ran.items()})
        return page_of_all(section, {name: one.session for name, one in ran.items()})

    files: list[Path] = []
    if ran:
        try:
            files = mended(page, warn)
        except Interrupted:
            raise
        except QfuseError as error:
            met.append(print_error(error, "the report of all"))
    if as_json:
        benchmarks = {
            name: ran[name].to_json() if name in ran else as_value(one)
            for name, one in done.items()
        }
        emit({"benchmarks": benchmarks, "report": [str(path) for path in files]})
    elif files:
        say(f"\nreport of {', '.join(ran)}: {files[0]}")
    leave(met)


def report_section(found: Layers) -> ReportConfig | None:
    """Return the report section that stands for all benchmarks.

    Raises InvalidInput if its kind is unknown.
    """
    from pipeline.core.registry import lookup

    section = report_of(found)
    if section is not None:
        lookup("report", section.kind)
    return section


def page_of_all(section: ReportConfig | None, sessions: Mapping[str, Session]) -> list[Path]:
    """Return the report's files of all benchmarks that ran.

    They are written again only where one of the results changed.

    No files if no report is asked for, or its kind has no such page.
    """
    from pipeline.config.origin import kept_apart
    from pipeline.core.registry import available
    from pipeline.session import Results, StudyReport, kept_pages, page_inputs

    make: StudyReport | None = available("study report").get(section.kind) if section else None
    if make is None or section is None or not sessions:
        return []
    write, options = make, section.options
    one = next(iter(sessions.values()))
    config, folder, origin = one.config, one.folder.parent, one.config.origin_of_all
    of = [
        section.model_dump(mode="json"),
        origin.command,
        *([name, *page_inputs(session)] for name, session in sessions.items()),
    ]

    def written() -> list[Path]:
        results = [(name, Results(s)) for name, s in sessions.items()]
        return write(results, folder, options)

    return kept_pages(folder, of, lambda: kept_apart(folder, config.name, origin, written, warn))
