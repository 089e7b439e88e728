"""Measure the project against the field's common method, and write docs/performance.md.

`make bench` runs it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import children, discard, inference, other_steps, photographs, set_to_set
from benchmarks.material import PROFILE, Material, Row, compare_all
from benchmarks.page import HEAD, PROFILED, line, page
from benchmarks.timing import Timing, measured, timed

ROOT = Path(__file__).resolve().parent.parent
# what `--only` may name; the first four are made of the synthetic set
PARTS = (
    *("set_to_set", "discard", "children", "other_steps"),
    *("photographs", "inference", "commands"),
)
SYNTHETIC = PARTS[:4]
QUICK = 0.02
REPLICATES = 1000


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="1 is IJB-C's 469,375 faces, and the default"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"scale {QUICK}; print the page, write nothing"
    )
    parser.add_argument(
        "--budget", type=float, default=12.0, help="seconds for the repeats of one measurement"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, help="some parts; print their lines, write nothing"
    )
    given = parser.parse_args()
    parts = given.only or PARTS
    scale, begin = QUICK if given.quick else given.scale, time.perf_counter()
    # limits reach only libraries that are loaded
    for name in "faiss", "torch", "sklearn.metrics":
        import_module(name)
    lines: list[str] = []
    slow: list[str] = []
    shares: list[str] = []
    with (
        threadpool_limits(PROFILE.threads),
        tempfile.TemporaryDirectory(prefix="qfuse-bench-") as folder,
    ):
        sizes, rows = prepared(scale, Path(folder), parts)
        common: dict[Any, Timing] = {}  # by function, and by the name of the line
        for row in rows:
            if row.absent:
                lines.append(f"| {row.name} | – | – | – | {row.absent} |")
                continue
            ours, theirs = measured(row, common, given.budget)
            lines.append(line(row, ours, theirs))
            print(lines[-1], file=sys.stderr, flush=True)
            if not row.alone and ours.median < PROFILED:
                shares.append(f"- {row.name}: {where_time_goes(row.ours)}.")
            if theirs is not None and row.cost and (ratio := theirs.median / ours.median) < 2:
                slow.append(f"- {row.name} ({ratio:.2g}): {row.cost}.")
    if given.only:
        print("\n".join([HEAD, *lines, *(command_times() if "commands" in parts else [])]))
        return
    commands = command_times()
    text = page(scale, sizes, lines, slow, commands, shares, time.perf_counter() - begin)
    if given.quick:
        print(text)
    else:
        (ROOT / "docs" / "performance.md").write_text(text, encoding="utf-8")


def prepared(
    scale: float, folder: Path, parts: Sequence[str] = PARTS
) -> tuple[dict[str, int], list[Row]]:
    """Return the sizes of the synthetic set at `scale` of IJB-C, and the lines of these parts."""
    folders = {part: folder / part for part in parts}
    for each in folders.values():
        each.mkdir()
    others = [
        *(photographs.rows(folders["photographs"]) if "photographs" in parts else ()),
        *(inference.rows() if "inference" in parts else ()),
    ]
    if not set(SYNTHETIC) & set(parts):
        return {}, others
    made = Material.make(scale)
    ours = set_to_set.rows(made, REPLICATES)
    together = next(row.name for row in ours if isinstance(row.common, tuple))
    lines: dict[str, Callable[[], list[Row]]] = {
        "set_to_set": lambda: ours,
        "discard": lambda: discard.rows(made, compare_all(made.data, made.fused), REPLICATES),
        "children": lambda: children.rows(made, scale, folders["children"], together),
        "other_steps": lambda: other_steps.rows(made, folders["other_steps"]),
    }
    rows = [row for part in SYNTHETIC if part in parts for row in lines[part]()] + others
    tables = made.data.tables
    sizes = {
        "faces": tables["faces"].rows,
        "templates": tables["templates"].rows,
        "subjects": int(made.subject.max()) + 1,
    }
    return {**sizes, "comparisons": tables["comparisons"].rows}, rows


def where_time_goes(function: Callable[[], Any], least: float = 0.15) -> str:
    """Return our functions that hold at least `least` of the time, and those busiest themselves."""
    profiler = cProfile.Profile()
    profiler.runcall(function)
    stats: Any = pstats.Stats(profiler)
    found, own = [], (0.0, "")
    for (file, _, name), (_, _, alone, spent, _) in stats.stats.items():
        path = Path(file)
        ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in (
            "pipeline",
            "stages",
        )
        if ours:
            label = f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}.{name}"
        else:
            label = name.strip("<>")
        own = max(own, (alone / stats.total_tt, label))
        if ours and spent / stats.total_tt >= least and name != "compute" and name[0] != "<":
            found.append((spent / stats.total_tt, f"`{label}` {spent / stats.total_tt:.0%}"))
    named = [text for _, text in sorted(found, reverse=True)[:5]]
    return f"{', '.join(named)}{'; ' if named else ''}alone, `{own[1]}` {own[0]:.0%}"


def command_times() -> list[str]:
    """Return lines for the command: help, and a run that finds everything stored."""
    python = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
    with tempfile.TemporaryDirectory(prefix="qfuse-bench-") as folder:

        def call(*arguments: str) -> None:
            done = subprocess.run([*python, *arguments], cwd=folder, capture_output=True, text=True)  # noqa: S603
            if done.returncode:
                raise RuntimeError(
                    f"qfuse {' '.join(arguments)} ended with {done.returncode}:"
                    f" {done.stderr.strip()}"
                )

        demo = ["run", str(ROOT / "configs" / "demo.yaml")]
        first = timed(lambda: call(*demo), 0)
        again = timed(lambda: call(*demo), 30)
        told = timed(lambda: call("--help"), 10)
    return [
        f"| `qfuse --help` | {told.median:.2f} s (n={len(told.seconds)}) |",
        f"| `qfuse run configs/demo.yaml`, nothing stored | {first.median:.1f} s (n=1) |",
        f"| the same again: nothing to do | {again.median:.2f} s (n={len(again.seconds)}) |",
    ]


if __name__ == "__main__":
    main()
