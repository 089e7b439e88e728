"""One config, opened: its store, data set and plan; and what is made of a finished run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.config.config import Config, load_config
from pipeline.config.origin import kept_apart
from pipeline.core.registry import lookup
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.files.digests import file_digest
from pipeline.plan.dataset import Dataset, ingest
from pipeline.plan.forecast import Speed, note_speeds, written
from pipeline.plan.graph import Step
from pipeline.plan.last_plan import remember
from pipeline.plan.plan import Plan, build_plan, context_of
from pipeline.run.events import Events
from pipeline.run.local_workers import LocalWorkers
from pipeline.run.runner import Runner, Summary
from pipeline.store.mending import mended
from pipeline.store.store import Store, is_store
from pipeline.system.atomic_text import replace_text
from pipeline.system.canonical_json import key_of
from pipeline.system.regular_file import read_regular
from pipeline.system.signs_of_life import pulse

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """A config with everything that planning it needed."""

    config: Config
    store: Store
    dataset: Dataset
    plan: Plan
    folder: Path

    def read(self, step: Step, output: str = "", columns: Sequence[str] | None = None) -> Batch:
        """Return an output of a step of a finished run; what is not stored is computed."""
        return self.reader.results(step, output, columns)

    @cached_property
    def reader(self) -> Runner:
        """What reads single shards of a finished run, and what each was computed from."""
        return Runner(self.plan, self.store)


@dataclass(frozen=True)
class Results:
    """A finished run, for reports: any output of any step."""

    session: Session

    @property
    def plan(self) -> Plan:
        return self.session.plan

    @property
    def folder(self) -> Path:
        return self.session.folder

    def cells(self, stage: str) -> list[Step]:
        """Return every step that runs the named stage, one for each combination of factors."""
        return list(self.plan.cells(stage))

    def upstream(self, step: Step, stage: str) -> Step | None:
        """Return the nearest step of the named stage that `step` depends on, or None."""
        waiting = [self.plan.steps[ref.step] for ref in step.inputs.values()]
        while waiting:
            found = waiting.pop(0)
            if found.stage.name == stage:
                return found
            waiting += [self.plan.steps[ref.step] for ref in found.inputs.values()]
        return None

    def read(self, step: Step, output: str = "", columns: Sequence[str] | None = None) -> Batch:
        return self.session.read(step, output, columns)

    def available(self, step: Step, output: str = "") -> bool:
        """Whether an output is stored: crops may have been collected, others are never stored."""
        return all(
            self.session.store.has(step.output(output), task.keys[output]) for task in step.tasks
        )


class Report(Protocol):
    """Makes files of a finished run in its folder. Registered under the kind 'report'."""

    def __call__(self, results: Results, options: Mapping[str, Any]) -> list[Path]: ...


class StudyReport(Protocol):
    """Makes files of a config's benchmarks together, in the folder.

    Registered under the kind 'study report'. `results` are those of the benchmarks that ran, by
    name, in the order of the file; `options` those of the report section that stands for all. A
    benchmark may have factors and steps that another has not.
    """

    def __call__(
        self, results: Sequence[tuple[str, Results]], folder: Path, options: Mapping[str, Any]
    ) -> list[Path]: ...


def store_root(config: Config, store: Path | None) -> Path:
    """Return the folder of the store: the one given, else the config's."""
    return store.absolute() if store else config.store_folder()


def other_store(config: Config, store: Path | None) -> str | None:
    """Return a hint if only the working folder has a store, and not the config's own; else None."""
    own, here = store_root(config, store), Path.cwd() / config.run.store
    if store is not None or own == here or is_store(own) or not is_store(here):
        return None
    return (
        f"There is no store at {own}, which is this config's, but one in the working folder. If"
        f" that is the one, move it there, or give --store {here}."
    )


def open_session(
    config: Path | Config,
    overrides: Sequence[str] = (),
    store: Path | None = None,
    until: str | None = None,
    readonly: bool = False,
    absent: Container[tuple[str, str]] = (),
) -> Session:
    """Load a config, ingest its data set and plan it.

    Raises the QfuseError of whatever is wrong first. `absent`: artifacts (output, key) that count
    as absent. Verbs open sessions with `with_session`.
    """
    pulse.at("reading the data set and planning")
    loaded = config if isinstance(config, Config) else load_config(config, overrides)
    opened = Store(store_root(loaded, store), readonly, absent)
    dataset = ingest(loaded, opened, opened.open_digests())
    context = context_of(loaded, lambda: dataset.files)
    folder = loaded.run_folder()
    try:
        plan = build_plan(loaded, dataset, opened, context, until, folder / "plan.json")
    except InvalidInput as problem:  # what was noted about the files may well be why
        raise InvalidInput(
            "\n".join([str(problem), *(f"note: {note}" for note in dataset.notes)])
        ) from problem
    return Session(loaded, opened, dataset, plan, folder)


def execute(
    session: Session,
    events: Events,
    workers: int | None = None,
    dask: str | LocalWorkers | None = None,
) -> Summary:
    """Run what the plan lacks, if anything; remember the plan for the reasons of the next."""
    runner = Runner(session.plan, session.store, events, workers, dask)
    try:
        summary = runner.run()
    except BaseException:
        with suppress(OSError):  # the error that is being raised says more
            remember(session.plan.steps.values(), session.store, session.folder / "plan.json")
        raise
    remember(session.plan.steps.values(), session.store, session.folder / "plan.json")
    if session.plan.to_run:
        if dask is None:
            _note_speeds(session, summary, workers)
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(session.folder / "summary.json", {"ended": ended, **asdict(summary)})
    return summary


def _note_speeds(session: Session, summary: Summary, workers: int | None) -> None:
    """Keep what a run here took, for the forecasts of `plan`."""
    speeds = {
        step.name: Speed(
            summary.rows[step.name], summary.seconds[step.name], written(step, session.store)
        )
        for step in session.plan.to_run
        if step.name in summary.seconds
    }
    with suppress(OSError):
        note_speeds(session.plan, session.store, speeds, workers)


def with_session(
    config: Config,
    store: Path | None,
    work: Callable[[Session], T],
    tell: Callable[[str], None],
    until: str | None = None,
    readonly: bool = False,
) -> T:
    """Open a config and return what `work` makes of its session.

    Damage that either meets is mended (see `mended`), which is why every verb that reads a store
    comes through here. A `readonly` session cannot set anything aside; it ignores what is damaged.
    """
    if note := other_store(config, store):
        tell(note)
    absent: set[tuple[str, str]] = set()
    return mended(
        lambda: work(
            open_session(config, store=store, until=until, readonly=readonly, absent=absent)
        ),
        tell,
        absent.add if readonly else None,
    )


def make_report(session: Session) -> list[Path]:
    """Write the report of a run whose every step is stored. Returns the files, the page first."""
    section = session.config.report
    if section is None:
        return []
    report: Report = lookup("report", section.kind)
    return report(Results(session), section.options)


def current_report(session: Session, tell: Callable[[str], None], anew: bool = False) -> list[Path]:
    """Return the report's files.

    They are written again unless they show these very results, names, options and config.

    `tell` gets a sentence where the report of another config, or of other overrides, makes way for
    them.
    """
    config, folder = session.config, session.folder
    if config.report is None:
        return []
    return kept_pages(
        folder,
        [config.origin.command, *page_inputs(session)],
        lambda: kept_apart(folder, config.name, config.origin, lambda: make_report(session), tell),
        anew,
    )


def page_inputs(session: Session) -> list[Any]:
    """Return what a session's page depends on: the whole config, and notes on the files."""
    config = session.config.model_dump(mode="json", exclude={"base", "run"})
    return [config, session.plan.digest, list(session.dataset.notes)]


def kept_pages(
    folder: Path, shown: list[Any], make: Callable[[], list[Path]], anew: bool = False
) -> list[Path]:
    """Return the files of a report in `folder`, which `make` writes unless they are current.

    They are current if they are whole and were made of what is `shown`.
    """
    made, of = folder / "report.of", [version("qfuse"), *shown]
    with suppress(OSError, ValueError):
        seal, *names = read_regular(made).decode("utf-8", "surrogatepass").split("\n")
        files = [folder / name for name in names]
        if not anew and seal == _report_digest(of, files):
            return files
    pulse.at("writing the report")
    files = make()
    with suppress(FileNotFoundError):  # a file that was not made is asked for again
        replace_text(
            made,
            "\n".join(
                [_report_digest(of, files), *(os.path.relpath(path, folder) for path in files)]
            ),
        )
    return files


def _report_digest(of: list[Any], files: Sequence[Path]) -> str:
    """Return a digest of what a report is of and of its files' names and bytes.

    Raises OSError if one is not there.
    """
    return key_of([of, [[path.name, file_digest(path)] for path in files]])


def write_json(path: Path, value: Any) -> None:
    """Write JSON by rename, so that a reader never sees half of it; nan is written as null."""
    replace_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: NumPy scalars as numbers, nan as null, inf as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return value
