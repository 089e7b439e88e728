"""What is said of a plan whose store holds results of another instruction set, and of bf16 without
instructions for it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy
from laboratory import Lab

from pipeline.cli.config_benchmarks import check_all
from pipeline.cli.verbs import plan, status
from pipeline.plan import instruction_mix
from pipeline.plan.instruction_mix import mixing_refusal, notes_here
from pipeline.system import instruction_sets
from pipeline.system.instruction_sets import instruction_set

NETWORK = "steps.measure.options.network=true"
LIMIT = ("ONEDNN_MAX_CPU_ISA", "SSE41")
FREE = instruction_set(("torch",), environment={})
LIMITED = f"{FREE} ({'='.join(LIMIT)})"


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in instruction_sets._LIMITS.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def mixed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A store in which all shards of a network but one were computed with another instruction
    set."""
    with monkeypatch.context() as other:
        other.setenv(*LIMIT)
        lab.forget(lab.run(NETWORK, until="measure").session.plan.steps["measure"], 2)
    return lab


def test_a_receipt_names_the_instruction_set(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*LIMIT)
    session = lab.run(NETWORK).session
    step = session.plan.steps["measure"]
    receipts = [
        session.store.receipt(step.output(o), key)
        for task in step.tasks
        for o, key in task.keys.items()
    ]
    assert {receipt.provenance["computed_with"] for receipt in receipts} == {LIMITED}


def test_no_key_depends_on_the_instruction_set(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = lab.session(NETWORK).plan.digest
    monkeypatch.setenv(*LIMIT)
    assert lab.session(NETWORK).plan.digest == keys


def test_a_run_that_continues_with_another_instruction_set_says_so(mixed: Lab) -> None:
    (note,) = mixed.run(NETWORK).runner.summary.notes
    assert note.startswith("this run mixes instruction sets")
    assert f"measure was computed with {LIMITED} (5 shards), here it would be with {FREE}." in note
    assert "run.mixed_instruction_sets: true" in note


def test_a_plan_says_it_before(mixed: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    plan(mixed.root / "config.yaml", [NETWORK], mixed.root / mixed.store)
    assert "note: this run mixes instruction sets" in capsys.readouterr().out
    plan(mixed.root / "config.yaml", [NETWORK], mixed.root / mixed.store, as_json=True)
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 1


def test_status_tells_what_another_instruction_set_computed_when_all_is_done(
    mixed: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed.run(NETWORK)
    session = mixed.session(NETWORK)
    assert notes_here(session.plan, session.store) == []  # nothing is left to do
    status(mixed.root / "config.yaml", [NETWORK], mixed.root / mixed.store)
    told = (
        f"note: measure was computed with {FREE} (1 shard) and {LIMITED} (5 shards), here it would"
        f" be with {FREE}"
    )
    assert told in capsys.readouterr().out


def test_nothing_is_said_where_it_is_meant(mixed: Lab) -> None:
    assert mixed.run(NETWORK, "run.mixed_instruction_sets=true").runner.summary.notes == []


def test_nothing_is_said_where_other_machines_are_to_compute(mixed: Lab) -> None:
    session = mixed.session(NETWORK, "run.dask=tcp://10.0.0.5:8786")
    assert notes_here(session.plan, session.store) == []


def test_nothing_is_said_of_steps_that_are_the_same_everywhere(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setenv("OPENBLAS_CORETYPE", "Prescott")
        lab.forget(lab.run(until="measure").session.plan.steps["measure"], 2)
    ran = lab.run(until="measure")
    assert (toy.calls["measure"], ran.runner.summary.notes) == (4, [])


def test_nothing_is_said_of_receipts_that_do_not_tell(
    mixed: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = mixed.session(NETWORK)
    for task in (step := session.plan.steps["measure"]).tasks:
        for output, key in task.keys.items():
            if session.store.has(step.output(output), key):
                session.store.receipt(step.output(output), key).provenance.pop("computed_with")
    assert notes_here(session.plan, session.store) == []


def test_workers_of_several_instruction_sets_are_named_by_them(lab: Lab) -> None:
    workers = {
        f"tcp://10.0.0.{i}:1": {"measure": "avx2" if i < 7 else "avx512", "overall": "avx2"}
        for i in range(1, 9)
    }
    sentence = mixing_refusal(lab.session().plan, "the cluster", workers)
    assert "between which measure differs" in sentence
    assert (
        "avx2: tcp://10.0.0.1:1, tcp://10.0.0.2:1, tcp://10.0.0.3:1, tcp://10.0.0.4:1 and 2 more;"
        in sentence
    )
    assert "avx512: tcp://10.0.0.7:1, tcp://10.0.0.8:1. " in sentence
    assert mixing_refusal(lab.session().plan, "the cluster", dict(list(workers.items())[:6])) == ""


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "processor_flags", lambda: frozenset({"avx2", "fma"}))


@pytest.mark.usefixtures("without_bf16")
def test_bf16_without_instructions_is_told_by_check_plan_and_run(lab: Lab) -> None:
    config: Path = lab.root / "config.yaml"
    one = [NETWORK, "numerics=cpu-bf16"]
    sentence = "measure: numerics in bf16, for which the processor has no instructions"
    assert check_all(config, one)[""].notes[0].startswith(sentence)
    session = lab.session(*one)
    assert notes_here(session.plan, session.store)[0].startswith(sentence)
    assert lab.run(*one).runner.summary.notes[0].startswith(sentence)
    assert notes_here((done := lab.session(*one)).plan, done.store) == []  # nothing is left to do


@pytest.mark.usefixtures("without_bf16")
@pytest.mark.parametrize("numerics", ["cpu-fp32", "cpu-bf16"])
def test_nothing_is_said_of_float32_and_of_steps_that_are_no_networks(
    lab: Lab, numerics: str
) -> None:
    one = [
        f"steps.measure.options.network={str(numerics == 'cpu-fp32').lower()}",
        f"numerics={numerics}",
    ]
    assert check_all(lab.root / "config.yaml", one)[""].notes == []


def test_nothing_is_said_of_a_processor_that_has_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruction_sets, "processor_flags", lambda: frozenset({"avx512_bf16"}))
    assert (
        instruction_mix.slow_bf16(
            lab.session(NETWORK, "numerics=cpu-bf16").plan.steps.values(), False
        )
        == []
    )
    assert check_all(lab.root / "config.yaml", [NETWORK, "numerics=cpu-bf16"])[""].notes == []
