"""Real processes for tests of the engine: the command and Dask's, in which the toy parts are known
by entry point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

from laboratory import Lab

HERE = Path(__file__).parent
CODE = """
if __name__ == "__main__":
    from pipeline.cli.main import main
    main()
"""


def environment(lab: Lab, **more: str) -> dict[str, str]:
    """Return an environment in which a distribution brings the toy parts, as a third party's
    would."""
    site = lab.root / "site"
    info = site / "toys-1.dist-info"
    if not info.exists():
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[qfuse.plugins]\ntoys = toy_plugin\n")
        (site / "toy_plugin.py").write_text("import toy\ntoy.install()\n")
        (site / "command.py").write_text(CODE)
    return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{HERE}", **more}


def start(lab: Lab, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start `qfuse run` on the laboratory's config, in a group of its own; `more` is added to its
    environment.
    """
    known = environment(lab, **more)
    config, store = lab.root / "config.yaml", lab.root / lab.store
    command = [
        sys.executable,
        lab.root / "site" / "command.py",
        "run",
        config,
        "--store",
        store,
        *arguments,
    ]
    return subprocess.Popen(
        [*map(str, command)],
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        env=known,
        cwd=lab.root,
        start_new_session=True,
    )


def run(lab: Lab, *arguments: str, expect: int = 0, **more: str) -> str:
    """Run the command to its end and return what it said on standard error."""
    child = start(lab, *arguments, **more)
    try:
        out, error = child.communicate(timeout=120)
    finally:
        end(child)
    assert child.returncode == expect, f"{child.returncode}: {out}{error}"
    assert "Traceback" not in error, error
    return error


def end(child: subprocess.Popen[Any], number: int = signal.SIGKILL) -> None:
    """End a process that `start` or `dask` started, with all that it started itself."""
    if child.poll() is None:
        os.killpg(child.pid, number)
    child.wait(30)


class DaskCluster:
    """A scheduler and worker processes, each a real command, that meet by a scheduler file."""

    def __init__(self, lab: Lab, workers: int = 2, nanny: bool = True) -> None:
        self.file = lab.root / f"scheduler-{time.monotonic_ns()}.json"
        self._environment = environment(lab)
        self._lab, self._nanny = lab, nanny
        local = ["--host", "127.0.0.1"]
        self.scheduler = self._start(
            "scheduler", *local, "--port", "0", "--dashboard-address", "127.0.0.1:0"
        )
        self.workers = [self.worker() for _ in range(workers)]
        for _ in range(6000):
            if self.file.exists():
                return
            assert self.scheduler.poll() is None, "the scheduler has ended"
            time.sleep(0.01)
        raise AssertionError("the scheduler writes no file")

    def worker(self, *arguments: str, **more: str) -> subprocess.Popen[Any]:
        nanny = "--nanny" if self._nanny else "--no-nanny"
        return self._start(
            "worker",
            "--host",
            "127.0.0.1",
            "--nthreads",
            "2",
            nanny,
            "--no-dashboard",
            *arguments,
            **more,
        )

    def _start(self, command: str, *arguments: str, **more: str) -> subprocess.Popen[Any]:
        log = (self._lab.root / f"dask-{command}.log").open("a")
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_" + command,
                "--scheduler-file",
                str(self.file),
                *arguments,
            ],
            stdout=log,
            stderr=log,
            env={**self._environment, **more},
            cwd=self._lab.root,
            start_new_session=True,
        )

    def __enter__(self) -> DaskCluster:
        return self

    def __exit__(self, *problem: object) -> None:
        for process in (*self.workers, self.scheduler):
            end(process)


def finished(lab: Lab) -> dict[Path, tuple[int, int]]:
    """Return every receipt and artifact of a step that is there → its inode and time."""
    found = {}
    for receipt in (lab.root / lab.store).glob("[!ijq]*/??/[!.]*.json"):
        for path in (receipt, receipt.with_suffix(".h5")):
            with suppress(FileNotFoundError):
                found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def wait_for(lab: Lab, child: subprocess.Popen[str], artifacts: int) -> None:
    """Wait until so many artifacts are there; fail where the process ends before."""
    for _ in range(30_000):
        if len(finished(lab)) >= 2 * artifacts:
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)
    raise AssertionError("nothing came")


def computed(log: Path) -> Counter[str]:
    """Return how many rows (map) or shards each stage computed, over all processes that were given
    this file as TOY_LOG.
    """
    found = Counter[str]()
    for line in log.read_text().splitlines() if log.exists() else []:
        stage, rows = line.split()
        found[stage] += int(rows)
    return found


def planned(lab: Lab) -> Counter[str]:
    """Return how many rows (map) or shards of each stage the next run has to compute."""
    found = Counter[str]()
    for step in lab.session(readonly=True).plan.to_run:
        for task in step.to_run:
            found[step.stage.name] += task.stop - task.start if step.stage.grain == "map" else 1
    return found
