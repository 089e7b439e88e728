"""What `pipeline.plan.plan` promises: every step, cell, shard and key, and why something would run,
before anything runs.
"""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import pytest
import toy
from laboratory import CONFIG, GROUPS, Lab

from pipeline.errors import InvalidInput
from pipeline.plan.plan import Plan

STEPS: dict[str, Any] = CONFIG["steps"]


def statuses(plan: Plan) -> dict[str, str]:
    return {step.name: step.status for step in plan.steps.values()}


def reasons(plan: Plan) -> dict[str, str]:
    return {step.name: step.reason for step in plan.to_run}


def refused(lab: Lab, **changed: Any) -> str:
    lab.configure(**changed)
    with pytest.raises(InvalidInput) as caught:
        lab.session()
    return str(caught.value)


def test_at_first_everything_runs_because_it_was_never_computed(lab: Lab) -> None:
    plan = lab.session().plan
    assert set(statuses(plan).values()) == {"run"}
    assert set(reasons(plan).values()) == {"never computed"}
    assert [len(step.tasks) for step in plan.cells("measure")] == [6]
    assert [len(step.tasks) for step in plan.cells("total")] == [3, 3]
    assert [len(step.tasks) for step in plan.cells("overall")] == [1]


def test_afterwards_what_is_stored_is_present_and_what_is_not_stored_is_not_needed(
    lab: Lab,
) -> None:
    lab.run()
    found = statuses(lab.session().plan)
    assert found == {
        name: "not needed" if name.startswith("power") else "present" for name in found
    }


def test_planning_computes_and_stores_nothing(lab: Lab) -> None:
    toy.calls.clear()
    lab.session(readonly=True)
    assert toy.calls == {}
    assert not (lab.root / "store").exists()
    assert not (lab.root / "run").exists()


def test_a_factor_makes_a_cell_of_each_value_and_of_no_step_that_does_not_depend_on_it(
    lab: Lab,
) -> None:
    cells = {f"{step}[power={power}]" for step in ("power", "total", "nearest") for power in (1, 2)}
    assert set(lab.session().plan.steps) == {"measure", "overall", *cells}


def test_two_factors_are_crossed_in_the_order_of_the_config(lab: Lab) -> None:
    steps = {**STEPS, "power": {"options": {"add": "$add", "power": "$power"}}}
    lab.configure(factors={"power": [1, 2], "add": [0, 3]}, steps=steps)
    plan = lab.session().plan
    labels = [f"total[power={power},add={add}]" for power, add in itertools.product((1, 2), (0, 3))]
    assert [step.name for step in plan.cells("total")] == labels
    assert [(s.stage.options.power, s.stage.options.add) for s in plan.cells("power")] == [
        (1, 0),
        (1, 3),
        (2, 0),
        (2, 3),
    ]


def test_cells_of_one_factor_are_joined_only_where_its_values_agree(lab: Lab) -> None:
    lab.configure(
        steps={
            **STEPS,
            "again": {
                "stage": "power",
                "inputs": {"number": "power"},
                "options": {"add": "$power"},
            },
        }
    )
    again = {
        name: step.inputs["number"].step
        for name, step in lab.session().plan.steps.items()
        if step.base == "again"
    }
    assert again == {f"again[power={power}]": f"power[power={power}]" for power in (1, 2)}


def test_a_factor_that_reaches_a_step_only_through_an_input_it_does_not_use_is_pruned(
    lab: Lab,
) -> None:
    assert [step.name for step in lab.session().plan.cells("overall")] == ["overall"]
    used = lab.session("steps.overall.options.totals=true").plan.cells("overall")
    assert [step.name for step in used] == ["overall[power=1]", "overall[power=2]"]


def test_a_factor_may_choose_the_numerics(lab: Lab) -> None:
    lab.configure(
        factors={"power": [1], "batch": [2, 5]},
        steps={**STEPS, "measure": {"numerics": {"compute_batch": "$batch"}}},
    )
    cells = lab.session().plan.cells("measure")
    assert {s.name: s.stage.context.profile.compute_batch for s in cells} == {
        "measure[batch=2]": 2,
        "measure[batch=5]": 5,
    }


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"dataset": {"reader": "toi", "path": "files"}},
            "unknown reader 'toi': did you mean 'toy'?",
        ),
        (
            {"dataset": {**CONFIG["dataset"], "shard_rows": {"face": 3}}},
            "unknown axis 'face': did you mean 'faces'?",
        ),
        (
            {"dataset": {**CONFIG["dataset"], "options": {"a": 1}}},
            "dataset.options: a: unknown key 'a'",
        ),
        ({"steps": {"measur": {}}}, "unknown stage 'measur': did you mean 'measure'?"),
        ({"steps": {"m": {"stage": "mesure"}}}, "unknown stage 'mesure': did you mean 'measure'?"),
        (
            {"steps": {**STEPS, "total": {"inputs": {"valu": "power"}}}},
            "steps.total.inputs: unknown input 'valu': did you mean",
        ),
        (
            {"steps": {**STEPS, "total": {"inputs": {"value": "powr"}}}},
            "inputs.value: unknown step 'powr': did you mean 'power'?",
        ),
        (
            {"steps": {**STEPS, "overall": {"inputs": {"number": "measure.numbr"}}}},
            (
                "steps.overall.inputs.number: unknown output 'measure.numbr': did you mean"
                " 'measure.number'?"
            ),
        ),
        (
            {"steps": {**STEPS, "overall": {"inputs": {"number": "measure"}}}},
            "unknown output 'measure': did you mean 'measure.",
        ),
        (
            {"steps": {k: v for k, v in STEPS.items() if k != "total"}},
            (
                "steps.nearest reads a step 'total', and there is none: add `total: {}` to its"
                " steps, or name the step"
            ),
        ),
        (
            {"steps": {**STEPS, "measure": {"options": {"scal": 2}}}},
            "steps.measure.options: scal: unknown key 'scal': did you mean",
        ),
        (
            {"steps": {**STEPS, "measure": {"options": {"scale": "big"}}}},
            "scale: expected a number (found 'big')",
        ),
        (
            {"steps": {**STEPS, "power": {"options": {"power": "$powr"}}}},
            "unknown factor 'powr': did you mean 'power'?",
        ),
        ({"numerics": "cpu-fp23"}, "did you mean 'cpu-fp32'?"),
        ({"factors": {"power": [1], "idle": [1, 2]}}, "factors.idle: no step uses it; write $idle"),
        (
            {"factors": {"power": [1, "much"]}},
            "steps.power.options: power: expected a number (found 'much')",
        ),
    ],
)
def test_what_is_unknown_is_refused_with_its_place_and_the_nearest_name(
    lab: Lab, changed: Any, sentence: str
) -> None:
    assert sentence in refused(lab, **changed)


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            {"stage": "power", "inputs": {"number": "overall"}},
            "steps.a.inputs.number: 'power' reads row by row, and 'overall' has",
        ),
        (
            {"stage": "power", "inputs": {"number": "total"}},
            "steps.a.inputs.number: 'power' reads row by row",
        ),
        (
            {"stage": "total", "inputs": {"value": "nearest"}},
            "steps.a.inputs.value: 'total' gathers rows of faces",
        ),
    ],
)
def test_an_input_that_has_other_rows_than_the_stage_reads_is_refused(
    lab: Lab, step: Any, sentence: str
) -> None:
    assert sentence in refused(lab, steps={**STEPS, "a": step})


def test_an_input_that_is_not_used_may_name_a_step_that_is_not_there(lab: Lab) -> None:
    lab.configure(steps={"measure": {}, "overall": {}}, factors={})
    assert set(lab.session().plan.steps) == {"measure", "overall"}


def test_a_cycle_is_refused_and_named(lab: Lab) -> None:
    cycle = {
        "a": {"stage": "power", "inputs": {"number": "b"}},
        "b": {"stage": "power", "inputs": {"number": "a"}},
    }
    assert "a → b → a is a cycle" in refused(lab, steps={**STEPS, **cycle})
    assert "a → a is a cycle" in refused(
        lab, steps={**STEPS, "a": {"stage": "power", "inputs": {"number": "a"}}}
    )


def test_until_keeps_a_step_and_what_it_needs(lab: Lab) -> None:
    assert {step.base for step in lab.session(until="total").plan.steps.values()} == {
        "measure",
        "power",
        "total",
    }
    assert set(lab.session(until="measure").plan.steps) == {"measure"}


def test_until_takes_a_stage_as_well(lab: Lab) -> None:
    lab.configure(steps={**STEPS, "again": {"stage": "total"}})
    bases = {step.base for step in lab.session(until="total").plan.steps.values()}
    assert bases == {"measure", "power", "total", "again"}


def test_until_an_unknown_step_is_refused_with_the_nearest_name(lab: Lab) -> None:
    with pytest.raises(InvalidInput, match="unknown step 'totle': did you mean 'total'"):
        lab.session(until="totle")


def test_a_run_until_a_step_is_continued_by_the_whole_run(lab: Lab) -> None:
    lab.run(until="measure")
    lab.run()
    assert "measure" not in toy.calls


def test_every_key_is_planned_once_and_the_store_holds_exactly_what_the_plan_keeps(
    lab: Lab,
) -> None:
    plan = lab.run().session.plan
    planned = [
        (s.output(o), key)
        for s in plan.steps.values()
        for task in s.tasks
        for o, key in task.keys.items()
    ]
    assert len(planned) == len(set(planned))
    assert set(lab.artifacts()) == {(output, key) for output, key in planned if output != "power"}
    assert plan.live_artifacts() >= set(planned)


def test_a_plan_is_json(lab: Lab) -> None:
    plan = json.loads(json.dumps(lab.session().plan.to_json()))
    measure = next(step for step in plan["steps"] if step["step"] == "measure")
    assert (measure["stage"], measure["status"], measure["reason"]) == (
        "measure",
        "run",
        "never computed",
    )
    assert (measure["shards"], measure["to_run"]) == (6, 6)
    assert [task["rows"] for task in measure["tasks"]] == [
        [0, 4],
        [4, 8],
        [8, 12],
        [12, 16],
        [16, 20],
        [20, 22],
    ]
    assert set(measure["tasks"][0]["keys"]) == {"number", "multiples"}


def test_a_group_shard_needs_the_shards_that_hold_its_members_and_no_others(lab: Lab) -> None:
    total = lab.session().plan.steps["total[power=1]"]
    for task, groups in zip(total.tasks, ((0, 1), (2, 3), (4,)), strict=True):
        assert task.needs["value"] == tuple(
            sorted({row // 4 for row, group in enumerate(GROUPS) if group in groups})
        )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "steps.measure.options.scale=2",
            {"measure": "options.scale: 1.0 → 2.0", "overall": "measure changed"},
        ),
        (
            "numerics.compute_batch=5",
            {"measure": "numerics.compute_batch: 3 → 5", "overall": "measure changed"},
        ),
        (
            "steps.overall.options.totals=true",
            {"overall[power=1]": "never computed", "overall[power=2]": "never computed"},
        ),
        (
            "factors.power=[1, 2, 3]",
            {f"{step}[power=3]": "never computed" for step in ("power", "total", "nearest")},
        ),
    ],
)
def test_a_changed_field_is_the_reason_of_what_it_makes_stale(
    lab: Lab, override: str, expected: dict[str, str]
) -> None:
    lab.run()
    found = reasons(lab.session(override).plan)
    assert {name: found[name] for name in expected} == expected
    if "measure" not in expected:
        assert found == expected
    else:
        assert found["total[power=2]"] == "power[power=2] changed"


def test_a_numerics_profile_is_in_no_key_of_whole_shards_in_numpy(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Overall, "backends", lambda self: ("numpy", "scipy"))
    lab.run()
    numerics = (
        "steps.overall.numerics={compute_batch: 2, threads: 4, precision: bf16, device: cuda}"
    )
    assert reasons(lab.session(numerics).plan) == {}


def test_the_versions_of_numpy_are_in_the_key_of_whole_shards(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Overall, "backends", lambda self: ("numpy",))
    lab.run()
    monkeypatch.setattr("pipeline.plan.shard_keys.backend_version", lambda name: "9.9")
    assert "numerics.backends.numpy: " in reasons(lab.session().plan)["overall"]


@pytest.mark.parametrize(
    ("grain", "backends"),
    [("map", ("numpy",)), ("tile", ("numpy", "torch")), ("group", ("opencv",))],
)
def test_a_numerics_profile_stays_in_the_key_of_what_it_may_change(
    monkeypatch: pytest.MonkeyPatch, grain: str, backends: tuple[str, ...]
) -> None:
    monkeypatch.setattr(toy.Overall, "grain", grain)
    monkeypatch.setattr(toy.Overall, "backends", lambda self: backends)
    assert toy.Overall(None, None).profiled


def test_a_raised_stage_version_is_a_reason(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.run()
    monkeypatch.setattr(toy.Nearest, "version", 2)
    assert reasons(lab.session().plan) == {
        f"nearest[power={power}]": "version: 1 → 2" for power in (1, 2)
    }


def test_a_file_that_changed_re_keys_its_shard_and_what_depends_on_it(lab: Lab) -> None:
    lab.run()
    lab.write(3, 99)  # the only face of group 2
    plan = lab.session().plan
    assert reasons(plan)["measure"] == "the data set's faces changed"
    stale = {step.name: [task.index for task in step.to_run] for step in plan.to_run}
    assert stale["measure"] == [0]
    assert stale["overall"] == [0]
    assert stale["total[power=1]"] == [
        task.index for task in plan.steps["total[power=1]"].tasks if 0 in task.needs["value"]
    ]


def test_an_artifact_that_vanished_is_a_reason_where_it_is_needed(lab: Lab) -> None:
    plan = lab.run().session.plan
    lab.forget(plan.steps["total[power=1]"], 0)
    assert lab.session().plan.to_run == []
    lab.forget(plan.steps["nearest[power=1]"], 2)
    expected = {
        "power[power=1]": "kept in memory only, and needed below",
        "total[power=1]": "not in the store",
        "nearest[power=1]": "not in the store",
    }
    assert reasons(lab.session().plan) == expected


@pytest.mark.parametrize(
    "override",
    ["run.workers=7", "run.max_failures=0.3", "steps.measure.options.sleep=0.001", "name=other"],
)
def test_execution_settings_make_nothing_stale(lab: Lab, override: str) -> None:
    lab.run()
    assert lab.session(override).plan.to_run == []


def test_a_data_set_that_moved_makes_nothing_stale(lab: Lab) -> None:
    lab.run()
    shutil.copytree(lab.root / "files", lab.root / "elsewhere" / "deep")
    shutil.rmtree(lab.root / "files")
    assert lab.session("dataset.path=elsewhere/deep").plan.to_run == []


def test_two_steps_of_one_stage_and_equal_options_share_their_artifacts(lab: Lab) -> None:
    lab.run()
    lab.configure(steps={**STEPS, "again": {"stage": "total"}})
    assert lab.session().plan.to_run == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_memory_of_the_former_plan_costs_reasons_and_nothing_else(
    lab: Lab, damage: bytes
) -> None:
    lab.run()
    (lab.root / "run" / "plan.json").write_bytes(damage)
    assert lab.session().plan.to_run == []
    assert reasons(lab.session("steps.measure.options.scale=2").plan)["measure"] == "never computed"


def test_what_is_computed_is_used_by_all_that_read_it_before_the_next_cell_is_computed(
    lab: Lab,
) -> None:
    lab.configure(steps={**STEPS, "again": {"stage": "total"}})
    order = list(lab.session().plan.steps)
    assert order.index("again[power=1]") < order.index("power[power=2]")


def test_steps_come_after_what_they_read(lab: Lab) -> None:
    lab.configure(steps=dict(reversed(STEPS.items())))
    seen: set[str] = set()
    for step in lab.session().plan.steps.values():
        assert {ref.step for ref in step.inputs.values()} <= seen
        seen.add(step.name)
