"""A file system without locks: reading needs none, and a store keeps its writers apart without
them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.schema import Batch, Field, Schema
from pipeline.store.store import Store
from pipeline.system import disk
from pipeline.system.disk import alone
from pipeline.system.processes import process

SCHEMA = Schema("numbers", (Field("v", "float64"),))
DEAD = process().rpartition("-")[0] + "-1"  # this process's number, which another had before

NO_LOCKS = (
    "#include <errno.h>\nint flock(int file, int operation) { (void)file; (void)operation; errno ="
    " ENOLCK; return -1; }\n"
)
COMMITS = """
import sys
from pathlib import Path
import numpy as np
from pipeline.core.schema import Batch, Field, Schema
from pipeline.store.store import Store
store = Store(Path(sys.argv[1]))
batch = Batch({"v": np.arange(10.0)})
store.commit("out", "ab" * 32, batch, Schema("numbers", (Field("v", "float64"),)), {})
assert Store(Path(sys.argv[1])).read("out", "ab" * 32).digest() == batch.digest()
"""


@pytest.fixture(
    params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF], ids=errno.errorcode.get
)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_an_artifact_is_committed_and_read_where_the_file_system_has_no_locks(
    tmp_path: Path,
) -> None:
    (tmp_path / "none.c").write_text(NO_LOCKS)
    library = tmp_path / "none.so"
    build = ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "none.c"]
    subprocess.run(build, check=True, timeout=60)
    words = [sys.executable, "-c", COMMITS, tmp_path / "store"]
    env = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("without_locks")
def test_a_folder_without_locks_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder, inside, most = tmp_path / "ab", [0], [0]
    folder.mkdir()

    def enter() -> None:
        for _ in range(20):
            with alone(folder):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert os.listdir(tmp_path) == ["ab"]


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("owner", [DEAD, "elsewhere", process()], ids=["dead", "strange", "alive"])
def test_what_another_left_in_place_of_a_lock_keeps_nobody_waiting_for_ever(
    tmp_path: Path, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_PATIENCE", 0.05)
    (tmp_path / "ab").mkdir()
    (tmp_path / ".ab.lock").symlink_to(owner)
    with alone(tmp_path / "ab"):
        assert os.readlink(tmp_path / ".ab.lock") == process()
    assert os.listdir(tmp_path) == ["ab"]


@pytest.mark.usefixtures("without_locks")
def test_an_artifact_damaged_where_there_are_no_locks_is_set_aside_and_committed_again(
    tmp_path: Path,
) -> None:
    key, batch = "ab" * 32, Batch({"v": np.arange(10.0)})
    store = Store(tmp_path / "store")
    store.commit("out", key, batch, SCHEMA, {})
    store.path("out", key).write_bytes(b"damaged")
    assert store.set_aside("out", key, "a test")
    store.commit("out", key, batch, SCHEMA, {})
    assert Store(tmp_path / "store").read("out", key).digest() == batch.digest()
    assert not list((tmp_path / "store/out").glob(".*"))
