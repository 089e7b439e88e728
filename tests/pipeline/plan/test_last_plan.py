"""Why a step is stale, told from what a former plan's keys were made of."""

from __future__ import annotations

import json

from laboratory import Lab

from pipeline.plan.last_plan import recalled, remember


def reasons(lab: Lab, *overrides: str) -> set[str]:
    return {task.reason for step in lab.session(*overrides).plan.to_run for task in step.to_run}


def test_a_run_of_a_part_of_the_steps_takes_no_reason_away(lab: Lab) -> None:
    lab.run()
    session = lab.session()
    part = [session.plan.steps["measure"]]
    remember(part, session.store, session.folder / "plan.json")
    assert reasons(lab, "numerics={compute_batch: 2}") >= {"numerics.compute_batch: 3 → 2"}


def test_shards_that_are_not_there_yet_keep_what_was_remembered_of_them(lab: Lab) -> None:
    lab.run()
    changed = lab.session("numerics={compute_batch: 2}")
    # as after a run that was interrupted
    remember(changed.plan.steps.values(), changed.store, changed.folder / "plan.json")
    assert "numerics.compute_batch: 3 → 2" in reasons(lab, "numerics={compute_batch: 2}")


def test_nothing_is_written_where_nothing_changed(lab: Lab) -> None:
    session = lab.run().session
    path = session.folder / "plan.json"
    before = path.stat().st_ino
    remember(session.plan.steps.values(), session.store, path)
    assert path.stat().st_ino == before


def test_what_cannot_be_read_is_forgotten(lab: Lab) -> None:
    path = lab.root / "plan.json"
    assert recalled(path) == recalled(None) == {}
    for damage in (b"{", b"[1]", b"\xff"):
        path.write_bytes(damage)
        assert recalled(path) == {}
    path.write_text(json.dumps({"a#0": {}}))
    assert recalled(path) == {"a#0": {}}
