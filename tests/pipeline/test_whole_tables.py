"""Tables that a stage wants whole: every shard has all their rows, its key speaks of all, and its estimate is told of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import toy
from laboratory import CONFIG, Lab

from pipeline import registry
from pipeline.memory import estimate
from pipeline.registry import register
from pipeline.schema import Batch, Field, Schema
from pipeline.stage import Stage, Work

SEEN = Schema("seen", (Field("groups", "int64"), Field("members", "int64"), Field("last", "int64")))


class Cut(Stage):
    """For each group how many groups and members its shard saw, and the last group that a member was of."""

    name = "cut"
    grain = "tile"
    axis = "groups"
    produces: ClassVar[Mapping[str, Schema]] = {"": SEEN}
    consumes: ClassVar[Mapping[str, tuple[str, ...]]] = {"groups": ("group_id",), "members": ("group",)}

    def memory(self, rows: Any, sizes: Any, tables: Any) -> Mapping[str, int]:
        return {"as many bytes as groups": tables["groups"].rows}

    def compute(self, work: Work) -> dict[str, Batch]:
        toy.count(self, 1)
        groups, members = work.tables["groups"], work.tables["members"]
        seen = {"groups": groups.rows, "members": members.rows, "last": int(members["group"][-1])}
        return {"": Batch({name: np.full(work.stop - work.start, value) for name, value in seen.items()})}


class Whole(Cut):
    name = "whole"
    whole = ("groups", "members")


@pytest.fixture
def both(lab: Lab) -> Iterator[Lab]:
    """The laboratory with five groups in shards of two, and both stages."""
    for stage in (Cut, Whole):
        register("stage", stage.name)(stage)
    lab.configure(steps={"cut": {}, "whole": {}}, factors={}, run={**CONFIG["run"], "workers": 1})
    yield lab
    for stage in (Cut, Whole):
        registry._parts["stage"].pop(stage.name)


def test_each_shard_sees_a_whole_table_with_its_rows_numbered_as_they_are(both: Lab) -> None:
    ran = both.run()
    assert ran.read("cut")["groups"].tolist() == [2, 2, 2, 2, 1]
    assert max(ran.read("cut")["last"]) < 2
    whole = ran.read("whole")
    assert set(whole["groups"]) == {5}
    assert set(whole["members"]) == {22}
    assert set(whole["last"]) == {4}


def test_each_shard_has_a_key_of_its_own_and_is_kept(both: Lab) -> None:
    plan = both.run().session.plan
    keys = [key for task in plan.steps["whole"].tasks for key in task.keys.values()]
    assert len(set(keys)) == 3
    assert both.session().plan.to_run == []


def test_a_changed_row_makes_every_shard_stale_and_of_a_table_that_is_cut_one(both: Lab) -> None:
    both.run()
    (both.root / "files" / "99.4").write_text("1")
    plan = both.session().plan
    assert [task.index for task in plan.steps["cut"].to_run] == [2]
    assert [task.index for task in plan.steps["whole"].to_run] == [0, 1, 2]
    assert plan.steps["whole"].reason == "the data set's members changed"


def test_the_estimate_of_a_shard_is_told_of_whole_tables(both: Lab) -> None:
    session = both.session(readonly=True)
    parts = {part.step: part.bytes for need in estimate(session.plan, session.store, 1) for part in need.parts
             if part.what == "as many bytes as groups"}  # fmt: skip
    assert parts["whole"] % 5 == 0
    assert parts["cut"] < parts["whole"]


def test_a_reduce_stage_has_every_table_whole(lab: Lab) -> None:
    plan = lab.session().plan
    assert plan.steps["overall"].stage.cut_along("faces") == ""
    assert plan.steps["measure"].stage.cut_along("faces") == "faces"
