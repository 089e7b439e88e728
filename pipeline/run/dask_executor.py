"""Run a plan on dask.distributed: one future a shard, which brings an outcome, not arrays.

Workers meet in the store alone.

`local:N` starts N worker processes here; `tcp://HOST:PORT` or a scheduler file joins a cluster that
is there. A worker that dies loses only the shards it was at: the scheduler gives them to another
one, and whatever is committed is found.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, wait
from distributed.comm.core import CommClosedError

from pipeline.config.cluster import ADDRESS, no_cluster
from pipeline.errors import InvalidInput, QfuseError, ResourceRefused
from pipeline.plan.instruction_mix import mixing_refusal, notes
from pipeline.plan.plan import Plan
from pipeline.plan.ticket import DifferentKeys, Ticket
from pipeline.run import dask_worker
from pipeline.run.local_workers import SETTINGS, SHARDS_AT_ONCE, LocalWorkers, local_workers
from pipeline.run.ready_queue import Job, ShardName
from pipeline.run.shard_computer import Done, Outcome
from pipeline.store.store import Store
from pipeline.system.canonical_json import changed_fields

ANSWER_SECONDS = 10  # in which a scheduler answers
LONELY_SECONDS = 60.0  # without any worker, after which the run ends
# times that the scheduler may give up a shard, each time after several deaths of workers
MAX_GIVEN_UP = 2
for _name in ("distributed", "distributed.client", "tornado.application"):
    # qfuse reports in its own sentences whatever concerns a run
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class ClusterExecutor:
    """An executor of shards on a cluster.

    Raises UsageError or ResourceRefused if it cannot be reached or used.
    """

    memory = False

    def __init__(
        self, where: str | LocalWorkers, plan: Plan, store: Store, threads: int | None
    ) -> None:
        self.outcomes: queue.SimpleQueue[tuple[Job, Outcome | BaseException]] = queue.SimpleQueue()
        self._where, self._plan, self._store = where, plan, store
        self._futures: dict[ShardName, Any] = {}
        self._given_up: Counter[ShardName] = Counter()
        self._places: dict[int, str] = {}  # shard of rows → the worker that was at it last
        self._alone_since: float | None = None
        self._looked = time.monotonic()
        self._stack = ExitStack()
        self._gpu = any(step.stage.gpu for step in plan.to_run)
        try:
            self._stack.enter_context(dask.config.set(SETTINGS))
            self._client, self._threads = self._connect(where, threads)
            self._ticket = self._stack.enter_context(Ticket.of(plan, store).with_token())
            self.workers = self._greet()
        except CommClosedError:
            self._stack.close()
            raise ResourceRefused(self._gone()) from None
        except BaseException:
            self._stack.close()
            raise
        self.slots = SHARDS_AT_ONCE * sum(self._workers().values())

    def submit(self, job: Job, example: int | None) -> None:
        # Where other steps of the same rows were computed, what only memory keeps of them still is.
        # Not on a GPU: where that worker has none, Dask drops both wishes, and takes any.
        place = None
        if job.step.stage.grain == "map" and not job.step.stage.gpu:
            place = self._places.get(job.index)
        # The key is new each time: under an old one Dask would return the old outcome.
        future = self._client.submit(
            dask_worker.compute_shard,
            self._ticket,
            self._threads,
            job.step.name,
            job.index,
            frozenset(job.task.missing),
            example,
            key=f"{job.step.name}-{job.index}-{time.monotonic_ns()}",
            resources={"GPU": 1} if job.step.stage.gpu else None,
            workers=[place] if place else None,
            allow_other_workers=place is not None,
            pure=False,
        )
        self._futures[job.name] = future
        future.add_done_callback(lambda done: self._landed(job, example, done))

    def watch(self) -> None:
        """Raise ResourceRefused if the scheduler is gone, or every worker for a minute."""
        now = time.monotonic()
        if self._client.status not in ("running", "connecting"):
            raise ResourceRefused(self._gone())
        if now - self._looked < 5:
            return  # asking the scheduler takes a round trip
        self._looked = now
        workers = self._workers()
        if workers and (self._offer_gpu() or not self._gpu):
            self.slots, self._alone_since = SHARDS_AT_ONCE * sum(workers.values()), None
            return
        self._alone_since = self._alone_since or now
        if now - self._alone_since > LONELY_SECONDS:
            raise ResourceRefused(
                f"{self._where} has had no worker{' with a GPU' * self._gpu} for a minute: start"
                " some, and run the same command again; every finished shard is kept."
            )

    @property
    def dashboard(self) -> str:
        """The address of Dask's dashboard or, if bokeh is not installed, of its list of workers."""
        link = str(self._client.dashboard_link)
        return link if find_spec("bokeh") else link.replace("/status", "/info/main/workers.html")

    def close(self, whole: bool) -> None:
        with self._stack:
            # in a thread, because a failed cluster may never answer
            told = threading.Thread(target=self._tell_the_end, daemon=True)
            told.start()
            told.join(10)
            if not whole:
                with suppress(Exception):
                    wait(list(self._futures.values()), timeout=20)

    def _tell_the_end(self) -> None:
        with suppress(Exception):
            # a client that has lost its scheduler would try for long to find it
            if self._client.status == "running":
                self._client.run(dask_worker.end_run, self._ticket.token)

    def _connect(self, where: str | LocalWorkers, threads: int | None) -> tuple[Any, int | None]:
        """Return a client, and the threads of each worker; None if each is to use all it offers."""
        if isinstance(where, str) and (started := local_workers(where)):
            where = self._stack.enter_context(started)
        if isinstance(where, LocalWorkers):
            threads = math.ceil((threads or len(os.sched_getaffinity(0))) / where.count)
            return self._stack.enter_context(Client(where.cluster())), threads
        # os.path.isfile is False for a name that is too long, and does not raise
        if not re.fullmatch(ADDRESS, where) and not os.path.isfile(where):
            raise no_cluster(where)
        address = {"address" if re.fullmatch(ADDRESS, where) else "scheduler_file": where}
        try:
            client = self._stack.enter_context(Client(**address, timeout=ANSWER_SECONDS))
        # Whatever kind it is: nobody may be there, the file may be another, TLS may lack its
        # settings, or a transport may not be installed.
        except Exception as error:
            raise ResourceRefused(
                f"no Dask scheduler answers at {where}"
                f" ({str(error) or 'it is not a scheduler file'}): start one with `dask scheduler`."
            ) from None
        return client, threads

    def _greet(self) -> int:
        """Let every worker open the ticket; return their number.

        Raises the QfuseError of one that cannot take part.
        """
        if not self._workers():
            with suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=LONELY_SECONDS)
        if not self._workers():
            raise ResourceRefused(f"{self._where} has no workers: start some with `dask worker`.")
        if self._gpu and not self._offer_gpu():
            raise ResourceRefused(
                f"no worker of {self._where} offers a GPU: start them with --resources GPU=1, or"
                " use cpu-fp32."
            )
        answers = self._client.run(
            dask_worker.greet,
            self._ticket,
            self._threads,
            tuple(step.name for step in self._plan.to_run),
            on_error="return",
        )
        # a worker that has died meanwhile does not end the run
        living = {at: one for at, one in answers.items() if not isinstance(one, CommClosedError)}
        for problem in living.values():
            if isinstance(problem, QfuseError):
                raise self._with_differences(problem)
            if not isinstance(problem, dask_worker.Greeting):
                raise ResourceRefused(
                    f"a worker of {self._where} cannot be used"
                    f" ({str(problem) or type(problem).__name__:.200}): start it in an environment"
                    " with this version of qfuse and all plug-ins."
                )
        self._compare(living)
        return len(living)

    def _compare(self, greetings: Mapping[str, dask_worker.Greeting]) -> None:
        """Compare what the workers compute with, and note what is worth knowing.

        Raises ResourceRefused if they would mix instruction sets unasked.
        """
        computing = {
            name: what for one in greetings.values() for name, what in one.computing.items()
        }
        if not self._plan.config.run.mixed_instruction_sets:
            if sentence := mixing_refusal(
                self._plan, str(self._where), {at: one.computing for at, one in greetings.items()}
            ):
                raise ResourceRefused(sentence)
            # Workers that join later compare themselves with this.
            self._ticket = replace(self._ticket, computing=computing)
        self.notes = notes(
            self._plan, self._store, computing, any(one.slow_bf16 for one in greetings.values())
        )

    def _offer_gpu(self) -> bool:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return any(info["resources"].get("GPU") for info in workers)

    def _landed(self, job: Job, example: int | None, future: Future[Any]) -> None:
        """Put what a future brings into the queue; runs in a thread of the client's."""
        outcome: Any
        try:
            outcome = future.result(timeout=60)
        except KilledWorker:
            # Perhaps one row killed them all: the next worker finds that row by the journal. Only
            # if they go on dying is it something else.
            self._given_up[job.name] += 1
            if self._given_up[job.name] < MAX_GIVEN_UP:
                self.submit(job, example)
                return
            outcome = ResourceRefused(
                f"{job.step.name}, shard {job.index}: every worker that computes it dies, and no"
                " single row is to blame. Memory may be short: use fewer workers, or smaller"
                " dataset.shard_rows."
            )
        except (CancelledError, OSError):  # OSError includes TimeoutError
            outcome = ResourceRefused(self._gone())
        except Exception as error:
            outcome = error
        self._futures.pop(job.name, None)
        if isinstance(outcome, Done) and job.step.stage.grain == "map":
            self._places[job.index] = outcome.worker
        self.outcomes.put((job, self._with_differences(outcome)))

    def _with_differences(self, problem: BaseException) -> BaseException:
        """Return a problem; of different keys, with the fields in which they differ."""
        if not isinstance(problem, DifferentKeys):
            return problem
        for step in self._plan.steps.values():
            changes = changed_fields(step.tasks[0].preimage, problem.preimages.get(step.name, {}))
            if changes:
                return InvalidInput(
                    f"{problem} In {step.name}: {'; '.join(changes[:3])}. Install the same versions"
                    " everywhere."
                )
        return InvalidInput(f"{problem} Install the same version of qfuse everywhere.")

    def _workers(self) -> dict[str, int]:
        return dict(self._client.nthreads())

    def _gone(self) -> str:
        return (
            f"the Dask scheduler of {self._where} is gone: every finished shard is kept; start it,"
            " and run the same command."
        )
