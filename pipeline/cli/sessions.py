"""How verbs open a config: to see its plan, to read a finished run, to compute what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.cli.terminal import warn
from pipeline.errors import InvalidInput, UsageError, unknown
from pipeline.system import interruption
from pipeline.system.available import require_to_compute

if TYPE_CHECKING:
    from pipeline.config.config import Config
    from pipeline.run.local_workers import LocalWorkers
    from pipeline.run.runner import Summary
    from pipeline.session import Session

T = TypeVar("T")


def compute_missing(
    session: Session,
    quiet: bool,
    workers: int | None = None,
    where: str | LocalWorkers | None = None,
) -> Summary:
    """Compute what a plan lacks, with a progress display.

    `where` names the cluster; None is this process.
    """
    from pipeline.cli.display import Progress
    from pipeline.config.cluster import need_cluster
    from pipeline.plan.check import open_all
    from pipeline.run.events import Events
    from pipeline.session import execute

    interruption.computing = True
    # Even if there is nothing to compute: a name that is no cluster is a mistake.
    need_cluster(str(where or ""))
    todo = session.plan.to_run
    if todo and not where:
        require_to_compute(workers or session.config.run.workers)
    if not where:  # workers open stages themselves; here there may be no GPU
        open_all(todo)
    with Progress(session.plan, quiet=quiet or not todo) as progress:
        events = Events(session.folder if todo else None, progress.on_event)
        with contextlib.closing(events):
            return execute(session, events, workers, where)


def looked_at(
    config: Config, store: Path | None, look: Callable[[Session], T], until: str | None = None
) -> T:
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
    """Return what `look` makes of the session of a finished run.

    What was set aside as damaged is computed again first.

    Raises what `accept` does, then InvalidInput if steps have not run yet; `path` is the config's.
    """
    from pipeline.session import open_session, with_session

    def whole(session: Session) -> T:
        accept(session)
        if not session.plan.finished:
            todo = len(session.plan.to_run)
            raise InvalidInput(
                f"{todo} {'step has' if todo == 1 else 'steps have'} not run yet: `qfuse run"
                f" {path}` first."
            )
        if session.plan.to_run:
            session = open_session(config, store=store)
            compute_missing(session, quiet, where=config.cluster)
        return look(session)

    return with_session(config, store, whole, warn, readonly=True)


def need_step(config: Config, until: str | None) -> None:
    """Raise UsageError if `until` is no step of a config."""
    names = {
        name for step, section in config.steps.items() for name in (step, section.stage or step)
    }
    if until is not None and until not in names:
        raise UsageError(f"--until: {unknown('step', until, names)}")
