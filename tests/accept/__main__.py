"""Run what must hold and is too long for the tests, and write what was seen to docs/acceptance.md.

    python -m tests.accept [PART ...]     parts: networks, models, lfw, detectors, closeups,
                                          fusion, rules, discard, coverage, machines,
                                          interruptions, threads, kills, flips, dask, drivers,
                                          idle, hostile; all by default

A part that is left out keeps its section of the page. Exit code 1 where something does not hold.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from datetime import date

from pipeline.system.instruction_sets import processor
from tests.accept.closeups import closeups
from tests.accept.command import ROOT, SHARED, Check, table
from tests.accept.coverage import coverage
from tests.accept.detectors import detectors
from tests.accept.determinism import interruptions, threads
from tests.accept.discard import discard
from tests.accept.drivers import dask, drivers, idle
from tests.accept.flips import flips
from tests.accept.fusion import fusion
from tests.accept.hostile import hostile
from tests.accept.kills import kills
from tests.accept.machines import machines
from tests.accept.models import models
from tests.accept.networks import networks
from tests.accept.recognition import lfw
from tests.accept.rules import rules

PAGE = ROOT / "docs" / "acceptance.md"
PARTS: dict[str, tuple[str, Callable[[], tuple[list[Check], str]]]] = {
    "networks": ("Published networks", networks),
    "models": ("Models at hand", models),
    "lfw": ("LFW: 13,173 photographs, 6,000 pairs, flip-add", lfw),
    "detectors": ("Detectors on the same photographs", detectors),
    "closeups": ("Faces that fill the frame", closeups),
    "fusion": ("Fusion on degraded LFW templates, ten seeds", fusion),
    "rules": ("Fusion rules where true quality is known", rules),
    "discard": ("Error versus discard on LFW, clean and degraded", discard),
    "coverage": ("Intervals where the truth is known", coverage),
    "machines": ("The same bits on every machine", machines),
    "interruptions": ("Interruptions and workers", interruptions),
    "threads": ("Threads", threads),
    "kills": ("Sixty kills: drivers, workers, nannies and schedulers", kills),
    "flips": ("Two hundred flipped bits", flips),
    "dask": ("Processes and machines: the same results, and what they cost", dask),
    "drivers": ("Two runs on one store", drivers),
    "idle": ("Nothing to do", idle),
    "hostile": ("Hostile input", hostile),
}
HEAD = """# What must hold, and was seen to

Written by `make accept`. Rates are percent; intervals are 95 % subject-clustered bootstrap intervals, differences are to the
uniform mean, paired. ▲ better and ▼ worse: the interval leaves out 0 and rests on 30 errors. † rests on fewer than 30 errors
of one kind (false matches or false non-matches, false positives or false negatives): its true value is very uncertain, its
interval too narrow. TAR is at the largest FMR that does not exceed the target.
"""


def main(names: list[str]) -> int:
    if not SHARED.is_dir():
        print(
            f"the photographs and models are not at {SHARED}; set QFUSE_SHARED to where they are.",
            file=sys.stderr,
        )
        return 2
    sections = _sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    failed = 0
    for name in names or list(PARTS):
        title, part = PARTS[name]
        print(f"{name}: {title} …", flush=True)
        checks, text = part()
        rows = [["what", "expected", "seen", "holds"]]
        rows += [[c.what, c.expected, c.seen, "yes" if c.holds else "**no**"] for c in checks]
        sections[title] = f"## {title}\n\n{table(rows)}\n\n{text}\n\n{_machine()}\n"
        failed += sum(not c.holds for c in checks)
        for c in checks:
            print(
                f"  {'holds' if c.holds else 'FAILS'}: {c.what}: expected {c.expected}, seen"
                f" {c.seen}",
                flush=True,
            )
        PAGE.parent.mkdir(exist_ok=True)
        ordered = [sections[title] for title, _ in PARTS.values() if title in sections]
        PAGE.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")
    print(f"{failed} failed; the page is {PAGE.relative_to(ROOT)}")
    return int(failed > 0)


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:]
    return {
        title: f"## {title}\n{text.rstrip()}\n"
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _machine() -> str:
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    return f"Seen on {date.today().isoformat()}: {processor()}, {cores} cores, Python {python}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
