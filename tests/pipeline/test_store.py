"""What `pipeline.store` promises: an artifact is immutable, and present or absent, whoever is killed or writes beside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE

import pytest
from artifacts import KEY, OTHER, TOY, batch, commit, dead_process, files

from pipeline import store as module
from pipeline.errors import CorruptArtifact, InvalidInput, ResourceRefused
from pipeline.keys import file_digest, key_of
from pipeline.store import Store


def test_what_was_committed_is_read_back(store: Store) -> None:
    commit(store)
    assert store.read("toy", KEY).digest() == batch().digest()
    assert list(store.read("toy", KEY, ["name"], slice(1, 3))["name"]) == ["1", "2"]


def test_an_artifact_is_one_file_and_one_receipt_and_nothing_else_is_left(store: Store) -> None:
    commit(store)
    assert files(store.root) == ["format.json", f"toy/{KEY[:2]}/{KEY}.h5", f"toy/{KEY[:2]}/{KEY}.json"]


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


def test_what_is_read_back_otherwise_than_written_is_not_committed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module.hdf5.write
    monkeypatch.setattr(module.hdf5, "write", lambda path, _, schema: write(path, batch(1), schema))  # a lying disk
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
    assert reader.garbage(set()) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("marker", "found"), [(b'{"format":2}', "2"), (b"{", "unknown"), (b"[]", "unknown"), (b"{}", "unknown"), (b"", "unknown")]
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_of_another_format_is_refused(tmp_path: Path, marker: bytes, found: str, readonly: bool) -> None:
    (tmp_path / "format.json").write_bytes(marker)
    with pytest.raises(InvalidInput, match=f"store of format {found}; this qfuse reads format 1"):
        Store(tmp_path, readonly)


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(InvalidInput, match="not empty and is not a qfuse store; choose another folder with --store"):
        Store(tmp_path)
    assert files(tmp_path) == ["thesis.tex"]


def test_an_empty_folder_becomes_a_store_also_after_a_killed_start(tmp_path: Path) -> None:
    (tmp_path / f".{dead_process()}-1-format.json").write_bytes(b"{")
    commit(Store(tmp_path))
    assert Store(tmp_path).present("toy") == {KEY}


def test_a_store_where_a_file_is_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(ResourceRefused, match="a file is where a folder should be: choose another folder"):
            Store(root)
    store = Store(tmp_path / "store")
    (store.root / "toy").write_text("x")
    with pytest.raises(ResourceRefused, match="a file is where a folder should be"):
        commit(store)


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv.pop(1)); from artifacts import *\n{code}"]
    here = str(Path(__file__).parent)
    return subprocess.Popen([*command, here, *map(str, arguments)], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)


def test_a_disk_that_takes_no_more_is_refused_and_nothing_half_is_left(tmp_path: Path) -> None:
    code = """
import resource
from pipeline.errors import ResourceRefused
store = Store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # what a file may hold; a full disk fails in the same place
try:
    store.commit("toy", KEY, batch(rows=10_000), TOY, {})
except ResourceRefused as error:
    print(error)
"""
    child = run(code, tmp_path / "store")
    out, error = child.communicate(timeout=60)
    assert (child.returncode, error) == (0, "")
    assert "cannot write to the store" in out
    assert files(tmp_path / "store") == ["format.json"]


def race(store: Path) -> None:
    """Let two processes commit the same 60 keys in the same order, started at one moment."""
    code = """
print("ready", flush=True)
sys.stdin.readline()
store = Store(Path(sys.argv[1]))
for i in range(60):
    commit(store, key_of(i), i)
"""
    children = [run(code, store) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate(timeout=60) == ("", "")
        assert child.returncode == 0


def test_two_processes_that_commit_the_same_keys_at_once_leave_sound_artifacts(tmp_path: Path) -> None:
    race(tmp_path / "store")
    store = Store(tmp_path / "store")
    assert store.present("toy") == {key_of(i) for i in range(60)}
    assert all(store.check(path) is None for path in store.receipts())
    assert all(store.read("toy", key_of(i)).digest() == batch(i).digest() for i in range(60))
    assert len(files(store.root)) == 1 + 2 * 60


def test_two_processes_that_find_the_same_damaged_files_leave_sound_artifacts(store: Store) -> None:
    for i in range(60):
        path = store.path("toy", key_of(i))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half a file")
    race(store.root)
    assert store.present("toy") == {key_of(i) for i in range(60)}
    assert all(store.check(path) is None for path in store.receipts())


def test_a_receipt_is_plain_json(store: Store) -> None:
    assert json.loads(json.dumps(asdict(commit(store)))) == asdict(store.receipt("toy", KEY))
