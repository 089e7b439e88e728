"""What `pipeline.store` promises about artifacts that were damaged or are no longer needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from artifacts import KEY, OTHER, batch, commit, dead_process

from pipeline import hdf5, temporary
from pipeline.errors import CorruptArtifact, UsageError
from pipeline.store import Problem, Store
from pipeline.store_verbs import store_gc


def part(path: Path, process: int | None = None) -> Path:
    """The name under which a process, by default this one, writes what becomes `path`."""
    return path.with_name(f".{temporary.host()}-{process or os.getpid()}-1-{path.name}")


def test_a_sound_artifact_has_no_problem(store: Store) -> None:
    commit(store)
    assert [store.check(path) for path in store.receipts()] == [None]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_receipt(path: Path) -> None:
    receipt = json.loads(path.with_suffix(".json").read_bytes())
    path.with_suffix(".json").write_text(json.dumps({**receipt, "key": OTHER}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "expected sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "expected sha256"),
        (lambda path: path.write_bytes(b""), "expected sha256"),
        (lambda path: path.unlink(), "the file is gone"),
        (lambda path: path.with_suffix(".json").write_bytes(b"{"), "the receipt is unreadable"),
        (lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe"), "the receipt is unreadable"),
        (lambda path: path.with_suffix(".json").write_bytes(b"[]"), "the receipt is unreadable"),
        (lambda path: path.with_suffix(".json").write_bytes(b"{}"), "the receipt is unreadable"),
        (swap_receipt, "the receipt belongs to another artifact"),
    ],
    ids=["bit", "truncated", "emptied", "gone", "half", "not UTF-8", "a list", "no fields", "of another key"],
)
def test_every_kind_of_damage_is_found_set_aside_and_made_good(
    store: Store, damage: Callable[[Path], Any], reason: str
) -> None:
    commit(store, OTHER, seed=1)
    commit(store)
    damage(store.path("toy", KEY))
    (problem,) = filter(None, map(store.check, store.receipts()))
    assert problem.path == store.path("toy", KEY)
    assert reason in problem.reason
    store.quarantine(problem)
    assert store.present("toy") == {OTHER}
    commit(store)
    assert [store.check(path) for path in store.receipts()] == [None, None]
    assert store.read("toy", KEY).digest() == batch().digest()


def test_quarantine_keeps_what_was_found_and_why(store: Store) -> None:
    commit(store)
    image = store.path("toy", KEY).read_bytes()
    store.quarantine(Problem(store.path("toy", KEY), "looked odd"))
    aside = {path.suffix: path for path in (store.root / "quarantine").iterdir()}
    assert aside[".h5"].read_bytes() == image
    assert json.loads(aside[".json"].read_bytes())["key"] == KEY
    assert aside[".reason"].read_text() == f"{store.path('toy', KEY)}: looked odd\n"


def test_an_artifact_may_be_set_aside_again_and_again(store: Store) -> None:
    for _ in range(3):
        commit(store)
        store.quarantine(Problem(store.path("toy", KEY), "once more"))
    assert len(list((store.root / "quarantine").glob("*.h5"))) == 3
    assert list(store.receipts()) == []


def test_reading_a_damaged_or_vanished_file_is_an_error_that_says_what_to_do(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptArtifact, match="qfuse store verify"):
        store.read("toy", KEY)
    path.unlink()
    with pytest.raises(CorruptArtifact, match="the file is gone"):
        store.read("toy", KEY)
    path.with_suffix(".json").write_bytes(b"{")
    with pytest.raises(CorruptArtifact, match="receipt is unreadable"):
        store.receipt("toy", KEY)
    path.with_suffix(".json").unlink()
    with pytest.raises(CorruptArtifact, match="it is not in the store; run again"):
        store.read("toy", KEY)


def test_receipts_come_in_order_and_without_those_being_written(store: Store) -> None:
    for output in ("b", "a"):
        for key in (OTHER, KEY):
            commit(store, key, output=output)
    path = store.path("a", KEY)
    part(path.with_suffix(".json")).write_bytes(b"{")
    found = [(path.parent.parent.name, path.stem) for path in store.receipts()]
    assert found == sorted((output, key) for output in "ab" for key in (OTHER, KEY))
    assert {path.parent.parent.name for path in store.receipts("a")} == {"a"}


def test_garbage_is_what_no_live_key_needs(store: Store) -> None:
    commit(store)
    commit(store, OTHER)
    old = store.path("toy", OTHER)
    assert store.garbage({("toy", KEY), ("toy", OTHER)}) == []
    assert sorted(store.garbage({("toy", KEY)})) == sorted([old, old.with_suffix(".json")])
    assert store.garbage({("toy", KEY)}, ["another output"]) == []


def test_a_file_without_receipt_and_leftovers_of_killed_writers_are_garbage(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    leftover = part(path, dead_process())
    others = [path.with_name(name) for name in (f".{'9' * 30}-1-{KEY}.h5", ".hidden")]
    for file in (leftover, *others):
        file.write_bytes(b"")
    assert set(store.garbage({("toy", KEY)})) == {path, leftover, *others}


def test_what_a_running_process_is_about_to_commit_is_no_garbage(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    part(path).write_bytes(b"")
    assert store.garbage(set()) == []


def test_what_another_host_is_about_to_commit_is_no_garbage_for_a_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(temporary, "host", lambda: "0" * 8)
        file = part(path, dead_process())  # of its number this host knows nothing
    file.write_bytes(b"")
    assert store.garbage(set()) == []
    os.utime(file, (time.time() - 90_000,) * 2)
    assert set(store.garbage(set())) == {file, path}


def test_a_temporary_file_names_its_host_and_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    write = hdf5.write
    monkeypatch.setattr(hdf5, "write", lambda path, *rest: (made.append(path.name), write(path, *rest)))
    commit(store)
    code = "from pipeline.temporary import host; print(host())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert made[0].split("-")[:2] == [f".{told}", str(os.getpid())]


def test_bulk_outputs_alone_are_collected_as_crops(toys: None, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.Measure, "bulk", ("multiples",))
    monkeypatch.setattr(toy.Power, "bulk", ("",))
    for output in ("measure.number", "measure.multiples", "power", "total"):
        commit(store, output=output)
    store_gc(None, store.root, crops=True, delete=True)
    assert {path.parent.parent.name for path in store.receipts()} == {"measure.number", "total"}


def test_crops_are_not_collected_beside_configs(store: Store) -> None:
    with pytest.raises(UsageError, match="give either --crops or configs to keep"):
        store_gc([Path("a.yaml")], store.root, crops=True)


def test_set_aside_artifacts_and_run_folders_are_no_garbage(store: Store) -> None:
    commit(store)
    store.quarantine(Problem(store.path("toy", KEY), "odd"))
    (store.root / "runs" / "ab").mkdir(parents=True)
    (store.root / "runs" / "ab" / "plan.json").write_bytes(b"{}")
    assert store.garbage(set()) == []
