"""The order in which shards are handed out: each after what it reads, and everything once."""

from __future__ import annotations

import random

import pytest
import toy
from laboratory import Lab

from pipeline.run import ready_queue
from pipeline.run.ready_queue import Job, ReadyQueue


def drain(ready: ReadyQueue, seed: int) -> list[Job]:
    """Take and finish every job, in a random order of those that are under way at the same time."""
    chance, flying, finished = random.Random(seed), [], []  # noqa: S311
    while ready.left:
        while (job := ready.next()) is not None:
            flying.append(job)
        job = flying.pop(chance.randrange(len(flying)))
        ready.done(job)
        finished.append(job)
    assert flying == []
    return finished


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_every_shard_is_handed_out_once_and_after_what_it_reads(
    lab: Lab, memory: bool, seed: int
) -> None:
    plan = lab.session().plan
    finished = drain(ReadyQueue(plan, memory), seed)
    place = {job.name: i for i, job in enumerate(finished)}
    assert (
        len(place)
        == len(finished)
        == sum(len(s.to_run) for s in plan.steps.values() if s.stored or memory)
    )
    for job in finished:
        for key, ref in job.step.inputs.items():
            for index in job.task.needs[key]:
                above = place.get((ref.step, index))
                assert above is None or above < place[job.name]


def test_what_only_memory_keeps_passes_on_what_it_reads(lab: Lab) -> None:
    ready = ReadyQueue(lab.session("steps.measure.stored=true").plan, memory=False)
    first = []
    while (job := ready.next()) is not None:
        first.append(job)
    assert {job.step.name for job in first} == {
        "measure"
    }  # total reads power, which is not stored and reads measure


def test_a_shard_can_run_before_the_step_above_it_is_finished(lab: Lab) -> None:
    ready = ReadyQueue(lab.session().plan, memory=True)
    job = ready.next()
    assert job is not None
    ready.done(job)
    found = set()
    while (other := ready.next()) is not None:
        found.add(other.name)
    assert {("power[power=1]", job.index), ("power[power=2]", job.index)} <= found
    assert ready.unfinished("measure") > 0


def test_a_shard_that_is_given_back_comes_again(lab: Lab) -> None:
    ready = ReadyQueue(lab.session().plan, memory=True)
    job = ready.next()
    assert job is not None
    ready.later(job, 0)
    assert 0 < ready.patience() <= 0.01
    found = []
    while (other := ready.next()) is not None:
        found.append(other.name)
    assert job.name in found


def test_a_step_is_finished_with_its_last_shard(lab: Lab) -> None:
    ready = ReadyQueue(lab.session().plan, memory=True)
    ends = []
    while (job := ready.next()) is not None and job.step.name == "measure":
        ends.append(ready.done(job))
    assert ends[:-1] == [False] * (len(ends) - 1)
    assert ends[-1]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_may_run_is_handed_out_in_the_order_of_the_plan(lab: Lab, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    ready, flying = ReadyQueue(lab.session().plan, memory=True), []
    while ready.left:
        batch = []
        while (job := ready.next()) is not None:
            batch.append(job)
        assert batch == sorted(batch)
        flying += batch
        for _ in range(min(3, len(flying))):
            ready.done(flying.pop(chance.randrange(len(flying))))


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_what_another_step_computes_on_the_way_waits_for_its_shard_of_the_same_rows(
    lab: Lab, memory: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = lab.session("steps.power.stored=true").plan
    first, second = "power[power=2]", "power[power=1]"  # against the order of the plan
    monkeypatch.setattr(ready_queue, "computed_beside", lambda _: {second: first})
    place = {job.name: i for i, job in enumerate(drain(ReadyQueue(plan, memory), seed))}
    shards = range(len(plan.steps[first].tasks))
    assert len(shards) > 1
    assert all(place[first, index] < place[second, index] for index in shards)


def test_a_step_waits_for_nothing_that_reads_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.Measure, "identity", lambda _: "one network")
    monkeypatch.setattr(toy.Power, "identity", lambda _: "one network")
    monkeypatch.setattr(toy.Measure, "follows", "power")
    plan = lab.session().plan
    assert len(drain(ReadyQueue(plan, memory=True), seed=0)) == len(
        [task for step in plan.steps.values() for task in step.to_run]
    )
