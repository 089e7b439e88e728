"""The verb `qfuse run`, and how it and the others open a config."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipeline.cli.terminal import AsJson, ConfigPath, Overrides, StorePath, console, emit, say, show, warn
from pipeline.errors import InvalidInput, TooManyFailures, UsageError, unknown
from pipeline.system.available import require_to_compute

if TYPE_CHECKING:
    from pipeline.config.config import Config
    from pipeline.run.dask_workers import LocalWorkers
    from pipeline.run.row_failures import Remark
    from pipeline.run.runner import Summary
    from pipeline.session import Session

T = TypeVar("T")
Until = Annotated[str | None, typer.Option(metavar="STEP", help="Stop after this step or stage.")]


def run(
    config: ConfigPath,
    overrides: Overrides = None,
    store: StorePath = None,
    until: Until = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Threads in all; with a cluster's address, of each worker. Default: the config's, else the cores.",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="Compute on dask.distributed: local:N processes, tcp://HOST:PORT or a scheduler file."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute whatever of a config is not stored yet, then report."""
    from pipeline.cli.benchmarks import run_all
    from pipeline.config.config import config_of, load_layers

    def ran(loaded: Config) -> Ran:
        return run_one(loaded, store, until, workers, dask or loaded.cluster, as_json)

    found = load_layers(config, overrides or [])
    if found.several:
        run_all(found, ran, until is None, as_json)
        return
    done = ran(config_of(found, found.only()))
    if as_json:
        emit(done.to_json())
    else:
        done.tell(config)


@dataclass(frozen=True)
class Ran:
    """A run that came to its end. `ran`: the steps that it computed, those computed anew after damage among them."""

    session: Session
    ran: list[str]
    summary: Summary
    files: list[Path]
    failed: list[Remark]
    results: Any  # the table for the terminal, if any

    def to_json(self) -> dict[str, Any]:
        done = {name: {"steps": n, "rows": rows, "seconds": s} for name, (n, rows, s) in self.summary.by_stage().items()}
        return {
            "ran": self.ran,
            "steps": done,
            "failed": [asdict(remark) for remark in self.failed],
            "notes": [*self.session.dataset.notes, *self.summary.notes],
            "report": [str(path) for path in self.files],
            "store": str(self.session.store.root),
        }

    def tell(self, path: Path) -> None:
        """Print what was done for the config at `path`, what failed, the results and where the report is."""
        from pipeline.cli.display import summary_table
        from pipeline.run.row_failures import told

        config = self.session.config
        if not self.ran:
            say(f"nothing to do: all that {config.full_name} asks for is in {self.session.store.root}")
        else:
            show(summary_table(self.summary))
        for note in self.session.dataset.notes:
            say(f"note: {note}")
        for line in told(self.failed, 5):
            say(line)
        if len(self.failed) > 5:
            chosen = f" --set benchmark={config.benchmark}" if config.benchmark else ""
            say(f"`qfuse status {path}{chosen} --all` names every one")
        if self.results is not None:
            show(self.results)
        if self.files:
            say(f"report: {self.files[0]}")
        elif note := without_report(self.session):
            say(note)


def run_one(
    config: Config, store: Path | None, until: str | None, workers: int | None, where: str | None, quiet: bool
) -> Ran:
    """Compute whatever of one config is missing or found damaged, then report unless `until` stops before the end."""
    from pipeline.plan.check import check_report
    from pipeline.run.dask_workers import local_workers, need_cluster
    from pipeline.run.row_failures import remarks, told
    from pipeline.session import current_report, mended, open_session, other_store

    need_step(config, until)
    need_cluster(where)
    if note := other_store(config, store):
        warn(note)
    ran: list[str] = []

    def once() -> Ran:
        started = local_workers(where)
        with started or contextlib.nullcontext():
            return at(started or where)

    def at(where: str | LocalWorkers | None) -> Ran:
        session = open_session(config, store=store, until=until)
        if until is None:
            check_report(session.config)
        ran.extend(step.name for step in session.plan.to_run if step.name not in ran)
        try:
            summary = compute(session, quiet, workers, where)
        except TooManyFailures:
            warn("\n".join(told(remarks(session.plan, session.store, notes=False), 10)))
            raise
        files = current_report(session, warn) if until is None else []
        results = results_table(session) if until is None and not quiet else None
        return Ran(session, ran, summary, files, remarks(session.plan, session.store, notes=False), results)

    return mended(once, warn)


def without_report(session: Session) -> str:
    """Return how to get the numbers of a run whose config asks for no report; empty where it does, or evaluates nothing."""
    evaluated = any("numbers" in step.stage.produces for step in session.plan.steps.values())
    if session.config.report is not None or not evaluated:
        return ""
    return "the config asks for no report, so no number is shown: add `report: {}` to it and run it again"


def compute(session: Session, quiet: bool, workers: int | None = None, where: str | LocalWorkers | None = None) -> Summary:
    """Compute what is missing of a plan, with a progress display; `where`: on which cluster, None for this process."""
    from pipeline.cli.display import Progress
    from pipeline.plan.check import open_all
    from pipeline.run.dask_workers import need_cluster
    from pipeline.run.events import Events
    from pipeline.session import execute

    need_cluster(str(where or ""))  # also where all is stored: whoever names one wants it to be one
    todo = session.plan.to_run
    if todo and not where:
        require_to_compute(workers or session.config.run.workers)
    if not where:  # workers open them for themselves; here there may be no GPU
        open_all(todo)
    with Progress(session.plan, quiet=quiet or not todo) as progress:
        events = Events(session.folder if todo else None, progress.on_event)
        with contextlib.closing(events):
            return execute(session, events, workers, where)


def looked_at(config: Config, store: Path | None, look: Callable[[Session], T], until: str | None = None) -> T:
    """Return what `look` makes of a config's session, which computes and commits nothing.

    Raises UsageError if `until` is no step of it, before any data is read.
    """
    from pipeline.session import with_session

    need_step(config, until)
    return with_session(config, store, look, warn, until, readonly=True)


def looked_into(
    config: Config,
    store: Path | None,
    look: Callable[[Session], T],
    path: Path,
    quiet: bool,
    accept: Callable[[Session], object] = lambda session: None,
) -> T:
    """Return what `look` makes of the session of a config that has been run; what was set aside is computed again before.

    Raises what `accept` does, then InvalidInput if steps have not run yet; `path` is the config's.
    """
    from pipeline.session import open_session, with_session

    def whole(session: Session) -> T:
        accept(session)
        if not session.plan.finished:
            todo = len(session.plan.to_run)
            raise InvalidInput(f"{todo} {'step has' if todo == 1 else 'steps have'} not run yet: `qfuse run {path}` first.")
        if session.plan.to_run:
            session = open_session(config, store=store)
            compute(session, quiet, where=config.cluster)
        return look(session)

    return with_session(config, store, whole, warn, readonly=True)


def need_step(config: Config, until: str | None) -> None:
    """Raise UsageError if `until` is no step of a config."""
    names = {name for step, section in config.steps.items() for name in (step, section.stage or step)}
    if until is not None and until not in names:
        raise UsageError(f"--until: {unknown('step', until, names)}")


def results_table(session: Session) -> Any:
    """Return the table that a report kind offers for the terminal; None if it offers none."""
    from pipeline.core.registry import available
    from pipeline.run.runner import Runner
    from pipeline.session import Results

    section = session.config.report
    terminal = available("terminal report").get(section.kind) if section else None
    if not (terminal and section):
        return None
    return terminal(Results(session, Runner(session.plan, session.store)), section.options, console().width)
