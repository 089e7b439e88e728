"""Run a Plan in one process.

`map` steps stream micro-batches through a pool of workers across shard boundaries: while one shard is committed the
next is already being computed. The small steps below run side by side.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from threadpoolctl import threadpool_limits

from pipeline.dataset import Dataset
from pipeline.errors import Interrupted, QfuseError, TooManyFailures
from pipeline.events import Events
from pipeline.graph import Ref, Step, Task
from pipeline.microbatch import Part, assemble, first_error, good_part, refusal, run_micro_batch
from pipeline.numerics import require_device
from pipeline.plan import Plan
from pipeline.schema import Batch, status_counts
from pipeline.stage import Source, Stage, Work
from pipeline.store import Store


@dataclass
class Summary:
    """What a run did: seconds and rows a step, and failed rows by status."""

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)

    def by_stage(self) -> dict[str, tuple[int, int, float]]:
        """Return (steps, rows, seconds of work) for each config step, its factors taken together."""
        totals: dict[str, tuple[int, int, float]] = {}
        for name, seconds in self.seconds.items():
            steps, rows, spent = totals.get(name.partition("[")[0], (0, 0, 0.0))
            totals[name.partition("[")[0]] = (steps + 1, rows + self.rows[name], spent + seconds)
        return totals


class Runner:
    """Computes what a plan lacks. `results` reads any output of the plan, from memory or from the store."""

    def __init__(self, plan: Plan, store: Store, events: Events | None = None, workers: int | None = None) -> None:
        self.plan = plan
        self.store = store
        self.events = events or Events()
        self.workers = workers or plan.config.run.workers or len(os.sched_getaffinity(0))
        self.summary = Summary()
        self._memory: dict[tuple[str, str, int], Batch] = {}
        self._stop = threading.Event()
        self._pending: dict[str, int] = {}
        self._read = {ref for step in plan.steps.values() for ref in step.inputs.values()}

    def run(self) -> Summary:
        """Compute every missing output, commit it, and return what was done.

        Raises Interrupted after SIGINT with everything whole committed; TooManyFailures where a step lost more rows
        than run.max_failures allows; any QfuseError of a stage.
        """
        steps = self.plan.to_run
        for profile in {step.stage.context.profile for step in steps}:
            require_device(profile)
        for step in steps:
            for ref in step.inputs.values():
                self._pending[ref.step] = self._pending.get(ref.step, 0) + 1
        threads = max((step.stage.context.profile.threads for step in steps), default=1)
        self.events.send("run_started", steps=len(steps), shards=sum(len(s.to_run) for s in steps))
        self.judge_former()
        try:
            with threadpool_limits(threads), ThreadPoolExecutor(self.workers, "qfuse") as pool:
                try:
                    self._steps(deque(steps), pool)
                except BaseException:
                    self._stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        except KeyboardInterrupt:
            raise Interrupted("interrupted: every finished shard is kept; the same command continues from there.") from None
        except QfuseError:
            raise
        except Exception as error:
            if refused := refusal("the run", error):
                raise refused from error
            raise
        self.events.send("run_finished", seconds={k: round(v, 3) for k, v in self.summary.seconds.items()})
        return self.summary

    def results(self, step: Step, output: str = "", columns: Sequence[str] | None = None) -> Batch:
        """Return all rows of one output of a step."""
        return self.source(step, output, range(len(step.tasks))).read(columns)

    def source(self, step: Step, output: str, shards: Sequence[int]) -> Source:
        tasks = [step.tasks[i] for i in shards]

        def read(index: int, columns: Sequence[str] | None) -> Batch:
            task = tasks[index]
            kept = self._memory.get((step.name, output, task.index))
            if kept is not None:
                return kept if columns is None else kept.select(columns)
            return self.store.read(step.output(output), task.keys[output], columns)

        return Source(tuple(t.start for t in tasks), tuple(t.stop for t in tasks), read)

    def _steps(self, waiting: deque[Step], pool: ThreadPoolExecutor) -> None:
        """Start each step when its inputs are there: a map step alone with the whole pool, others side by side."""
        running: dict[Future[float], Step] = {}
        unfinished = {step.name for step in waiting}
        while waiting or running:
            started = False
            for step in list(waiting):
                if any(ref.step in unfinished for ref in step.inputs.values()):
                    continue
                if step.stage.grain == "map":
                    if running:
                        break  # wait: a map step wants the whole pool
                    waiting.remove(step)
                    self._finish(step, self._map(step, pool), unfinished)
                    started = True
                    break
                if len(running) < self.workers:
                    waiting.remove(step)
                    running[pool.submit(self._shards, step)] = step
                    started = True
            if running and not started:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._finish(running.pop(future), future.result(), unfinished)

    def _finish(self, step: Step, seconds: float, unfinished: set[str]) -> None:
        self._judge(step)
        unfinished.discard(step.name)
        self.summary.seconds[step.name] = seconds
        self.summary.rows[step.name] = sum(task.stop - task.start for task in step.to_run)
        self.events.send("step_finished", step=step.name, seconds=round(seconds, 3))
        for ref in step.inputs.values():
            self._pending[ref.step] -= 1
            if self._pending[ref.step] == 0:
                for name in [name for name in self._memory if name[0] == ref.step]:
                    del self._memory[name]

    def _shards(self, step: Step) -> float:
        """Run a group, tile or reduce step."""
        begin = time.perf_counter()
        stage, dataset = step.stage, self.plan.dataset
        self.events.send("step_started", step=step.name, rows=len(step.to_run))
        stage.open()
        for task in step.to_run:
            if self._stop.is_set():
                raise Interrupted("stopped")
            axis = "" if stage.grain == "reduce" else stage.axis
            tables = {
                table: dataset.part(table, columns, axis, task.start, task.stop)
                for table, columns in _columns(stage, dataset).items()
            }
            inputs = {
                key: self.source(self.plan.steps[ref.step], ref.output, task.needs[key]) for key, ref in step.inputs.items()
            }
            self._commit(step, task, stage.compute(Work(task.start, task.stop, tables, inputs)))
            self.events.send("advance", step=step.name, rows=1)
        return time.perf_counter() - begin

    def _map(self, step: Step, pool: ThreadPoolExecutor) -> float:
        """Run a map step: micro-batches of all shards in one stream, shards assembled and committed in order."""
        begin = time.perf_counter()
        step.stage.open()
        self.events.send("step_started", step=step.name, rows=sum(t.stop - t.start for t in step.to_run))
        stream = self._micro_batches(step)
        flying: deque[tuple[Task, int, bool, Future[list[Part]]]] = deque()
        parts: list[Part] = []
        example: dict[str, Batch] | None = None
        waiting: list[tuple[Task, list[Part]]] = []  # shards without a good row, as long as there is no example
        commits: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1, "qfuse-commit") as writer:
            while True:
                while len(flying) < 2 * self.workers and (job := next(stream, None)) is not None:
                    task, rows, inputs, last = job
                    flying.append((task, rows.rows, last, pool.submit(run_micro_batch, step.stage, rows, inputs)))
                if not flying:
                    break
                task, count, last, future = flying.popleft()
                parts += future.result()
                self.events.send("advance", step=step.name, rows=count)
                if last:
                    waiting.append((task, parts))
                    example = example or good_part(parts) or self._stored_example(step)
                    parts = []
                    if example is None:
                        continue
                    commits += [writer.submit(self._commit, step, t, assemble(step.stage, p, example)) for t, p in waiting]
                    waiting = []
                    while len(commits) > 2:
                        commits.popleft().result()
            if waiting:
                raise first_error(waiting[0][1])  # every row raised, so it is the stage that is wrong
            for commit in commits:
                commit.result()
        return time.perf_counter() - begin

    def _stored_example(self, step: Step) -> dict[str, Batch] | None:
        """Return one row of a shard that a former run stored, for the shapes of shards that have no good row."""
        for task in step.tasks:
            if step.stored and all(self.store.has(step.output(o), key) for o, key in task.keys.items()):
                return {o: self.store.read(step.output(o), key, rows=slice(0, 1)) for o, key in task.keys.items()}
        return None

    def _micro_batches(self, step: Step) -> Iterator[tuple[Task, Batch, dict[str, Batch], bool]]:
        """Yield (task, table rows, input rows, whether the shard ends here); batches never cross a shard."""
        stage, size = step.stage, step.stage.context.profile.compute_batch
        columns = _columns(stage, self.plan.dataset)
        for task in step.to_run:
            rows = self.plan.dataset.part(stage.axis, columns[stage.axis], stage.axis, task.start, task.stop)
            inputs = {
                key: self.source(self.plan.steps[ref.step], ref.output, (task.index,)).read()
                for key, ref in step.inputs.items()
            }
            count = task.stop - task.start
            for start in range(0, max(count, 1), size):
                cut = slice(start, min(start + size, count))
                yield task, rows.take(cut), {k: b.take(cut) for k, b in inputs.items()}, cut.stop >= count

    def _commit(self, step: Step, task: Task, outputs: dict[str, Batch]) -> None:
        # What others read is committed last: where it is present, a killed run has left nothing of the shard out.
        first = next(iter(outputs))
        for output, batch in sorted(outputs.items(), key=lambda item: Ref(step.name, item[0]) in self._read):
            step.stage.produces[output].check(batch, f"{step.name} {output}".strip())
            if output == first:
                failed = self.summary.failures.setdefault(step.name, {})
                for name, count in status_counts(batch).items():
                    if name != "ok":
                        failed[name] = failed.get(name, 0) + count
            if step.stored:
                provenance = {"step": step.name, "factors": step.factors, "preimage": task.preimage}
                self.store.commit(step.output(output), task.keys[output], batch, step.stage.produces[output], provenance)
                self.events.send("committed", step=step.name, shard=task.index, output=output, key=task.keys[output])
            else:
                self._memory[step.name, output, task.index] = batch

    def judge_former(self) -> None:
        """Raise TooManyFailures where a step that former runs finished lost more rows than is allowed."""
        for step in self.plan.steps.values():
            if not step.to_run:
                self._judge(step)

    def _judge(self, step: Step) -> None:
        """Raise TooManyFailures where more of a step's rows failed, now or in a former run, than is allowed."""
        first, schema = next(iter(step.stage.produces.items()))
        if all(field.name != "status" for field in schema.fields):
            return
        rows, failed = 0, Counter[str]()
        for task in step.tasks:
            kept = self._memory.get((step.name, first, task.index))
            if kept is not None:
                counts = status_counts(kept)
            elif step.stored and self.store.has(step.output(first), task.keys[first]):
                counts = self.store.receipt(step.output(first), task.keys[first]).status
            else:
                continue
            rows += task.stop - task.start
            failed.update({name: count for name, count in counts.items() if name != "ok"})
        lost, allowed = sum(failed.values()), self.plan.config.run.max_failures
        if rows and lost / rows > allowed:
            counted = ", ".join(f"{count} {name}" for name, count in failed.most_common())
            raise TooManyFailures(
                f"{step.name}: {lost} of {rows} rows failed ({counted}), more than run.max_failures = {allowed:g} allows. "
                "`qfuse status` says why; mend the data, or raise the limit (--set run.max_failures=1) to go on without them."
            )


def _columns(stage: Stage, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Every table column that a stage sees: what decides numbers and what only locates files."""
    merged = dict(stage.consumed())
    for table, columns in stage.locates.items():
        merged[table] = tuple(dict.fromkeys((*merged.get(table, ()), *columns)))
    if stage.grain == "map":
        merged.setdefault(stage.axis, (dataset.layout.schemas[stage.axis].fields[0].name,))  # the rows themselves
    return merged
