"""How much memory a plan takes at its peak, estimated before any work starts.

A plan that cannot get that much is refused.

The estimate follows the order in which a run in one process hands out its shards and counts arrays:
what the shards under way read and write, what their stages say that they hold besides, and what
only memory keeps until its last reader is done. It is a lower bound, made to catch what cannot fit:
models, decoded photographs, the data set's tables (they are there already), copies that are gone
soon and what libraries keep for themselves are not in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from pipeline.core.schema import Field
from pipeline.errors import CorruptArtifact, ResourceRefused
from pipeline.plan.forecast import workers_of
from pipeline.plan.graph import Ref, Step, Task
from pipeline.plan.plan import Plan
from pipeline.plan.shard_tables import tables_of_shard
from pipeline.run.ready_queue import Job, ReadyQueue
from pipeline.store.store import Store
from pipeline.system.available import available_memory

# bytes of a text: its place in the array; what most rows share (no reason) is one text for all of
# them
TEXT_BYTES = 8
# the length of an open dimension that neither stage, tables, inputs nor the store tell
OPEN_LENGTH = 512


@dataclass(frozen=True)
class Arrays:
    """Arrays that one step holds at one time: so many `rows` of them, if they are rows."""

    step: str
    what: str
    bytes: int
    rows: int = 0

    def __str__(self) -> str:
        rows = self.what
        if self.rows:
            rows = f"{self.rows:,} {self.what} of {self.bytes // self.rows:,} bytes"
        return f"{rows} = {size_in_words(self.bytes)}"


@dataclass(frozen=True)
class Need:
    """What is in memory when a step takes most.

    That is its own arrays, those of what runs beside it, and those that wait for their readers.
    """

    step: str
    parts: tuple[Arrays, ...]  # the largest first

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


def estimate(plan: Plan, store: Store, workers: int | None = None) -> list[Need]:
    """Return what each step that will run needs at its peak, in the order of the plan.

    Nothing is read but receipts.
    """
    workers = workers_of(plan, workers)
    sizes, ready = _Sizes(plan, store), ReadyQueue(plan, memory=True)
    readers: dict[str, set[str]] = defaultdict(set)
    for step in plan.steps.values():
        for ref in step.inputs.values():
            readers[ref.step].add(step.name)
    # Play the run through: the same queue hands out the same shards, and the oldest ends first.
    flying: list[_ShardLoad] = []
    kept: dict[str, list[Arrays]] = defaultdict(list)
    worst: dict[str, tuple[int, list[Arrays]]] = {}
    while ready.left:
        # One more than compute at once: as in a run, it reads while the others compute.
        while len(flying) <= workers and (job := ready.next()) is not None:
            flying.append(_ShardLoad(job, *sizes.arrays(job.step, job.task)))
        parts = [part for held in kept.values() for part in held] + list(
            _under_way(flying, workers)
        )
        total = sum(part.bytes for part in parts)
        for load in flying:
            if total > worst.get(load.job.step.name, (-1, []))[0]:
                worst[load.job.step.name] = total, parts
        # The first ends. What it wrote stays in memory until the last reader of its step is done.
        load = flying.pop(0)
        step = load.job.step
        if not step.stored:
            kept[step.name] = _merged([*kept[step.name], *load.writes])
        if ready.done(load.job):
            for ref in step.inputs.values():
                if not any(ready.unfinished(reader) for reader in readers[ref.step]):
                    kept.pop(ref.step, None)
    return [Need(name, tuple(_merged(worst[name][1]))) for name in plan.steps if name in worst]


def require_memory(plan: Plan, store: Store, workers: int | None = None) -> None:
    """Raise ResourceRefused if a plan needs more memory than this process may use.

    Where that is unknown, nothing is refused.
    """
    available = available_memory(plan.config.run.memory)
    worst = max(estimate(plan, store, workers), key=lambda need: need.bytes, default=None)
    if available is None or worst is None or worst.bytes <= available:
        return
    largest = worst.parts[0]
    step, alone = plan.steps[largest.step], max(need.bytes for need in estimate(plan, store, 1))
    axis = plan.dataset.axes[step.stage.axis]
    todo = []
    if alone <= available:
        todo.append(f"use one worker (--workers 1: about {size_in_words(alone)})")
    of_a_shard = step.stored or largest.what not in {
        schema.name for schema in step.stage.produces.values()
    }
    if step.stage.grain in ("map", "group") and of_a_shard and axis.shard_rows > 1:
        todo.append(f"make dataset.shard_rows.{step.stage.axis} smaller (now {axis.shard_rows:,})")
    pairings = plan.dataset.tables.get("pairings")
    if step.stage.grain in ("tile", "reduce") and (
        axis.multiple > 1 or (pairings is not None and pairings.rows > 0)
    ):
        todo.append(f"list the {step.stage.axis} that count in place of all `pairings`")
    todo = [
        *(todo or ["use a smaller data set or a machine with more memory"]),
        "set run.memory to the GB that it may take",
    ]
    shown = [part for part in worst.parts[:4] if part.bytes > 0.02 * worst.bytes]
    listed = [f"{part}" if part.step == step.name else f"{part.step}: {part}" for part in shown]
    raise ResourceRefused(
        f"{step.name} would take at least {size_in_words(worst.bytes)} of memory, and"
        f" {size_in_words(available)} are available:"
        f" {'; '.join(listed)}."
        f" Nothing was computed: {', or '.join(todo)}."
    )


def outlook(plan: Plan, needs: Iterable[Need]) -> str:
    """Return the line that tells a plan's peak; empty if nothing is to run."""
    peak = max((need.bytes for need in needs), default=0)
    available = available_memory(plan.config.run.memory)
    known = "" if available is None else f" of {size_in_words(available)} available"
    return f"peak memory about {size_in_words(peak)}{known}" if peak else ""


def size_in_words(size: int) -> str:
    """Return bytes as GB, or as MB where they are fewer than one GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


@dataclass(frozen=True)
class _ShardLoad:
    """One shard under way. A map's `reads` are one shard's, and `holds` one micro-batch's."""

    job: Job
    reads: list[Arrays]
    writes: list[Arrays]
    holds: list[Arrays]


class _Sizes:
    """How large the shards of a plan are."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._columns: dict[tuple[str, str], dict[str, int]] = {}
        self._stated: dict[tuple[object, ...], Mapping[str, int]] = {}

    def arrays(self, step: Step, task: Task) -> tuple[list[Arrays], list[Arrays], list[Arrays]]:
        """Return what a shard reads, writes and holds besides.

        What memory keeps anyway is read without a copy.
        """
        reads, writes = [], []
        for key, ref in step.inputs.items():
            above = self._plan.steps[ref.step]
            if above.stored or len(task.needs[key]) > 1:
                rows, name = (
                    _rows_of_shards(above, task.needs[key]),
                    above.stage.produces[ref.output].name,
                )
                reads.append(
                    Arrays(
                        step.name, f"{name} to read", rows * sum(self.columns(ref).values()), rows
                    )
                )
        for output, schema in step.stage.produces.items():
            rows = _rows_of_shards(step, (task.index,))
            writes.append(
                Arrays(
                    step.name,
                    schema.name,
                    rows * sum(self.columns(Ref(step.name, output)).values()),
                    rows,
                )
            )
        columns = {field.name for schema in step.stage.produces.values() for field in schema.fields}
        stated = {
            what: size for what, size in self.stated(step, task).items() if what not in columns
        }
        return reads, writes, [Arrays(step.name, what, size) for what, size in stated.items()]

    def stated(self, step: Step, task: Task) -> Mapping[str, int]:
        """Return what a stage says that a shard (map: its first micro-batch) holds in memory."""
        stage, dataset, mapped = step.stage, self._plan.dataset, step.stage.grain == "map"
        stop = task.stop
        if mapped:
            stop = min(stop, task.start + stage.context.profile.compute_batch)
        if mapped:
            # A micro-batch reads the same rows of every input.
            rows = dict.fromkeys(step.inputs, stop - task.start)
        else:
            rows = {
                key: _rows_of_shards(self._plan.steps[ref.step], task.needs[key])
                for key, ref in step.inputs.items()
            }
        rows[""] = stop - task.start
        sizes = {key: self.columns(ref) for key, ref in step.inputs.items()}
        asked = (
            stage.name,
            repr(stage.options),
            stage.context.profile,
            rows[""] if mapped else (task.start, stop),
        )
        # Cells that differ only in which step they read are asked once.
        name = (*asked, repr(rows), repr(sizes))
        if name not in self._stated:
            self._stated[name] = stage.memory(
                rows, sizes, tables_of_shard(stage, dataset, task.start, stop)
            )
        return self._stated[name]

    def columns(self, ref: Ref) -> dict[str, int]:
        """Return the bytes that a row of an output has in each column."""
        name = ref.step, ref.output
        if name not in self._columns:
            step = self._plan.steps[ref.step]
            fields = step.stage.produces[ref.output].fields
            found = {f.name: _row_bytes(f) for f in fields if None not in f.shape}
            for field in fields:
                if None in field.shape:
                    found[field.name] = self._open_length_bytes(
                        step, ref.output, field, sum(found.values())
                    )
            self._columns[name] = found
        return self._columns[name]

    def _open_length_bytes(self, step: Step, output: str, field: Field, others: int) -> int:
        """Return the bytes a row takes in a column of open length.

        They are those that the stage says, those of what the column comes from, or those in the
        store.
        """
        task = max(step.tasks, key=lambda task: task.stop - task.start)
        batch = task.stop - task.start
        if step.stage.grain == "map":
            batch = min(batch, step.stage.context.profile.compute_batch)
        if batch and (stated := self.stated(step, task).get(field.name)) is not None:
            return stated // batch
        for table, columns in step.stage.consumed().items():
            if (
                field.name in columns
                and (array := self._plan.dataset.tables[table].columns.get(field.name)) is not None
            ):
                return array.nbytes // max(1, len(array))
        for ref in step.inputs.values():
            above = self._plan.steps[ref.step].stage.produces[ref.output].fields
            if any(f.name == field.name and None in f.shape for f in above):
                return self.columns(ref)[field.name]
        if field.optional:
            return 0  # no input has it, so the output will not either
        # the largest first: headers weigh least in it
        for task in sorted(step.tasks, key=lambda task: task.start - task.stop):
            if (
                not task.missing
                and step.stored
                and self._store.has(step.output(output), task.keys[output])
            ):
                with suppress(CorruptArtifact):  # reported when it is needed
                    receipt = self._store.receipt(step.output(output), task.keys[output])
                    return max(0, receipt.bytes // max(1, receipt.rows) - others)
        return _row_bytes(
            replace(field, shape=tuple(OPEN_LENGTH if n is None else n for n in field.shape))
        )


def _rows_of_shards(step: Step, shards: Iterable[int]) -> int:
    """Return how many rows some shards of a step have; 0 for a reduce step's small table."""
    if step.stage.grain == "reduce":
        return 0
    return sum(step.tasks[i].stop - step.tasks[i].start for i in shards)


def _row_bytes(field: Field) -> int:
    size = TEXT_BYTES if field.dtype == "text" else field.numpy.itemsize
    for length in field.shape:
        size *= length or 0
    return size


def _under_way(flying: list[_ShardLoad], workers: int) -> Iterator[Arrays]:
    """Yield what the shards under way hold.

    Of map steps one shard at a time computes; the others have read their inputs.
    """
    mapping = False
    for place, load in enumerate(flying):
        if load.job.step.stage.grain != "map":
            if place < workers:
                yield from (*load.reads, *load.writes, *load.holds)
            continue
        yield from load.reads
        if not mapping:
            mapping = True
            yield from load.writes
            # the pieces are still there while they are put together
            yield from (replace(part, what=f"{part.what} in pieces") for part in load.writes)
            task, batch = load.job.task, load.job.step.stage.context.profile.compute_batch
            batches = min(workers, -(-(task.stop - task.start) // batch))
            yield from (replace(part, bytes=part.bytes * batches) for part in load.holds)


def _merged(parts: Iterable[Arrays]) -> list[Arrays]:
    """Add up the arrays of the same step and kind; return the sums, the largest first."""
    found: dict[tuple[str, str], Arrays] = {}
    for part in parts:
        name = part.step, part.what
        former = found.get(name, replace(part, bytes=0, rows=0))
        found[name] = replace(part, bytes=former.bytes + part.bytes, rows=former.rows + part.rows)
    return sorted((part for part in found.values() if part.bytes), key=lambda part: -part.bytes)
