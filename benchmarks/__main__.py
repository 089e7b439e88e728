"""Measure the project against the field's common method, and write docs/performance.md.

`make bench` runs it.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import children, discard, other_steps, set_to_set
from benchmarks.material import PROFILE, WORKERS, Material, Row, compare_all
from pipeline.core.numerics import backend_version
from pipeline.system.instruction_sets import processor

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("numpy", "scipy", "torch", "faiss-cpu", "h5py", "opencv", "scikit-learn")
QUICK = 0.02
REPLICATES = 1000
PROFILED = 5.0  # seconds: what takes longer is not run once more to see where its time goes


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, and what the last one returned."""

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(
    function: Callable[[], Any], budget: float, repeats: int = 5, alone: bool = False
) -> Timing:
    """Run until `repeats`, or until `budget` seconds are spent, but at least once.

    A process `alone` tells its seconds itself.
    """
    seconds: list[float] = []
    first = time.perf_counter()
    while True:
        begin = time.perf_counter()
        result = function()
        seconds.append(result["seconds"] if alone else time.perf_counter() - begin)
        if len(seconds) >= repeats or time.perf_counter() - first >= budget:
            return Timing(seconds, result)


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
    given = parser.parse_args()
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
        sizes, rows = prepared(scale, Path(folder))
        common: dict[Any, Timing] = {}  # by function, and by the name of the line
        for row in rows:
            # What a process needs before it begins is not its time, but ours.
            ours = timed(
                row.ours, given.budget * (5 if row.alone else 1), 3 if row.alone else 5, row.alone
            )
            with threadpool_limits(row.threads):
                theirs = of_common(row, common, given.budget)
            lines.append(line(row, ours, theirs))
            print(lines[-1], file=sys.stderr, flush=True)
            if not row.alone and ours.median < PROFILED:
                shares.append(f"- {row.name}: {where_time_goes(row.ours)}.")
            if theirs is not None and row.cost and (ratio := theirs.median / ours.median) < 2:
                slow.append(f"- {row.name} ({ratio:.2g}): {row.cost}.")
    commands = command_times()
    text = page(scale, sizes, lines, slow, commands, shares, time.perf_counter() - begin)
    if given.quick:
        print(text)
    else:
        (ROOT / "docs" / "performance.md").write_text(text, encoding="utf-8")


def prepared(scale: float, folder: Path) -> tuple[dict[str, int], list[Row]]:
    """Return the sizes of the synthetic set at `scale` of IJB-C, and all lines of the page."""
    made = Material.make(scale)
    ours = set_to_set.rows(made, REPLICATES)
    together = next(row.name for row in ours if isinstance(row.common, tuple))
    listed = discard.rows(made, compare_all(made.data, made.fused), REPLICATES)
    rows = [
        *ours,
        *listed,
        *children.rows(made, scale, folder / "streamed", together),
        *other_steps.rows(made, folder),
    ]
    tables = made.data.tables
    sizes = {
        "faces": tables["faces"].rows,
        "templates": tables["templates"].rows,
        "subjects": int(made.subject.max()) + 1,
    }
    return {**sizes, "comparisons": tables["comparisons"].rows}, rows


def of_common(row: Row, common: dict[Any, Timing], budget: float) -> Timing | None:
    """Return the common method's timing, measured once a function.

    For several lines together it is the sum of their medians.
    """
    if isinstance(row.common, tuple):
        found = Timing([sum(common[name].median for name in row.common)], None)
    elif row.common is None:
        return None
    else:
        found = common.get(row.common) or timed(row.common, budget)
        common[row.common] = found
        found = Timing([row.times * seconds for seconds in found.seconds], found.result)
    common[row.name] = found
    return found


def line(row: Row, ours: Timing, theirs: Timing | None) -> str:
    """Return a line of the table: step, both medians (or speeds), ratio, how results compare."""
    if theirs is None:
        return f"| {row.name} | – | {quantity(row, ours)} | – | {row.told(ours.result)} |"
    ratio = theirs.median / ours.median
    if isinstance(row.common, tuple):
        same = row.told(ours.result)
    else:
        same = row.compared(theirs.result, ours.result)
    return (
        f"| {row.name} | {quantity(row, theirs)} | {quantity(row, ours)} | {ratio:.2g} | {same} |"
    )


def quantity(row: Row, timing: Timing) -> str:
    if row.unit:
        return f"{row.amount / timing.median:,.0f} {row.unit} (n={len(timing.seconds)})"
    return f"{timing.median:.3g} s (n={len(timing.seconds)})"


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


def page(
    scale: float,
    sizes: dict[str, int],
    lines: Sequence[str],
    slow: Sequence[str],
    commands: Sequence[str],
    shares: Sequence[str],
    took: float,
) -> str:
    """Return the whole page as Markdown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    versions = ", ".join(f"{name} {backend_version(name)}" for name in LIBRARIES)
    threads = PROFILE.threads
    return f"""# Performance

Made by `make bench`; not edited by hand. Both ways of computing get the same arrays in the same process, so the ratios
hold better than the seconds do; other work on the machine moves both.

- Machine: {processor()}, {len(os.sched_getaffinity(0))} cores usable, {memory:.0f} GiB; {platform.system()}, Python \
{platform.python_version()}; {date.today().isoformat()}.
- Libraries: {versions}.
- Data: the synthetic set at scale {scale:g} of IJB-C, 512 dimensions: {", ".join(f"{n:,} {k}" for k, n in sizes.items())}.
  The list holds as large a share of references × probes as IJB-C's, at every scale; one in 1,000 is out of order.
- Cores: both sides have all {WORKERS}. The common method has {WORKERS} threads in every library; ours has {WORKERS} workers,
  as a run has here, with {threads} thread each in a library, as the numerics profile `{PROFILE.name}` says. “One thread” is
  said of both sides.
- The common method is `benchmarks/common_method.py`: the loops of the field's evaluation scripts, in our own words.
- A time is the median of n repeats. Ratio: common time over ours; above 1, ours is faster.
- A line that is made of others has the sum of their medians as its common time. Where “beyond the interpreter” or “beside”
  is said, our side ran in a process of its own, and memory is what it added at its peak.
- The whole run took {took:.0f} s and {peak:.1f} GiB of memory at its peak, both ways of computing included.

| step | common method | qfuse | ratio | results |
|---|---:|---:|---:|---|
{chr(10).join(lines)}

{chr(10).join(["What is less than twice as fast as the common method (ratio), and why:", "", *slow, ""] if slow else [])}
The loops of the common method look at every face for every template, so their time grows with the square of the scale and
ours with the scale. “Within” and “largest difference” are absolute. Our side of a step is the stage that a run calls,
shard by shard, with its inputs in memory; what reads or writes the store says so, and does it in the folder for temporary
files.

| command, as a process | median |
|---|---:|
{chr(10).join(commands)}

## Where our time goes

Of steps under {PROFILED:g} s, the project's functions that take 15 % or more, what they call included; last, the function
whose own time is largest (cProfile):

{chr(10).join(shares)}
"""


if __name__ == "__main__":
    main()
