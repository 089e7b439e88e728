"""tuning: the threads, compute batch, precision and engine that are fastest here, for a config.

A sample of the config's own images goes through its steps in memory. Each step that runs a network
is then timed under other numerics profiles, one thing changed at a time: first the threads of a
model (with so many workers that all cores are used), then the compute batch, then precision and
engine. What is not clearly faster than what the config has is not taken: a profile is in the key of
every result, and to change it for nothing costs a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from typing import Any

from threadpoolctl import threadpool_limits

from pipeline.core.numerics import ON_DEVICE, PROFILES, Profile
from pipeline.core.parallel_map import spread
from pipeline.core.schema import Batch, concat
from pipeline.core.stage import Stage
from pipeline.errors import InvalidInput, ResourceRefused
from pipeline.plan.graph import Step
from pipeline.plan.plan import Plan
from pipeline.plan.shard_tables import columns_seen
from pipeline.run.microbatch import Part, assemble, first_error, good_part, run_micro_batch
from pipeline.store.store import Store
from pipeline.system.instruction_sets import lacks_bf16
from pipeline.system.scratch import scratch_folder
from stages.models import catalogue

BATCHES = (4, 8, 16, 32)
CLEARLY = 1.08  # times as fast
COMMITTED = 1024  # rows of a shard whose commit is timed
ROUNDS = 3  # how often each profile has its turn

Piece = tuple[Batch, dict[str, Batch]]  # rows and inputs of a micro-batch


@dataclass(frozen=True)
class Sample:
    """The first rows of a step's axis, of its inputs and of its outputs."""

    step: Step
    rows: Batch
    inputs: dict[str, Batch]
    outputs: dict[str, Batch]

    @property
    def has_network(self) -> bool:
        """Whether the step runs a network that a numerics profile decides the speed of."""
        return not ON_DEVICE.isdisjoint(self.step.stage.backends())


@dataclass(frozen=True)
class Timing:
    """So many rows of a step took so many seconds under a profile, on so many workers."""

    step: Step
    profile: Profile
    workers: int
    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def changed(self) -> dict[str, Any]:
        """The profile as a config names it; empty if it is the step's own."""
        if self.profile == self.step.stage.context.profile:
            return {}
        fields = self.profile.model_dump(mode="json", exclude={"name"})
        plain = PROFILES[self.profile.name].model_dump(mode="json")
        changed = {field: value for field, value in fields.items() if value != plain[field]}
        return {"profile": self.profile.name, **changed}


def samples(plan: Plan, count: int) -> list[Sample]:
    """Return the first `count` rows of the steps that go row by row, computed in memory.

    Steps that read anything else are passed over. Raises what a stage raises if every row of it
    fails.
    """
    found: list[Sample] = []
    made: dict[tuple[str, str], Batch] = {}
    for step in plan.steps.values():
        stage, axis = step.stage, step.stage.axis
        needed = {key: (ref.step, ref.output) for key, ref in step.inputs.items()}
        if stage.grain != "map" or not made.keys() >= set(needed.values()):
            continue
        stop = min(count, plan.dataset.axes[axis].rows)
        rows = plan.dataset.part(axis, columns_seen(stage, plan.dataset)[axis], axis, 0, stop)
        inputs = {key: made[name] for key, name in needed.items()}
        stage.open()
        outputs = _computed(stage, rows, inputs)
        made |= {(step.name, output): batch for output, batch in outputs.items()}
        found.append(Sample(step, rows, inputs, outputs))
    return found


def commit_times(sample: Sample) -> tuple[float, int]:
    """Return the seconds that it takes to store the sample's outputs, and their bytes.

    Nothing is stored of a step that is not.
    """
    if not sample.step.stored:
        return 0.0, 0
    times = max(1, COMMITTED // max(1, sample.rows.rows))  # a small shard costs as much as a large
    with scratch_folder("qfuse-tune-") as folder:
        store, begin, size = Store(folder / "store"), time.perf_counter(), 0
        for output, batch in sample.outputs.items():
            schema, many = sample.step.stage.produces[output], concat([batch] * times)
            size += store.commit(sample.step.output(output), "0" * 64, many, schema, {}).bytes
        return (time.perf_counter() - begin) / times, size // times


def thread_counts() -> list[int]:
    """Return how many threads a model may have here: 1, 2, 4 … and at most one a core."""
    cores = len(os.sched_getaffinity(0))
    return [threads for threads in (2**i for i in range(9)) if threads <= cores]


def workers_for(threads: int) -> int:
    """Return how many workers, each with so many threads, use all cores."""
    return max(1, len(os.sched_getaffinity(0)) // threads)


@dataclass(frozen=True)
class Race:
    """Times profiles against each other, each for so many seconds.

    `told` gets what is tried next, `seen` every timing.
    """

    seconds: float
    told: Callable[[str], None]
    seen: Callable[[Timing], None]

    def of(self, sample: Sample, profiles: Sequence[Profile]) -> list[Timing]:
        """Return how fast a sample's step is under each profile, without those that it refuses.

        The profiles take turns, ROUNDS times, and the median of a profile's rounds counts: so what
        else the machine does meanwhile slows all of them.
        """
        runners: list[tuple[Profile, Stage, Iterator[Piece]]] = []
        for profile in dict.fromkeys(profiles):
            stage = _under(sample.step.stage, profile)
            with suppress(InvalidInput, ResourceRefused):
                stage.open()
                cut = _pieces(sample.rows, sample.inputs, profile.compute_batch)
                runners.append((profile, stage, cycle(cut)))
        for profile, stage, pieces in runners:
            _round(stage, profile, pieces, 0.0)  # what is set up at the first call
        rounds = [
            [
                _round(stage, profile, pieces, self.seconds / ROUNDS)
                for profile, stage, pieces in runners
            ]
            for _ in range(ROUNDS)
        ]
        found = []
        for (profile, _, _), made in zip(runners, zip(*rounds, strict=True), strict=True):
            rows, seconds = sorted(made, key=lambda each: each[0] / each[1])[len(made) // 2]
            found.append(Timing(sample.step, profile, workers_for(profile.threads), rows, seconds))
            self.seen(found[-1])
        catalogue.forget()
        return found

    def best_threads(self, samples: Sequence[Sample]) -> int:
        """Return the threads of a model with which all steps together take least time.

        With more threads there are fewer workers, and a step without a network is slower. One
        thread is given up only for what is clearly faster.
        """
        total = dict.fromkeys(thread_counts(), 0.0)
        self.told("threads of a model, with as many workers as use every core")
        for sample in samples:
            own = sample.step.stage.context.profile
            profiles = [own.model_copy(update={"threads": threads}) for threads in total]
            for timing in self.of(sample, profiles):
                total[timing.profile.threads] += 1 / timing.rate
        best = min(total, key=lambda threads: total[threads])
        return best if total[1] >= CLEARLY * total[best] else 1

    def tuned(
        self, cells: Sequence[Sample], threads: int, engines: Sequence[str]
    ) -> tuple[list[Timing], list[Timing]]:
        """Return the timings of a config step's cells as they are, and at their best.

        That is the profile which is best for all. First compute batches race, then precisions and
        engines with the best of them; what one of the cells refuses is out.
        """
        own = cells[0].step.stage.context.profile.model_copy(update={"threads": threads})
        batches = [own.model_copy(update={"compute_batch": batch}) for batch in BATCHES]
        self.told(f"faces in one forward of {cells[0].step.base}")
        races = [self.of(cell, [own, *batches]) for cell in cells]
        first, best = [timings[0] for timings in races], _fastest(races)
        profile = best[0].profile
        if profile.device != "cpu":
            return first, best
        of_graphs = any("onnxruntime" in cell.step.stage.backends() for cell in cells)
        profiles = [
            profile.model_copy(update={"precision": precision, "engine": engine})
            for precision in (profile.precision, *(() if lacks_bf16() else ("bf16",)))
            for engine in (profile.engine, *(engines if of_graphs else ()))
        ]
        if len(profiles) == 1:
            return first, best
        self.told(f"precision{' and engine' * of_graphs} of {cells[0].step.base}")
        return first, _fastest([self.of(cell, profiles) for cell in cells])


def _round(
    stage: Stage, profile: Profile, pieces: Iterator[Piece], least: float
) -> tuple[int, float]:
    """Return how many rows were computed in how many seconds, at least `least`."""
    workers = workers_for(profile.threads)
    rows, begin, spent = 0, time.perf_counter(), -1.0
    with threadpool_limits(profile.threads), ThreadPoolExecutor(workers) as pool:
        while spent < least:
            given = list(islice(pieces, workers if least else 1))
            _spread(stage, given, pool, workers)
            rows += sum(piece[0].rows for piece in given)
            spent = time.perf_counter() - begin
    return rows, spent


def _fastest(races: Sequence[Sequence[Timing]]) -> list[Timing]:
    """Return the timings under the profile with which all cells together are fastest.

    Unless it is clearly faster than the first one, they are those under the first.
    """
    by_profile: dict[Profile, list[Timing]] = {}
    for timing in chain.from_iterable(races):
        by_profile.setdefault(timing.profile, []).append(timing)
    for_all = [timings for timings in by_profile.values() if len(timings) == len(races)]
    best = min(for_all, key=_together)
    return best if _together(for_all[0]) >= CLEARLY * _together(best) else for_all[0]


def _together(timings: Sequence[Timing]) -> float:
    return sum(1 / timing.rate for timing in timings)


def _under(stage: Stage, profile: Profile) -> Stage:
    made = type(stage)(stage.options, replace(stage.context, profile=profile))
    made.above = stage.above
    return made


def _pieces(rows: Batch, inputs: Mapping[str, Batch], size: int) -> list[Piece]:
    cuts = [slice(i, i + size) for i in range(0, rows.rows, size)]
    return [
        (rows.take(cut), {key: batch.take(cut) for key, batch in inputs.items()}) for cut in cuts
    ]


def _computed(stage: Stage, rows: Batch, inputs: Mapping[str, Batch]) -> dict[str, Batch]:
    workers = workers_for(stage.context.profile.threads)
    with ThreadPoolExecutor(workers) as pool:
        pieces = _pieces(rows, inputs, stage.context.profile.compute_batch)
        parts = [part for made in _spread(stage, pieces, pool, workers) for part in made]
    good = good_part(parts)
    if good is None:
        raise first_error(parts)
    return assemble(stage, parts, good)


def _spread(
    stage: Stage,
    pieces: Sequence[Piece],
    pool: ThreadPoolExecutor,
    workers: int,
) -> list[list[Part]]:
    return spread(lambda piece: run_micro_batch(stage, *piece), pieces, pool, workers)
