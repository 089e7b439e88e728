"""Which profile wins a race: the choice, made of timings that are given."""

from __future__ import annotations

from typing import Any

from pipeline.core.numerics import PROFILES, Profile
from pipeline.plan.graph import Step
from stages.models.tuning import CLEARLY, Timing, _fastest, thread_counts, workers_for

OWN = PROFILES["cpu-fp32"]
BF16 = OWN.model_copy(update={"precision": "bf16"})
OTHER = OWN.model_copy(update={"compute_batch": 16})


class _Stage:
    class context:  # noqa: N801
        profile = OWN


def timing(profile: Profile, rate: float) -> Timing:
    stage: Any = _Stage()
    return Timing(Step("embed", "embed", stage, {}, {}, True), profile, 2, 1000, 1000 / rate)


def chosen(*races: list[Timing]) -> Profile:
    found = {each.profile for each in _fastest(races)}
    assert len(found) == 1
    return found.pop()


def test_what_is_clearly_faster_is_taken() -> None:
    assert chosen([timing(OWN, 100), timing(OTHER, 100 * CLEARLY + 1)]) == OTHER


def test_what_is_a_little_faster_is_not_worth_other_numerics() -> None:
    assert chosen([timing(OWN, 100), timing(OTHER, 100 * CLEARLY - 1)]) == OWN


def test_what_one_cell_refuses_is_taken_for_none() -> None:
    torch_cell = [timing(OWN, 10), timing(OTHER, 12), timing(BF16, 90)]
    assert chosen(torch_cell, [timing(OWN, 10), timing(OTHER, 12)]) == OTHER


def test_the_slower_cell_counts_for_more() -> None:
    slow = [timing(OWN, 10), timing(OTHER, 8)]
    assert chosen(slow, [timing(OWN, 1000), timing(OTHER, 1500)]) == OWN


def test_a_config_is_told_what_differs_from_the_named_profile() -> None:
    assert timing(OWN, 1).changed == {}
    assert timing(BF16, 1).changed == {"profile": "cpu-fp32", "precision": "bf16"}


def test_workers_and_their_threads_use_each_core_once() -> None:
    cores = workers_for(1)
    for threads in thread_counts():
        assert workers_for(threads) * threads <= cores
