"""Ten thousand hostile inputs of every kind, each kind in processes with bounds; and some with
coverage as the guide.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.accept.command import ROOT, Check, Place, table
from tests.hostile.child import SECONDS
from tests.hostile.kinds import KINDS

INPUTS = 10_000
FEWER = {"whole commands": 1_000}  # each takes a hundred times as long
AT_ONCE = 1_000  # inputs of a process
GUIDED = {"config": 10_000, "zip": 20_000, "image": 20_000, "receipt": 20_000}
# the words of a breach that is one of writing, reading or code, not of an exception
WRITES = ("outside", "beside")


@dataclass
class _Found:
    """What was seen of one kind."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    breaches: list[tuple[int, str]] = field(default_factory=list)
    megabytes: int = 0
    seconds: float = 0.0

    def count(self, outside: bool) -> int:
        return sum(
            any(word in what for word in (*WRITES, "ran code")) == outside
            for _, what in self.breaches
        )


def hostile() -> tuple[list[Check], str]:
    """Meet every input of every kind; a process that dies or hangs costs the input that did it, and
    names its seed.
    """
    place = Place.fresh("hostile")
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        found = dict(
            zip(
                KINDS,
                pool.map(lambda kind: run(kind, FEWER.get(kind, INPUTS), place.folder), KINDS),
                strict=True,
            )
        )
    rows = [
        [
            "kind",
            "inputs",
            "answered",
            "refused",
            "tracebacks, crashes, hangs",
            "touched or ran what it must not",
            "MB",
            "s",
        ]
    ]
    for kind, seen in found.items():
        outcomes = [f"{seen.outcomes[name]:,}" for name in ("answered", "refused")]
        broken = [str(seen.count(outside)) for outside in (False, True)]
        rows.append(
            [
                kind,
                f"{seen.inputs:,}",
                *outcomes,
                *broken,
                str(seen.megabytes),
                f"{seen.seconds:.0f}",
            ]
        )
    total = sum(seen.inputs for seen in found.values())
    checks = [
        Check(f"{total:,} hostile inputs: tracebacks, crashes, hangs", "0", *_sum(found, False)),
        Check("files touched or code run that must not be", "0", *_sum(found, True)),
    ]
    worst = [
        f"{kind}, seed {seed}: {what}"
        for kind, seen in found.items()
        for seed, what in seen.breaches[:5]
    ]
    guided_text, guided_checks = _guided(place.folder)
    text = (
        f"{table(rows)}\n\nAnswered: read as what it is, or as rows with a status. MB: the most"
        " memory of a process, of which about 260 are libraries. A seed is an input: `python -m"
        f" tests.hostile.child KIND SEED 1 FOLDER`. {guided_text}"
    )
    return [*checks, *guided_checks], "\n\n".join([text, *worst])


def run(kind: str, count: int, folder: Path) -> _Found:
    """Meet the inputs of seeds 0…count of one kind."""
    seen, first, begin = _Found(), 0, time.perf_counter()
    place = folder / kind.replace(" ", "-")
    while first < count:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        words = [
            sys.executable,
            "-m",
            "tests.hostile.child",
            kind,
            str(first),
            str(min(AT_ONCE, count - first)),
            str(place),
        ]
        with (place / "said").open("wb") as said:
            done = subprocess.run(words, cwd=ROOT, stdout=said, stderr=said, check=False)
        lines = [json.loads(line) for line in (place / "log").read_text().splitlines()]
        seeds = [value for what, value in lines if what == "seed"]
        if lines[-1][0] != "megabytes":
            last = (place / "said").read_text(errors="replace").splitlines()[:2]
            state = (
                f"the process ended with {done.returncode} ({SECONDS} s a seed at most):"
                f" {' '.join(last)}"
            )
            lines.append(("breach", state[:300]))
        seed = first
        for what, value in lines:
            if what == "seed":
                seed = value
            elif what == "outcome":
                seen.outcomes[value] += 1
            elif what == "breach":
                seen.breaches.append((seed, value))
            else:
                seen.megabytes = max(seen.megabytes, value)
        seen.inputs += len(seeds)
        first = seeds[-1] + 1
    seen.seconds = time.perf_counter() - begin
    return seen


def _sum(found: dict[str, _Found], outside: bool) -> tuple[str, bool]:
    total = sum(seen.count(outside) for seen in found.values())
    return str(total), total == 0


def _guided(folder: Path) -> tuple[str, list[Check]]:
    """Let coverage choose the inputs of four readers, where atheris is installed."""
    if find_spec("atheris") is None:
        return "Coverage-guided fuzzing did not run: atheris is not installed.", []
    told, failed = [], []
    for target, runs in GUIDED.items():
        place = folder / f"guided-{target}"
        place.mkdir()
        words = [
            sys.executable,
            "-m",
            "tests.hostile.guided",
            target,
            str(place),
            f"-runs={runs}",
            "-seed=1",
        ]
        words += [
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-max_len=4096",
            f"-artifact_prefix={place}/",
        ]
        begin = time.perf_counter()
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
        )
        told.append(f"{target} {runs:,} in {time.perf_counter() - begin:.0f} s")
        if done.returncode:
            failed.append(f"{target}: {' '.join((done.stdout + done.stderr).split())[-200:]}")
    text = f"Coverage-guided (atheris): {', '.join(told)}."
    return text, [
        Check(
            "inputs that coverage chose, four readers",
            "0 breaches",
            "; ".join(failed) or "0",
            not failed,
        )
    ]
