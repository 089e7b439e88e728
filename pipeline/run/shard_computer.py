"""Computes single shards of a plan in one process: what a run without a cluster, a worker and a
trial all do.

Everything that computes goes through one pool of threads. Shards of map steps pass through it in
micro-batches, one shard after the other: while the last micro-batches of one are still computed and
it is committed, the next is under way.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.core.schema import Batch, status_counts
from pipeline.core.stage import Source, Stage, Work
from pipeline.errors import INTERRUPTED, Interrupted
from pipeline.plan.dataset import Dataset
from pipeline.plan.graph import Ref, Step, Task
from pipeline.plan.plan import Plan
from pipeline.plan.ticket import Order
from pipeline.run import crash_probe
from pipeline.run.events import Events
from pipeline.run.microbatch import (
    DecoderCrash,
    Lost,
    Part,
    assemble,
    first_error,
    good_part,
    run_micro_batch,
)
from pipeline.run.shard_cache import Kept
from pipeline.store.claims import Claim, Journal, Rows
from pipeline.store.store import Store
from pipeline.system import fault_points
from pipeline.system.disk import writing

T = TypeVar("T")
# (step, shard) → (rows by status, seconds)
Inner = dict[tuple[str, int], tuple[dict[str, int], float]]


@dataclass(frozen=True)
class Done:
    """A shard that is there: rows of its first output by status, and how long it took; 0 where it
    was there before.

    `inner` says the same of shards that only memory keeps and that were computed on the way.
    """

    status: dict[str, int]
    seconds: float = 0.0
    computed: bool = False
    inner: Inner = field(default_factory=dict)


@dataclass(frozen=True)
class Busy:
    """Another living process works on the shard."""


@dataclass(frozen=True)
class Barren:
    """A shard whose every row raised; a good row of another shard has to show what failed rows look
    like.
    """

    error: Exception


Outcome = Done | Busy | Barren


class Workshop:
    """One plan's shards, computed here on `workers` threads. `budget` bounds the bytes of outputs
    that only memory keeps.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        workers: int,
        events: Events | None = None,
        budget: int | None = None,
    ) -> None:
        self.plan, self.store, self.workers = plan, store, workers
        self.kept = Kept(budget)
        self.stop = threading.Event()
        self._events = events or Events()
        self._pool = ThreadPoolExecutor(workers, "qfuse")
        self._turn = threading.Lock()  # of the map shard whose micro-batches go to the pool
        self._lock = threading.RLock()
        self._opened: set[str] = set()
        self._inner: Inner = {}
        self._journal = Journal(store.root)
        self._read = {ref for step in plan.steps.values() for ref in step.inputs.values()}

    def close(self) -> None:
        """Let nothing new begin; what computes now comes to its end by itself."""
        self.stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compute(self, step: Step, task: Task, example: int | None = None) -> Outcome:
        """Compute a shard, and commit it if its step is stored. `example` names a shard of the step
        that has good rows.

        What has been committed meanwhile, by whomever, is not computed again. Raises Interrupted
        after `close`, and what the stage and the store raise.
        """
        if step.stored and self._there(step, task):
            return self._former(step, task)
        with self._claimed(task, step.stored) as claim:
            if not step.stored:
                return self._done(step, task, claim, example)
            if claim is None:
                return Busy()
            return (
                self._former(step, task)
                if self._there(step, task)
                else self._done(step, task, claim, example)
            )

    def source(self, step: Step, output: str, shards: Sequence[int]) -> Source:
        """Return the named shards of an output, each read when it is asked for."""
        tasks = [step.tasks[i] for i in shards]
        return Source(
            tuple(task.start for task in tasks),
            tuple(task.stop for task in tasks),
            lambda index, columns: self._shard(step, output, tasks[index], columns),
        )

    def work(self, step: Step, task: Task) -> Work:
        """Return what a group, tile or reduce step is given for one shard."""
        tables = tables_of(step.stage, self.plan.dataset, task.start, task.stop)
        inputs = {
            key: self.source(self.plan.steps[ref.step], ref.output, task.needs[key])
            for key, ref in step.inputs.items()
        }
        return Work(task.start, task.stop, tables, inputs, self._pool, self.workers)

    def shard_rows(self, step: Step, task: Task) -> tuple[Batch, dict[str, Batch]]:
        """Return the table rows and the input rows of one shard of a map step."""
        axis = step.stage.axis
        rows = self.plan.dataset.part(
            axis, columns_of(step.stage, self.plan.dataset)[axis], axis, task.start, task.stop
        )
        inputs = {
            key: self.source(self.plan.steps[ref.step], ref.output, (task.index,)).read()
            for key, ref in step.inputs.items()
        }
        return rows, inputs

    def run_rows(
        self, step: Step, rows: Batch, inputs: dict[str, Batch], piece: Rows
    ) -> list[Part]:
        """Run a piece of what `shard_rows` gave, in this thread."""
        taken = slice(*piece)
        return run_micro_batch(
            step.stage, rows.take(taken), {key: batch.take(taken) for key, batch in inputs.items()}
        )

    def open(self, step: Step) -> None:
        """Open a step's stage, once."""
        with self._lock:
            if step.name not in self._opened:
                step.stage.open()
                self._opened.add(step.name)

    @contextmanager
    def _claimed(self, task: Task, stored: bool) -> Iterator[Claim | None]:
        """Claim a shard, as long as this lasts; None if another living process has it, or nothing
        is to be stored.
        """
        claim = None
        if stored or self.store.writable:
            self.store.require("committed")
            with writing(self.store.root):
                claim = self._journal.claim(task.name)
        whole = False
        try:
            yield claim
            whole = True
        finally:
            if claim is not None:
                claim.release(whole)

    def _there(self, step: Step, task: Task) -> bool:
        return all(
            self.store.has(step.output(output), task.keys[output])
            for output in task.missing or task.keys
        )

    def _former(self, step: Step, task: Task) -> Done:
        first = next(iter(step.stage.produces))
        if not self.store.has(step.output(first), task.keys[first]):
            return Done({})
        return Done(self.store.receipt(step.output(first), task.keys[first]).status)

    def _done(
        self, step: Step, task: Task, claim: Claim | None, example: int | None
    ) -> Done | Barren:
        self.open(step)
        if step.stage.grain != "map":
            outputs, begin = self._wait(self._pool.submit(self._whole, step, task))
            self._events.send("advance", step=step.name, rows=1)
        else:
            parts, begin = self._streamed(step, task, claim)
            good = good_part(parts) or self._example(step, example)
            if good is None:
                return Barren(first_error(parts))
            outputs = assemble(step.stage, parts, good)
        _check(step, outputs)
        if step.stored:
            self._commit(step, task, outputs)
        else:
            self.kept.put((step.name, task.index), outputs)
        status = status_counts(next(iter(outputs.values())))
        with self._lock:
            inner, self._inner = self._inner, {}
        return Done(status, time.perf_counter() - begin, True, inner)

    def _example(self, step: Step, shard: int | None) -> dict[str, Batch] | None:
        if shard is None:
            return None
        return {
            o: self._shard(step, o, step.tasks[shard], None).take(slice(0, 1))
            for o in step.stage.produces
        }

    def _streamed(self, step: Step, task: Task, claim: Claim | None) -> tuple[list[Part], float]:
        """Run the micro-batches of a map shard; return their parts, and when they began."""
        rows, inputs = self.shard_rows(step, task)
        crashing = self._crashing(step, task, claim)
        flying: deque[tuple[int, Future[list[Part]]]] = deque()
        parts: list[Part] = []

        def land() -> None:
            count, future = flying.popleft()
            landed = self._wait(future)
            parts.extend(landed)
            self._events.send("advance", step=step.name, rows=count)

        try:
            with self._turn:
                begin = time.perf_counter()
                for cut in micro_batches(step, task):
                    if self.stop.is_set():
                        raise Interrupted(INTERRUPTED)
                    if len(flying) >= 2 * self.workers:
                        land()
                    flying.append(
                        (
                            cut[1] - cut[0],
                            self._pool.submit(
                                self._micro, step, rows, inputs, cut, crashing, claim
                            ),
                        )
                    )
            while flying:
                land()
        except BaseException:
            for _, future in flying:
                future.cancel()
            raise
        return parts, begin

    def _crashing(self, step: Step, task: Task, claim: Claim | None) -> dict[int, str]:
        """Return the rows that end the process which runs them, of those that a dead process had in
        flight.
        """
        size = task.stop - task.start
        suspects = (
            [(first, min(stop, size)) for first, stop in claim.suspects if first < size]
            if claim
            else []
        )
        if not suspects:
            return {}
        return crash_probe.crashing(
            Order.of(self.plan, self.store), step.name, task.index, suspects, self.stop
        )

    def _micro(
        self,
        step: Step,
        rows: Batch,
        inputs: dict[str, Batch],
        cut: Rows,
        crashing: dict[int, str],
        claim: Claim | None,
    ) -> list[Part]:
        """Run one micro-batch, around the rows that are known to end the process."""
        parts: list[Part] = []
        for piece in _pieces(cut, crashing):
            if piece[0] in crashing:
                parts.append(Lost(DecoderCrash(crashing[piece[0]])))
                continue
            if claim is not None:
                claim.begin(piece)
            fault_points.at("batch:before_run", step.base)
            parts += self.run_rows(step, rows, inputs, piece)
            if claim is not None:
                claim.end(piece)
        return parts

    def _whole(self, step: Step, task: Task) -> tuple[dict[str, Batch], float]:
        """Compute a shard of a group, tile or reduce step; return its outputs, and when
        it began."""
        begin = time.perf_counter()
        return step.stage.compute(self.work(step, task)), begin

    def _wait(self, future: Future[T]) -> T:
        """Return what a future of the pool brings, or give up when the workshop is closed."""
        while not self.stop.is_set():
            try:
                return future.result(0.2)
            except CancelledError:
                break
            except TimeoutError:
                if future.done():
                    return future.result()  # the stage's own, if it is one
        future.cancel()
        raise Interrupted(INTERRUPTED)

    def _shard(self, step: Step, output: str, task: Task, columns: Sequence[str] | None) -> Batch:
        """Return a shard of an output: from the store, or from memory, computed now where that does
        not hold it.
        """
        if step.stored:
            return self.store.read(step.output(output), task.keys[output], columns)
        found = self.kept.get((step.name, task.index), lambda: self._made(step, task))[output]
        return found if columns is None else found.select(columns)

    def _made(self, step: Step, task: Task) -> dict[str, Batch]:
        """Compute a shard in this very thread, which is one of the pool's that needs it, or a
        reader's.
        """
        self.open(step)
        begin = time.perf_counter()
        if step.stage.grain != "map":
            outputs, _ = self._whole(step, task)
        else:
            parts = [part for found in self._inline(step, task) for part in found]
            others = (
                found
                for other in step.tasks
                if other is not task
                for found in self._inline(step, other)
            )
            good = good_part(parts) or next(filter(None, map(good_part, others)), None)
            if good is None:
                raise first_error(parts)
            outputs = assemble(step.stage, parts, good)
        _check(step, outputs)
        with self._lock:
            self._inner[step.name, task.index] = (
                status_counts(next(iter(outputs.values()))),
                time.perf_counter() - begin,
            )
        return outputs

    def _inline(self, step: Step, task: Task) -> Iterator[list[Part]]:
        """Run a map shard in this very thread, micro-batch by micro-batch."""
        rows, inputs = self.shard_rows(step, task)
        with self._claimed(task, False) as claim:
            crashing = self._crashing(step, task, claim)
            for cut in micro_batches(step, task):
                if self.stop.is_set():
                    raise Interrupted(INTERRUPTED)
                yield self._micro(step, rows, inputs, cut, crashing, claim)

    def _commit(self, step: Step, task: Task, outputs: dict[str, Batch]) -> None:
        # What others read is committed last: where it is present, a killed run has left nothing of
        # the shard out.
        provenance = {"step": step.name, "factors": step.factors, "preimage": task.preimage}
        provenance["computed_with"] = step.stage.computed_with
        for output, batch in sorted(
            outputs.items(), key=lambda item: Ref(step.name, item[0]) in self._read
        ):
            self.store.commit(
                step.output(output),
                task.keys[output],
                batch,
                step.stage.produces[output],
                provenance,
            )
            self._events.send(
                "committed", step=step.name, shard=task.index, output=output, key=task.keys[output]
            )


def _check(step: Step, outputs: dict[str, Batch]) -> None:
    for output, batch in outputs.items():
        step.stage.produces[output].check(batch, f"{step.name} {output}".strip())


def micro_batches(step: Step, task: Task) -> Iterator[Rows]:
    """Yield the rows (of the shard) of each micro-batch; one, an empty one, if there are none."""
    size, count = step.stage.context.profile.compute_batch, task.stop - task.start
    for start in range(0, max(count, 1), size):
        yield start, min(start + size, count)


def _pieces(cut: Rows, alone: dict[int, str]) -> Iterator[Rows]:
    """Cut a range of rows so that each of the rows in `alone` is a piece by itself."""
    start = cut[0]
    for row in sorted(row for row in alone if cut[0] <= row < cut[1]):
        if row > start:
            yield start, row
        yield row, row + 1
        start = row + 1
    if start < cut[1] or start == cut[0]:
        yield start, cut[1]


def tables_of(stage: Stage, dataset: Dataset, start: int, stop: int) -> dict[str, Batch]:
    """Return the tables of one shard, rows start…stop of its stage's axis."""
    known = columns_of(stage, dataset).items()
    return {
        table: dataset.part(table, columns, stage.cut_along, start, stop)
        for table, columns in known
    }


def columns_of(stage: Stage, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return every table column that a stage sees: what decides numbers and what only locates
    files.
    """
    merged = dict(stage.consumed())
    for table, columns in stage.locates.items():
        merged[table] = tuple(dict.fromkeys((*merged.get(table, ()), *columns)))
    if stage.grain == "map":
        # the rows themselves
        merged.setdefault(stage.axis, (dataset.layout.schemas[stage.axis].fields[0].name,))
    return merged
