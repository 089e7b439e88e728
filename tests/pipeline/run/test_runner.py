"""What `pipeline.run.runner` promises: the same results however a plan is cut and run, and rows
that fail alone.
"""

from __future__ import annotations

import json
import math
import zipfile

import numpy as np
import pytest
import toy
from laboratory import GROUPS, NUMBERS, Lab

from pipeline.core.schema import Status
from pipeline.errors import CorruptArtifact, TooManyFailures
from pipeline.run.events import Event, Events
from pipeline.run.runner import Runner

BIG = "dataset.shard_rows={faces: 100, groups: 100}"


def test_every_step_gives_what_a_direct_computation_gives(lab: Lab) -> None:
    ran = lab.run()
    assert list(ran.read("measure", "number")["value"]) == NUMBERS
    assert ran.read("measure", "multiples")["multiples"].tolist() == [
        [n, 2 * n, 3 * n] for n in NUMBERS
    ]
    overall = ran.read("overall")
    assert (overall["count"].tolist(), overall["value"].tolist()) == ([22], [math.fsum(NUMBERS)])
    for power in (1, 2):
        totals = [
            sum(n**power for n, g in zip(NUMBERS, GROUPS, strict=True) if g == group)
            for group in range(5)
        ]
        assert ran.read(f"total[power={power}]")["value"].tolist() == totals
        gaps = [
            [abs(a - b) if i != j else math.inf for j, b in enumerate(totals)]
            for i, a in enumerate(totals)
        ]
        nearest = ran.read(f"nearest[power={power}]")
        assert nearest["gap"].tolist() == [min(row) for row in gaps]
        assert nearest["group"].tolist() == [row.index(min(row)) for row in gaps]


@pytest.fixture
def whole(lab: Lab) -> dict[str, str]:
    """Column digests of a run in one shard, by one worker, in one micro-batch; two rows of it
    fail."""
    lab.write(5, "no number")
    lab.write(21, "nan")
    return lab.run(BIG, "run.workers=1", "numerics.compute_batch=100").digests()


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.shard_rows={faces: 1, groups: 1}", "run.workers=4"],
        ["dataset.shard_rows={faces: 7, groups: 3}", "run.workers=3"],
        ["dataset.shard_rows={faces: 5}", "numerics.compute_batch=2", "run.workers=2"],
        [BIG, "numerics.compute_batch=1", "run.workers=16"],
        ["dataset.shard_rows={faces: 21, groups: 4}", "numerics.compute_batch=21", "run.workers=1"],
    ],
)
def test_shards_micro_batches_and_workers_change_no_result(
    lab: Lab, whole: dict[str, str], overrides: list[str]
) -> None:
    assert lab.run(*overrides).digests() == whole


def test_a_row_on_which_a_stage_raises_fails_with_its_reason_and_the_others_stand(lab: Lab) -> None:
    good = lab.run().read("measure", "number")
    lab.write(5, "many")
    ran = lab.run()
    number, multiples = ran.read("measure", "number"), ran.read("measure", "multiples")
    others = np.arange(22) != 5
    assert number.take(others).digest() == good.take(others).digest()
    assert number["status"][5] == multiples["status"][5] == Status.FAILED
    assert "could not convert string to float" in number["reason"][5]
    assert np.isnan(number["value"][5])
    assert np.isnan(multiples["multiples"][5]).all()
    assert ran.read("overall")["count"][0] == 21
    assert ran.runner.summary.failures["measure"] == {"failed": 1}


def test_a_row_that_comes_out_as_nan_is_not_finite(lab: Lab) -> None:
    lab.write(0, "nan")
    lab.write(9, "inf")
    ran = lab.run()
    number = ran.read("measure", "number")
    assert np.flatnonzero(number["status"]).tolist() == [0, 9]
    assert (number["status"][[0, 9]] == Status.NOT_FINITE).all()
    assert number["reason"][0] == "measure gave nan or infinity"
    assert np.isfinite(ran.read("total[power=2]")["value"]).all()


@pytest.mark.parametrize("row", [0, 2, 3, 20, 21])
def test_a_row_fails_alone_wherever_in_a_shard_or_micro_batch_it_lies(lab: Lab, row: int) -> None:
    lab.write(row, "?")
    assert np.flatnonzero(lab.run().read("measure", "number")["status"]).tolist() == [row]


@pytest.mark.parametrize("first", [0, 4, 18])
def test_shards_of_failed_rows_only_do_not_end_the_run_wherever_they_lie(
    lab: Lab, first: int
) -> None:
    rows = list(range(first, min(first + 8, 22)))
    for row in rows:
        lab.write(row, "?")
    ran = lab.run()
    assert np.flatnonzero(ran.read("measure", "number")["status"]).tolist() == rows
    assert ran.read("measure", "multiples")["multiples"].shape == (22, 3)


def test_a_shard_of_failed_rows_only_comes_out_the_same_when_a_run_continues_there(
    lab: Lab,
) -> None:
    for row in range(4, 8):
        lab.write(row, "?")
    ran = lab.run()
    for step, shards in (("measure", range(1, 6)), ("overall", [0])):
        for shard in shards:
            lab.forget(ran.session.plan.steps[step], shard)
    assert lab.run().digests() == ran.digests()


def test_a_group_whose_members_all_failed_is_empty(lab: Lab) -> None:
    lab.write(3, "?")  # the only face of group 2
    ran = lab.run()
    assert ran.read("total[power=1]")["status"].tolist() == [0, 0, Status.EMPTY, 0, 0]
    assert 2 not in ran.read("nearest[power=1]")["group"][[0, 1, 3, 4]]


def test_where_every_row_raises_the_stage_is_wrong_and_its_error_comes_through(lab: Lab) -> None:
    for row in range(22):
        lab.write(row, "?")
    with pytest.raises(ValueError, match="could not convert string to float"):
        lab.run()
    assert lab.artifacts() == {}


def test_an_error_in_a_group_stage_comes_through_and_what_was_finished_stays(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: toy.Total, work: object) -> None:
        raise ZeroDivisionError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(toy.Total, "compute", broken)
        with pytest.raises(ZeroDivisionError):
            lab.run()
    assert {output for output, _ in lab.artifacts()} >= {"measure.number", "measure.multiples"}
    lab.run()
    assert "measure" not in toy.calls


def test_too_many_failures_end_the_run_with_exit_code_4_again_and_again(lab: Lab) -> None:
    for row in range(5):
        lab.write(row, "?" if row else "nan")
    for _ in range(2):
        with pytest.raises(
            TooManyFailures, match=r"measure: 5 of 22 rows failed \(4 failed, 1 not_finite\)"
        ) as caught:
            lab.run("run.max_failures=0.2")
        assert caught.value.exit_code == 4
    assert {output for output, _ in lab.artifacts()} >= {"measure.number", "measure.multiples"}
    lab.run("run.max_failures=0.25")
    assert toy.calls["measure"] == 0


def test_too_many_failures_of_a_former_run_end_a_run_that_has_nothing_to_do(lab: Lab) -> None:
    for row in range(5):
        lab.write(row, "?")
    lab.run("run.max_failures=1")
    session = lab.session("run.max_failures=0.2")
    assert session.plan.to_run == []
    with pytest.raises(TooManyFailures, match="measure: 5 of 22 rows failed"):
        Runner(session.plan, session.store).run()


def test_groups_that_fail_are_judged_as_rows_are(lab: Lab) -> None:
    for row in (3, 20):  # the only members of groups 2 and 3: 2 of 5 groups, and 2 of 22 faces
        lab.write(row, "?")
    expected = r"total\[power=[12]\]: 2 of 5 rows failed \(2 empty\)"
    with pytest.raises(TooManyFailures, match=expected):
        lab.run("run.max_failures=0.2")


def test_a_second_run_has_nothing_to_do(lab: Lab) -> None:
    first = lab.run()
    before = lab.artifacts()
    second = lab.run()
    assert second.session.plan.to_run == []
    assert toy.calls == {}
    assert second.digests() == first.digests()
    assert lab.artifacts() == before


def test_an_unstored_step_is_computed_again_only_where_it_is_needed_below(lab: Lab) -> None:
    ran = lab.run()
    assert not ran.session.store.present("power")
    lab.forget(ran.session.plan.steps["nearest[power=2]"], 0)
    # groups 2 and 3, whose faces 3 and 20 lie in shards 0 and 5
    lab.forget(ran.session.plan.steps["total[power=2]"], 1)
    again = lab.run()
    assert toy.calls == {"power": 4 + 2, "total": 1, "nearest": 1}
    assert again.digests() == ran.digests()


def test_an_artifact_that_vanishes_before_it_is_read_is_told(lab: Lab) -> None:
    lab.run(until="measure")
    session = lab.session()
    session.store.path(
        "measure.number", session.plan.steps["measure"].tasks[2].keys["number"]
    ).unlink()
    with pytest.raises(CorruptArtifact, match="the receipt is there but the file is gone"):
        lab.run()


def test_the_memory_of_an_unstored_step_is_freed_after_its_last_consumer(lab: Lab) -> None:
    held: dict[str, set[str]] = {}

    def listen(event: Event) -> None:
        if event["event"] == "step_started":
            held[event["step"]] = {step for step, _ in runner.computer.cache._shards}

    session = lab.session()
    runner = Runner(session.plan, session.store, Events(None, listen))
    runner.run()
    assert "power[power=1]" in held["total[power=1]"]
    assert "power[power=1]" not in held["nearest[power=2]"]
    assert not runner.computer.cache._shards


def test_a_step_that_is_asked_to_be_stored_is_stored(lab: Lab) -> None:
    ran = lab.run("steps.power.stored=true", "steps.measure.stored=true")
    assert len(ran.session.store.present("power")) == 2 * 6
    assert lab.run("steps.power.stored=true").session.plan.to_run == []


def test_a_data_set_without_rows_runs_through(lab: Lab) -> None:
    for file in (lab.root / "files").iterdir():
        file.unlink()
    ran = lab.run()
    assert ran.read("measure", "number").rows == ran.read("total[power=1]").rows == 0
    assert ran.read("overall")["count"].tolist() == [0]


def test_events_tell_the_rows_the_commits_and_the_end(lab: Lab) -> None:
    events = Events(lab.root / "run")
    ran = lab.run(events=events)
    events.close()
    told = [
        json.loads(line) for line in (lab.root / "run" / "events.jsonl").read_text().splitlines()
    ]
    assert (told[0]["event"], told[-1]["event"]) == ("run_started", "run_finished")
    assert sum(e["rows"] for e in told if e["event"] == "advance" and e["step"] == "measure") == 22
    committed = {e["key"] for e in told if e["event"] == "committed"}
    assert committed == {key for _, key in lab.artifacts()}
    assert {e["step"] for e in told if e["event"] == "step_finished"} == set(ran.session.plan.steps)


def test_a_summary_counts_rows_and_cells_by_step(lab: Lab) -> None:
    summary = lab.run().runner.summary
    counted = {name: (cells, rows) for name, (cells, rows, _) in summary.by_stage().items()}
    assert counted == {
        "measure": (1, 22),
        "power": (2, 44),
        "total": (2, 10),
        "nearest": (2, 10),
        "overall": (1, 22),
    }


def test_files_in_a_zip_and_in_a_folder_give_the_same_results(lab: Lab) -> None:
    ran = lab.run()
    with zipfile.ZipFile(lab.root / "files.zip", "w") as archive:
        for file in sorted((lab.root / "files").iterdir()):
            archive.write(file, file.name)
    zipped = lab.run("dataset.path=files.zip")
    assert toy.calls == {}  # only the files' digests count, not where they lie
    assert zipped.digests() == ran.digests()
