"""A run that is killed or interrupted, in a real process, keeps what it finished and continues to the same results."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from laboratory import Lab

ROWS = 200
# SIGINT is set anew because a shell that runs the tests in the background lets its children ignore it.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv.pop(1))
import toy
toy.install()
from pipeline.cli import main
main()
"""


@pytest.fixture
def slow(lab: Lab) -> Lab:
    """Two hundred faces in fifty shards of four, 5 ms a face."""
    for row in range(ROWS):
        (lab.root / "files" / f"{row:03}.{row % 7}").write_text(str((row * 37) % 101 / 8))
    for row in range(22):
        next((lab.root / "files").glob(f"{row:02}.*")).unlink()
    return lab


def start(lab: Lab) -> subprocess.Popen[str]:
    here, config, store = Path(__file__).parent, lab.root / "config.yaml", lab.root / lab.store
    command = [sys.executable, "-c", CODE, here, "run", config, "--store", store]
    return subprocess.Popen(
        [*map(str, command), "--set", "steps.measure.options.sleep=0.005"], stdout=PIPE, stderr=PIPE, text=True
    )


def finished(lab: Lab) -> dict[Path, tuple[int, int]]:
    """Every receipt and artifact of a step that is there → its inode and time."""
    found = {}
    for receipt in (lab.root / lab.store).glob("[!i]*/??/[!.]*.json"):
        for path in (receipt, receipt.with_suffix(".h5")):
            found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def wait_for(lab: Lab, child: subprocess.Popen[str], artifacts: int) -> None:
    while len(finished(lab)) < 2 * artifacts:
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_results_and_computes_no_shard_twice(slow: Lab) -> None:
    rng = np.random.default_rng(5)
    kept: dict[Path, tuple[int, int]] = {}
    for _ in range(6):
        child = start(slow)
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
    child = start(slow)
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
    again = start(slow)
    _, error = again.communicate(timeout=60)
    assert again.returncode == 0, error
    assert {path: finished(slow)[path] for path in kept} == kept
    assert slow.session(readonly=True).plan.to_run == []
    assert not list((slow.root / slow.store).rglob(".*"))
