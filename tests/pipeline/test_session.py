"""What `pipeline.session`, `pipeline.run.events` and `pipeline.cli.display` make of a plan and of a
finished run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from laboratory import Lab
from rich.console import Console
from rich.table import Table

from pipeline.cli.display import (
    Progress,
    plan_table,
    status_rows,
    status_table,
    store_rows,
    store_table,
)
from pipeline.errors import InvalidInput, ResourceRefused
from pipeline.run.events import Event, Events
from pipeline.run.runner import Runner
from pipeline.session import Results, execute, make_report, plain, write_json


def shown(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_executing_a_session_leaves_a_summary_and_the_plan_for_the_reasons_of_the_next(
    lab: Lab,
) -> None:
    session = lab.session()
    summary = execute(session, Events())
    assert json.loads((session.folder / "summary.json").read_bytes())["rows"] == summary.rows
    shards = sum(len(step.tasks) for step in session.plan.steps.values())
    assert len(json.loads((session.folder / "plan.json").read_bytes())) == shards


def test_an_execution_that_fails_leaves_the_plan_too(lab: Lab) -> None:
    for row in range(22):
        lab.write(row, "?")
    session = lab.session()
    with pytest.raises(ValueError, match="could not convert"):
        execute(session, Events())
    assert (session.folder / "plan.json").exists()
    assert not (session.folder / "summary.json").exists()


def test_results_are_found_by_stage_and_by_what_they_depend_on(lab: Lab) -> None:
    ran = lab.run()
    results = Results(ran.session)
    first, second = results.cells("nearest")
    above = results.upstream(second, "power")
    assert above is not None
    assert above.name == "power[power=2]"
    assert results.upstream(first, "overall") is None
    assert results.read(first, columns=["gap"]).columns.keys() == {"gap"}
    assert results.available(first)
    assert not results.available(above)


def test_a_config_without_report_makes_none_and_an_unknown_kind_is_refused(lab: Lab) -> None:
    assert make_report(lab.session()) == []
    with pytest.raises(InvalidInput, match="unknown report 'htm': did you mean 'html'"):
        make_report(lab.session("report.kind=htm"))


def test_numbers_are_written_as_what_json_can_hold(tmp_path: Path) -> None:
    value = {
        "a": np.float32(0.5),
        3: (np.int64(2), np.nan, -np.inf),
        "b": [True, None, "é", float("inf")],
    }
    write_json(tmp_path / "deep" / "x.json", value)
    expected = {"a": 0.5, "3": [2, None, "-inf"], "b": [True, None, "é", "inf"]}
    assert json.loads((tmp_path / "deep" / "x.json").read_bytes()) == expected == plain(value)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.json"]


def test_events_are_appended_as_lines_and_sent_to_every_listener(tmp_path: Path) -> None:
    heard: list[Event] = []
    for number in (1, 2):
        events = Events(tmp_path / "run", heard.append, heard.append)
        events.send("advance", step="é", rows=number)
        events.close()
    lines = [
        json.loads(line)
        for line in (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(line["event"], line["step"], line["rows"]) for line in lines] == [
        ("advance", "é", 1),
        ("advance", "é", 2),
    ]
    assert heard == [lines[0], lines[0], lines[1], lines[1]]


def test_an_event_begins_a_line_also_after_one_that_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"event": "cut sh')
    for number in (1, 2):
        events = Events(tmp_path)
        events.send("ran", number=number)
        events.close()
    _, *lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2]


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(
        ResourceRefused,
        match=(
            r"cannot write to the run folder .*run is a file and .*: move it away, or set"
            r" run\.folder"
        ),
    ):
        Events(tmp_path / "run")


def test_status_counts_stored_shards_and_rows_by_status_from_receipts(lab: Lab) -> None:
    lab.write(5, "?")
    before = {row["step"]: row for row in status_rows(lab.session().plan, lab.session().store)}
    assert before["measure"] == {
        "step": "measure",
        "status": "run",
        "stored": 0,
        "shards": 6,
        "rows": {},
    }
    ran = lab.run()
    rows = {row["step"]: row for row in status_rows(lab.session().plan, ran.session.store)}
    assert rows["measure"] == {
        "step": "measure",
        "status": "present",
        "stored": 6,
        "shards": 6,
        "rows": {"ok": 21, "failed": 1},
    }
    assert rows["power[power=1]"]["status"] == "not needed"
    assert "21 ok, 1 failed" in shown(status_table(list(rows.values())))


def test_a_plan_is_shown_with_one_line_a_step_and_the_first_reasons(lab: Lab) -> None:
    text = shown(plan_table(lab.session().plan))
    assert [line.split()[:5] for line in text.splitlines() if line.startswith("total")] == [
        ["total", "total", "2", "6", "6"]
    ]
    lab.run()
    assert "options.scale: 1.0 → 2.0" in shown(
        plan_table(lab.session("steps.measure.options.scale=2").plan)
    )
    assert "never computed" not in shown(plan_table(lab.session().plan))


def test_a_store_is_listed_by_output(lab: Lab) -> None:
    ran = lab.run()
    rows = {row["output"]: row for row in store_rows(ran.session.store)}
    assert (rows["measure.number"]["artifacts"], rows["measure.number"]["rows"]) == (6, 22)
    assert rows["total"]["artifacts"] == 6
    size = sum(path.stat().st_size for path in (lab.root / "store" / "total").glob("??/*.h5"))
    assert rows["total"]["bytes"] == size
    assert "measure.multiples" in shown(store_table(list(rows.values())))


def test_progress_counts_every_row_and_shard_of_a_config_step_together(lab: Lab) -> None:
    session = lab.session()
    with Progress(session.plan, quiet=True) as progress:
        Runner(session.plan, session.store, Events(None, progress.on_event)).run()
    done = {task.description: (task.completed, task.total) for task in progress._bars.tasks}
    assert done == {
        "measure": (22, 22),
        "power": (44, 44),
        "total": (6, 6),
        "nearest": (6, 6),
        "overall": (1, 1),
    }
