"""sections: what a report shows beside its tables: curves, quality scores, crops.

Conventions
    Curves      of a row are averaged over its cells at equal FMR (rank, bin), as the table's values
                are. A ROC between two stored points is that of the lower FMR: the largest FMR that
                does not exceed the target.
    One of many quality histograms and crops are those of the first step of a measure, in the order
    of the plan; each
                says which that is.
    Crops       are read shard by shard, from at most SHARDS of them: a data set's crops need not
                fit in memory.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.schema import Array, Status
from pipeline.errors import InvalidInput, unknown
from pipeline.plan.graph import Ref, Step
from pipeline.session import Results
from stages.draw.figures import Line
from stages.results.rule_table import Cell, Row

SHARDS = 8
CURVE_POINTS = 300
BINS = 48


@dataclass(frozen=True)
class Scores:
    """The quality scores of one method: `kind` says how each face was degraded, '' for not, None
    where unknown.
    """

    method: str
    step: Step
    quality: Array  # float32, nan if there is none
    kind: Array | None


@dataclass(frozen=True)
class Crop:
    """One face in the grid."""

    image: str  # base64 of a JPEG
    score: str
    kind: str


def roc_of(row: Row, step: str) -> tuple[Array, Array]:
    """Return (FMR, TAR) of a row's 1:1 cells of one evaluating step, averaged at equal FMR; empty
    without.
    """
    parts = [part for part in (curve(cell, "roc") for cell in _of(row, step)) if len(part[0])]
    if not parts:
        return np.empty(0), np.empty(0)
    parts = [(x[order], y[order]) for x, y in parts for order in [np.lexsort((y, x))]]
    first = max(float(x[x > 0].min()) if (x > 0).any() else 1.0 for x, _ in parts)
    targets = [
        float(t) for cell in _of(row, step) for t in cell.numbers["target"] if first <= t <= 1
    ]
    grid = np.unique([*np.geomspace(first, 1, CURVE_POINTS), *targets])
    each = [
        y[np.maximum(np.searchsorted(x, grid * (1 + 1e-12), side="right") - 1, 0)] for x, y in parts
    ]
    return grid, np.mean(each, axis=0)


def mean_curve(row: Row, step: str, name: str) -> tuple[Array, Array]:
    """Return (x, y) of a CMC or a histogram, averaged over the cells that have the x of the first
    one, up to the shortest.
    """
    parts = [part for part in (curve(cell, name) for cell in _of(row, step)) if len(part[0])]
    length = min((len(x) for x, _ in parts), default=0)
    if not length:
        return np.empty(0), np.empty(0)
    first = parts[0][0][:length]
    return first, np.mean(
        [y[:length] for x, y in parts if np.array_equal(x[:length], first)], axis=0
    )


def curve(cell: Cell, name: str) -> tuple[Array, Array]:
    """Return the points of one stored curve."""
    mine = cell.curves["curve"] == name
    return cell.curves["x"][mine], cell.curves["y"][mine]


def _of(row: Row, step: str) -> list[Cell]:
    return [cell for cell in row.cells if cell.step.base == step]


def nonmated_trials(row: Row, step: str) -> float:
    """Return how many non-mated comparisons were made, the fewest of a row's cells; nan if none of
    them tells.
    """
    counts = [n for cell in _of(row, step) for n in cell.numbers["nonmated"].tolist() if n > 0]
    return min(counts, default=float("nan"))


def method_of(results: Results, row: Row) -> str:
    """Return the quality measure that a row's templates are weighted by; '' for none."""
    step = results.upstream(row.cells[0].step, "quality")
    return "" if step is None else str(step.stage.options.method)


def quality_scores(results: Results) -> list[Scores]:
    """Return the scores of every measure that a run has and kept."""
    found: dict[str, Scores] = {}
    for step in results.cells("quality"):
        method = str(step.stage.options.method)
        if method in found or not results.available(step):
            continue
        read = results.read(step, "", ("status", "quality"))
        quality = np.where(read["status"] == Status.OK, read["quality"], np.nan)
        found[method] = Scores(method, step, quality, _kinds(results, step, len(quality)))
    return list(found.values())


def _kinds(results: Results, step: Step, rows: int) -> Array | None:
    source = with_column(results, step, "kind")
    if source is None or not results.available(*source):
        return None
    kind = results.read(*source, ("kind",))["kind"]
    return kind if len(kind) == rows else None


def with_column(results: Results, step: Step, column: str) -> tuple[Step, str] | None:
    """Return the nearest output above a step that has a column."""
    waiting: list[Ref] = list(step.inputs.values())
    while waiting:
        ref = waiting.pop(0)
        above = results.plan.steps[ref.step]
        if any(f.name == column for f in above.stage.produces[ref.output].fields):
            return above, ref.output
        waiting += above.inputs.values()
    return None


def choose(results: Results, scores: Sequence[Scores], method: str | None) -> Scores | None:
    """Return the scores that sort the grid, if they are kept. Raises InvalidInput for a measure
    unknown to the run.
    """
    planned = {str(step.stage.options.method) for step in results.cells("quality")}
    if method is not None and method not in planned:
        raise InvalidInput(f"report.options.method: {unknown('quality measure', method, planned)}")
    return next((s for s in scores if method in (None, s.method)), None)


def crop_grid(results: Results, scores: Scores, count: int) -> list[Crop]:
    """Return `count` crops at equal steps of rank, from the lowest score to the highest; none where
    none are kept.
    """
    source = with_column(results, scores.step, "crop")
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
    kinds = (
        scores.kind if scores.kind is not None else np.full(len(scores.quality), "", dtype=object)
    )
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


def jpeg(crop: Array) -> str:
    """Return base64 of a JPEG of a crop (h, w, 3) uint8."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(crop).save(written, "JPEG", quality=85)
    return base64.b64encode(written.getvalue()).decode()


def quality_lines(scores: Scores) -> list[Line]:
    """Return histograms of a measure's scores over BINS bins: one of all faces or, where it is
    known how each was degraded, of the untouched ones and of every kind apart, most faces first
    among the kinds."""
    usable = np.isfinite(scores.quality)
    if not usable.any():
        return []
    edges = np.linspace(*_spread(scores.quality[usable]), BINS + 1)
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
        lines.append(Line(f"{label} ({count:,})", min(slot, 1), edges[:-1], shares))
    return lines


def _spread(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
