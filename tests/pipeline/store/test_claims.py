"""Claims on shards, and which rows a process had in flight when it died."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import dead_process

from pipeline.store import claims
from pipeline.store.claims import Journal
from pipeline.system import processes
from pipeline.system.processes import process

CHILD = """
import os, sys, time
from pathlib import Path
from pipeline.store.claims import Journal
claim = Journal(Path(sys.argv[1])).claim("k")
for rows in [(0, 3), (3, 6), (6, 9)]:
    claim.begin(rows)
claim.end((3, 6))
print("there", flush=True)
time.sleep(60)
"""


def test_a_shard_is_claimed_by_one_living_process_at_a_time(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        assert Journal(tmp_path).claim("k") is None
        assert Journal(tmp_path).claim("other") is not None
    finally:
        child.kill()
        child.communicate()


def test_the_rows_in_flight_of_a_killed_process_are_the_suspects_and_stay_so_until_they_are_cleared(
    tmp_path: Path,
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.communicate()
    claim = Journal(tmp_path).claim("k")
    assert claim is not None
    assert claim.suspects == [(0, 3), (6, 9)]
    claims._held.clear()
    again = Journal(tmp_path).claim("k")  # by the same process, as if that had died too
    assert again is not None
    assert again.suspects == [(0, 3), (6, 9)]


def test_a_shard_is_claimed_once_in_a_process_too(tmp_path: Path) -> None:
    first = Journal(tmp_path).claim("k")
    assert first is not None
    assert Journal(tmp_path).claim("k") is None
    first.release(whole=True)
    again = Journal(tmp_path).claim("k")
    assert again is not None
    assert again.suspects == []


def test_a_claim_that_is_released_leaves_nothing(tmp_path: Path) -> None:
    claim = Journal(tmp_path).claim("k")
    assert claim is not None
    claim.begin((0, 4))
    claim.release(whole=True)
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_claim_of_another_machine_is_honoured_until_it_is_silent_for_two_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "host", lambda: "0" * 8)
    assert Journal(tmp_path).claim("k") is not None
    monkeypatch.undo()
    claims._held.clear()
    clock = [100.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: clock[0])
    here = Journal(tmp_path)
    assert here.claim("k") is None
    clock[0] += claims.SILENCE_SECONDS - 1
    assert here.claim("k") is None
    clock[0] += 2
    assert here.claim("k") is not None


@pytest.mark.parametrize(
    "content", ["", "\n", "garbage", "\x00\x01", "+ 1 2\n", "{}\n- 1 2\n+ x y\n+ 1 2"]
)
def test_a_claim_that_cannot_be_understood_is_nobodys(tmp_path: Path, content: str) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "k").write_text(content)
    claim = Journal(tmp_path).claim("k")
    assert claim is not None
    assert claim.suspects == []


def test_a_torn_last_line_names_no_rows(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    owner = process().replace(str(process().split("-")[1]), str(dead_process()))
    (tmp_path / "journal" / "k").write_text(f"{owner}\n+ 0 32\n+ 32 6")
    claim = Journal(tmp_path).claim("k")
    assert claim is not None
    assert claim.suspects == [(0, 32)]


@pytest.mark.parametrize(
    "put",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["a folder", "a pipe", "a loop", "a link to nowhere"],
)
@pytest.mark.parametrize("name", ["journal/k", "journal"])
def test_no_file_in_the_place_of_a_claim_and_no_folder_in_that_of_the_journal_count_as_absent(
    tmp_path: Path, put: Callable[[Path], object], name: str
) -> None:
    if name != "journal":
        (tmp_path / "journal").mkdir()
    put(tmp_path / name)
    claim = Journal(tmp_path).claim("k")
    assert claim is not None
    assert claim.suspects == []
    assert Journal(tmp_path).claim("k") is None
    claim.release(whole=True)
    assert not (tmp_path / "journal" / "k").exists()
