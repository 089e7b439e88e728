"""Run a Plan: hand out its shards in order, here or on a cluster, and judge what comes back."""

from __future__ import annotations

import os
import queue
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from pipeline.core.numerics import require_device
from pipeline.core.schema import Batch
from pipeline.core.stage import Source, Work
from pipeline.errors import INTERRUPTED, Interrupted, QfuseError, TooManyFailures, counted
from pipeline.plan.graph import Step, Task
from pipeline.plan.instruction_mix import notes_here
from pipeline.plan.more_damage import doubting
from pipeline.plan.plan import Plan
from pipeline.run.events import Events
from pipeline.run.local_workers import LocalWorkers
from pipeline.run.memory_estimate import require_memory
from pipeline.run.microbatch import machine_refusal
from pipeline.run.ready_queue import Job, ReadyQueue
from pipeline.run.shard_computer import Busy, Done, NoGoodRow, Outcome, ShardComputer
from pipeline.store.store import Store

RETRY_SECONDS = 0.25  # until a shard is asked for again that another process works on


@dataclass
class Summary:
    """What a run did: seconds and rows of each step, failed rows by status, and notes."""

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def by_stage(self) -> dict[str, tuple[int, int, float]]:
        """Return (steps, rows, seconds of work) for each config step, all its cells together."""
        totals: dict[str, tuple[int, int, float]] = {}
        for name, seconds in self.seconds.items():
            steps, rows, spent = totals.get(name.partition("[")[0], (0, 0, 0.0))
            totals[name.partition("[")[0]] = (steps + 1, rows + self.rows[name], spent + seconds)
        return totals


class Executor(Protocol):
    """Where shards are computed.

    `memory`: whether outputs that are not stored stay where the next shard finds them.
    """

    memory: bool
    slots: int  # shards that may be handed over at once
    outcomes: queue.SimpleQueue[tuple[Job, Outcome | BaseException]]

    def submit(self, job: Job, example: int | None) -> None: ...
    def watch(self) -> None:
        """Raise ResourceRefused if no outcome can come any more."""

    def close(self, whole: bool) -> None:
        """End; unless the run is `whole`, stop what is under way, but wait for commits."""


class LocalExecutor:
    """Computes in this process, on a few threads, each of which sees one shard through."""

    memory = True

    def __init__(self, computer: ShardComputer) -> None:
        self.slots = computer.workers + 1
        self.outcomes: queue.SimpleQueue[tuple[Job, Outcome | BaseException]] = queue.SimpleQueue()
        self._computer = computer
        self._threads = ThreadPoolExecutor(self.slots, "qfuse-shard")

    def submit(self, job: Job, example: int | None) -> None:
        self._threads.submit(self._run, job, example)

    def watch(self) -> None:
        pass

    def close(self, whole: bool) -> None:
        if not whole:
            self._computer.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job, example: int | None) -> None:
        outcome: Outcome | BaseException
        try:
            outcome = self._computer.compute(job.step, job.task, example)
        except BaseException as error:
            outcome = error
        self.outcomes.put((job, outcome))


class Runner:
    """Computes what a plan lacks.

    `results` reads any output of the plan, from memory or from the store. `dask` says where: None
    for this process; `local:N`, workers that are on their way, an address or a scheduler file.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        events: Events | None = None,
        workers: int | None = None,
        dask: str | LocalWorkers | None = None,
    ) -> None:
        self.plan, self.store = plan, store
        self.events = events or Events()
        self.dask = dask or plan.config.cluster
        self.workers = workers or plan.config.run.workers
        self.summary = Summary()
        self.computer = ShardComputer(
            plan, store, self.workers or len(os.sched_getaffinity(0)), self.events
        )
        self._status: dict[str, dict[int, dict[str, int]]] = defaultdict(dict)
        self._spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        # Of each step one shard that is there: its rows show what the columns of failed ones look
        # like.
        self._good = {
            step.name: task.index
            for step in plan.to_run
            if step.stored
            for task in step.tasks
            if not task.missing
            and all(store.has(step.output(output), key) for output, key in task.keys.items())
        }
        self._readers: dict[str, set[str]] = defaultdict(set)
        for step in plan.steps.values():
            for ref in step.inputs.values():
                self._readers[ref.step].add(step.name)

    def run(self) -> Summary:
        """Compute every missing output, commit it, and return what was done.

        Raises Interrupted after SIGINT with everything whole committed; TooManyFailures if a step
        lost more rows than run.max_failures allows; ResourceRefused, before anything is computed,
        where memory cannot suffice or a cluster cannot be used; any QfuseError of a stage.
        """
        steps = self.plan.to_run
        threads = max(
            (step.stage.context.profile.threads for step in self.plan.steps.values()), default=1
        )
        self._judge_former()
        # Nothing is known of the memory of other machines.
        if self.dask is None or str(self.dask).startswith("local:"):
            require_memory(self.plan, self.store, self.workers)
        try:
            with doubting(self.plan), threadpool_limits(threads):
                self._run(steps)
        except KeyboardInterrupt:
            raise Interrupted(INTERRUPTED) from None
        except QfuseError:
            raise
        except Exception as error:
            if refused := machine_refusal("the run", error):
                raise refused from error
            raise
        self.events.send(
            "run_finished", seconds={k: round(v, 3) for k, v in self.summary.seconds.items()}
        )
        return self.summary

    def results(self, step: Step, output: str = "", columns: Sequence[str] | None = None) -> Batch:
        """Return all rows of one output of a step."""
        with doubting(self.plan):
            return self.computer.source(step, output, range(len(step.tasks))).read(columns)

    def source(self, step: Step, output: str, shards: Sequence[int]) -> Source:
        """Return the named shards of one output of a step, each read when it is asked for."""
        return self.computer.source(step, output, shards)

    def work(self, step: Step, task: Task) -> Work:
        """Return what a group, tile or reduce step is given for one shard."""
        return self.computer.work(step, task)

    def _run(self, steps: list[Step]) -> None:
        announced: dict[str, Any] = {
            "steps": len(steps),
            "shards": sum(len(step.to_run) for step in steps),
        }
        executor: Executor
        if self.dask and steps:
            from pipeline.run.dask_executor import ClusterExecutor

            executor = cluster = ClusterExecutor(self.dask, self.plan, self.store, self.workers)
            announced |= {"workers": cluster.workers, "dashboard": cluster.dashboard}
            self.summary.notes = cluster.notes
        else:
            for profile in {step.stage.context.profile for step in steps if step.stage.gpu}:
                require_device(profile)
            executor = LocalExecutor(self.computer)
            self.summary.notes = notes_here(self.plan, self.store)
        whole = False
        try:
            self.events.send("run_started", **announced, notes=self.summary.notes)
            self._hand_out(executor)
            whole = True
        finally:
            executor.close(whole)

    def _hand_out(self, executor: Executor) -> None:
        ready = ReadyQueue(self.plan, executor.memory)
        held_back: dict[str, list[tuple[Job, Exception]]] = defaultdict(list)
        flying = 0
        while ready.left:
            # No more than there are slots: a job that becomes ready later may come earlier in the
            # plan.
            while flying < executor.slots and (job := ready.next()) is not None:
                executor.submit(job, self._good.get(job.step.name))
                flying += 1
                if job.step.name not in self._spans:
                    self._spans[job.step.name] = []
                    rows = len(job.step.to_run)  # a shard counts as one, unless it comes in rows
                    if job.step.stage.grain == "map":
                        rows = _rows_to_run(job.step)
                    self.events.send("step_started", step=job.step.name, rows=rows)
            executor.watch()
            # Wait at most a second, so that `watch` is called again; less if a slot is free and a
            # shard that was given back may be tried again sooner.
            try:
                job, outcome = executor.outcomes.get(
                    timeout=min(1.0, ready.patience()) if flying < executor.slots else 1.0
                )
            except queue.Empty:
                continue
            flying -= 1
            if isinstance(outcome, BaseException):
                raise outcome
            if isinstance(outcome, Busy):
                ready.later(job, RETRY_SECONDS)
            elif isinstance(outcome, NoGoodRow):
                held_back[job.step.name].append((job, outcome.error))
            else:
                self._note(job, outcome, executor.memory)
                if ready.done(job):
                    self._finish(job.step, ready)
            # Shards without a good row wait until another shard of the step has one. If no other is
            # left, every row of every shard raised, and it is the stage that is wrong.
            held = held_back[job.step.name]
            if held and job.step.name in self._good:
                while held:
                    ready.later(held.pop()[0], 0)
            elif held and len(held) == ready.unfinished(job.step.name):
                raise held[0][1]
        for step in self.plan.to_run:
            if step.name in self._status and step.name not in self.summary.seconds:
                self._finish(step, ready)  # kept in the memory of workers only, so never a job

    def _note(self, job: Job, outcome: Done, live: bool) -> None:
        step, now = job.step, time.perf_counter()
        # Any `Done` will do: even if all of its rows failed, they have the step's columns.
        self._good.setdefault(step.name, job.index)
        self._status[step.name][job.index] = outcome.status
        self._spans[step.name].append((now - outcome.seconds, now))
        for (name, index), (status, seconds) in outcome.on_the_way.items():
            self._status[name][index] = status
            self._spans[name].append((now - seconds, now))
            self._judge(self.plan.steps[name], whole=False)
        # Only this process sends `advance` while it computes; of all else it is told here, at once.
        if not (live and outcome.computed):
            rows = job.task.stop - job.task.start if step.stage.grain == "map" else 1
            self.events.send("advance", step=step.name, rows=rows)

    def _finish(self, step: Step, ready: ReadyQueue) -> None:
        """Judge a step that is complete, and drop from memory what nobody reads any more."""
        name = step.name
        self._judge(step)
        failed = Counter[str]()
        for counts in self._status[name].values():
            failed.update({status: count for status, count in counts.items() if status != "ok"})
        self.summary.failures[name] = dict(failed)
        self.summary.seconds[name] = _covered_seconds(self._spans[name])
        self.summary.rows[name] = _rows_to_run(step)
        self.events.send("step_finished", step=name, seconds=round(self.summary.seconds[name], 3))
        for ref in step.inputs.values():
            if not any(ready.unfinished(reader) for reader in self._readers[ref.step]):
                self.computer.cache.forget(ref.step)

    def _judge_former(self) -> None:
        """Raise TooManyFailures if a step finished by former runs lost more rows than allowed."""
        for step in self.plan.steps.values():
            if not step.to_run:
                self._judge(step)

    def _judge(self, step: Step, whole: bool = True) -> None:
        """Raise TooManyFailures if more of a step's rows failed, now or formerly, than is allowed.

        As long as a step is not `whole`, its other rows count as good.
        """
        first, schema = next(iter(step.stage.produces.items()))
        if all(field.name != "status" for field in schema.fields):
            return
        # What this run computed is known; of the rest the receipts tell, and no file is opened.
        rows, failed, known = 0, Counter[str](), self._status[step.name]
        for task in step.tasks:
            if task.index in known:
                counts = known[task.index]
            elif step.stored and self.store.has(step.output(first), task.keys[first]):
                counts = self.store.receipt(step.output(first), task.keys[first]).status
            else:
                continue
            rows += task.stop - task.start
            failed.update({name: count for name, count in counts.items() if name != "ok"})
        if not whole:
            rows = step.tasks[-1].stop
        lost, allowed = sum(failed.values()), self.plan.config.run.max_failures
        if rows and lost / rows > allowed:
            by = ", ".join(f"{count} {name}" for name, count in failed.most_common())
            raise TooManyFailures(
                f"{step.name}: {lost} of {counted(rows, 'row')} failed ({by}), more than"
                f" run.max_failures = {allowed:g} allows. `qfuse status` says why; fix the data, or"
                " raise the limit (--set run.max_failures=1) to go on without them."
            )


def _rows_to_run(step: Step) -> int:
    return sum(task.stop - task.start for task in step.to_run)


def _covered_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Return the seconds during which at least one of the spans lasted."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
