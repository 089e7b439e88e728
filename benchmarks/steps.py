"""What is measured: each step of the project beside the common method on the same arrays, and how their results differ.

The project's side calls the stages that a run calls, shard by shard, with inputs that are already in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common_method as common
from pipeline.dataset import Dataset
from pipeline.numerics import PROFILES
from pipeline.schema import Array, Batch, concat
from pipeline.stage import Context, Source, Stage, Work
from pipeline.store import Store
from stages import align, compare, embed, fuse, images, quality, search
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.metrics import bootstrap, identification, verification
from stages.tables import EMBEDDINGS, LAYOUT, Comparisons, role_rows

PROFILE = PROFILES["cpu-fp32"]
FMR = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TOP = 20
SIDE = 250  # pixels of a photograph


@dataclass(frozen=True)
class Row:
    """One line of the page: what is done, both ways of doing it, and a sentence on how the results compare."""

    name: str
    ours: Callable[[], Any]
    common: Callable[[], Any] | None = None
    compared: Callable[[Any, Any], str] = lambda theirs, ours: ""
    amount: float = 0.0  # of `unit`, when the line is a speed
    unit: str = ""
    cost: str = ""  # what our side spends its time on; printed where that leaves us less than twice as fast


def steps(scale: float, replicates: int, folder: Path) -> tuple[dict[str, int], list[Row]]:
    """Return the sizes of the synthetic set at `scale` of IJB-C, and every line of the page in order.

    `folder` is an empty one for what the lines about storage write.
    """
    made = _Set.make(scale)
    rows = [*_templates(made), *_comparison(made, replicates), *_identification(made), *_alignment(), *_storage(made, folder)]
    tables = made.data.tables
    sizes = {"faces": tables["faces"].rows, "templates": tables["templates"].rows, "subjects": int(made.subject.max()) + 1}
    return {**sizes, "comparisons": len(made.a)}, rows


@dataclass(frozen=True)
class _Set:
    """A synthetic set and what the steps in question read: embeddings, quality, fused templates."""

    data: Dataset
    embedded: Batch
    scored: Batch
    fused: Batch
    unit: Array  # (t, 512) float32, the fused templates
    subject: Array  # (t,) int64
    a: Array  # (m,) int64, templates of every comparison
    b: Array

    @staticmethod
    def make(scale: float) -> _Set:
        tables = synthesise(SynthOptions(scale=scale, dimension=512, seed=0))
        data, faces = _dataset(tables), tables["faces"]
        embedded = embed.as_embeddings(faces["embedding"], np.zeros(faces.rows, np.uint8))
        scored = Batch({"status": embedded["status"], "quality": faces["quality"]})
        fused = _fuse(data, "quality-minmax", embedded, scored)
        _, subject = np.unique(tables["templates"]["subject"].astype(str), return_inverse=True)
        pairs = Comparisons.of(tables)
        return _Set(data, embedded, scored, fused, compare.unit_rows(fused), subject, *pairs.pairs(0, pairs.rows))

    def roles(self, role: str) -> Array:
        return role_rows(self.data.tables["roles"], role)


def _templates(made: _Set) -> list[Row]:
    members, features = made.data.tables["members"], made.embedded["embedding"]
    medium = np.unique(members["media"].astype(str), return_inverse=True)[1]
    return [
        Row(
            "templates: raw features, mean in a medium, sum, unit length",
            lambda: _fuse(made.data, "mean", made.embedded, None, features="raw", media="mean")["embedding"],
            lambda: common.media_templates(features, members["template"], medium),
            _largest_difference,
        ),
        Row(
            "templates: min-max quality weights, sum, unit length",
            lambda: _fuse(made.data, "quality-minmax", made.embedded, made.scored, features="raw")["embedding"],
            lambda: common.minmax_templates(features, members["template"], made.scored["quality"]),
            _largest_difference,
        ),
    ]


def _comparison(made: _Set, replicates: int) -> list[Row]:
    tables, subject = made.data.tables, made.subject
    mated = subject[made.a] == subject[made.b]
    listed = {"a": made.a, "b": made.b, "mated": mated, "fold": np.full(len(mated), -1, np.int16)}
    with_list = _dataset({**tables, "comparisons": Batch(listed), "pairings": tables["pairings"].take(slice(0, 0))})
    gathered = partial(common.pair_scores, made.unit, made.a, made.b)
    scores = _compare(made.data, made.fused)

    def replicated() -> Array:
        weights = bootstrap.subject_weights(int(subject.max()) + 1, replicates, seed=0)
        return bootstrap.tar_replicates(scores, mated, subject[made.a], subject[made.b], FMR, weights)

    return [
        Row(
            f"{len(mated):,} 1:1 scores, every reference × every probe",
            lambda: _compare(made.data, made.fused),
            gathered,
            _largest_difference,
        ),
        Row(
            "the same scores, from a list of comparisons",
            lambda: _compare(with_list, made.fused),
            gathered,
            _largest_difference,
            cost=f"each block of {compare.BLOCK:,} comparisons gathers two templates a comparison, more than the caches hold",
        ),
        Row(
            "TAR at six FMRs, and AUC",
            lambda: _rates(scores, mated),
            lambda: common.tar_table(scores, mated, FMR),
            _same_rates,
        ),
        Row(f"{replicates:,} bootstrap replicates, over subjects, of TAR at six FMRs", replicated),
    ]


def _identification(made: _Set) -> list[Row]:
    gallery, probes, subject, unit = made.roles("gallery"), made.roles("probe"), made.subject, made.unit
    crowd = made.embedded["embedding"][:100_000] / made.embedded["norm"][:100_000, None]
    seekers = unit[probes][:1000]
    partitioned = partial(common.top_candidates, crowd, seekers, TOP)
    return [
        Row(
            f"1:N, {len(gallery):,} enrolled, {len(probes):,} probes: search, rank of the mate",
            lambda: _ranks(made.data, made.fused, subject, subject[probes]),
            lambda: common.mate_ranks(unit[gallery], unit[probes], subject[gallery], subject[probes]),
            _same_ranks,
            cost="each candidate is scored again in float64, in one fixed order, so that lists depend on no back end or "
            "shard, and of a small gallery nearly every template is a candidate",
        ),
        *(
            Row(
                f"1:N, {len(crowd):,} enrolled, {len(seekers):,} probes, {TOP} candidates: {name}",
                partial(_search, crowd, seekers, select),
                partitioned,
                _same_candidates,
                cost="the product of probes and gallery is most of the work, and the same on both sides",
            )
            for name, select in (("FAISS flat", search.with_faiss), ("torch", search.with_torch))
        ),
    ]


def _dataset(tables: Mapping[str, Batch]) -> Dataset:
    return Dataset("synthetic", tables, LAYOUT.axes(tables, {}), LAYOUT, None)


def _stage(cls: type[Stage], **options: Any) -> Stage:
    return cls(cls.Options(**options), Context(PROFILE))


def _run(stage: Stage, data: Dataset, **inputs: Batch) -> Batch:
    """Compute every shard of a stage, as the runner does, and join them."""
    whole = {name: _source(batch) for name, batch in inputs.items()}
    reduce = stage.grain == "reduce"
    axis = data.axes[stage.axis]
    parts = []
    for start, stop in [(0, axis.rows)] if reduce else axis.shards:
        tables = {t: data.part(t, c, "" if reduce else stage.axis, start, stop) for t, c in stage.consumed().items()}
        parts.append(stage.compute(Work(start, stop, tables, whole))[""])
    return concat(parts)


def _source(batch: Batch) -> Source:
    return Source((0,), (batch.rows,), lambda i, columns: batch if columns is None else batch.select(columns))


def _fuse(data: Dataset, rule: str, embedded: Batch, scored: Batch | None, **options: Any) -> Batch:
    """Fuse under a rule; where it reads quality, the statistics of the set are part of the work."""
    inputs = {"embeddings": embedded}
    if scored is not None:
        inputs |= {"quality": scored, "statistics": _run(_stage(quality.Statistics), data, quality=scored)}
    return _run(_stage(fuse.Fuse, rule=rule, **options), data, **inputs)


def _compare(data: Dataset, fused: Batch) -> Array:
    return _run(_stage(compare.Compare), data, templates=fused)["score"]


def _rates(scores: Array, mated: Array) -> tuple[Array, Array, float]:
    genuine, impostor = scores[mated], scores[~mated]
    points = verification.operating_points(genuine, impostor, FMR, "nearest")
    return points.tar, points.false_matches, verification.auc(genuine, impostor)


def _ranks(data: Dataset, fused: Batch, subject: Array, probe_subject: Array) -> tuple[Array, Array]:
    found = _run(_stage(search.Search, k=TOP), data, templates=fused)
    named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
    return identification.mate_rank(named, probe_subject), found["score"][:, 0]


def _search(gallery: Array, probes: Array, select: Callable[[Array], search.Select]) -> tuple[Array, Array]:
    return search.exact_top(gallery, probes, TOP, select(gallery))


def _alignment(count: int = 200) -> list[Row]:
    import cv2

    rng = np.random.default_rng(0)
    photographs, landmarks = [], []
    for _ in range(count):
        smooth = cv2.resize(rng.integers(0, 256, (25, 25, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        photographs.append(cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        landmarks.append((align.TEMPLATE + rng.normal(0, 2, (5, 2)) + (SIDE - align.SIZE) / 2).astype(np.float32))

    def ours() -> Array:
        pairs = zip(photographs, landmarks, strict=True)
        return np.array([align.warp(images.decode(jpeg, 50_000_000), points) for jpeg, points in pairs])

    def theirs() -> Array:
        pairs = zip(photographs, landmarks, strict=True)
        return np.array([common.aligned_crop(jpeg, points, align.TEMPLATE) for jpeg, points in pairs])

    def compared(x: Array, y: Array) -> str:
        return f"largest pixel difference {int(np.abs(x.astype(int) - y.astype(int)).max())} of 255"

    name = f"align: {count} JPEGs of {SIDE} px, landmarks given, to {align.SIZE} px crops, one thread"
    cost = "Pillow decodes, which can refuse a file by its header before memory is spent on it; OpenCV decodes faster"
    return [Row(name, ours, theirs, compared, count, "images/s", cost)]


def _storage(made: _Set, folder: Path) -> list[Row]:
    """Commit a shard into a new store (checksums, fsync, read back and compared) and read it; NumPy's own file beside it."""
    batch = made.embedded.take(slice(0, 65_536))
    size = sum(array.nbytes for array in batch.values() if array.dtype != object) / 1e6
    store, number, file = Store(folder / "store"), iter(range(10**6)), folder / "embedding.npy"

    def commit() -> str:
        key = f"{next(number):064x}"
        store.commit("embed", key, batch, EMBEDDINGS, {})
        return key

    first = commit()
    np.save(file, batch["embedding"])
    return [
        Row(
            f"store: commit {batch.rows:,} embeddings; NumPy: save, neither checked nor fsynced",
            commit,
            lambda: np.save(file, batch["embedding"]),
            amount=size,
            unit="MB/s",
            cost="a shard is digested, written with a checksum on each chunk, fsynced, read back, digested again and linked",
        ),
        Row(
            "store: read them, checksums checked; NumPy: load",
            lambda: store.read("embed", first),
            lambda: np.load(file),
            lambda theirs, ours: "identical" if np.array_equal(theirs, ours["embedding"]) else "DIFFERENT",
            size,
            "MB/s",
            "HDF5 recomputes the checksum of every chunk, and NumPy's file has none",
        ),
    ]


def _largest_difference(theirs: Array, ours: Array) -> str:
    lost = int(np.isnan(theirs).reshape(len(theirs), -1).any(axis=1).sum())
    note = f"; common method: {lost} without a vector" if lost else ""
    return f"largest difference {np.nanmax(np.abs(theirs - ours)):.1e}{note}"


def _same_rates(theirs: Any, ours: Any) -> str:
    counts = "identical" if np.array_equal(theirs[1], ours[1]) else f"DIFFERENT ({theirs[1]} and {ours[1]})"
    return f"false matches {counts}; TAR within {np.abs(theirs[0] - ours[0]).max():.1e}, AUC {abs(theirs[2] - ours[2]):.1e}"


def _same_ranks(theirs: Any, ours: Any) -> str:
    expected = np.where(theirs[0] <= TOP, theirs[0], 0)  # a list of TOP candidates knows no further rank
    same = np.mean(expected == ours[0]) * 100
    return f"{same:.5g} % of ranks identical; best scores within {np.abs(theirs[1] - ours[1]).max():.1e}"


def _same_candidates(theirs: Any, ours: Any) -> str:
    same = np.mean(theirs[0] == ours[0]) * 100
    return f"{same:.5g} % of places identical; scores within {np.abs(theirs[1] - ours[1]).max():.1e}"
