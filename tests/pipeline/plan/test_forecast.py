"""How long a plan will take, from what its steps took before."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import toy
from laboratory import Lab

from pipeline.plan.forecast import Speed, forecast, in_words, note_speeds
from pipeline.plan.graph import computed_beside
from pipeline.run.events import Events
from pipeline.session import execute

NETWORK = "steps.measure.options.network=true"


@pytest.fixture
def network(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A data set whose `measure` runs a network; few rows are enough to note its speed."""
    monkeypatch.setattr("pipeline.plan.forecast.LEAST_ROWS", 1)
    return lab


def test_what_was_never_measured_is_said_to_be_unknown(network: Lab) -> None:
    session = network.session(NETWORK)
    found = forecast(session.plan, session.store)
    assert (found.unknown, dict(found.seconds)) == (("measure",), {})
    assert "not known how long measure will take: `qfuse models tune`" in in_words(found)


def test_a_speed_that_is_known_is_scaled_to_the_rows_that_are_left(network: Lab) -> None:
    session = network.session(NETWORK)
    note_speeds(session.plan, session.store, {"measure": Speed(11, 100.0, 5500)}, None)
    found = forecast(session.plan, session.store)
    assert found.seconds == {"measure": pytest.approx(200.0)}  # 22 rows
    assert found.bytes == pytest.approx(11_000)
    assert in_words(found).startswith("about 3 min on this machine (measure 3 min) and 0.00 GB")


def test_a_run_notes_its_speeds_for_the_next_plan(network: Lab) -> None:
    session = network.session(NETWORK)
    execute(session, Events())
    text = (session.store.root / "speeds.json").read_text()
    (speed,) = json.loads(text).values()
    step = session.plan.steps["measure"]
    receipts = [
        session.store.receipt(step.output(output), key)
        for task in step.tasks
        for output, key in task.keys.items()
    ]
    assert (speed["rows"], speed["bytes"]) == (22, sum(each.bytes for each in receipts))
    empty = replace(network, store="empty").session(NETWORK)
    (empty.store.root / "speeds.json").write_text(text)
    assert forecast(empty.plan, empty.store).seconds == {"measure": speed["seconds"]}


def test_other_numerics_or_another_number_of_workers_are_another_speed(network: Lab) -> None:
    session = network.session(NETWORK)
    note_speeds(session.plan, session.store, {"measure": Speed(11, 100.0, 0)}, None)
    other = network.session(NETWORK, "numerics.compute_batch=2")
    assert forecast(other.plan, other.store).unknown == ("measure",)
    assert forecast(session.plan, session.store, workers=3).unknown == ("measure",)


def test_few_rows_say_nothing(lab: Lab) -> None:
    session = lab.session(NETWORK)
    note_speeds(session.plan, session.store, {"measure": Speed(99, 1.0, 0)}, None)
    assert forecast(session.plan, session.store).unknown == ("measure",)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', '{"x": {"rows": 0}}'])
def test_a_damaged_file_of_speeds_counts_as_empty(network: Lab, content: str) -> None:
    session = network.session(NETWORK)
    (session.store.root / "speeds.json").write_text(content)
    assert forecast(session.plan, session.store).unknown == ("measure",)


def test_steps_without_networks_and_a_finished_plan_are_not_foretold(lab: Lab) -> None:
    plain = lab.session()
    assert in_words(forecast(plain.plan, plain.store)) == ""
    execute(lab.session(NETWORK), Events())
    done = lab.session(NETWORK)
    assert in_words(forecast(done.plan, done.store)) == ""


def test_what_another_step_computes_on_the_way_takes_no_time_of_its_own(
    network: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Measure, "identity", lambda _: "one network")
    monkeypatch.setattr(toy.Power, "identity", lambda _: "one network")
    monkeypatch.setattr(toy.Power, "follows", "measure")
    session = network.session(NETWORK)
    beside = computed_beside(session.plan.steps.values())
    assert beside == {"power[power=1]": "measure", "power[power=2]": "measure"}
    monkeypatch.setattr(toy.Power, "identity", lambda _: "another network")
    assert computed_beside(session.plan.steps.values()) == {}
