"""What `pipeline.system.processes` promises: whoever finds a name can tell whether its process
still runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from artifacts import child, dead_process
from machine import unprivileged

from pipeline.system import processes as module
from pipeline.system.processes import alive, being_written, host, process, temporary

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the start of a process is told by /proc"
)


@contextmanager
def running() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Another process and its name."""
    other = child(
        "from pipeline.system.processes import process\nprint(process(),"
        " flush=True)\nsys.stdin.readline()"
    )
    assert other.stdout is not None
    try:
        yield other.stdout.readline().strip(), other
    finally:
        other.kill()
        other.communicate()


def test_a_process_is_named_by_host_number_and_start() -> None:
    assert re.fullmatch(rf"{host()}-{os.getpid()}-[1-9][0-9]*", process())
    assert process() == process()


def test_this_process_and_another_that_runs_are_alive_and_one_that_was_killed_is_not() -> None:
    assert alive(process()) is True
    with running() as (name, other):
        assert name.startswith(f"{host()}-{other.pid}-")
        assert alive(name) is True
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert alive(name) is False  # a zombie: nobody has asked yet how it ended
        other.wait()
        assert alive(name) is False


def test_a_process_that_was_given_the_number_of_a_dead_one_is_not_taken_for_it() -> None:
    start = int(process().rpartition("-")[2])
    assert alive(f"{host()}-{os.getpid()}-{start - 1}") is False


def test_a_process_of_another_user_is_alive() -> None:
    with unprivileged():
        assert (
            alive(f"{host()}-1-{Path('/proc/1/stat').read_text().rpartition(')')[2].split()[19]}")
            is True
        )


def test_a_process_whose_name_holds_spaces_and_parentheses_is_known_by_its_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "a) S (b").symlink_to(sys.executable)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pipeline.system.processes import"
        " process; print(process())"
    )
    words = [str(tmp_path / "a) S (b"), "-c", code, str(Path(__file__).parents[3])]
    name = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert int(name.rpartition("-")[2]) >= int(process().rpartition("-")[2])


def test_a_process_of_another_host_cannot_be_asked() -> None:
    assert alive(f"{'0' * 8}-{os.getpid()}-1") is None


@pytest.mark.parametrize(
    "name",
    ["", "nobody", f"{host()}-{os.getpid()}", f"{host()}-0-1", f"{host()}-x-1", f"{process()}\n"],
    ids=["nothing", "a word", "no start", "no number", "not a number", "a line"],
)
def test_what_names_no_process_is_not_alive(name: str) -> None:
    assert alive(name) is False


def test_where_nothing_can_be_read_about_a_process_its_number_has_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_state", lambda pid: ("", "0"))
    assert process() == f"{host()}-{os.getpid()}-0"
    assert alive(process()) is True
    assert alive(f"{host()}-{dead_process()}-0") is False


def test_no_name_comes_twice_when_the_clock_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**18, 0, -1))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    assert len({temporary(Path("a")) for _ in range(1000)}) == 1000


def test_a_forked_process_has_names_of_its_own() -> None:
    pipe = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(pipe[1], temporary(Path("a")).name.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    theirs, ours = os.read(pipe[0], 1000).decode(), temporary(Path("a")).name
    assert theirs.startswith(f".{host()}-{pid}-")
    assert theirs != ours
    for end in pipe:
        os.close(end)


def test_a_temporary_file_lies_hidden_beside_what_it_becomes_and_tells_its_name(
    tmp_path: Path,
) -> None:
    part = temporary(tmp_path / "1-2-a\nb.h5")
    assert part.parent == tmp_path
    assert part.name.startswith(f".{process()}-")
    assert being_written(part) == "1-2-a\nb.h5"
    with running() as (name, _):
        theirs = part.with_name(f".{name}-1-a.h5")
        assert being_written(theirs) == "a.h5"
    assert being_written(theirs) == ""
    assert being_written(tmp_path / ".hidden") == ""


def test_a_temporary_file_of_another_host_counts_for_a_day(tmp_path: Path) -> None:
    part = tmp_path / f".{'0' * 8}-{os.getpid()}-1-1-a.h5"
    part.touch()
    assert being_written(part) == "a.h5"
    os.utime(part, (time.time() + 10_000,) * 2)  # our clock, or theirs, has gone backwards
    assert being_written(part) == "a.h5"
    os.utime(part, (time.time() - 90_000,) * 2)
    assert being_written(part) == ""
    part.unlink()
    assert being_written(part) == ""
