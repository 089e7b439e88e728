"""Whatever a run meets (a kill, a full disk, a store that is gone, a clock that goes back), what
was finished stays.

Each test ends with a run that comes to the contents of a run which nothing disturbed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy
from children import computed, finished, planned, run, start, wait_for
from forks import end_all, fork, forked, until
from laboratory import Lab

POINTS = [
    "batch:before_run",
    "commit:before_write",
    "commit:before_link",
    "commit:before_receipt",
    "commit:after_receipt",
]
SLOW = ("--set", "steps.measure.options.sleep=0.02")


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    end_all()


def continued(lab: Lab, again: Callable[..., object] = forked) -> None:
    """Run to the end: nothing finished is computed again or touched, contents are those of an
    undisturbed run, and whole.
    """
    kept, lacking, log = finished(lab), planned(lab), lab.root / "continued.log"
    again(lab, TOY_LOG=str(log))
    assert computed(log) == lacking
    now = finished(lab)
    assert {path: now[path] for path in kept} == kept
    assert lab.contents() == lab.reference()
    assert forked(lab, "store", "verify") == ""


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_at_any_point_is_continued(lab: Lab, point: str) -> None:
    step = "measure" if point.startswith("batch") else "measure.number"
    forked(lab, expect=-signal.SIGKILL, QFUSE_FAULT=f"{point}:{step}:3=kill")
    continued(lab)


@pytest.mark.parametrize(
    ("action", "code", "sentence"),
    [
        ("enospc", 6, "(No space left on device): the disk is full: free some space"),
        (
            "erofs",
            6,
            (
                "(Read-only file system): the file system is read-only: choose another folder with"
                " --store."
            ),
        ),
        ("eio", 6, "(Input/output error): check the disk and run again."),
        ("memory", 6, "memory ran out"),
    ],
)
def test_what_the_machine_refuses_ends_a_run_with_one_sentence_at_any_point(
    lab: Lab, action: str, code: int, sentence: str
) -> None:
    kept = finished(lab)
    for point in POINTS:
        error = forked(lab, "--workers", 1, expect=code, QFUSE_FAULT=f"{point}:*:2={action}")
        assert (error[:7], error.count("\n")) == ("qfuse: ", 1), error
        if point != "batch:before_run":
            assert sentence in error
        now = finished(lab)
        assert {path: now[path] for path in kept} == kept
        kept = now
    assert kept
    continued(lab)


@pytest.mark.parametrize("point", POINTS)
def test_an_internal_error_at_any_point_says_so_and_keeps_what_is_whole(
    lab: Lab, point: str
) -> None:
    name = "measure" if point.startswith("batch") else "measure.multiples"
    error = forked(lab, expect=1, QFUSE_FAULT=f"{point}:{name}:3=raise")
    assert error.startswith("qfuse: internal error; what is stored stays whole.")
    continued(lab)


def test_a_store_that_may_not_be_written_is_refused_and_left_as_it_was(lab: Lab) -> None:
    whole = replace(lab, store="whole")
    forked(whole)
    forked(lab, "--until", "measure")
    stores = [lab.root / "whole", lab.root / "store"]
    permit(0o555, *stores)
    before = {path: path.stat().st_mtime_ns for store in stores for path in store.rglob("*")}
    assert forked(whole, rights=False) == ""
    error = forked(lab, expect=6, rights=False)
    assert (
        f"cannot write to the store {lab.root / 'store'} (Permission denied): no permission to"
        " write" in error
    )
    assert error.count("\n") == 1
    assert {
        path: path.stat().st_mtime_ns for store in stores for path in store.rglob("*")
    } == before
    permit(0o755, *stores)
    continued(lab)


@pytest.mark.parametrize("workers", [[], ["--dask", "local:1"]], ids=["serial", "dask"])
def test_a_store_that_vanishes_is_told_not_made_anew_and_continued_once_it_is_back(
    slow: Lab, workers: list[str]
) -> None:
    child = start(slow, *workers, *SLOW)
    wait_for(slow, child, 10)
    (slow.root / "store").rename(slow.root / "away")
    _, error = child.communicate(timeout=60)
    assert child.returncode == 6, error
    assert error.splitlines()[-1].startswith("qfuse: ")
    assert "vanished while it was in use" in error
    assert "Traceback" not in error
    assert not (slow.root / "store").exists()
    (slow.root / "away").rename(slow.root / "store")
    continued(slow)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_does_not_wait_for_a_long_step(lab: Lab, number: signal.Signals) -> None:
    child = fork(lab, "--set", "steps.total.options.sleep=1000", TOY_LOG=str(lab.root / "log"))
    until(lambda: computed(lab.root / "log")["total"] > 0, child)
    os.kill(child.pid, number)
    code, error = child.wait(30)
    assert (code, error.count("\n")) == (130, 1)
    assert "the same command continues from there" in error
    continued(lab)


@pytest.mark.parametrize(
    "clock",
    ["time() - 86400", "time() - 86400 * next(calls)"],
    ids=["a day back", "ever further back"],
)
def test_a_clock_that_goes_back_changes_nothing(lab: Lab, clock: str) -> None:
    forked(lab, expect=-signal.SIGKILL, QFUSE_FAULT="commit:before_receipt:measure.number:3=kill")
    back = lab.root / "back"
    back.mkdir()
    (back / "sitecustomize.py").write_text(
        "import itertools, time as t\n"
        "calls, time = itertools.count(), t.time\n"
        f"t.time = lambda: {clock}\n"
        "t.time_ns = lambda: int(t.time() * 1e9)\n"
    )
    path = os.pathsep.join(map(str, (back, lab.root / "site", Path(toy.__file__).parent)))
    continued(lab, lambda lab, **more: run(lab, PYTHONPATH=path, **more))
    assert min(lab.artifacts().values()) < time.time() - 80_000 < max(lab.artifacts().values())


@pytest.mark.parametrize(("content", "told"), [("crash", "SIGSEGV"), ("exit", "exit code 7")])
def test_a_row_that_ends_the_process_is_marked_by_the_next_run(
    lab: Lab, content: str, told: str
) -> None:
    lab.write(5, content)
    forked(lab, expect=-signal.SIGSEGV if content == "crash" else 7)
    forked(lab)
    number = lab.run().read("measure", "number")
    assert np.flatnonzero(number["status"]).tolist() == [5]
    assert number["reason"][5] == f"reading it ends the process that tries ({told}, twice)"


def test_kills_while_rows_are_in_flight_mark_none_of_them(lab: Lab) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        forked(
            lab, expect=-signal.SIGKILL, QFUSE_FAULT=f"batch:before_run:*:{rng.integers(1, 4)}=kill"
        )
        assert list((lab.root / "store" / "journal").iterdir())
    continued(lab)


def permit(mode: int, *folders: Path) -> None:
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            path.chmod(mode)
