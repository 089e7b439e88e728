"""The verb `qfuse run`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.outcome import FinishedRun, results_table
from pipeline.cli.sessions import compute_missing, need_step
from pipeline.cli.terminal import AsJson, ConfigPath, Overrides, StorePath, emit, warn
from pipeline.errors import TooManyFailures
from pipeline.system import interruption

if TYPE_CHECKING:
    from pipeline.config.config import Config
    from pipeline.run.local_workers import LocalWorkers

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
            help=(
                "Total number of threads; with the address of a cluster, threads per worker."
                " Default: the config's number, or else the number of cores."
            ),
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help=(
                "Compute on dask.distributed: give local:N for N processes here, tcp://HOST:PORT,"
                " or a scheduler file."
            ),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the results of a config that are not stored yet, then write the report."""
    from pipeline.cli.config_benchmarks import run_all
    from pipeline.config.config import config_of, load_layers

    def run_loaded(loaded: Config) -> FinishedRun:
        return run_one(loaded, store, until, workers, dask or loaded.cluster, as_json)

    found = load_layers(config, overrides or [])
    if found.several:
        run_all(found, run_loaded, until is None, as_json)
        return
    done = run_loaded(config_of(found, found.only_benchmark()))
    if as_json:
        emit(done.to_json())
    else:
        done.tell(config)


def run_one(
    config: Config,
    store: Path | None,
    until: str | None,
    workers: int | None,
    where: str | None,
    quiet: bool,
) -> FinishedRun:
    """Compute what one config lacks or has damaged; then report, unless `until` stops earlier."""
    from pipeline.config.cluster import need_cluster
    from pipeline.plan.check import check_report
    from pipeline.run.local_workers import local_workers
    from pipeline.run.row_failures import remark_lines, remarks
    from pipeline.session import current_report, open_session, other_store
    from pipeline.store.mending import mended

    interruption.computing = True
    need_step(config, until)
    need_cluster(where)
    if note := other_store(config, store):
        warn(note)
    ran: list[str] = []

    def attempt() -> FinishedRun:
        # Workers start while the data set is still read and planned.
        started = local_workers(where)
        with started or contextlib.nullcontext():
            return run_on(started or where)

    def run_on(where: str | LocalWorkers | None) -> FinishedRun:
        session = open_session(config, store=store, until=until)
        if until is None:
            check_report(session.config)
        # What an earlier attempt computed, before it met damage, is in this list too.
        ran.extend(step.name for step in session.plan.to_run if step.name not in ran)
        try:
            summary = compute_missing(session, quiet, workers, where)
        except TooManyFailures:
            warn("\n".join(remark_lines(remarks(session.plan, session.store, notes=False), 10)))
            raise
        files = current_report(session, warn) if until is None else []
        results = results_table(session) if until is None and not quiet else None
        return FinishedRun(
            session, ran, summary, files, remarks(session.plan, session.store, notes=False), results
        )

    return mended(attempt, warn)
