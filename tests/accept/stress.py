"""What the parts under stress share: the run on 3,000 LFW faces, processes to kill, and what became
of a store.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.store.store import Store
from tests.accept.command import QFUSE, ROOT, SHARED, Place

CONFIG = """
extends: {base}
name: {name}
dataset: {{path: "{shared}/data/lfw.zip", options: {{identities: {identities}}},
  shard_rows: {{faces: {faces}, templates: {templates}, probes: {templates}}}}}
factors: {{seed: [0], method: [lightqnet], rule: [mean, quality-linear]}}
steps:
  degrade: {degrade}
  embed: {{inputs: {inputs}}}
  quality: {{inputs: {inputs}}}
  fuse: {{stored: true}}
  compare: {{stored: true}}
  search: {{stored: true}}
  evaluate_verification: {{options: {{replicates: 20}}}}
  evaluate_identification: {{options: {{replicates: 20}}}}
models: {{folders: ["{shared}/models"]}}
report: null
run: {{folder: "{folder}/runs", workers: 2}}
"""
Stamps = dict[Path, tuple[int, int]]
_CREATED, _MOVED_TO = 0x100, 0x80  # inotify(7)


def configure(place: Place, identities: int, shard: int, degraded: bool = False) -> str:
    """Write the config of a run whose every result is stored; 281 identities have 3,004 faces."""
    path = place.folder / "stress.yaml"
    inputs, degrade = ("{crops: degrade}", "{}") if degraded else ("null", "null")
    text = CONFIG.format(
        base=ROOT / "configs/lfw_templates.yaml",
        name="stress",
        folder=place.folder,
        shared=SHARED,
        identities=identities,
        faces=shard,
        templates=shard // 2,
        inputs=inputs,
        degrade=degrade,
    )
    path.write_text(text if degraded else text.replace("seed: [0]", "seed: null"), encoding="utf-8")
    return str(path)


def receipts(store: Path) -> list[Path]:
    """Return every receipt that is there; ingested tables included."""
    return list(store.glob("*/??/[!.]*.json"))


def stamps(store: Path) -> Stamps:
    """Return inode and time of every receipt and artifact: another one would be another
    computation.
    """
    files = [
        file
        for path in receipts(store)
        for file in (path, path.with_suffix(".h5"))
        if file.exists()
    ]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def changed(before: Stamps, after: Stamps) -> int:
    """Return how many of the files that were there have gone, or are others now."""
    return sum(after.get(path) != stamp for path, stamp in before.items())


def launch(folder: Path, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own; what it says goes to NAME.log."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "QFUSE_SHARED": str(SHARED)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def drive(place: Place, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `qfuse run` with these arguments."""
    return launch(place.folder, "driver", [*QFUSE, "run", *arguments, "--json"])


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that `launch` started, and what it started itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def children(pid: int) -> list[int]:
    """Return the processes that a process started, in any of its threads, and that still run."""
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in listed for child in line.split()]


@dataclass
class DaskCluster:
    """A scheduler and two worker processes, each under its nanny, that meet by a scheduler file."""

    place: Place
    file: Path = field(init=False)
    scheduler: subprocess.Popen[bytes] = field(init=False)
    nannies: list[subprocess.Popen[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.file = self.place.folder / f"scheduler-{time.monotonic_ns()}.json"
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0"
        )
        self.nannies = [self.nanny(), self.nanny()]
        while not self.file.exists():
            time.sleep(0.05)

    def nanny(self) -> subprocess.Popen[bytes]:
        return self._start(
            "worker", "--nthreads", "2", "--nanny", "--no-dashboard", "--memory-limit", "0"
        )

    def workers(self) -> list[int]:
        """Return the worker processes that nannies started and that compute."""
        found = [
            child for nanny in self.nannies if nanny.poll() is None for child in children(nanny.pid)
        ]
        return [
            pid
            for pid in found
            if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()
        ]

    def close(self) -> None:
        for process in (*self.nannies, self.scheduler):
            end(process)

    def _start(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        module = [sys.executable, "-m", f"distributed.cli.dask_{command}", "--host", "127.0.0.1"]
        return launch(
            self.place.folder, command, [*module, "--scheduler-file", str(self.file), *arguments]
        )


class Claims:
    """Counts how often each shard of a new store is begun: whoever computes one puts a claim into
    STORE/journal first.

    The system (inotify) tells of every claim, whichever process makes it and however soon it is
    gone again.
    """

    def __init__(self, store: Path) -> None:
        Store(store)
        (store / "journal").mkdir(exist_ok=True)
        self.begun: Counter[str] = Counter()
        self._folder, self._whole = store / "journal", True
        self._system = ctypes.CDLL(None, use_errno=True)
        self._watch = self._system.inotify_init()
        if (
            self._system.inotify_add_watch(
                self._watch, os.fsencode(self._folder), _CREATED | _MOVED_TO
            )
            < 0
        ):
            raise OSError(ctypes.get_errno(), "inotify")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def begun_again(self) -> int:
        """Stop counting, and return how many computations were begun beyond the first of each
        shard.
        """
        (self._folder / "last").touch()
        self._thread.join(30)
        os.close(self._watch)
        (self._folder / "last").unlink()
        if not self._whole:
            raise RuntimeError("the system lost count of the claims")
        return self.begun.total() - len(self.begun)

    def _read(self) -> None:
        names: list[str] = []
        while "last" not in names:
            names = self._names()
            self._whole &= "" not in names
            # a key, not a temporary name
            self.begun.update(name for name in names if len(name) == 64)

    def _names(self) -> list[str]:
        data, names = os.read(self._watch, 1 << 16), []
        while data:
            *_, length = struct.unpack_from("iIII", data)
            # none where the system has lost events
            names.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
        return names
