"""Trials: rows that end the process which runs them are found in processes of their own, and nobody
else is accused.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from children import environment
from laboratory import Lab

from pipeline.errors import Interrupted, ResourceRefused
from pipeline.plan.ticket import Ticket
from pipeline.run import crash_probe
from pipeline.store.claims import RowRange

ONE = "dataset.shard_rows={faces: 100}"
# of each trial process: what it was to run, how many it survived, how it ended
Tries = list[tuple[list[RowRange], int, int]]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Tries:
    """What each trial process came to."""
    told: Tries = []
    real: Callable[..., tuple[int, int]] = crash_probe._try

    def spied(
        ticket: Ticket, step: str, shard: int, ranges: list[RowRange], *more: Any
    ) -> tuple[int, int]:
        survived, code = real(ticket, step, shard, ranges, *more)
        told.append((ranges, survived, code))
        return survived, code

    monkeypatch.setattr(crash_probe, "_try", spied)
    return told


@pytest.fixture
def ask(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[int, str]]:
    """Ask which of the suspected rows of `measure`, all in one shard, end a process."""
    monkeypatch.setenv("PYTHONPATH", environment(lab)["PYTHONPATH"])

    def ask(
        *suspects: RowRange,
        overrides: tuple[str, ...] = (),
        stop: threading.Event | None = None,
        **changed: str,
    ) -> dict[int, str]:
        session = lab.session(ONE, *overrides)
        ticket = replace(Ticket.of(session.plan, session.store), **changed)
        return crash_probe.crashing(ticket, "measure", 0, suspects, stop or threading.Event())

    return ask


def test_innocent_rows_cost_one_process(ask: Callable[..., dict[int, str]], tries: Tries) -> None:
    assert ask((0, 3), (6, 9), (21, 22)) == {}
    assert tries == [([(0, 3), (6, 9), (21, 22)], 3, 0)]


def test_guilty_rows_are_found_among_innocent_ones_each_after_two_deaths(
    lab: Lab, ask: Callable[..., dict[int, str]], tries: Tries
) -> None:
    lab.write(4, "crash")
    lab.write(5, "exit")
    told = "reading it ends the process that tries"
    assert ask((0, 3), (3, 6), (6, 9)) == {
        4: f"{told} (SIGSEGV, twice)",
        5: f"{told} (exit code 7, twice)",
    }
    died_at = [
        (ranges[survived], code) for ranges, survived, code in tries if survived < len(ranges)
    ]
    sigsegv = -signal.SIGSEGV
    assert died_at == [
        ((3, 6), sigsegv),
        ((4, 5), sigsegv),
        ((4, 5), sigsegv),
        ((5, 6), 7),
        ((5, 6), 7),
    ]
    assert tries[-1] == ([(6, 9)], 1, 0)


def test_a_row_that_only_raises_is_not_guilty(
    lab: Lab, ask: Callable[..., dict[int, str]], tries: Tries
) -> None:
    for row in (0, 1, 2, 7):
        lab.write(row, "?")
    assert ask((0, 3), (6, 9)) == {}
    assert len(tries) == 1


@pytest.mark.parametrize(
    "changed", [{"plan": "another"}, {"store": "/nowhere"}, {"dataset": "0" * 64}]
)
def test_a_trial_that_cannot_begin_accuses_nobody(
    lab: Lab, ask: Callable[..., dict[int, str]], tries: Tries, changed: dict[str, str]
) -> None:
    lab.write(1, "crash")
    assert ask((0, 3), (3, 6), **changed) == {}
    assert len(tries) == 1


def test_a_trial_that_is_killed_from_outside_accuses_nobody_and_says_so(
    lab: Lab, ask: Callable[..., dict[int, str]]
) -> None:
    lab.write(1, "killed")
    with pytest.raises(
        ResourceRefused, match=r"measure, shard 0: the process that tries .* was killed \(SIGKILL\)"
    ):
        ask((0, 3))


def test_a_trial_ends_with_the_run_that_wants_it(ask: Callable[..., dict[int, str]]) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        ask((0, 3), overrides=("steps.measure.options.sleep=1000",), stop=stop)
    assert trials() == []


def trials() -> list[int]:
    """Return the trial processes that this one has started."""
    shown = subprocess.run(
        ["/bin/ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True
    ).stdout
    lines = [line.split(None, 2) for line in shown.splitlines()]
    return [
        int(pid)
        for pid, parent, command in lines
        if int(parent) == os.getpid() and "pipeline.run.crash_probe" in command
    ]
