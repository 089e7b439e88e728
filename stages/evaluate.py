"""evaluate: scores → error rates with counts and intervals, curves, histograms.

1:1 (`evaluate_verification`) and 1:N (`evaluate_identification`) give the same two tables, NUMBERS and CURVES. Intervals are
subject-clustered bootstrap percentiles; replicate r draws the same subjects in every cell, so differences between cells
are paired. Failures to acquire: FMR and FNMR are over comparisons of acquired templates, FTA is the fraction of the
compared templates that failed (references and probes together), FRR = FTA + FNMR·(1 − FTA) (ISO/IEC 19795-1). Where mated
follows from subjects, templates without one are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from pipeline.errors import InvalidInput
from pipeline.registry import register
from pipeline.schema import Array, Batch, Status
from pipeline.stage import Options, Stage, Work
from stages.metrics import bootstrap, identification, verification
from stages.numbers import Numbers, curves, histogram, number_subjects
from stages.tables import CURVES, NUMBERS, Comparisons, need_role, refuse_itself, role_rows

RULES: tuple[verification.Rule, ...] = ("at_most", "nearest")
FULL_LIST = 100_000  # AUC needs the whole list in each replicate: bootstrapped up to this many comparisons
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


@register("stage", "evaluate_verification")
class EvaluateVerification(Stage):
    """1:1 error rates of one list of scores."""

    name = "evaluate_verification"
    version = 4
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

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        for one, other in zip(tables["pairings"]["role_a"], tables["pairings"]["role_b"], strict=True):
            refuse_itself(tables, str(one), str(other))
        listed = tables["comparisons"]
        if len(same := np.flatnonzero(listed["a"] == listed["b"])):
            raise InvalidInput(f"comparison {same[0]} is of a template with itself ({len(same)} such): take these out.")

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        # Scores, subjects and outcome of the acquired, and the same again sorted or, for a bootstrap, apart; of all pairs
        # also the templates.
        each = 26 + (36 if self.options.replicates else 13) + (17 if Comparisons.of(tables).is_product else 0)
        return {
            "comparisons with subjects": rows["scores"] * each,
            "subjects drawn": _drawn(self.options.replicates, tables["templates"]),
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        compared = work.inputs["scores"].read()
        comparisons = Comparisons.of(work.tables)
        a, b = comparisons.pairs(0, comparisons.rows)
        subject, subjects, known = number_subjects(work.tables["templates"])
        numbers = Numbers(o.replicates, o.level)
        if comparisons.is_product and not known.all():
            told = known[a] & known[b]  # of the others it is not known whether they are mated
            numbers.add("comparisons_unlabelled", float((~told).sum()), trials=len(told))
            a, b, compared = a[told], b[told], compared.take(told)
        score = compared["score"]
        mated = subject[a] == subject[b] if comparisons.is_product else comparisons.listed["mated"]
        if o.replicates:
            _check_mated(mated, subject[a] == subject[b])
        acquired = np.isfinite(score)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        failures = _Failures.of(a, b, compared["failed"], subject, weights)
        kept = (score[acquired], mated[acquired], subject[a[acquired]], subject[b[acquired]])
        genuine, impostor = kept[0][kept[1]], kept[0][~kept[1]]
        for rule in RULES:
            self._at_targets(numbers, rule, genuine, impostor, kept, weights, failures)
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
        numbers.add("fta", failures.fta, failures.replicates, trials=failures.templates)
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
        failures: _Failures,
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
                "false_matches": points.false_matches[i],
                "nonmated": points.n_nonmated,
                "few": points.few[i],
                "trials": points.n_mated,
            }
            numbers.add("tar", float(points.tar[i]), replicates, **shared)
            _, frr = verification.with_failures(points.fmr[i], points.fnmr[i], failures.fta)
            drawn_frr = None
            if replicates is not None:
                _, drawn_frr = verification.with_failures(np.nan, 1 - replicates, failures.replicates)
            numbers.add("frr", float(frr), drawn_frr, **shared)

    def _curves(self, genuine: Array, impostor: Array) -> Batch:
        parts = []
        if len(genuine) and len(impostor):
            fmr = np.unique(np.concatenate([np.geomspace(1 / len(impostor), 1, CURVE_POINTS), list(self.options.fmr)]))
            points = verification.operating_points(genuine, impostor, fmr, "at_most")
            parts.append(("roc", points.fmr, points.tar))
        edges = np.linspace(-1, 1, 101)
        parts += [histogram("mated scores", genuine, edges), histogram("non-mated scores", impostor, edges)]
        return curves(parts)


def _drawn(replicates: int, templates: Batch) -> int:
    """Return the bytes of bootstrap weights: uint16, and float64 while they are added up."""
    return replicates * len(set(templates["subject"])) * (2 + 8)


def _check_mated(mated: Array, same: Array) -> None:
    wrong = np.flatnonzero(mated != same)
    if len(wrong):
        what = "mated, and its templates are not of one" if mated[wrong[0]] else "non-mated, and its templates are of one"
        raise InvalidInput(
            f"comparison {wrong[0]} is listed as {what} subject ({len(wrong)} such). Intervals resample subjects: mend the "
            "list or the subjects, or set evaluate_verification.replicates to 0 to do without."
        )


@dataclass(frozen=True)
class _Failures:
    """FTA: the fraction of the compared templates that failed, with its replicates (R,)."""

    templates: int
    fta: float
    replicates: Array

    @staticmethod
    def of(a: Array, b: Array, failed: Array, subject: Array, weights: Array) -> _Failures:
        used, lost = np.zeros((2, len(subject)), bool)
        used[a] = used[b] = True
        lost[a[failed & 1 > 0]] = lost[b[failed & 2 > 0]] = True
        share = float(lost.sum() / used.sum()) if used.any() else float("nan")
        return _Failures(int(used.sum()), share, bootstrap.share_replicates(lost[used], subject[used], weights))


@register("stage", "evaluate_identification")
class EvaluateIdentification(Stage):
    """1:N error rates of one search: closed set over mated probes, open set with the non-mated ones."""

    name = "evaluate_identification"
    version = 2
    grain = "reduce"
    axis = "probes"
    Options = IdentificationOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"candidates": "search"}
    consumes: ClassVar = {"roles": ("template", "role"), "templates": ("subject",)}
    options: IdentificationOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_role(tables["roles"], self.options.gallery, "evaluate_identification.gallery")
        refuse_itself(tables, self.options.gallery, "probe")

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        named = rows["candidates"] * sizes["candidates"]["candidate"]  # int64, made with as much again and a mask
        drawn = _drawn(self.options.replicates, tables["templates"])
        return {"subjects of candidates, and those drawn": named + max(named + named // 8, drawn)}

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        found, roles = work.inputs["candidates"].read(), work.tables["roles"]
        subject, subjects, known = number_subjects(work.tables["templates"])
        gallery, probes = np.unique(role_rows(roles, o.gallery)), role_rows(roles, "probe")
        reach = found["candidate"].shape[1]
        self._check_search(found["candidate"], gallery, reach)
        numbers = Numbers(o.replicates, o.level)
        if not known[probes].all():
            told = known[probes]  # of the others it is not known whether they have a mate
            numbers.add("probes_unlabelled", float((~told).sum()), trials=len(told))
            probes, found = probes[told], found.take(told)
        probe = subject[probes]
        mated = np.isin(probe, subject[gallery])
        named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
        rank = identification.mate_rank(named, probe)
        top = np.where(np.isfinite(found["score"][:, 0]), found["score"][:, 0], -np.inf)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        self._closed(numbers, rank[mated], probe[mated], weights)
        self._open(numbers, top, rank, mated, probe, weights)
        failed = found["status"] != Status.OK
        fta = float(failed.mean()) if len(failed) else np.nan
        numbers.add("fta", fta, bootstrap.share_replicates(failed, probe, weights), trials=len(failed))
        edges = np.linspace(-1, 1, 101)
        usable = np.isfinite(top)
        return {
            "numbers": numbers.batch(),
            "curves": curves(
                [
                    ("cmc", np.arange(1, reach + 1), identification.cmc(rank[mated], reach)),
                    histogram("top-1, mated probes", top[mated & usable], edges),
                    histogram("top-1, non-mated probes", top[~mated & usable], edges),
                ]
            ),
        }

    def _check_search(self, candidate: Array, gallery: Array, reach: int) -> None:
        """Raise InvalidInput where the search cannot answer what is asked of it."""
        o = self.options
        if not np.isin(candidate[candidate >= 0], gallery).all():
            raise InvalidInput(
                f"evaluate_identification.gallery is {o.gallery!r}, and the search found templates of another gallery: give "
                "search.gallery and evaluate_identification.gallery the same role."
            )
        if reach < min(len(gallery), max(o.ranks, default=0)):
            asked = f"evaluate_identification.ranks asks for rank {max(o.ranks)}, and search.k kept {reach} of {len(gallery)}"
            raise InvalidInput(f"{asked} candidates: raise search.k, or ask for ranks up to {reach}.")

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
                false_matches=points.false_positives[i],
                nonmated=points.n_nonmated,
                few=points.few[i],
                trials=points.n_mated,
            )
