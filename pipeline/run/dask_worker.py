"""What runs on a worker of a cluster: shards of the plan that a ticket describes.

Outcomes travel, never arrays. A worker keeps a `ShardComputer` for each run that it serves, and
with it the opened models and what only memory keeps.
"""

from __future__ import annotations

import pickle
import threading
import traceback
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distributed import get_worker
from threadpoolctl import threadpool_limits

from pipeline.errors import (
    INTERRUPTED,
    CorruptArtifact,
    Interrupted,
    InvalidInput,
    QfuseError,
    ResourceRefused,
)
from pipeline.plan.check import open_all
from pipeline.plan.instruction_mix import OPTION, computing
from pipeline.plan.plan import Plan
from pipeline.plan.ticket import DifferentKeys, Ticket
from pipeline.run.shard_computer import Done, Outcome, ShardComputer
from pipeline.system.available import available_memory
from pipeline.system.instruction_sets import lacks_bf16

MAX_IDLE_RUNS = 4  # that a worker keeps open although it computes none of their shards
_computers: OrderedDict[str, ShardComputer] = OrderedDict()
_ended: set[str] = set()
_busy: Counter[str] = Counter()  # shards under way of each run
_lock = threading.Lock()


@dataclass(frozen=True)
class Greeting:
    """What a worker computes with: each step's instruction set, and whether it lacks bf16."""

    computing: dict[str, str]
    slow_bf16: bool


def greet(
    ticket: Ticket, threads: int | None, steps: Sequence[str], dask_worker: Any
) -> Greeting | QfuseError:
    """Open a ticket and those of its steps that are to run, before any shard of them comes.

    Returns the error of a worker that cannot.

    Steps on a GPU are opened only if this worker has one.
    """
    try:
        computer = _computer_for(ticket, threads, dask_worker)
        gpu = dask_worker.state.total_resources.get("GPU")
        found = [computer.plan.steps[name] for name in steps]
        open_all((step for step in found if gpu or not step.stage.gpu), computer.open)
    except (CorruptArtifact, DifferentKeys, ResourceRefused) as problem:
        return problem
    except QfuseError as problem:  # the same config was fine where the run began
        return InvalidInput(f"the worker {dask_worker.address} cannot open the config: {problem}")
    known = (step for step in computer.plan.steps.values() if gpu or not step.stage.gpu)
    return Greeting(computing(known), lacks_bf16())


def compute_shard(
    ticket: Ticket,
    threads: int | None,
    step: str,
    shard: int,
    missing: frozenset[str],
    example: int | None,
) -> Outcome | BaseException:
    """Compute and commit one shard.

    What is raised is returned, so that it reaches the driver as it is.
    """
    try:
        with _lock:
            if ticket.token in _ended:
                raise Interrupted(INTERRUPTED)
            _busy[ticket.token] += 1
        try:
            computer = _computer_for(ticket, threads, get_worker())
            found = computer.plan.steps[step]
            outcome = computer.compute(
                found, replace(found.tasks[shard], missing=set(missing)), example
            )
            if isinstance(outcome, Done):
                outcome = replace(outcome, worker=get_worker().address)
            return outcome
        finally:
            with _lock:
                _busy[ticket.token] -= 1
    except Exception as error:
        if not isinstance(error, QfuseError):
            error.add_note(f"on {get_worker().address}:\n{traceback.format_exc()}")
        if _can_be_sent(error):
            return error
        return RuntimeError("".join(traceback.format_exception(error)))


def end_run(token: str) -> None:
    """End a run on this worker, and forget it.

    Its shards, if any are under way, end at their next micro-batch, and what is committed is
    committed.
    """
    with _lock:
        _ended.add(token)
        computer = _computers.pop(token, None)
    if computer is not None:
        computer.close()


def _computer_for(ticket: Ticket, threads: int | None, here: Any) -> ShardComputer:
    """Return the computer of a plan's shards, made when its ticket is first seen.

    Raises the QfuseError of a worker that cannot take part.
    """
    with _lock:
        if ticket.token not in _computers:
            plan, store = ticket.open(f"the worker {here.address}")
            path = plan.dataset.path
            if path is not None and not path.exists():
                raise InvalidInput(
                    f"the worker {here.address} does not see the data set {path}: put it on a"
                    " shared disk."
                )
            _refuse_mixing(ticket, plan, here.address)
            threadpool_limits(
                max(step.stage.context.profile.threads for step in plan.steps.values())
            )
            count = threads or here.state.nthreads
            budget = (available_memory() or 8 << 30) // 8
            _computers[ticket.token] = ShardComputer(plan, store, count, budget=budget)
            idle = [token for token in _computers if not _busy[token] and token != ticket.token]
            # these runs' drivers were killed, or wait for other runs
            for token in idle[: len(_computers) - MAX_IDLE_RUNS]:
                _computers.pop(token).close()
        _computers.move_to_end(ticket.token)
        return _computers[ticket.token]


def _refuse_mixing(ticket: Ticket, plan: Plan, address: str) -> None:
    """Raise ResourceRefused on a worker whose instruction set is not that of the run's others."""
    for step, here in computing(plan.steps.values()).items():
        wanted = ticket.computing.get(step)
        if here and wanted and here != wanted:
            raise ResourceRefused(
                f"the worker {address} computes {step} with {here}, the others with {wanted}, and"
                " their last bits differ: stop that worker and run the same command again, or set"
                f" {OPTION}: true."
            )


def _can_be_sent(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own, a moment ago
    except Exception:
        return False
    return True
