"""What both evaluations of error versus discard share: areas, thinned curves, missing quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core.schema import Array
from stages.evaluation.numbers import Numbers
from stages.metrics import discard
from stages.metrics.discard import Curve
from stages.metrics.discard_replicates import AreaReplicates

MOST_POINTS = 3001  # of a stored curve, at most: those of 3,000 comparisons of a kind are whole


def add_areas(
    numbers: Numbers,
    name: str,
    curve: Curve,
    replicates: AreaReplicates | None,
    target: int,
    limits: Sequence[float],
    oracles: Mapping[str, Curve],
    shared: Mapping[str, Any],
) -> None:
    """Add the area of a curve up to each limit, and those of the lines to compare it with.

    replicates: areas in each replicate at all targets, of which this is number `target`.
    """
    start = float(curve.y[0])
    references = (discard.perfect, discard.attainable) if oracles else ()
    for j, limit in enumerate(limits):
        metric, area = f"{name}_pauc({limit:g})", curve.area(limit)
        chance = float(discard.random.area(start, limit))
        drawn = over_chance = None
        if replicates is not None:
            drawn = replicates.pauc[:, target, j]
            over_chance = replicates.over_random[:, target, j]
        numbers.add(metric, area, drawn, **shared)
        numbers.add(f"{metric}_over_random", area - chance, over_chance, **shared)
        lines = {what: line.area(limit) for what, line in oracles.items()}
        lines |= {each.name: float(each.area(start, limit)) for each in references}
        for what, value in {**lines, "random": chance}.items():
            numbers.add(f"{metric}_{what}", value, **shared)


def unscored_first(quality: Array) -> Array:
    """Return qualities (n,) in which those not finite are equal and lower than all others."""
    known = np.isfinite(quality)
    least = quality[known].min() if known.any() else quality.dtype.type(0)
    return np.where(known, quality, np.nextafter(least, quality.dtype.type(-np.inf)))


def thinned_steps(curve: Curve) -> tuple[Array, Array]:
    """Return at most POINTS points of a curve, its ends among them."""
    kept = np.unique(
        np.linspace(0, len(curve.x) - 1, min(MOST_POINTS, len(curve.x))).astype(np.int64)
    )
    return curve.x[kept], curve.y[kept]
