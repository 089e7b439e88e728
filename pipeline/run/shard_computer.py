"""Computes single shards of a plan in one process: for a run, a worker or a trial.

Whoever wants a shard, `_make` makes it, and always in the same way: it cuts it into pieces (a
map's micro-batches; any other shard is one piece), has them computed, and puts them together.
Two things depend on who asks:

- Where the pieces are computed. Shards that the driver asks for use the pool of threads, where the
  micro-batches of one map shard follow those of the last without a gap. A shard that a *reader*
  needs, because only memory keeps it and memory does not hold it, is computed in the reader's own
  thread. That may be one of the pool's, and a pool whose threads all wait for it stands still.
- Where a good row comes from if every row of the shard raised. The driver names a shard that has
  one, or asks again when there is one. A reader cannot wait, so rows of other shards are computed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.core.schema import Batch, status_counts
from pipeline.core.stage import Source, Work
from pipeline.errors import INTERRUPTED, Interrupted
from pipeline.plan.graph import Ref, Step, Task
from pipeline.plan.plan import Plan
from pipeline.plan.shard_tables import columns_seen, tables_of_shard
from pipeline.plan.ticket import Ticket
from pipeline.run import crash_probe
from pipeline.run.events import Events
from pipeline.run.microbatch import (
    DecoderCrash,
    LostRow,
    Part,
    assemble,
    cut_around,
    first_error,
    good_part,
    micro_batches,
    run_micro_batch,
)
from pipeline.run.shard_cache import ShardCache
from pipeline.store.claims import Claim, Journal, RowRange
from pipeline.store.store import Store
from pipeline.system import fault_points
from pipeline.system.disk import writing

T = TypeVar("T")
# (step, shard) → (rows by status, seconds)
ShardStats = dict[tuple[str, int], tuple[dict[str, int], float]]


@dataclass(frozen=True)
class Done:
    """A shard that is there: rows of its first output by status, and how long it took.

    The seconds are 0 where it was there before. `on_the_way` says the same of shards that were
    computed because this one read them, and that only memory keeps. `worker` is the address of the
    cluster's worker that computed it.
    """

    status: dict[str, int]
    seconds: float = 0.0
    computed: bool = False
    on_the_way: ShardStats = field(default_factory=dict)
    worker: str = ""


@dataclass(frozen=True)
class Busy:
    """Another living process works on the shard."""


@dataclass(frozen=True)
class NoGoodRow:
    """A shard whose every row raised: only a good row of another can show how failed rows look."""

    error: Exception


Outcome = Done | Busy | NoGoodRow


@dataclass(frozen=True)
class _Piece:
    """What one thread computes at a time: a micro-batch, or a whole shard of any step but a map."""

    rows: int  # for the display of progress; a shard that is one piece counts as one
    run: Callable[[], list[Part]]

    def __call__(self) -> _Result:
        begin = time.perf_counter()
        return _Result(self.run(), begin)


@dataclass(frozen=True)
class _Result:
    """The parts that came of a piece, and when its computation began."""

    parts: list[Part]
    begin: float


RunPieces = Callable[[Step, Sequence[_Piece]], list[_Result]]


class ShardComputer:
    """One plan's shards, computed here on `workers` threads.

    `budget` bounds the bytes of outputs that only memory keeps.
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
        self.cache = ShardCache(budget)
        self.stop = threading.Event()
        self._events = events or Events()
        self._pool = ThreadPoolExecutor(workers, "qfuse")
        self._turn = threading.Lock()  # held by the map shard that hands over micro-batches
        self._lock = threading.RLock()  # guards the two below
        self._opened: set[str] = set()
        self._on_the_way: ShardStats = {}  # made for readers, and not yet told in a `Done`
        self._journal = Journal(store.root)
        self._read_refs = {ref for step in plan.steps.values() for ref in step.inputs.values()}

    def close(self) -> None:
        """Let nothing new begin; what computes now comes to its end by itself."""
        self.stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compute(self, step: Step, task: Task, example: int | None = None) -> Outcome:
        """Compute a shard; commit it if its step is stored, and keep it in memory otherwise.

        `example` names a shard of the step that has good rows. What has been committed meanwhile,
        by whomever, is not computed again. Raises Interrupted after `close`, and what the stage and
        the store raise.
        """
        if step.stored and self._is_stored(step, task):
            return self._found(step, task)
        with self._claimed(step, task) as claim:
            if step.stored and claim is None:
                return Busy()
            # Another process may have committed it between the first look and our claim.
            if step.stored and self._is_stored(step, task):
                return self._found(step, task)
            examples = self._first_row(step, example)
            computed = self._make(step, task, claim, self._in_pool, examples)
            if isinstance(computed, NoGoodRow):
                return computed
            outputs, begin = computed
            if step.stored:
                self._commit(step, task, outputs)
            else:
                self.cache.put((step.name, task.index), outputs)
        with self._lock:
            on_the_way, self._on_the_way = self._on_the_way, {}
        return Done(_statuses(outputs), time.perf_counter() - begin, True, on_the_way)

    def source(self, step: Step, output: str, shards: Sequence[int]) -> Source:
        """Return the named shards of an output, each read when it is asked for."""
        tasks = [step.tasks[i] for i in shards]
        return Source(
            tuple(task.start for task in tasks),
            tuple(task.stop for task in tasks),
            lambda index, columns: self._read_shard(step, output, tasks[index], columns),
        )

    def work(self, step: Step, task: Task) -> Work:
        """Return what a group, tile or reduce step is given for one shard."""
        tables = tables_of_shard(step.stage, self.plan.dataset, task.start, task.stop)
        inputs = {
            key: self.source(self.plan.steps[ref.step], ref.output, task.needs[key])
            for key, ref in step.inputs.items()
        }
        return Work(task.start, task.stop, tables, inputs, self._pool, self.workers)

    def shard_rows(self, step: Step, task: Task) -> tuple[Batch, dict[str, Batch]]:
        """Return the table rows and the input rows of one shard of a map step."""
        axis = step.stage.axis
        columns = columns_seen(step.stage, self.plan.dataset)[axis]
        rows = self.plan.dataset.part(axis, columns, axis, task.start, task.stop)
        inputs = {
            key: self.source(self.plan.steps[ref.step], ref.output, (task.index,)).read()
            for key, ref in step.inputs.items()
        }
        return rows, inputs

    def run_rows(
        self, step: Step, rows: Batch, inputs: dict[str, Batch], piece: RowRange
    ) -> list[Part]:
        """Run a range of the rows that `shard_rows` gave, in this thread."""
        taken = slice(*piece)
        return run_micro_batch(
            step.stage, rows.take(taken), {key: batch.take(taken) for key, batch in inputs.items()}
        )

    def open(self, step: Step) -> None:
        """Open a step's stage, once."""
        # The lock is held while a model is loaded, so that nobody loads it a second time.
        with self._lock:
            if step.name not in self._opened:
                step.stage.open()
                self._opened.add(step.name)

    def _read_shard(
        self, step: Step, output: str, task: Task, columns: Sequence[str] | None
    ) -> Batch:
        """Return a shard of an output: from the store or from memory, or else computed now."""
        if step.stored:
            return self.store.read(step.output(output), task.keys[output], columns)
        outputs = self.cache.get((step.name, task.index), lambda: self._make_for_reader(step, task))
        return outputs[output] if columns is None else outputs[output].select(columns)

    def _make_for_reader(self, step: Step, task: Task) -> dict[str, Batch]:
        """Compute, in this very thread, a shard that a reader needs and memory does not hold."""
        with self._claimed(step, task) as claim:
            examples = self._good_rows_of_others(step, task)
            computed = self._make(step, task, claim, self._in_this_thread, examples)
        if isinstance(computed, NoGoodRow):
            raise computed.error
        outputs, begin = computed
        with self._lock:
            self._on_the_way[step.name, task.index] = (
                _statuses(outputs),
                time.perf_counter() - begin,
            )
        return outputs

    def _make(
        self,
        step: Step,
        task: Task,
        claim: Claim | None,
        run_pieces: RunPieces,
        examples: Iterator[dict[str, Batch]],
    ) -> tuple[dict[str, Batch], float] | NoGoodRow:
        """Compute a shard's outputs; return them, and when their computation began.

        `run_pieces` is `_in_pool` or `_in_this_thread`. `examples` are good rows of other shards,
        looked for only if this one has none.
        """
        self.open(step)
        computed = run_pieces(step, self._pieces(step, task, claim))
        parts = [part for piece in computed for part in piece.parts]
        # A failed row needs columns, and some have lengths that only data shows.
        good = good_part(parts) or next(examples, None)
        if good is None:
            return NoGoodRow(first_error(parts))
        outputs = assemble(step.stage, parts, good)
        for output, batch in outputs.items():
            step.stage.produces[output].check(batch, f"{step.name} {output}".strip())
        return outputs, computed[0].begin

    def _pieces(self, step: Step, task: Task, claim: Claim | None) -> list[_Piece]:
        """Cut a shard into what one thread computes at a time; a map shard's rows are read here."""
        if step.stage.grain != "map":
            return [_Piece(1, lambda: [step.stage.compute(self.work(step, task))])]
        rows, inputs = self.shard_rows(step, task)
        fatal = self._fatal_rows(step, task, claim)

        def piece(cut: RowRange) -> _Piece:
            return _Piece(
                cut[1] - cut[0], lambda: self._micro_batch(step, rows, inputs, cut, fatal, claim)
            )

        return [piece(cut) for cut in micro_batches(step, task)]

    def _micro_batch(
        self,
        step: Step,
        rows: Batch,
        inputs: dict[str, Batch],
        cut: RowRange,
        fatal: dict[int, str],
        claim: Claim | None,
    ) -> list[Part]:
        """Run one micro-batch, around the rows that are known to end the process."""
        parts: list[Part] = []
        for piece in cut_around(cut, fatal):
            if piece[0] in fatal:
                parts.append(LostRow(DecoderCrash(fatal[piece[0]])))
                continue
            # If a row kills the process in between, the journal tells the next one where to look.
            if claim is not None:
                claim.begin(piece)
            fault_points.at("batch:before_run", step.base)
            parts += self.run_rows(step, rows, inputs, piece)
            if claim is not None:
                claim.end(piece)
        return parts

    def _in_pool(self, step: Step, pieces: Sequence[_Piece]) -> list[_Result]:
        """Compute pieces on the threads of the pool, and say so as each is done."""
        flying: deque[tuple[_Piece, Future[_Result]]] = deque()
        landed: list[_Result] = []

        def land() -> None:
            piece, future = flying.popleft()
            landed.append(self._wait(future))
            self._events.send("advance", step=step.name, rows=piece.rows)

        # One map shard at a time hands over its micro-batches, so that shards end one after the
        # other. It passes the turn on when the last is handed over, not when it is computed: those
        # of the next shard follow at once, and no thread idles while this shard is committed.
        try:
            with self._turn if step.stage.grain == "map" else nullcontext():
                for piece in pieces:
                    if self.stop.is_set():
                        raise Interrupted(INTERRUPTED)
                    # More in flight would keep no thread busier, and hold more results in memory.
                    if len(flying) >= 2 * self.workers:
                        land()
                    flying.append((piece, self._pool.submit(piece)))
            while flying:
                land()
        except BaseException:
            for _, future in flying:
                future.cancel()
            raise
        return landed

    def _in_this_thread(self, step: Step, pieces: Sequence[_Piece]) -> list[_Result]:
        """Compute pieces one after the other; they are not part of the progress shown."""
        return list(self._one_by_one(pieces))

    def _one_by_one(self, pieces: Sequence[_Piece]) -> Iterator[_Result]:
        for piece in pieces:
            if self.stop.is_set():
                raise Interrupted(INTERRUPTED)
            yield piece()

    def _wait(self, future: Future[T]) -> T:
        """Return what a future of the pool brings, or give up when this computer is closed."""
        # In short waits, because a long one would not notice `stop`.
        while not self.stop.is_set():
            try:
                return future.result(0.2)
            except CancelledError:
                break
            except TimeoutError:
                # It may be the stage that raised a TimeoutError; that one is raised again here.
                if future.done():
                    return future.result()
        future.cancel()
        raise Interrupted(INTERRUPTED)

    def _first_row(self, step: Step, shard: int | None) -> Iterator[dict[str, Batch]]:
        """Yield the first row of a shard that is known to have good ones, if one is."""
        if shard is not None:
            task = step.tasks[shard]
            yield {
                output: self._read_shard(step, output, task, None).take(slice(0, 1))
                for output in step.stage.produces
            }

    def _good_rows_of_others(self, step: Step, task: Task) -> Iterator[dict[str, Batch]]:
        """Yield good rows of the step's other shards, which are computed no further than needed."""
        for other in step.tasks:
            if other is not task:
                with self._claimed(step, other) as claim:
                    for computed in self._one_by_one(self._pieces(step, other, claim)):
                        if good := good_part(computed.parts):
                            yield good

    @contextmanager
    def _claimed(self, step: Step, task: Task) -> Iterator[Claim | None]:
        """Claim a shard, as long as this lasts; None if that is impossible, or of no use.

        A shard to be stored is claimed so that nobody else computes it. One that only memory keeps
        may be computed by several, but a claim also remembers the rows in flight: those of a map
        step are claimed where the store can be written.
        """
        claim = None
        if step.stored or (step.stage.grain == "map" and self.store.writable):
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

    def _fatal_rows(self, step: Step, task: Task, claim: Claim | None) -> dict[int, str]:
        """Return the rows that end the process which runs them, each with a sentence that says how.

        Only rows that a dead process had in flight are tried.
        """
        if claim is None:
            return {}
        size = task.stop - task.start
        suspects = [(first, min(stop, size)) for first, stop in claim.suspects if first < size]
        if not suspects:
            return {}
        return crash_probe.crashing(
            Ticket.of(self.plan, self.store), step.name, task.index, suspects, self.stop
        )

    def _is_stored(self, step: Step, task: Task) -> bool:
        """Whether the store has every output of a shard that is wanted."""
        return all(
            self.store.has(step.output(output), task.keys[output])
            for output in task.missing or task.keys
        )

    def _found(self, step: Step, task: Task) -> Done:
        """Return the outcome of a shard that somebody committed before."""
        first = next(iter(step.stage.produces))
        if not self.store.has(step.output(first), task.keys[first]):
            return Done({})
        return Done(self.store.receipt(step.output(first), task.keys[first]).status)

    def _commit(self, step: Step, task: Task, outputs: dict[str, Batch]) -> None:
        """Commit every output of a shard."""
        provenance = {"step": step.name, "factors": step.factors, "preimage": task.preimage}
        provenance["computed_with"] = step.stage.computed_with
        # What others read is committed last: where it is present, a killed run has left nothing of
        # the shard out.
        for output, batch in sorted(
            outputs.items(), key=lambda item: Ref(step.name, item[0]) in self._read_refs
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


def _statuses(outputs: dict[str, Batch]) -> dict[str, int]:
    """Return how many rows of a shard's first output have each status."""
    return status_counts(next(iter(outputs.values())))
