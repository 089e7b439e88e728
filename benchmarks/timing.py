"""Timing a line: repeats within a budget, both ways in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.material import Row

REPEATS = 5


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, and what the last one returned."""

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(
    function: Callable[[], Any], budget: float, repeats: int = REPEATS, alone: bool = False
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


def side_by_side(row: Row, budget: float) -> tuple[Timing, Timing]:
    """Time both ways in turn, so that other work on the machine meets both alike.

    Ours, if it is much the quicker, is repeated alone until it has its number.
    """
    ours, theirs = list[float](), list[float]()
    while not ours or (len(ours) < REPEATS and sum(ours) < budget):
        once = timed(row.ours, 0)
        ours += once.seconds
        if not theirs or sum(theirs) < budget:
            assert callable(row.common)
            with threadpool_limits(row.threads):
                common = timed(row.common, 0)
            theirs += common.seconds
    return Timing(ours, once.result), Timing(theirs, common.result)


def measured(row: Row, common: dict[Any, Timing], budget: float) -> tuple[Timing, Timing | None]:
    """Return both timings; that of a common method that other lines have too is taken once."""
    if callable(row.common) and row.common not in common and not row.alone:
        ours, theirs = side_by_side(row, budget)
        common[row.common] = theirs
        return ours, of_common(row, common, budget)
    # What a process needs before it begins is not its time, but ours.
    ours = timed(row.ours, budget * (5 if row.alone else 1), 3 if row.alone else REPEATS, row.alone)
    with threadpool_limits(row.threads):
        return ours, of_common(row, common, budget)


def of_common(row: Row, common: dict[Any, Timing], budget: float) -> Timing | None:
    """Return the common method's timing, measured once a function.

    For several lines together it is the sum of their medians.
    """
    if isinstance(row.common, tuple):
        if not all(name in common for name in row.common):
            return None  # those lines are left out
        found = Timing([sum(common[name].median for name in row.common)], None)
    elif row.common is None:
        return None
    else:
        found = common.get(row.common) or timed(row.common, budget)
        common[row.common] = found
        found = Timing([row.times * seconds for seconds in found.seconds], found.result)
    common[row.name] = found
    return found
