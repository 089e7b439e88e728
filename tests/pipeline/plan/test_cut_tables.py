"""Tables are cut as shards are: a shard has its own rows of them, and its key and its estimate are
of these alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import toy
from laboratory import CONFIG, Lab

from pipeline.core import registry
from pipeline.core.registry import register
from pipeline.core.schema import Batch, Field, Schema
from pipeline.core.stage import Stage, Work
from pipeline.run.memory_estimate import estimate

SEEN = Schema("seen", (Field("groups", "int64"), Field("members", "int64"), Field("last", "int64")))


class Cut(Stage):
    """For each group how many groups and members its shard saw, and the last group that a member
    was of.
    """

    name = "cut"
    grain = "tile"
    axis = "groups"
    produces: ClassVar[Mapping[str, Schema]] = {"": SEEN}
    consumes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "groups": ("group_id",),
        "members": ("group",),
    }

    def memory(self, rows: Any, sizes: Any, tables: Any) -> Mapping[str, int]:
        return {"as many bytes as groups": tables["groups"].rows}

    def compute(self, work: Work) -> dict[str, Batch]:
        toy.count(self, 1)
        groups, members = work.tables["groups"], work.tables["members"]
        seen = {"groups": groups.rows, "members": members.rows, "last": int(members["group"][-1])}
        return {
            "": Batch(
                {name: np.full(work.stop - work.start, value) for name, value in seen.items()}
            )
        }


@pytest.fixture
def cut(lab: Lab) -> Iterator[Lab]:
    """The laboratory with five groups in shards of two, and the stage."""
    register("stage", Cut.name)(Cut)
    lab.configure(steps={"cut": {}}, factors={}, run={**CONFIG["run"], "workers": 1})
    yield lab
    registry._parts["stage"].pop(Cut.name)


def test_each_shard_sees_its_own_rows_numbered_from_its_first(cut: Lab) -> None:
    seen = cut.run().read("cut")
    assert seen["groups"].tolist() == [2, 2, 2, 2, 1]
    assert max(seen["last"]) < 2
    assert seen["members"][[0, 2, 4]].sum() == 22


def test_each_shard_has_a_key_of_its_own_and_is_kept(cut: Lab) -> None:
    plan = cut.run().session.plan
    assert len({key for task in plan.steps["cut"].tasks for key in task.keys.values()}) == 3
    assert cut.session().plan.to_run == []


def test_a_changed_row_makes_its_shard_stale_alone(cut: Lab) -> None:
    cut.run()
    (cut.root / "files" / "99.4").write_text("1")
    plan = cut.session().plan
    assert [task.index for task in plan.steps["cut"].to_run] == [2]
    assert plan.steps["cut"].reason == "the data set's members changed"


def test_the_estimate_of_a_shard_is_told_of_its_own_tables(cut: Lab) -> None:
    session = cut.session(readonly=True)
    (need,) = estimate(session.plan, session.store, 1)
    assert [part.bytes for part in need.parts if part.what == "as many bytes as groups"] == [2]


def test_a_reduce_stage_has_every_table_whole(lab: Lab) -> None:
    plan = lab.session().plan
    assert plan.steps["overall"].stage.cut_along == ""
    assert plan.steps["measure"].stage.cut_along == "faces"
