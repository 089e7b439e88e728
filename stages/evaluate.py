"""evaluate: scores → error rates with counts and intervals, curves, histograms.

1:1 (`evaluate_verification`) and 1:N (`evaluate_identification`) give the same two tables, NUMBERS and CURVES. Intervals are
subject-clustered bootstrap percentiles; replicate r draws the same subjects in every cell, so differences between cells
are paired. Failures to acquire: FMR and FNMR are over comparisons of acquired templates, FTA is the fraction of the
compared templates that failed, FRR = FTA + FNMR·(1 − FTA) (ISO/IEC 19795-1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import InvalidInput
from pipeline.registry import register
from pipeline.schema import Array, Batch, Status, text
from pipeline.stage import Options, Stage, Work
from stages.metrics import bootstrap, identification, verification
from stages.tables import CURVES, NUMBERS, Comparisons, role_rows

RULES: tuple[verification.Rule, ...] = ("at_most", "nearest")
FULL_LIST = 50_000  # AUC needs the whole list in each replicate: bootstrapped up to this many comparisons
CURVE_POINTS = 600

Rate = Annotated[float, Field(ge=0, le=1)]
Rank = Annotated[int, Field(ge=1)]


class VerificationOptions(Options):
    """`fmr`: targets. `replicates`: bootstrap draws, 0 for no intervals."""

    fmr: tuple[Rate, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    replicates: int = Field(1000, ge=0, le=100_000)
    seed: int = Field(0, ge=0)
    level: float = Field(0.95, gt=0, lt=1)


class IdentificationOptions(Options):
    fpir: tuple[Rate, ...] = (1e-1, 1e-2)
    ranks: tuple[Rank, ...] = (1, 5, 10)
    gallery: str = "gallery"
    replicates: int = Field(1000, ge=0, le=100_000)
    seed: int = Field(0, ge=0)
    level: float = Field(0.95, gt=0, lt=1)


class Numbers:
    """Collects rows of NUMBERS."""

    def __init__(self, replicates: int, level: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._blank = np.full(replicates, np.nan, np.float32)
        self._level = level

    def add(self, metric: str, value: float, replicates: Array | None = None, **fields: Any) -> None:
        row = {"target": np.nan, "rule": "", "achieved": np.nan, "threshold": np.nan, "errors": -1, "trials": 0}
        kept = self._blank if replicates is None or not len(self._blank) else replicates.astype(np.float32)
        low, high = (np.nan, np.nan) if np.isnan(kept).all() else bootstrap.interval(kept, self._level)
        self.rows.append(
            {
                **row,
                "few": False,
                **fields,
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "replicates": kept,
            }
        )

    def batch(self) -> Batch:
        columns: dict[str, Array] = {}
        for field in NUMBERS.fields:
            values = [row[field.name] for row in self.rows]
            columns[field.name] = text(values) if field.dtype == "text" else np.array(values, dtype=field.dtype)
        columns["replicates"] = columns["replicates"].reshape(len(self.rows), -1)
        return Batch(columns)


def curves(parts: Iterable[tuple[str, Array, Array]]) -> Batch:
    """Return CURVES from (name, x, y) parts; points whose x or y is not finite are left out."""
    kept = [(name, x[f], y[f]) for name, x, y in parts for f in [np.isfinite(x) & np.isfinite(y)]]
    return Batch(
        {
            "curve": text(name for name, x, _ in kept for _ in range(len(x))),
            "x": np.concatenate([x for _, x, _ in kept] or [np.empty(0)]).astype(np.float64),
            "y": np.concatenate([y for _, _, y in kept] or [np.empty(0)]).astype(np.float64),
        }
    )


def _histogram(name: str, values: Array, edges: Array) -> tuple[str, Array, Array]:
    counts, _ = np.histogram(values, edges)
    return name, edges[:-1], counts / max(1, counts.sum())


def _subjects(templates: Batch) -> tuple[NDArray[np.int64], int]:
    """Number the subjects in the order of their names; a template without one is a subject of its own."""
    names = templates["subject"].astype(str)
    names = np.where(names == "", np.char.add("\0row ", np.arange(len(names)).astype(str)), names)
    unique, number = np.unique(names, return_inverse=True)
    return number.astype(np.int64), len(unique)


@register("stage", "evaluate_verification")
class EvaluateVerification(Stage):
    """1:1 error rates of one list of scores."""

    name = "evaluate_verification"
    version = 3
    grain = "reduce"
    axis = "comparisons"
    Options = VerificationOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"scores": "compare"}
    consumes: ClassVar = {
        "comparisons": ("a", "b", "mated", "fold"),
        "roles": ("template", "role"),
        "pairings": ("role_a", "role_b"),
        "templates": ("subject",),
    }
    options: VerificationOptions

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        compared = work.inputs["scores"].read()
        score = compared["score"]
        comparisons = Comparisons.of(work.tables)
        a, b = comparisons.pairs(0, comparisons.rows)
        subject, subjects = _subjects(work.tables["templates"])
        mated = subject[a] == subject[b] if comparisons.is_product else comparisons.listed["mated"]
        if o.replicates:
            _check_mated(mated, subject[a] == subject[b])
        acquired = np.isfinite(score)
        fta = _failed_share(a, b, compared["failed"])
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        kept = (score[acquired], mated[acquired], subject[a[acquired]], subject[b[acquired]])
        genuine, impostor = kept[0][kept[1]], kept[0][~kept[1]]
        numbers = Numbers(o.replicates, o.level)
        for rule in RULES:
            self._at_targets(numbers, rule, genuine, impostor, kept, weights, fta)
        resampled = o.replicates > 0 and len(genuine) > 0 and len(impostor) > 0
        value, threshold = verification.eer(genuine, impostor)
        drawn = bootstrap.eer_replicates(*kept, weights) if resampled else None
        trials = len(kept[0])
        numbers.add("eer", value, drawn, threshold=threshold, trials=trials)
        drawn = bootstrap.auc_replicates(*kept, weights) if resampled and trials <= FULL_LIST else None
        numbers.add("auc", verification.auc(genuine, impostor), drawn, trials=trials)
        if not comparisons.is_product and (comparisons.listed["fold"] >= 0).all() and trials:
            accuracy = verification.kfold_accuracy(kept[0], kept[1], comparisons.listed["fold"][acquired])
            numbers.add("accuracy", accuracy.mean, trials=trials)
            numbers.add("accuracy_deviation", accuracy.std, trials=trials)
        numbers.add("fta", fta, trials=len(np.unique(np.concatenate([a, b]))))
        numbers.add("comparisons_lost", float((~acquired).sum()), trials=len(score))
        return {"numbers": numbers.batch(), "curves": self._curves(genuine, impostor)}

    def _at_targets(
        self,
        numbers: Numbers,
        rule: verification.Rule,
        genuine: Array,
        impostor: Array,
        kept: Any,
        weights: Array,
        fta: float,
    ) -> None:
        o = self.options
        points = verification.operating_points(genuine, impostor, o.fmr, rule)
        usable = o.replicates > 0 and len(genuine) > 0 and len(impostor) > 0
        drawn = bootstrap.tar_replicates(kept[0], kept[1], kept[2], kept[3], o.fmr, weights, rule) if usable else None
        for i, target in enumerate(o.fmr):
            replicates = None if drawn is None else drawn[:, i]
            shared = {
                "target": target,
                "rule": rule,
                "achieved": points.fmr[i],
                "threshold": points.threshold[i],
                "errors": points.false_matches[i],
                "few": points.few[i],
                "trials": points.n_mated,
            }
            numbers.add("tar", float(points.tar[i]), replicates, **shared)
            drawn_frr = None if replicates is None else _frr(1 - replicates, fta)
            numbers.add("frr", float(_frr(points.fnmr[i], fta)), drawn_frr, **shared)

    def _curves(self, genuine: Array, impostor: Array) -> Batch:
        parts = []
        if len(genuine) and len(impostor):
            fmr = np.unique(np.concatenate([np.geomspace(1 / len(impostor), 1, CURVE_POINTS), list(self.options.fmr)]))
            points = verification.operating_points(genuine, impostor, fmr, "at_most")
            parts.append(("roc", points.fmr, points.tar))
        edges = np.linspace(-1, 1, 101)
        parts += [_histogram("mated scores", genuine, edges), _histogram("non-mated scores", impostor, edges)]
        return curves(parts)


def _check_mated(mated: Array, same: Array) -> None:
    wrong = np.flatnonzero(mated != same)
    if len(wrong):
        what = "mated, and its templates are not of one" if mated[wrong[0]] else "non-mated, and its templates are of one"
        raise InvalidInput(
            f"comparison {wrong[0]} is listed as {what} subject ({len(wrong)} such). Intervals resample subjects: mend the "
            "list or the subjects, or set evaluate_verification.replicates to 0 to do without."
        )


def _frr(fnmr: Any, fta: float) -> Any:
    # As `verification.with_failures`, but nan where nothing was compared.
    return fta + fnmr * (1 - fta)


def _failed_share(a: Array, b: Array, failed: Array) -> float:
    """FTA: the fraction of the compared templates that failed."""
    used = len(np.unique(np.concatenate([a, b])))
    lost = len(np.unique(np.concatenate([a[failed & 1 > 0], b[failed & 2 > 0]])))
    return lost / used if used else float("nan")


@register("stage", "evaluate_identification")
class EvaluateIdentification(Stage):
    """1:N error rates of one search: closed set over mated probes, open set with the non-mated ones."""

    name = "evaluate_identification"
    grain = "reduce"
    axis = "probes"
    Options = IdentificationOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"candidates": "search"}
    consumes: ClassVar = {"roles": ("template", "role"), "templates": ("subject",)}
    options: IdentificationOptions

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        found = work.inputs["candidates"].read()
        subject, subjects = _subjects(work.tables["templates"])
        probe = subject[role_rows(work.tables["roles"], "probe")]
        mated = np.isin(probe, subject[role_rows(work.tables["roles"], o.gallery)])
        named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
        rank = identification.mate_rank(named, probe)
        top = np.where(np.isfinite(found["score"][:, 0]), found["score"][:, 0], -np.inf)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        reach = found["candidate"].shape[1]
        enrolled = len(np.unique(role_rows(work.tables["roles"], o.gallery)))
        if reach < min(enrolled, max(o.ranks, default=0)):
            asked = f"evaluate_identification.ranks asks for rank {max(o.ranks)}, and search.k kept {reach} of {enrolled}"
            raise InvalidInput(f"{asked} candidates: raise search.k, or ask for ranks up to {reach}.")
        numbers = Numbers(o.replicates, o.level)
        self._closed(numbers, rank[mated], probe[mated], weights)
        self._open(numbers, top, rank, mated, probe, weights)
        numbers.add("fta", float((found["status"] != Status.OK).mean()) if found.rows else np.nan, trials=found.rows)
        edges = np.linspace(-1, 1, 101)
        usable = np.isfinite(top)
        return {
            "numbers": numbers.batch(),
            "curves": curves(
                [
                    ("cmc", np.arange(1, reach + 1), identification.cmc(rank[mated], reach)),
                    _histogram("top-1, mated probes", top[mated & usable], edges),
                    _histogram("top-1, non-mated probes", top[~mated & usable], edges),
                ]
            ),
        }

    def _closed(self, numbers: Numbers, rank: Array, subject: Array, weights: Array) -> None:
        ranks: Sequence[int] = self.options.ranks
        drawn = bootstrap.rank_replicates(rank, subject, ranks, weights)
        for i, k in enumerate(ranks):
            hit = float(((rank > 0) & (rank <= k)).mean()) if len(rank) else np.nan
            numbers.add("rank", hit, drawn[:, i], target=k, trials=len(rank))

    def _open(self, numbers: Numbers, top: Array, rank: Array, mated: Array, probe: Array, weights: Array) -> None:
        o = self.options
        # Where the mate is at rank 1, the best score is the mate's; elsewhere the score is not read.
        points = identification.tpir_at_fpir(top[~mated], rank[mated], top[mated], o.fpir)
        drawn = bootstrap.tpir_replicates(top[~mated], probe[~mated], rank[mated], top[mated], probe[mated], o.fpir, weights)
        for i, target in enumerate(o.fpir):
            numbers.add(
                "tpir",
                float(points.tpir[i]),
                drawn[:, i],
                target=target,
                rule="at_most",
                achieved=points.fpir[i],
                threshold=points.threshold[i],
                errors=points.false_positives[i],
                few=points.few[i],
                trials=points.n_mated,
            )


def number(table: Batch, metric: str, target: float | None = None, rule: str | None = None) -> Mapping[str, Any]:
    """Return the first row of NUMBERS that matches. Raises KeyError where there is none."""
    for i in range(table.rows):
        same = table["metric"][i] == metric and (rule is None or table["rule"][i] == rule)
        if same and (target is None or np.isclose(table["target"][i], target)):
            return {name: array[i] for name, array in table.items()}
    raise KeyError(f"no number {metric} at {target} under rule {rule}")
