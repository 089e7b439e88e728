"""What `store` promises: an artifact is immutable, and present or absent, whoever is killed or
writes beside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from artifacts import KEY, OTHER, TOY, batch, child, commit, dead_process, files, flip
from machine import public_folder, unprivileged

from pipeline.errors import CorruptArtifact, InvalidInput, ResourceRefused
from pipeline.files.digests import file_digest
from pipeline.store import store as module
from pipeline.store.store import Store
from pipeline.system import disk
from pipeline.system.canonical_json import key_of


def test_what_was_committed_is_read_back(store: Store) -> None:
    commit(store)
    assert store.read("toy", KEY).digest() == batch().digest()
    assert list(store.read("toy", KEY, ["name"], slice(1, 3))["name"]) == ["1", "2"]


def test_an_artifact_is_one_file_and_one_receipt_and_nothing_else_is_left(store: Store) -> None:
    commit(store)
    assert files(store.root) == [
        "format.json",
        f"toy/{KEY[:2]}/{KEY}.h5",
        f"toy/{KEY[:2]}/{KEY}.json",
    ]


def test_a_receipt_says_what_was_committed(store: Store) -> None:
    before = time.time()
    receipt = commit(store)
    path = store.path("toy", KEY)
    assert receipt == store.receipt("toy", KEY)
    assert (receipt.output, receipt.key, receipt.schema, receipt.rows) == ("toy", KEY, "toy", 5)
    assert receipt.status == {"ok": 4, "failed": 1}
    assert (receipt.bytes, receipt.sha256) == (path.stat().st_size, file_digest(path))
    assert receipt.digest == batch().digest()
    assert receipt.provenance == {"step": "s"}
    assert before <= receipt.created <= time.time()


def test_a_receipt_whose_file_is_gone_counts_as_absent_and_is_replaced(store: Store) -> None:
    commit(store)
    store.path("toy", KEY).unlink()
    later = Store(store.root)
    assert later.present("toy") == set()
    commit(later)
    assert Store(store.root).read("toy", KEY).digest() == batch().digest()


def test_has_and_present_go_by_receipts(store: Store) -> None:
    assert not store.has("toy", KEY)
    assert store.present("toy") == set()
    commit(store)
    commit(store, OTHER)
    store.path("toy", OTHER).with_suffix(".json").unlink()
    assert store.has("toy", KEY)
    assert not store.has("toy", OTHER)
    assert not store.has("tox", KEY)
    assert store.present("toy") == {KEY}


def test_a_key_is_committed_once_and_never_replaced(store: Store) -> None:
    first = commit(store, seed=0)
    image = store.path("toy", KEY).read_bytes()
    assert commit(store, seed=1) == first
    assert store.path("toy", KEY).read_bytes() == image


def test_outputs_of_one_key_do_not_meet(store: Store) -> None:
    commit(store, seed=0, output="toy.a")
    commit(store, seed=1, output="toy.b")
    assert store.read("toy.a", KEY).digest() == batch(0).digest()
    assert store.read("toy.b", KEY).digest() == batch(1).digest()


def test_columns_that_are_not_the_schemas_are_not_committed(store: Store) -> None:
    with pytest.raises(InvalidInput, match="toy artifact: expected a column 'x'"):
        store.commit("toy", KEY, batch().select(["status", "name"]), TOY, {})
    assert files(store.root) == ["format.json"]


def test_a_provenance_that_is_not_utf8_is_kept(store: Store) -> None:
    store.commit("toy", KEY, batch(), TOY, {"path": "\udcff"})
    assert store.receipt("toy", KEY).provenance == {"path": "\udcff"}


def test_a_file_of_a_killed_writer_with_equal_bytes_is_adopted(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)
    path.with_suffix(".json").unlink()
    inode = path.stat().st_ino
    receipt = commit(store)
    assert path.stat().st_ino == inode
    assert store.receipt("toy", KEY) == receipt
    assert not (store.root / "quarantine").exists()


def test_a_file_of_a_killed_writer_with_other_bytes_is_set_aside(store: Store) -> None:
    path = store.path("toy", KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a fi")
    commit(store)
    assert store.read("toy", KEY).digest() == batch().digest()
    (aside,) = (store.root / "quarantine").glob("*.h5")
    assert aside.read_bytes() == b"half a fi"
    assert "held other bytes" in aside.with_suffix(".reason").read_text()


def test_what_is_read_back_otherwise_than_written_is_not_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module.hdf5.write
    # a lying disk
    monkeypatch.setattr(module.hdf5, "write", lambda path, _, schema: write(path, batch(1), schema))
    with pytest.raises(CorruptArtifact, match="check the disk"):
        commit(store)
    assert files(store.root) == ["format.json"]


def test_a_read_only_store_is_read_and_never_written(store: Store) -> None:
    commit(store)
    before = files(store.root)
    reader = Store(store.root, readonly=True)
    assert reader.read("toy", KEY).digest() == batch().digest()
    with pytest.raises(ResourceRefused, match="read-only"):
        commit(reader, OTHER)
    reader.open_digests().digest(store.path("toy", KEY))
    assert files(store.root) == before


def test_a_read_only_store_that_is_not_there_is_empty_and_stays_absent(tmp_path: Path) -> None:
    reader = Store(tmp_path / "none", readonly=True)
    assert not reader.has("toy", KEY)
    assert reader.present("toy") == set()
    assert list(reader.receipts()) == []
    assert reader.garbage(set()) == {}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("found", [1, 3])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_of_another_format_is_refused(tmp_path: Path, found: int, readonly: bool) -> None:
    (tmp_path / "format.json").write_text(f'{{"format":{found}}}')
    with pytest.raises(
        InvalidInput,
        match=f"store of format {found}; this qfuse reads format 2. Use the qfuse that wrote it",
    ):
        Store(tmp_path, readonly)


@pytest.mark.parametrize(
    "marker",
    [b"{", b"[]", b"{}", b"", b'{"format":true}', b'{"foroat":2}', b"\xff\xfe", b"[" * 99_999],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_whose_format_file_is_damaged_says_what_it_should_hold(
    tmp_path: Path, marker: bytes, readonly: bool
) -> None:
    (tmp_path / "format.json").write_bytes(marker)
    with pytest.raises(
        InvalidInput,
        match=r'format\.json is damaged: expected {"format":2}, found .* Put that line into it',
    ):
        Store(tmp_path, readonly)


def test_a_format_file_that_may_not_be_read_is_no_damaged_one() -> None:
    with public_folder() as folder:
        Store(folder / "store")
        (folder / "store" / "format.json").chmod(0)
        with (
            unprivileged(),
            pytest.raises(
                ResourceRefused, match=r"format\.json cannot be read \(Permission denied\)"
            ),
        ):
            Store(folder / "store", readonly=True)


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(
        InvalidInput, match="not empty and is not a qfuse store; choose another folder with --store"
    ):
        Store(tmp_path)
    assert files(tmp_path) == ["thesis.tex"]


def test_an_empty_folder_becomes_a_store_also_after_a_killed_start(tmp_path: Path) -> None:
    (tmp_path / f".{dead_process()}-1-format.json").write_bytes(b"{")
    commit(Store(tmp_path))
    assert Store(tmp_path).present("toy") == {KEY}


def test_a_store_where_a_file_is_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(
            ResourceRefused, match=r"file is a file and should be a folder.*choose another folder"
        ):
            Store(root)
    store = Store(tmp_path / "store")
    (store.root / "toy").write_text("x")
    with pytest.raises(
        ResourceRefused, match=r"store/toy is a file and should be a folder\): move it away"
    ):
        commit(store)


def race(store: Path, work: str = "\n    commit(store, key_of(i), i)") -> None:
    """Let two processes do the same work for 60 keys, by default commit them, in the same order
    from one moment on.
    """
    code = f"""
print("ready", flush=True)
sys.stdin.readline()
store = Store(Path(sys.argv[1]))
for i in range(60):{work}
"""
    writers = [child(code, store) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        assert writer.communicate(timeout=60) == ("", "")
        assert writer.returncode == 0


def test_two_processes_that_commit_the_same_keys_at_once_leave_sound_artifacts(
    tmp_path: Path,
) -> None:
    race(tmp_path / "store")
    store = Store(tmp_path / "store")
    assert store.present("toy") == {key_of(i) for i in range(60)}
    assert all(store.check_artifact(path) is None for path in store.receipts())
    assert all(store.read("toy", key_of(i)).digest() == batch(i).digest() for i in range(60))
    assert len(files(store.root)) == 1 + 2 * 60


def test_two_processes_that_find_the_same_damaged_files_leave_sound_artifacts(store: Store) -> None:
    for i in range(60):
        path = store.path("toy", key_of(i))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half a file")
    race(store.root)
    assert store.present("toy") == {key_of(i) for i in range(60)}
    assert all(store.check_artifact(path) is None for path in store.receipts())


def test_two_processes_that_find_the_same_artifacts_damaged_leave_sound_ones(store: Store) -> None:
    for i in range(60):
        commit(store, key_of(i), i)
        flip(store.path("toy", key_of(i)))
    race(
        store.root,
        """
    store.set_aside("toy", key_of(i), "a bit flipped")
    commit(store, key_of(i), i)
""",
    )
    assert store.present("toy") == {key_of(i) for i in range(60)}
    assert all(store.check_artifact(path) is None for path in store.receipts())
    assert len(list((store.root / "quarantine").glob("*.h5"))) == 60
    assert store.garbage(None) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path.with_suffix(".json")),
        lambda path: path.write_bytes(b"half"),
        lambda path: path.unlink(),
    ],
)
def test_a_commit_adopts_no_artifact_that_is_seen_to_be_damaged(
    store: Store, damage: Callable[[Path], object]
) -> None:
    commit(store)
    damage(store.path("toy", KEY))
    again = Store(store.root)
    commit(again)
    assert [again.check_artifact(path) for path in again.receipts()] == [None]
    assert len(list((store.root / "quarantine").glob("*.json"))) == 1


def test_a_commit_does_not_wait_for_ever_for_a_process_that_was_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_PATIENCE", 0.01)
    store.path("toy", KEY).parent.mkdir(parents=True)
    with disk.alone(store.path("toy", KEY).parent):
        commit(store)
    assert [store.check_artifact(path) for path in store.receipts()] == [None]


def test_a_receipt_is_read_once(store: Store) -> None:
    first = commit(store)
    assert store.receipt("toy", KEY) == first
    store.path("toy", KEY).with_suffix(".json").unlink()
    assert store.receipt("toy", KEY) == first
    with pytest.raises(CorruptArtifact, match="it is not in the store"):
        Store(store.root).receipt("toy", KEY)


def test_a_receipt_is_plain_json(store: Store) -> None:
    assert json.loads(json.dumps(asdict(commit(store)))) == asdict(store.receipt("toy", KEY))
