"""The real command in a child process, its store in a folder of its own, and what it left there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared"))
QFUSE = (sys.executable, "-c", "from pipeline.cli.main import main; main()")


@dataclass(frozen=True)
class Place:
    """A folder of one part of the acceptance run, empty when it starts."""

    folder: Path

    @classmethod
    def fresh(cls, name: str) -> Place:
        folder = ROOT / ".qfuse" / "accept" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return cls(folder)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "QFUSE_SHARED": str(SHARED), "COLUMNS": "140"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*QFUSE, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[Any, float]:
        """Return (the JSON that the command printed, seconds of wall time). Raises RuntimeError
        where it failed.
        """
        begin = time.perf_counter()
        child = self.start(*arguments, "--json")
        out, err = child.communicate(timeout=3600)
        if child.returncode:
            raise RuntimeError(f"qfuse {' '.join(arguments)} ended with {child.returncode}: {err}")
        return json.loads(out), time.perf_counter() - begin

    def numbers(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.folder / f".qfuse/runs/{run}/numbers.json").read_text(encoding="utf-8")
        )
        return found

    def digests(self, store: str) -> dict[str, str]:
        """Return the column digest of every artifact, by output and key."""
        receipts = sorted((self.folder / store).glob("*/??/[!.]*.json"))
        read = [json.loads(path.read_bytes()) for path in receipts]
        return {f"{r['output']}/{r['key']}": r["digest"] for r in read}


@dataclass(frozen=True)
class Check:
    """One line of what must hold: what was expected, what was seen."""

    what: str
    expected: str
    seen: str
    holds: bool


def does_nothing(place: Place, config: str, what: str) -> Check:
    """Run a config whose every result is stored."""
    again, wall = place.run("run", config)
    seen = f"{wall:.2f} s, {len(again['ran'])} steps ran"
    return Check(
        f"a second run of {what} does nothing", "≤ 2 s", seen, not again["ran"] and wall <= 2
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first row is the head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def seconds(ran: dict[str, Any]) -> str:
    """Return the wall time of each step of a run, as a sentence."""
    return ", ".join(f"{name} {step['seconds']:.1f} s" for name, step in ran["steps"].items())
