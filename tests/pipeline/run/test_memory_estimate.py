"""Memory: what a plan needs, told from the plan alone, and the refusal of what cannot be had."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from laboratory import CONFIG, Lab

from pipeline.core import registry
from pipeline.core.registry import register
from pipeline.core.schema import Batch, Field, Schema
from pipeline.core.stage import Options, Stage, Work
from pipeline.errors import ResourceRefused
from pipeline.run.memory_estimate import (
    OPEN_LENGTH,
    TEXT_BYTES,
    Need,
    estimate,
    outlook,
    require_memory,
    size_in_words,
)
from pipeline.run.runner import Runner
from pipeline.session import Session
from pipeline.system.available import available_memory

WIDE = Schema("wide", (toy.STATUS, Field("wide", "float64", (None,))))


class WidenOptions(Options):
    width: int = 1000
    scratch: int = 0


class Widen(Stage):
    """A number, many times over; it says how often, and that it holds `scratch` bytes."""

    name = "widen"
    grain = "map"
    stored = False
    Options = WidenOptions
    produces: ClassVar[Mapping[str, Schema]] = {"": WIDE}
    inputs: ClassVar[Mapping[str, str]] = {"number": "measure.number"}

    def memory(self, rows: Any, sizes: Any, tables: Any) -> Mapping[str, int]:
        return {"wide": rows[""] * 8 * self.options.width, "scratch": self.options.scratch}

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        number = inputs["number"]
        wide = np.repeat(number["value"][:, None], self.options.width, axis=1)
        return {"": Batch({"status": number["status"], "wide": wide})}


class Widest(Stage):
    """The largest number of all; it says that it holds `scratch` bytes."""

    name = "widest"
    grain = "reduce"
    axis = "groups"
    Options = WidenOptions
    produces: ClassVar[Mapping[str, Schema]] = {"": toy.TOTAL}
    inputs: ClassVar[Mapping[str, str]] = {"wide": "widen"}

    def memory(self, rows: Any, sizes: Any, tables: Any) -> Mapping[str, int]:
        return {"scratch": self.options.scratch}

    def compute(self, work: Work) -> dict[str, Batch]:
        found = work.inputs["wide"].read()
        return {
            "": Batch({"status": found["status"][:1], "value": np.array([found["wide"].max()])})
        }


@pytest.fixture
def wide(lab: Lab) -> Iterator[Lab]:
    """The laboratory with `widen`, which only memory keeps, and `widest`, which reads all of it."""
    for stage in (Widen, Widest):
        register("stage", stage.name)(stage)
    configure(lab)
    yield lab
    for stage in (Widen, Widest):
        registry._parts["stage"].pop(stage.name)


def configure(lab: Lab, faces: int = 4, workers: int = 1, **options: int) -> None:
    steps = {"measure": {}, "widen": {"options": options}, "widest": {}}
    shards = {**CONFIG["dataset"], "shard_rows": {"faces": faces}}
    lab.configure(
        steps=steps, factors={}, dataset=shards, run={**CONFIG["run"], "workers": workers}
    )


def needs(session: Session, workers: int | None = None) -> dict[str, Need]:
    return {need.step: need for need in estimate(session.plan, session.store, workers)}


def part(need: Need, step: str, what: str) -> int:
    return sum(part.bytes for part in need.parts if (part.step, part.what) == (step, what))


# What a plan needs


def test_every_step_that_will_run_has_an_estimate_and_no_other(lab: Lab) -> None:
    session = lab.session(readonly=True)
    assert list(needs(session)) == [step.name for step in session.plan.to_run]
    assert all(
        need.bytes == sum(part.bytes for part in need.parts) > 0 for need in needs(session).values()
    )
    lab.run(until="total")
    after = lab.session(readonly=True)
    assert list(needs(after)) == [step.name for step in after.plan.to_run] != []
    lab.run()
    assert needs(lab.session(readonly=True)) == {}


def test_an_estimate_opens_no_artifact(lab: Lab) -> None:
    lab.run(until="measure")
    for path in (lab.root / lab.store).glob("measure*/*/*.h5"):
        path.write_bytes(b"")
    assert needs(lab.session(readonly=True))["power[power=1]"].bytes > 0


def test_a_map_step_holds_the_shards_that_it_reads_and_one_in_pieces_and_whole(lab: Lab) -> None:
    lab.configure(factors={}, steps={"measure": {}, "power": {"stored": True}})
    lab.run(until="measure")
    found = needs(lab.session(readonly=True), workers=2)["power"]
    row = 1 + TEXT_BYTES + 8  # status, reason, value
    assert part(found, "power", "number to read") == 3 * 4 * row  # one shard more than workers
    assert part(found, "power", "number") == part(found, "power", "number in pieces") == 4 * row


def test_what_only_memory_keeps_is_held_until_its_reader_is_done(wide: Lab) -> None:
    found, row = needs(wide.session(readonly=True)), 1 + 8 * 1000
    assert part(found["widest"], "widen", "wide") == 22 * row
    assert (
        part(found["widest"], "widest", "wide to read") == 22 * row
    )  # joined from six shards: a copy
    assert part(found["measure"], "widen", "wide") == 0


def test_what_only_memory_keeps_is_gone_when_its_reader_is_done(wide: Lab) -> None:
    cells = {"measure": {}, "widen": {"options": {"width": "$width"}}, "widest": {}}
    wide.configure(steps=cells, factors={"width": [1000, 2000]})
    found = needs(wide.session(readonly=True), workers=1)["widest[width=2000]"]
    assert part(found, "widen[width=2000]", "wide") == 22 * (1 + 8 * 2000)
    assert part(found, "widen[width=1000]", "wide") == 0


def test_one_shard_that_memory_keeps_is_read_without_a_copy(wide: Lab) -> None:
    configure(wide, faces=100)
    assert part(needs(wide.session(readonly=True))["widest"], "widest", "wide to read") == 0


def test_what_a_stage_says_it_holds_counts_once_for_each_micro_batch_at_work(wide: Lab) -> None:
    configure(wide, faces=100, scratch=1000)  # 22 rows are eight micro-batches of three
    for workers, at_work in ((1, 1), (3, 3), (100, 8)):
        found = needs(wide.session(readonly=True), workers)["widen"]
        assert part(found, "widen", "scratch") == at_work * 1000


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 2), (100, 4)])
def test_cells_that_compute_side_by_side_add_up(wide: Lab, workers: int, at_once: int) -> None:
    cells = {"measure": {}, "widen": {}, "widest": {"options": {"scratch": "$scratch"}}}
    wide.configure(steps=cells, factors={"scratch": [10**9, 10**9 + 1, 10**9 + 2, 10**9 + 3]})
    worst = max(needs(wide.session(readonly=True), workers).values(), key=lambda need: need.bytes)
    assert sum(part.bytes for part in worst.parts if part.what == "scratch") // 10**9 == at_once


# Columns of open length


def test_an_open_length_is_the_one_that_the_stage_says(wide: Lab) -> None:
    configure(wide, width=77)
    assert part(needs(wide.session(readonly=True))["widest"], "widen", "wide") == 22 * (1 + 8 * 77)


def test_an_open_length_that_nothing_tells_is_assumed(lab: Lab) -> None:
    found = needs(lab.session(readonly=True), workers=1)["measure"]
    assert part(found, "measure", "multiples") == 4 * (1 + 4 * OPEN_LENGTH)


def test_an_open_length_is_that_of_what_is_stored_already(lab: Lab) -> None:
    ran = lab.run(until="measure")
    step = ran.session.plan.steps["measure"]
    lab.forget(step, 0)
    session = lab.session(until="measure", readonly=True)
    receipt = session.store.receipt(step.output("multiples"), step.tasks[1].keys["multiples"])
    assert part(needs(session)["measure"], "measure", "multiples") == 4 * (
        receipt.bytes // receipt.rows
    )


def test_a_damaged_receipt_tells_no_length_and_breaks_no_estimate(lab: Lab) -> None:
    lab.forget(lab.run(until="measure").session.plan.steps["measure"], 0)
    for path in (lab.root / lab.store).glob("measure*/*/*.json"):
        path.write_bytes(b"{")
    found = needs(lab.session(until="measure", readonly=True))["measure"]
    assert part(found, "measure", "multiples") == 4 * (1 + 4 * OPEN_LENGTH)


def test_an_open_length_is_handed_on_to_columns_of_the_same_name(wide: Lab) -> None:
    class Again(Widen):
        name = "again"
        inputs: ClassVar[Mapping[str, str]] = {"number": "widen"}
        memory = Stage.memory

    register("stage", "again")(Again)
    try:
        wide.configure(
            factors={}, steps={"measure": {}, "widen": {"options": {"width": 33}}, "again": {}}
        )
        found = needs(wide.session(readonly=True), workers=1)["again"]
        assert part(found, "again", "wide") == 4 * (1 + 8 * 33)
    finally:
        registry._parts["stage"].pop("again")


# Against the truth


@pytest.mark.parametrize("faces", [4, 11, 100])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_allocates_what_was_estimated_and_at_most_three_times_as_much(
    wide: Lab, faces: int, workers: int
) -> None:
    configure(wide, faces=faces, workers=workers, width=100_000)
    wide.run(until="measure")
    session = wide.session()
    told = max(need.bytes for need in estimate(session.plan, session.store))
    gc.collect()
    tracemalloc.start()
    try:
        Runner(session.plan, session.store).run()
        truth = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert truth / 3 <= told <= 1.1 * truth


# The refusal


def test_a_run_that_cannot_fit_is_refused_with_the_step_the_estimate_what_is_there_and_what_to_do(
    wide: Lab,
) -> None:
    configure(wide, faces=100, width=10_000_000)
    session = wide.session("run.memory=1.5", readonly=True)
    with pytest.raises(ResourceRefused) as refused:
        require_memory(session.plan, session.store)
    assert (
        str(refused.value)
        == "widen would take at least 3.5 GB of memory, and 1.5 GB are available: 22 wide of"
        " 80,000,001 bytes = 1.8 GB; 22 wide in pieces of 80,000,001 bytes = 1.8 GB. Nothing was"
        " computed: use a smaller data set or a machine with more memory, or set run.memory to"
        " the GB that it may take."
    )
    assert refused.value.exit_code == 6


def test_smaller_shards_are_advised_where_a_shard_is_what_does_not_fit(lab: Lab) -> None:
    lab.configure(dataset={**CONFIG["dataset"], "shard_rows": {"faces": 1000, "groups": 2}})
    session = lab.session("run.memory=0.00001", readonly=True)
    with pytest.raises(
        ResourceRefused, match=r"make dataset.shard_rows.faces smaller \(now 1,000\)"
    ):
        require_memory(session.plan, session.store)


def test_one_worker_is_advised_where_it_would_do(wide: Lab) -> None:
    configure(wide, faces=100, workers=8, scratch=1_000_000_000)
    session = wide.session("run.memory=2", readonly=True)
    with pytest.raises(ResourceRefused, match=r"use one worker \(--workers 1: about 1.0 GB\)"):
        require_memory(session.plan, session.store)
    require_memory(session.plan, session.store, workers=1)


def test_what_fits_is_not_refused_and_neither_is_what_has_run(lab: Lab) -> None:
    session = lab.session(readonly=True)
    require_memory(session.plan, session.store)
    lab.run()
    session = lab.session("run.memory=0.000000001", readonly=True)
    require_memory(session.plan, session.store)
    assert outlook(session.plan, estimate(session.plan, session.store)) == ""


def test_the_outlook_is_one_line(wide: Lab) -> None:
    configure(wide, width=1_000_000)
    session = wide.session("run.memory=22.3", readonly=True)
    line = outlook(session.plan, estimate(session.plan, session.store))
    assert line.startswith("peak memory about ")
    assert line.endswith(" MB of 22.3 GB available")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "1 MB"),
        (1_600_000, "2 MB"),
        (999_999_999, "1000 MB"),
        (2_138_877_504, "2.1 GB"),
        (10**13, "10,000.0 GB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert size_in_words(size) == words


# What is available


def write(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def system(root: Path, groups: str = "", available: int | None = 8_000_000) -> Path:
    meminfo = f"MemTotal: 9000000 kB\nMemAvailable: {available} kB\n" if available else ""
    return write(root / "proc", meminfo=meminfo, self__cgroup=groups)


def test_available_is_what_the_system_can_give(tmp_path: Path) -> None:
    assert available_memory(proc=system(tmp_path), cgroup=tmp_path) == 8_000_000 * 1024


def test_available_is_unknown_where_nothing_is_told(tmp_path: Path) -> None:
    assert available_memory(proc=tmp_path, cgroup=tmp_path) is None
    assert available_memory(proc=system(tmp_path, "nonsense: ::", None), cgroup=tmp_path) is None


def test_the_setting_overrides_what_the_system_says(tmp_path: Path) -> None:
    assert available_memory(2.5, system(tmp_path), tmp_path) == 2_500_000_000


@given(
    limit=st.integers(0, 10**12),
    used=st.integers(0, 10**12),
    cached=st.integers(0, 10**12),
    parents=st.integers(0, 10**12),
)
@settings(max_examples=25, deadline=None)
def test_a_control_group_leaves_its_limit_less_what_it_uses_without_cached_files(
    tmp_path_factory: pytest.TempPathFactory, limit: int, used: int, cached: int, parents: int
) -> None:
    root = tmp_path_factory.mktemp("groups")
    group = {
        "max": str(limit),
        "current": str(used),
        "stat": f"anon 1\ninactive_file {cached}\nactive_file 0\n",
    }
    write(root, **{f"g__parent__mine__memory_dot_{name}": value for name, value in group.items()})
    write(root, g__parent__memory_dot_max=f"{parents}\n", g__parent__memory_dot_current="0\n")
    write(root, g__memory_dot_max="max\n", g__memory_dot_current="5\n")
    found = available_memory(proc=system(root, "0::/parent/mine\n", 10**10), cgroup=root / "g")
    assert found == min(max(0, limit - max(0, used - cached)), parents, 10**10 * 1024)


def test_the_older_control_groups_limit_too(tmp_path: Path) -> None:
    group = {
        "limit_in_bytes": "5000",
        "usage_in_bytes": "3000",
        "stat": "total_inactive_file 500\ntotal_active_file 500\n",
    }
    write(tmp_path, **{f"memory__mine__memory_dot_{name}": value for name, value in group.items()})
    write(
        tmp_path,
        memory__memory_dot_limit_in_bytes="9223372036854771712",
        memory__memory_dot_usage_in_bytes="0",
    )
    proc = system(tmp_path, "5:cpu:/mine\n4:memory,hugetlb:/mine\n0::/\n")
    assert available_memory(proc=proc, cgroup=tmp_path) == 3000


def test_in_a_container_the_group_at_the_root_limits_whatever_path_the_host_knows(
    tmp_path: Path,
) -> None:
    write(tmp_path, g__memory_dot_max="7000", g__memory_dot_current="1000")
    assert (
        available_memory(proc=system(tmp_path, "0::/kubepods/pod7\n"), cgroup=tmp_path / "g")
        == 6000
    )


def test_the_address_space_that_a_process_may_have_limits_it() -> None:
    code = (
        "import resource\nfrom pipeline.system.available import"
        " available_memory\nresource.setrlimit(resource.RLIMIT_AS, (3 << 29,"
        " resource.RLIM_INFINITY))\nprint(available_memory())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert 0 < int(answer.stdout) < 3 << 29
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
