"""quality_scores: how the quality scores of a run's faces are spread, and faces in their order.

Conventions
    One of many  the scores of a quality method are those of its first step, in the order of the
                 plan; `name` says which that is.
    Crops        are read shard by shard, from at most SHARDS of them: a data set's crops need not
                 fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.schema import Array, Status
from pipeline.errors import InvalidInput, unknown
from pipeline.plan.graph import Step
from pipeline.session import Results
from stages.draw.figures import Series
from stages.explain.crops import jpeg, nearest_with

SHARDS = 8
BINS = 48


@dataclass(frozen=True)
class QualityScores:
    """The quality scores of one method, of every face of the data set."""

    method: str
    step: Step
    quality: Array  # float32, nan if there is none
    kind: Array | None  # how each face was degraded, '' for not; None if that is not known

    @property
    def name(self) -> str:
        """The method, and the cell that was taken if there are several."""
        factors = self.step.factors.items()
        chosen = ", ".join(f"{name} = {value}" for name, value in factors if value != self.method)
        return f"{self.method} ({chosen})" if chosen else self.method


@dataclass(frozen=True)
class Crop:
    """One face in the grid."""

    image: str  # base64 of a JPEG
    score: str
    kind: str


@dataclass(frozen=True)
class Histograms:
    """How the scores of one method are spread.

    One line for all faces or, if it is known how each was degraded, one for each kind.
    """

    name: str
    lines: Sequence[Series]


@dataclass(frozen=True)
class Qualities:
    """What is shown of the quality of faces.

    `by` names the scores in whose order the crops stand, '' if there are none.
    """

    histograms: Sequence[Histograms]
    names: Sequence[str]  # of the methods that `agreement` is between
    agreement: Array | None  # rank correlations, (n, n) float64
    by: str
    scored: int  # faces that these scores are of
    kinds_known: bool  # how each was degraded
    crops: Sequence[Crop]
    wanted: int  # crops


def qualities(results: Results, best: str, method: str | None, crops: int) -> Qualities:
    """Return what is shown of the quality of faces, the method `best` first.

    `method` is that of the crops, by default the first. Raises InvalidInput for a quality method
    that the run does not have.
    """
    # the best row's method first
    scores = sorted(quality_scores(results), key=lambda each: each.method != best)
    grid = choose_scores(results, scores, method)
    return Qualities(
        [Histograms(each.name, lines) for each in scores if (lines := quality_lines(each))],
        [each.name for each in scores],
        agreement(scores),
        grid.name if grid else "",
        int(np.isfinite(grid.quality).sum()) if grid else 0,
        grid is not None and grid.kind is not None,
        crop_grid(results, grid, crops) if grid else [],
        crops,
    )


def quality_scores(results: Results) -> list[QualityScores]:
    """Return the scores of every quality method that a run has and kept."""
    found: dict[str, QualityScores] = {}
    for step in results.cells("quality"):
        method = str(step.stage.options.method)
        if method in found or not results.available(step):
            continue
        read = results.read(step, "", ("status", "quality"))
        quality = np.where(read["status"] == Status.OK, read["quality"], np.nan)
        found[method] = QualityScores(method, step, quality, _kinds(results, step, len(quality)))
    return list(found.values())


def _kinds(results: Results, step: Step, rows: int) -> Array | None:
    source = nearest_with(results, step, "kind")
    if source is None or not results.available(*source):
        return None
    kind = results.read(*source, ("kind",))["kind"]
    return kind if len(kind) == rows else None


def choose_scores(
    results: Results, scores: Sequence[QualityScores], method: str | None
) -> QualityScores | None:
    """Return the scores that sort the grid of crops, if they are kept.

    Raises InvalidInput for a quality method that the run does not have.
    """
    planned = {str(step.stage.options.method) for step in results.cells("quality")}
    if method is not None and method not in planned:
        raise InvalidInput(f"report.options.method: {unknown('quality method', method, planned)}")
    return next((s for s in scores if method in (None, s.method)), None)


def crop_grid(results: Results, scores: QualityScores, count: int) -> list[Crop]:
    """Return `count` crops at equal steps of rank, from the lowest score to the highest.

    Empty if no crops are kept.
    """
    source = nearest_with(results, scores.step, "crop")
    if source is None or count == 0 or not results.available(*source):
        return []
    step, output = source
    shards = np.unique(
        np.linspace(0, len(step.tasks) - 1, min(SHARDS, len(step.tasks))).round().astype(int)
    ).tolist()
    rows = np.concatenate([np.arange(step.tasks[i].start, step.tasks[i].stop) for i in shards])
    rows = rows[np.isfinite(scores.quality[rows])]
    ranked = rows[np.argsort(scores.quality[rows], kind="stable")]
    wanted = ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]
    images: dict[int, str] = {}
    for i in shards:
        task = step.tasks[i]
        mine = wanted[(wanted >= task.start) & (wanted < task.stop)]
        if len(mine):
            shard = results.session.reader.source(step, output, (i,)).read(("crop",))["crop"]
            images |= {int(row): jpeg(shard[row - task.start]) for row in mine}
    kinds = scores.kind
    if kinds is None:
        kinds = np.full(len(scores.quality), "", dtype=object)
    written = _alike(scores.quality[wanted])
    return [
        Crop(images[int(row)], score, str(kinds[row]))
        for row, score in zip(wanted, written, strict=True)
    ]


def _alike(values: Array) -> list[str]:
    """Write numbers with as many decimals as tell the ends of their range apart to three digits."""
    low, high = (
        (float(f(values, initial=0)) for f in (np.min, np.max)) if len(values) else (0.0, 0.0)
    )
    spread = max(high, -low)
    digits = max(0, 2 - math.floor(math.log10(spread))) if spread > 0 else 0
    return [f"{value:.{min(digits, 6)}f}".replace("-", "−") for value in values.tolist()]


def agreement(scores: Sequence[QualityScores]) -> Array | None:
    """Return the rank correlations between the scores of all methods, (n, n) float64.

    None if there is only one method.
    """
    if len(scores) < 2:
        return None
    # Here, as scipy.stats takes half a second and every command imports this module.
    from stages.metrics.correlation import rank_correlation

    return rank_correlation([each.quality for each in scores])


def quality_lines(scores: QualityScores) -> list[Series]:
    """Return histograms of a method's scores over BINS bins.

    There is one of all faces or, if it is known how each was degraded, one of the untouched faces
    and one of every kind, the kind with most faces first.
    """
    usable = np.isfinite(scores.quality)
    if not usable.any():
        return []
    edges = np.linspace(*_ends(scores.quality[usable]), BINS + 1)
    kind = np.full(len(usable), "") if scores.kind is None else scores.kind.astype(str)
    names, counts = np.unique(kind[usable], return_counts=True)
    parts = sorted(
        zip(names.tolist(), counts.tolist(), strict=True),
        key=lambda part: (part[0] != "", -part[1]),
    )
    lines = []
    for slot, (name, count) in enumerate(parts):
        shares = np.histogram(scores.quality[usable & (kind == name)], edges)[0] / count
        label = "all faces" if len(parts) == 1 else name.replace("_", " ") or "not degraded"
        lines.append(Series(f"{label} ({count:,})", min(slot, 1), edges[:-1], shares))
    return lines


def _ends(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
