"""A store that is killed, filled, made read-only or taken away in the middle of a commit keeps what
is whole, and only that.

Where the machine lets a test mount a file system of its own, the disk is really full, read-only or
gone.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import KEY, OTHER, batch, child, commit, files, flip

from pipeline.errors import CorruptArtifact, ResourceRefused
from pipeline.store import hdf5, maintenance
from pipeline.store.maintenance import ORPHAN, delete
from pipeline.store.store import Store
from pipeline.system import fault_points
from pipeline.system.canonical_json import key_of

POINTS = ["before_write", "before_link", "before_receipt", "after_receipt"]
WHOLE = ["format.json", f"toy/{KEY[:2]}/{KEY}.h5", f"toy/{KEY[:2]}/{KEY}.json"]
MOUNT = ("unshare", "--mount", "--map-root-user")


def is_sound(store: Store) -> bool:
    """Whether every artifact that is there is whole."""
    return all(store.check_artifact(path) is None for path in store.receipts())


def made_good(root: Path) -> None:
    """Commit what was to be committed, and find it whole and alone."""
    store = Store(root)
    commit(store)
    assert is_sound(store)
    assert store.read("toy", KEY).digest() == batch().digest()
    delete(store.garbage(None))
    assert files(root) == WHOLE


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_that_is_killed_leaves_nothing_or_all(tmp_path: Path, point: str) -> None:
    writer = child(
        "commit(Store(Path(sys.argv[1])))", tmp_path / "s", QFUSE_FAULT=f"commit:{point}:toy:1=kill"
    )
    assert writer.communicate(timeout=60) == ("", "")
    assert writer.returncode == -signal.SIGKILL
    store = Store(tmp_path / "s")
    assert store.present("toy") == ({KEY} if point == "after_receipt" else set())
    assert is_sound(store)
    made_good(store.root)


def test_a_process_that_is_killed_while_it_sets_aside_leaves_no_receipt_without_its_file(
    store: Store,
) -> None:
    commit(store)
    flip(store.path("toy", KEY))
    code = 'Store(Path(sys.argv[1])).set_aside("toy", KEY, "a bit")'
    process = child(code, store.root, QFUSE_FAULT="set_aside:after_json:toy:1=kill")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert store.present("toy") == set()
    assert store.garbage(None) == {store.path("toy", KEY): ORPHAN}
    commit(store)
    assert is_sound(store)
    assert store.garbage(None) == {}


def fault(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setattr(fault_points, "_passed", Counter())
    monkeypatch.setenv("QFUSE_FAULT", wanted)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("enospc", "the disk is full: free some space"),
        ("edquot", "the disk is full: free some space"),
        ("erofs", "the file system is read-only: choose another folder"),
        ("eio", "check the disk and run again"),
        ("eperm", "no hard links are allowed there: choose another folder"),
    ],
)
def test_a_refusal_in_a_commit_is_a_sentence_and_leaves_nothing_half(
    store: Store, monkeypatch: pytest.MonkeyPatch, point: str, error: str, advice: str
) -> None:
    fault(monkeypatch, f"commit:{point}:toy:1={error}")
    with pytest.raises(ResourceRefused, match=f"cannot write to the store .*{advice}"):
        commit(store)
    assert store.present("toy") == ({KEY} if point == "after_receipt" else set())
    assert not list(store.root.rglob(".*"))
    made_good(store.root)


def test_a_disk_that_is_full_only_when_the_bytes_are_to_last_leaves_nothing_half(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, 0
    for fails in range(1, 20):

        def full(handle: int, fails: int = fails) -> None:
            nonlocal calls
            calls += 1
            if calls == fails:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(handle)

        calls = 0
        monkeypatch.setattr(os, "fsync", full)
        try:
            commit(store, key_of(fails))
        except ResourceRefused:
            assert is_sound(store)
            assert not list(store.root.rglob(".*"))
        else:
            break
    assert (
        fails == 5
    )  # a folder, the file, the receipt and the names of both had each to wait for the disk
    monkeypatch.undo()
    for key in range(1, fails):
        commit(store, key_of(key))
    assert is_sound(store)
    assert len(store.present("toy")) == fails


@pytest.mark.parametrize(
    ("rows", "provenance", "left"), [(10_000, 0, 0), (5, 20_000, 1)], ids=["file", "receipt"]
)
def test_a_file_that_may_not_grow_is_refused_and_nothing_half_is_left(
    tmp_path: Path, rows: int, provenance: int, left: int
) -> None:
    code = """
import resource
from pipeline.errors import ResourceRefused
store = Store(Path(sys.argv[1]))
# what a file may hold; a full disk fails in the same place
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    store.commit("toy", KEY, batch(rows=int(sys.argv[2])), TOY, {"text": "x" * int(sys.argv[3])})
except ResourceRefused as error:
    print(error)
"""
    writer = child(code, tmp_path / "store", rows, provenance)
    out, error = writer.communicate(timeout=60)
    assert (writer.returncode, error) == (0, "")
    assert "cannot write to the store" in out
    assert "`ulimit -f`" in out
    store = Store(tmp_path / "store")
    assert store.present("toy") == set()
    assert [path.suffix for path in store.garbage(None)] == [".h5"] * left
    assert len(files(store.root)) == 1 + left


def test_a_store_whose_folder_vanished_is_refused_and_not_made_anew(store: Store) -> None:
    commit(store)
    shutil.rmtree(store.root)
    with pytest.raises(
        ResourceRefused,
        match=r"the store .* vanished while it was in use .* mount it again and run again",
    ):
        commit(store, OTHER)
    with pytest.raises(ResourceRefused, match="vanished"):
        store.read("toy", KEY)
    with pytest.raises(ResourceRefused, match="vanished"):
        store.receipt("toy", KEY)
    with pytest.raises(ResourceRefused, match="vanished"):
        store.set_aside("toy", KEY, "odd")
    assert not store.root.exists()


def test_a_store_whose_format_file_vanished_takes_nothing_more(store: Store) -> None:
    (store.root / "format.json").unlink()
    with pytest.raises(ResourceRefused, match=r"its format\.json is gone"):
        commit(store)
    assert files(store.root) == []


def test_a_store_that_vanishes_in_the_middle_of_a_commit_is_refused_and_not_made_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fault_points,
        "at",
        lambda point, name: point == "commit:before_write" and shutil.rmtree(store.root),
    )
    with pytest.raises(ResourceRefused, match="the store vanished while it was in use"):
        commit(store)
    assert not store.root.exists()


def test_a_store_that_vanishes_before_its_file_is_read_back_is_not_called_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> None:
        shutil.rmtree(store.root)
        raise CorruptArtifact(f"{path}: the file is damaged (cannot open it).")

    monkeypatch.setattr(hdf5, "read", read)
    with pytest.raises(ResourceRefused, match="vanished while it was in use"):
        commit(store)


def test_a_store_that_vanishes_while_it_is_read_is_not_called_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(path: Path, *_: object) -> str:
        shutil.rmtree(store.root)
        return "it cannot be read"

    commit(store)
    (receipt,) = store.receipts()
    monkeypatch.setattr(maintenance, "file_difference", differs)
    with pytest.raises(ResourceRefused, match="vanished while it was in use"):
        Store(store.root).read("toy", KEY)
    commit(Store(store.root))
    with pytest.raises(ResourceRefused, match="vanished while it was in use"):
        Store(store.root).check_artifact(receipt)


# -- file systems of the tests' own
# ----------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Callable[[str], dict[str, object]]:
    """Run code in a process that has a small file system of its own at `disk`; return what it
    prints, read as JSON.
    """
    probe = [*MOUNT, "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if (
        shutil.which("unshare") is None
        or subprocess.run(probe, capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine does not let a test mount a file system")
    (tmp_path / "disk").mkdir()
    start = """
import json, os, subprocess
from pipeline.errors import ResourceRefused
disk = Path(sys.argv[1])
mount = lambda *words: subprocess.run([*words, str(disk)], check=True)
mount("mount", "-t", "tmpfs", "-o", "size=128k", "none")
def refused(work):
    try:
        work()
    except ResourceRefused as error:
        return str(error)
    return ""
sound = lambda: all(store.check_artifact(path) is None for path in store.receipts())
"""

    def run(code: str) -> dict[str, object]:
        process = child(start + code, tmp_path / "disk", before=MOUNT)
        out, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")
        found: dict[str, object] = json.loads(out)
        return found

    return run


def test_a_disk_with_a_few_free_blocks_is_full_wherever_that_is_met_and_keeps_what_is_whole(
    mounted: Callable[[str], dict[str, object]],
) -> None:
    found = mounted("""
store = Store(disk / "store")
filler, said, whole = disk / "filler", [], []
for pages in range(8):  # how many blocks are free for what takes about four
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        os.ftruncate(file.fileno(), max(0, file.tell() - 4096 * pages))
    said.append(refused(lambda: commit(store, key_of(pages))))
    stored = store.has("toy", key_of(pages))
    whole.append(sound() and not list(disk.rglob(".*")) and stored == (not said[-1]))
filler.unlink()
for pages in range(8):
    commit(store, key_of(pages))
end = sound() and len(list(store.receipts())) == 8
print(json.dumps({"said": said, "whole": whole, "end": end}))
""")
    said = found["said"]
    assert isinstance(said, list)
    assert said[0]
    assert said[-1] == ""
    assert all(
        "(No space left on device): the disk is full: free some space" in sentence
        for sentence in said
        if sentence
    )
    assert found["whole"] == [True] * 8
    assert found["end"] is True


def test_a_disk_that_becomes_read_only_is_read_and_refuses_to_be_written(
    mounted: Callable[[str], dict[str, object]],
) -> None:
    found = mounted("""
store = Store(disk / "store")
commit(store)
mount("mount", "-o", "remount,ro")
said = [refused(lambda: commit(store, OTHER)), refused(lambda: Store(disk / "another"))]
rows = Store(disk / "store").read("toy", KEY).rows
print(json.dumps({"said": said, "sound": sound(), "rows": rows,
    "writable": store.writable, "dots": len(list(disk.rglob(".*")))}))
""")
    said = found.pop("said")
    assert isinstance(said, list)
    assert all(
        "(Read-only file system): the file system is read-only: choose another folder" in sentence
        for sentence in said
    )
    assert found == {"sound": True, "rows": 5, "writable": False, "dots": 0}


def test_a_disk_that_is_unmounted_is_refused_and_nothing_is_written_below_it(
    mounted: Callable[[str], dict[str, object]],
) -> None:
    found = mounted("""
store = Store(disk)
commit(store)
digests = store.open_digests()
file = disk.parent / "a"
file.write_text("abc")
mount("umount")
said = refused(lambda: commit(store, OTHER)), refused(lambda: store.read("toy", KEY))
digests.digest(file)
print(json.dumps({"said": said, "below": os.listdir(disk)}))
""")
    said = found["said"]
    assert isinstance(said, list)
    assert all("vanished while it was in use" in sentence for sentence in said)
    assert found["below"] == []
