"""What `maintenance` promises of garbage: what nobody needs is found, by class, and what anybody
may need is not.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import time
from pathlib import Path
from threading import Thread

import pytest
import toy
from artifacts import KEY, OTHER, commit, dead_process, files, flip

from pipeline.cli.store import store_gc
from pipeline.errors import UsageError
from pipeline.store import maintenance
from pipeline.store.maintenance import ASIDE, LEFTOVER, ORPHAN, UNNEEDED
from pipeline.store.store import Store
from pipeline.system import disk, processes
from pipeline.system.canonical_json import key_of

NOBODY = f"{processes.host()}-{dead_process()}-1"  # a process that is no more


def part(path: Path, process: str | None = None) -> Path:
    """The name under which a process, by default this one, writes what becomes `path`."""
    return path.with_name(f".{process or processes.process()}-1-{path.name}")


def test_garbage_is_what_no_live_key_needs(store: Store) -> None:
    commit(store)
    commit(store, OTHER)
    old = store.path("toy", OTHER)
    assert store.garbage({("toy", KEY), ("toy", OTHER)}) == store.garbage(None) == {}
    assert store.garbage({("toy", KEY)}) == {old: UNNEEDED, old.with_suffix(".json"): UNNEEDED}
    assert store.garbage({("toy", KEY)}, ["another output"]) == {}


def test_a_file_without_receipt_and_leftovers_of_killed_writers_are_garbage(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    leftovers = [part(path, NOBODY), part(store.root / "format.json", NOBODY)]
    leftovers += [path.with_name(name) for name in (f".{'9' * 30}-1-{KEY}.h5", ".hidden")]
    for file in leftovers:
        file.write_bytes(b"")
    assert store.garbage(None) == {path: ORPHAN, **dict.fromkeys(leftovers, LEFTOVER)}


def test_of_a_copy_beside_an_artifact_the_copy_alone_is_deleted(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    copies = [path.with_name(f"{KEY}.old{suffix}") for suffix in (".h5", ".json")]
    for copy in copies:
        copy.write_bytes(path.with_suffix(copy.suffix).read_bytes())
    maintenance.delete(store.garbage({("toy", KEY)}))
    assert [copy.exists() for copy in copies] == [False, False]
    assert store.read("toy", KEY).rows


def test_a_file_that_is_no_artifact_is_no_garbage(store: Store) -> None:
    commit(store)
    store.path("toy", KEY).with_name("notes.txt").write_text("mine")
    assert store.garbage({("toy", KEY)}) == {}


def test_what_a_running_process_is_about_to_commit_is_no_garbage(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    part(path).write_bytes(b"")
    assert store.garbage(set()) == {}


def test_what_another_host_is_about_to_commit_is_no_garbage_for_a_day(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    file = part(path, f"{'0' * 8}-{dead_process()}-1")  # of its number this host knows nothing
    file.write_bytes(b"")
    assert store.garbage(set()) == {}
    os.utime(file, (time.time() - 90_000,) * 2)
    assert store.garbage(set()) == {file: LEFTOVER, path: ORPHAN}


def test_set_aside_artifacts_are_garbage_only_where_they_are_asked_for_and_run_folders_never(
    store: Store,
) -> None:
    commit(store)
    flip(store.path("toy", KEY))
    store.set_aside("toy", KEY, "odd")
    (store.root / "runs" / "ab").mkdir(parents=True)
    (store.root / "runs" / "ab" / "plan.json").write_bytes(b"{}")
    assert store.garbage(set()) == {}
    assert set(store.garbage(set(), aside=True).items()) == {
        (path, ASIDE) for path in (store.root / "quarantine").iterdir()
    }


@pytest.mark.parametrize(
    ("owner", "age", "garbage"),
    [
        (processes.process(), 2, False),
        (NOBODY, 0, False),
        (NOBODY, 2, True),
        ("0" * 8 + "-1-1", 2, True),
        ("token", 2, True),
    ],
    ids=[
        "of a living process",
        "of a dead one, just now",
        "of a dead one",
        "of another host",
        "of nobody",
    ],
)
def test_a_claim_is_garbage_when_its_process_is_no_more_and_a_day_has_passed(
    store: Store, owner: str, age: int, garbage: bool
) -> None:
    claim = store.root / "journal" / KEY
    claim.parent.mkdir()
    claim.write_text(f"{owner}\n+ 0 8\n")
    os.utime(claim, (time.time() - age * 86_400,) * 2)
    assert store.garbage(set()) == ({claim: LEFTOVER} if garbage else {})
    assert list(store.receipts()) == []


def test_a_file_that_has_got_its_receipt_since_it_was_found_without_is_not_deleted(
    store: Store,
) -> None:
    commit(store)
    commit(store, OTHER)
    path, other = store.path("toy", KEY), store.path("toy", OTHER)
    for orphan in (path, other):
        orphan.with_suffix(".json").unlink()
    found = store.garbage(None)
    commit(store)
    maintenance.delete(found)
    assert [store.check_artifact(path) for path in store.receipts()] == [None]
    assert not other.exists()


@pytest.mark.parametrize("stop", range(1, 10))
def test_wherever_deleting_is_cut_short_no_receipt_is_without_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    for i in range(3):
        commit(store, key_of(i))
    found, unlink, count = store.garbage(set()), Path.unlink, itertools.count(1)

    def stopped(path: Path, missing_ok: bool = False) -> None:
        if next(count) == stop:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt):
        maintenance.delete(found)
    assert [problem for path in store.receipts() if (problem := store.check_artifact(path))] == []


@pytest.mark.parametrize(
    "locks", [True, False], ids=["with locks", "on a file system without locks"]
)
def test_what_is_committed_while_garbage_is_deleted_has_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    names = [key_of(i) for i in range(3)]
    for key in names:
        commit(store, key)
    found, unlink, threads = store.garbage(set()), Path.unlink, list[Thread]()

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        # a run finds it missing now
        if path.suffix == ".json" and path.stem in names and len(threads) < len(names):
            threads.append(Thread(target=commit, args=(Store(store.root), path.stem)))
            threads[-1].start()
            threads[-1].join(0.1)  # where it has to wait for the folder, it comes later

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(Path, "unlink", unlinked)
    if not locks:
        monkeypatch.setattr(fcntl, "flock", refused)
    maintenance.delete(found)
    for thread in threads:
        thread.join(20)
    assert [problem for path in store.receipts() if (problem := store.check_artifact(path))] == []
    assert not locks or store.present("toy") == set(names)


def test_a_commit_whose_file_is_taken_before_its_receipt_is_there_links_it_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(path: Path, data: bytes) -> None:
        path.with_suffix(".h5").unlink()
        disk.link_new(path, data)

    monkeypatch.setattr("pipeline.store.store.link_new", taken)
    commit(store)
    assert [store.check_artifact(path) for path in store.receipts()] == [None]


def test_bulk_outputs_alone_are_collected_as_crops(
    toys: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Measure, "bulk", ("multiples",))
    monkeypatch.setattr(toy.Power, "bulk", ("",))
    for output in ("measure.number", "measure.multiples", "power", "total"):
        commit(store, output=output)
        commit(store, OTHER, output=output)
        flip(store.path(output, OTHER))
        store.set_aside(output, OTHER, "a bit")
    store_gc(None, store.root, crops=True, delete=True)
    assert {path.parent.parent.name for path in store.receipts()} == {"measure.number", "total"}
    assert {output for output, _ in store.aside()} == {"measure.number", "total"}


def test_crops_are_not_collected_beside_configs(store: Store) -> None:
    with pytest.raises(UsageError, match="give either --crops or configs to keep"):
        store_gc([Path("a.yaml")], store.root, crops=True)


def test_a_dry_run_deletes_nothing(
    toys: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.Power, "bulk", ("",))
    commit(store, output="power")
    before = files(store.root)
    store_gc(None, store.root, crops=True)
    assert files(store.root) == before
