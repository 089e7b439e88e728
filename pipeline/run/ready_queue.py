"""Which shards may run now: each as soon as what it reads is there, in the order of the plan.

One whose numbers another step computes on the way (`Stage.follows`) also waits for that step's
shard of the same rows, if that is computed in this run.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from dataclasses import dataclass, field

from pipeline.plan.graph import Step, Task, computed_beside
from pipeline.plan.plan import Plan

ShardName = tuple[str, int]  # step, shard


@dataclass(frozen=True, order=True)
class Job:
    """One shard to run; jobs are sorted as the plan is."""

    place: int
    index: int
    step: Step = field(compare=False)
    task: Task = field(compare=False)

    @property
    def name(self) -> ShardName:
        return self.step.name, self.index


class ReadyQueue:
    """The jobs of a plan.

    Without `memory`, shards that are not stored are no jobs: whoever reads one computes it.
    """

    def __init__(self, plan: Plan, memory: bool) -> None:
        self._plan = plan
        self._jobs = {
            (step.name, task.index): Job(place, task.index, step, task)
            for place, step in enumerate(plan.steps.values())
            if step.stored or memory
            for task in step.to_run
        }
        self._through: dict[ShardName, frozenset[ShardName]] = {}
        self._waits = {
            name: set(self._reads(job.step, job.task)) for name, job in self._jobs.items()
        }
        beside = computed_beside(plan.steps.values())
        for step, index in self._jobs:
            first = beside.get(step, ""), index
            if first in self._jobs:
                self._waits[step, index].add(first)
        self._readers: dict[ShardName, list[ShardName]] = {name: [] for name in self._jobs}
        for name, reads in self._waits.items():
            for read in reads:
                self._readers[read].append(name)
        self._ready = sorted(job for name, job in self._jobs.items() if not self._waits[name])
        self._later: list[tuple[float, Job]] = []
        self._left = len(self._jobs)
        self._unfinished = Counter(step for step, _ in self._jobs)

    @property
    def left(self) -> bool:
        """Whether any job is not done."""
        return self._left > 0

    def next(self) -> Job | None:
        """Take the first job that may run now; None if there is none at the moment."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappush(self._ready, heapq.heappop(self._later)[1])
        return heapq.heappop(self._ready) if self._ready else None

    def later(self, job: Job, seconds: float) -> None:
        """Give a job back, to be taken again after a while."""
        heapq.heappush(self._later, (time.monotonic() + seconds, job))

    def patience(self) -> float:
        """Seconds until a job that was given back may be taken again; infinite if there is none."""
        return max(0.01, self._later[0][0] - time.monotonic()) if self._later else math.inf

    def done(self, job: Job) -> bool:
        """Note that a job is done; return whether it was the last one of its step."""
        for name in self._readers[job.name]:
            self._waits[name].discard(job.name)
            if not self._waits[name]:
                heapq.heappush(self._ready, self._jobs[name])
        self._left -= 1
        self._unfinished[job.step.name] -= 1
        return self._unfinished[job.step.name] == 0

    def unfinished(self, step: str) -> int:
        """Return how many jobs of a step are not done."""
        return self._unfinished[step]

    def _reads(self, step: Step, task: Task) -> frozenset[ShardName]:
        """Return the jobs whose outputs a shard reads, also through what only memory keeps."""
        found: set[ShardName] = set()
        for key, ref in step.inputs.items():
            above = self._plan.steps[ref.step]
            for index in task.needs[key]:
                name = above.name, index
                if name in self._jobs:
                    found.add(name)
                elif not above.stored and above.tasks[index].missing:
                    if name not in self._through:
                        self._through[name] = self._reads(above, above.tasks[index])
                    found |= self._through[name]
        return frozenset(found)
