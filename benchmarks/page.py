"""The page: a line for each step, and what it was measured with."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Sequence
from datetime import date

from benchmarks import inference
from benchmarks.material import PROFILE, WORKERS, Row
from benchmarks.timing import Timing
from pipeline.core.numerics import backend_version
from pipeline.system.instruction_sets import processor

LIBRARIES = ("numpy", "scipy", "torch", "faiss-cpu", "h5py", "opencv", "pillow", "scikit-learn")
HEAD = "| step | common method | qfuse | ratio | results |\n|---|---:|---:|---:|---|"
# seconds: what takes longer is not run once more to see where its time goes
PROFILED = 5.0


def line(row: Row, ours: Timing, theirs: Timing | None) -> str:
    """Return a line of the table: step, both medians (or speeds), ratio, how results compare."""
    told = row.told(ours.result)
    if row.gflop:
        rate = row.gflop / ours.median
        share = rate / inference.product_rate(row.precision)
        told = f"{rate:,.0f} GFLOP/s, {share:.0%} of PyTorch's product of two large squares"
    if theirs is None:
        return f"| {row.name} | – | {quantity(row, ours)} | – | {told} |"
    ratio = theirs.median / ours.median
    if not isinstance(row.common, tuple):
        same = row.compared(theirs.result, ours.result)
        told = "; ".join(filter(None, (same, told)))
    return (
        f"| {row.name} | {quantity(row, theirs)} | {quantity(row, ours)} | {ratio:.2g} | {told} |"
    )


def quantity(row: Row, timing: Timing) -> str:
    if row.unit:
        return f"{row.amount / timing.median:,.0f} {row.unit} (n={len(timing.seconds)})"
    return f"{timing.median:.3g} s (n={len(timing.seconds)})"


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
- Networks have random weights in the published layout. Their common method is the published module, eager in float32; a
  product is PyTorch's of two squares of {inference.SQUARE:,}, in the same precision and on the same cores.
- A time is the median of n repeats, both ways in turn. Ratio: common time over ours; above 1, ours is faster.
- A line that is made of others has the sum of their medians as its common time. Where “beyond the interpreter” or “beside”
  is said, our side ran in a process of its own, and memory is what it added at its peak.
- The whole run took {took:.0f} s and {peak:.1f} GiB of memory at its peak, both ways of computing included.

{HEAD}
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
