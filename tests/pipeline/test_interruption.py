"""A run that is killed or interrupted, in a real process, keeps what it finished and continues to the same results."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from children import finished, start, wait_for
from laboratory import Lab

SLOW = ("--set", "steps.measure.options.sleep=0.005")


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_results_and_computes_no_shard_twice(slow: Lab) -> None:
    rng = np.random.default_rng(5)
    kept: dict[Path, tuple[int, int]] = {}
    for _ in range(6):
        child = start(slow, *SLOW)
        wait_for(slow, child, len(kept) // 2 + int(rng.integers(1, 8)))
        time.sleep(rng.uniform(0, 0.02))
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        now = finished(slow)
        assert {path: now[path] for path in kept} == kept
        kept = now
    ran = slow.run()
    assert {path: finished(slow)[path] for path in kept} == kept
    store = ran.session.store
    assert all(store.check(path) is None for path in store.receipts())
    assert [path for path in store.garbage(ran.session.plan.live()) if not path.name.startswith(".")] == []
    assert ran.digests() == replace(slow, store="another").run().digests()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_it_continues_and_continues(slow: Lab, number: signal.Signals) -> None:
    child = start(slow, *SLOW)
    wait_for(slow, child, 5)
    child.send_signal(number)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted: every finished shard is kept; the same command continues from there" in error
    assert "Traceback" not in error
    kept = finished(slow)
    plan = slow.session(readonly=True).plan
    assert 0 < len(plan.steps["measure"].to_run) < 50
    assert {reason for task in plan.steps["measure"].to_run for reason in [task.reason]} == {"never computed"}
    again = start(slow, *SLOW)
    _, error = again.communicate(timeout=60)
    assert again.returncode == 0, error
    assert {path: finished(slow)[path] for path in kept} == kept
    assert slow.session(readonly=True).plan.to_run == []
    assert not list((slow.root / slow.store).rglob(".*"))
