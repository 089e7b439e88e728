"""Damage that a run meets, without `store verify`: it is named, set aside, and exactly that is
computed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import toy
from artifacts import flip
from children import computed, finished
from forks import forked
from laboratory import Lab

from pipeline.files.digests import file_digest
from pipeline.plan.more_damage import doubting
from pipeline.store.hdf5 import read
from pipeline.store.maintenance import size_of
from pipeline.store.mending import mended
from pipeline.store.receipt import sealed, unsealed


def flip_data(path: Path) -> None:
    """Flip a bit in the values of `measure.number`."""
    value = read(path)["value"].tobytes()
    flip(path, 8 * path.read_bytes().index(value) + 77)
    assert path.read_bytes().find(value) < 0


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of its data": flip_data,
    "a bit of its receipt": lambda path: flip(path.with_suffix(".json")),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: size_of(path) // 2]),
    "the file gone": lambda path: path.unlink(),
}


def path_of(lab: Lab, step: str, output: str, shard: int) -> Path:
    session = lab.session(readonly=True)
    found = session.plan.steps[step]
    return session.store.path(found.output(output), found.tasks[shard].keys[output])


@pytest.fixture
def hurt(lab: Lab) -> Callable[[str], Path]:
    """Run, take away the one artifact that reads all of `measure.number`, and damage a shard of
    that.
    """

    def hurt(kind: str) -> Path:
        ran = lab.run()
        lab.forget(ran.session.plan.steps["overall"], 0)
        path = path_of(lab, "measure", "number", 2)
        DAMAGE[kind](path)
        return path

    return hurt


def mended_alone(lab: Lab, path: Path, again: Callable[..., str], **rows: int) -> str:
    """Run; nothing but `rows` and what had been taken away is computed, and all is as it was.
    Returns what was said.
    """
    others = {
        name: state for name, state in finished(lab).items() if name.with_suffix(".h5") != path
    }
    error = again(lab, TOY_LOG=str(lab.root / "log"))
    done = computed(lab.root / "log")
    del done["overall"]  # which began once or twice
    assert done == rows
    now = finished(lab)
    assert {name: now[name] for name in others} == others
    assert lab.contents() == lab.reference()
    assert forked(lab, "store", "verify") == ""
    return error


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_found_damaged_is_named_and_computed_again_alone(
    lab: Lab, hurt: Callable[[str], Path], kind: str
) -> None:
    path = hurt(kind)
    error = mended_alone(lab, path, forked, measure=4)
    (line,) = error.splitlines()
    assert str(path.with_suffix("")) in line
    assert line.endswith(
        "Its receipt was set aside." if "the file is gone" in line else "It was set aside."
    )
    (reason,) = (lab.root / "store" / "quarantine").glob("*.reason")
    assert reason.name.startswith(f"measure.number-{path.stem[:16]}")


def test_what_a_worker_finds_damaged_is_computed_again_too(
    lab: Lab, hurt: Callable[[str], Path]
) -> None:
    path = hurt("a bit of its data")

    def again(lab: Lab, **more: str) -> str:
        return forked(lab, "--dask", "local:1", **more)

    assert f"{path}: the file is damaged" in mended_alone(lab, path, again, measure=4)


def test_what_is_damaged_is_computed_again_also_where_nothing_is_left_that_reads_it(
    lab: Lab,
) -> None:
    lab.run()
    path, before = path_of(lab, "total[power=2]", "", 1), lab.contents()
    flip(path.with_suffix(".json"))
    assert "It was set aside" in forked(lab, TOY_LOG=str(lab.root / "log"))
    assert computed(lab.root / "log")["total"] == 1
    assert lab.contents() == before
    assert forked(lab) == ""


def test_what_another_verb_has_set_aside_is_computed_again_by_the_next_run_of_a_config_that_has_it(
    lab: Lab,
) -> None:
    lab.run()
    path, before = path_of(lab, "measure", "multiples", 3), lab.contents()
    path.write_bytes(path.read_bytes()[:-9])
    assert "set aside in quarantine/; the next run recomputes them" in forked(
        lab, "store", "verify", expect=5
    )
    (task,) = lab.session(readonly=True).plan.steps["measure"].to_run
    assert (task.index, task.missing, task.reason) == (3, {"multiples"}, "set aside as damaged")
    assert lab.session(readonly=True).plan.finished
    forked(lab)
    assert lab.contents() == before
    assert not lab.session(readonly=True).plan.to_run


@pytest.mark.parametrize(
    "lose",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: flip(path.with_suffix(".json")),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.with_suffix(".json").unlink(), path.with_suffix(".json").mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=[
        "files gone",
        "files cut short",
        "receipts damaged",
        "folders for files",
        "folders for receipts",
        "pipes for files",
    ],
)
def test_whatever_is_plainly_damaged_is_set_aside_at_once(
    lab: Lab, lose: Callable[[Path], object]
) -> None:
    session = lab.run().session
    before = lab.contents()
    lab.forget(session.plan.steps["overall"], 0)
    paths = [
        session.store.path("measure.number", task.keys["number"])
        for task in session.plan.steps["measure"].tasks
    ]
    for path in paths:
        lose(path)
    told, begun = list[str](), list[int]()

    def work() -> None:
        begun.append(1)
        lab.run()

    mended(work, told.append)
    assert len(begun) == 2
    assert len(told) == len(paths) == 6
    assert all(any(str(path.with_suffix("")) in line for line in told) for path in paths)
    assert lab.contents() == before


def flip_all(lab: Lab, *outputs: tuple[str, str]) -> list[Path]:
    """Run, and flip a bit of every shard of outputs (step, output) once `overall`, which is below
    them, is taken away.
    """
    session = lab.run().session
    lab.forget(session.plan.steps["overall"], 0)
    found = [
        (session.plan.steps[step].output(output), output, session.plan.steps[step].tasks)
        for step, output in outputs
    ]
    paths = [
        session.store.path(name, task.keys[output])
        for name, output, tasks in found
        for task in tasks
    ]
    for path in paths:
        flip(path)
    return paths


def passes(lab: Lab, again: Callable[[Lab], object]) -> int:
    """Return how often a run that is done again begins, each time with workers of its own where it
    has any.
    """
    log = lab.root / "run" / "events.jsonl"
    log.unlink(missing_ok=True)
    again(lab)
    return log.read_text().count('"run_started"')


@pytest.mark.parametrize(
    "again", [forked, lambda lab: forked(lab, "--dask", "local:1")], ids=["here", "workers"]
)
def test_however_many_bits_are_flipped_a_run_begins_anew_once(
    lab: Lab, again: Callable[[Lab], object]
) -> None:
    paths = flip_all(lab, ("measure", "number"))
    assert passes(lab, again) == 2
    assert len(list((lab.root / "store" / "quarantine").glob("*.reason"))) == len(paths) == 6
    assert lab.contents() == lab.reference()


def test_of_a_store_that_cannot_be_written_all_that_is_damaged_is_hidden_at_once(lab: Lab) -> None:
    paths = flip_all(lab, ("measure", "number"))
    (lab.root / "store" / "quarantine").write_text("in the way, as no permission would be")
    told: list[str] = []
    absent: set[tuple[str, str]] = set()
    begun = 0

    def work() -> None:
        nonlocal begun
        begun += 1
        session = lab.session(readonly=True, absent=absent)
        with doubting(session.plan):
            for path in paths:
                if (name := (path.parent.parent.name, path.stem)) not in absent:
                    session.store.read(*name)

    mended(work, told.append, absent.add)
    assert begun == 2
    assert len(told) == len(paths) == len(absent) == 6
    assert all("counts as absent" in line for line in told)


def test_a_flipped_bit_that_only_mending_would_meet_is_found_with_the_first_one(lab: Lab) -> None:
    flip_all(lab, ("measure", "number"), ("total[power=1]", ""))
    assert passes(lab, forked) == 2
    assert forked(lab, "store", "verify") == ""


def test_crops_are_not_looked_through_for_a_run_that_does_not_read_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Measure, "bulk", ("multiples",))
    unread = flip_all(lab, ("measure", "number"), ("measure", "multiples"))[6:]
    mended(lab.run, lambda told: None)
    store = lab.session(readonly=True).store
    assert {
        problem.path for problem in filter(None, map(store.check_artifact, store.receipts()))
    } == set(unread)


def test_of_many_that_are_damaged_the_first_are_named_and_the_others_counted(lab: Lab) -> None:
    lab.configure(
        dataset={"reader": "toy", "path": "files", "shard_rows": {"faces": 2, "groups": 2}}
    )
    session = lab.run().session
    lab.forget(session.plan.steps["overall"], 0)
    for task in session.plan.steps["measure"].tasks:
        session.store.path("measure.number", task.keys["number"]).unlink()
    told: list[str] = []
    mended(lab.run, told.append)
    assert all(line.endswith("the file is gone. Its receipt was set aside.") for line in told[1:6])
    assert told[6:] == ["5 more artifacts are damaged (measure.number: 5). They were set aside."]


@pytest.mark.parametrize("table", ["faces", "members", "groups"])
def test_a_damaged_table_of_the_data_set_is_read_anew(lab: Lab, table: str) -> None:
    session = lab.run().session
    path = session.store.path(f"ingest.{table}", session.dataset.key)
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    mended_alone(lab, path, forked)
    assert path.read_bytes() == content


def test_several_damaged_artifacts_of_several_steps_are_told_each(lab: Lab) -> None:
    ran = lab.run()
    for step in ("overall", "nearest[power=1]", "nearest[power=2]"):
        for task in ran.session.plan.steps[step].tasks:
            lab.forget(ran.session.plan.steps[step], task.index)
    paths = [path_of(lab, "measure", "number", shard) for shard in (0, 5)] + [
        path_of(lab, "total[power=2]", "", 1)
    ]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-9])
    error = forked(lab)
    assert error.count("It was set aside.") == 3
    assert all(str(path) in error for path in paths)
    assert lab.contents() == lab.reference()


def test_what_is_damaged_each_time_it_is_read_ends_the_run_with_one_sentence(
    lab: Lab, hurt: Callable[[str], Path]
) -> None:
    path = hurt("half of it")
    # A receipt that fits: computing it again would not be allowed to replace what is by all signs
    # as it was written.
    receipt = unsealed(path.with_suffix(".json").read_bytes(), "measure.number", path.stem)
    fields = {**vars(receipt), "bytes": size_of(path), "sha256": file_digest(path)}
    path.with_suffix(".json").write_bytes(sealed(type(receipt)(**fields)))
    error = forked(lab, expect=5)
    assert error.splitlines()[-1].startswith(f"qfuse: {path}: the file is damaged")
    assert error.count("\n") == 2


def test_what_cannot_be_set_aside_ends_the_run_with_what_to_do(
    lab: Lab, hurt: Callable[[str], Path]
) -> None:
    path = hurt("a bit of its data")
    before = path.read_bytes()
    (lab.root / "store" / "quarantine").write_text("in the way")
    error = forked(lab, expect=6)
    assert (
        f"{lab.root / 'store' / 'quarantine'} is a file and should be a folder): move it away"
        in error
    )
    assert error.count("\n") == 1
    assert path.read_bytes() == before


def test_an_artifact_in_the_place_of_another_is_found_even_with_a_receipt_sealed_for_it(
    lab: Lab,
) -> None:
    lab.run()
    one, other = (path_of(lab, "measure", "number", shard) for shard in (0, 1))
    receipt = unsealed(one.with_suffix(".json").read_bytes(), "measure.number", one.stem)
    other.write_bytes(one.read_bytes())
    other.with_suffix(".json").write_bytes(sealed(replace(receipt, key=other.stem)))
    store = lab.session(readonly=True).store
    (problem,) = filter(None, map(store.check_artifact, store.receipts()))
    assert (problem.path, problem.reason.partition(":")[0]) == (
        other,
        "the receipt belongs to another artifact",
    )
