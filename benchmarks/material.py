"""What is measured on: a synthetic set of IJB-C's shape, and stages called as a run does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.core.numerics import PROFILES
from pipeline.core.schema import Array, Batch, concat, text
from pipeline.core.stage import Context, Source, Stage, Work
from pipeline.plan.dataset import Dataset
from pipeline.plan.shard_tables import tables_of_shard
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.faces import embed
from stages.fusion import fuse
from stages.matching import compare
from stages.metrics import verification
from stages.quality.reference_statistics import Statistics
from stages.tables.comparisons import Comparisons, role_rows
from stages.tables.tables import LAYOUT

PROFILE = PROFILES["cpu-fp32"]
WORKERS = len(os.sched_getaffinity(0))  # as a run has
FMR = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# IJB-C's list, and the pairs that it is a part of
MATED, NONMATED, PRODUCT = (19_557, 15_638_932, 3531 * 19_593)
# of so many comparisons one lies elsewhere in a list that is otherwise in the order of its first
# templates
ASTRAY = 1000


@dataclass(frozen=True)
class Row:
    """One line of the page: a task, both ways of doing it, and how their results compare."""

    name: str
    ours: Callable[[], Any]
    # or the lines whose common times together are its own
    common: Callable[[], Any] | tuple[str, ...] | None = None
    compared: Callable[[Any, Any], str] = lambda theirs, ours: ""
    amount: float = 0.0  # of `unit`, when the line is a speed
    unit: str = ""
    # what our side spends its time on; printed if that leaves us less than twice as fast
    cost: str = ""
    told: Callable[[Any], str] = lambda ours: ""  # what our result says by itself
    # how many times the timed part of the common method's work the whole work is
    times: float = 1
    threads: int = WORKERS  # of the common method in a library
    alone: bool = False  # a process of its own: its result is its seconds, and what it told
    # work of a network in `precision`, whose share of what a product reaches is told
    gflop: float = 0.0
    precision: str = "fp32"
    absent: str = ""  # why it cannot be measured here


@dataclass(frozen=True)
class Material:
    """A synthetic set and what the measured steps read.

    That is embeddings, quality, fused templates and a list of comparisons.
    """

    data: Dataset
    embedded: Batch
    scored: Batch
    fused: Batch
    unit: Array  # (t, 512) float32, the fused templates
    subject: Array  # (t,) int64

    @staticmethod
    def make(scale: float) -> Material:
        tables = synthesise(SynthOptions(scale=scale, dimension=512, seed=0))
        faces = tables["faces"]
        embedded = embed.as_embeddings(faces["embedding"], np.zeros(faces.rows, np.uint8))
        scored = Batch(
            {"status": embedded["status"], "quality": faces["quality"], "score": faces["quality"]}
        )
        _, subject = np.unique(tables["templates"]["subject"].astype(str), return_inverse=True)
        roles = tables["roles"]
        enrolled = role_rows(roles, "gallery")
        others = np.setdiff1d(role_rows(roles, "reference"), enrolled)  # IJB-C has two galleries
        both = {
            "template": [roles["template"], others],
            "role": [roles["role"], text(["gallery_2"] * len(others))],
        }
        tables = {
            **tables,
            "roles": Batch({name: np.concatenate(parts) for name, parts in both.items()}),
        }
        tables["comparisons"] = draw_list(tables, subject, MATED / PRODUCT, NONMATED / PRODUCT)
        tables["pairings"] = tables["pairings"].take(slice(0, 0))
        data = dataset(tables)
        fused = fuse_by(data, "quality-minmax", embedded, scored)
        return Material(data, embedded, scored, fused, compare.unit_rows(fused), subject)

    def roles(self, role: str) -> Array:
        return role_rows(self.data.tables["roles"], role)

    @cached_property
    def wide(self) -> Array:
        """The same templates in float64, as the common method has them."""
        return self.unit.astype(np.float64)

    @property
    def listed(self) -> Batch:
        return self.data.tables["comparisons"]

    def with_tables(self, **tables: Batch) -> Dataset:
        return dataset({**self.data.tables, **tables})


def draw_list(tables: Mapping[str, Batch], subject: Array, mated: float, nonmated: float) -> Batch:
    """Return comparisons of references with probes, drawn at random without repeats.

    `mated` and `nonmated` are the shares of all pairs. They come in the order of their references
    but for one in ASTRAY, as such lists do.
    """
    rng = np.random.default_rng(1)
    first, second = (role_rows(tables["roles"], role) for role in ("reference", "probe"))
    pairs = len(first) * len(second)
    wanted = round(pairs * nonmated)
    drawn = np.unique(
        rng.integers(0, pairs, int(pairs * -np.log1p(-min(0.999, 1.08 * nonmated))) + 1000)
    )
    drawn = drawn[subject[first[drawn // len(second)]] != subject[second[drawn % len(second)]]]
    surplus = rng.choice(len(drawn), max(0, len(drawn) - wanted), replace=False)
    place = np.argsort(subject[first])  # each subject has one reference
    row = place[np.searchsorted(subject[first], subject[second], sorter=place)]
    same = rng.permutation(row * len(second) + np.arange(len(second)))[: round(pairs * mated)]
    cells = np.sort(np.concatenate([np.delete(drawn, surplus), same]))
    astray = rng.choice(len(cells), len(cells) // ASTRAY, replace=False)
    cells[astray] = cells[rng.permutation(astray)]
    a, b = first[cells // len(second)], second[cells % len(second)]
    return Batch(
        {"a": a, "b": b, "mated": subject[a] == subject[b], "fold": np.full(len(a), -1, np.int16)}
    )


def dataset(tables: Mapping[str, Batch], **shard_rows: int) -> Dataset:
    return Dataset("synthetic", tables, LAYOUT.axes(tables, shard_rows), LAYOUT, None)


def stage_of(cls: type[Stage], **options: Any) -> Stage:
    return cls(cls.Options(**options), Context(PROFILE))


def run(stage: Stage, data: Dataset, **inputs: Batch | Source) -> Batch:
    """Compute every shard of a stage on the workers that a run has here, and join them."""
    sources = {
        name: given if isinstance(given, Source) else source(given)
        for name, given in inputs.items()
    }
    axis = data.axes[stage.axis]

    def shard(bounds: tuple[int, int]) -> Batch:
        found = stage.compute(
            Work(*bounds, tables_of_shard(stage, data, *bounds), sources, pool, WORKERS)
        )
        return next(iter(found.values()))

    with ThreadPoolExecutor(WORKERS) as pool:
        return concat(
            list(pool.map(shard, [(0, axis.rows)] if stage.grain == "reduce" else axis.shards))
        )


def source(batch: Batch) -> Source:
    return Source(
        (0,), (batch.rows,), lambda i, columns: batch if columns is None else batch.select(columns)
    )


def fuse_by(
    data: Dataset, rule: str, embedded: Batch | Source, scored: Batch, **options: Any
) -> Batch:
    """Fuse under a rule; statistics of the set, if the rule reads them, are part of the work."""
    stage = stage_of(fuse.Fuse, rule=rule, **options)
    inputs: dict[str, Batch | Source] = {
        "embeddings": embedded,
        "quality": scored,
        "detections": scored,
    }
    if "statistics" in stage.uses():
        inputs["statistics"] = run(stage_of(Statistics), data, quality=scored)
    return run(stage, data, **{name: inputs[name] for name in stage.uses()})


def compare_all(data: Dataset, fused: Batch) -> Array:
    return run(stage_of(compare.Compare), data, templates=fused)["score"]


def tar_and_auc(scores: Array, mated: Array) -> tuple[Array, Array, float]:
    """Return TAR and false matches at FMR, and the AUC."""
    pair = verification.Ascending.of(scores[mated]), verification.Ascending.of(scores[~mated])
    points = verification.operating_points(*pair, FMR, "nearest")
    return points.tar, points.false_matches, verification.auc(*pair)


def pairs_of(data: Dataset) -> tuple[Array, Array]:
    """Return the template rows of every comparison."""
    comparisons = Comparisons.of(data.tables)
    return comparisons.pairs(0, comparisons.rows)
