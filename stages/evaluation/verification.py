"""evaluate_verification: 1:1 scores → error rates with counts and intervals, the ROC, histograms.

Intervals are subject-clustered bootstrap percentiles; replicate r draws the same subjects in every
cell, so differences between cells are paired. FMR and FNMR are over comparisons of acquired
templates. Failures follow ISO/IEC 19795-1. The first side is enrolled and the second a probe if no
template of the whole list stands on both, or if `enrolled` says so. Then FTE is the share of the
first side that failed, FTA that of the second, and GFRR counts both. Otherwise, as in all pairs of
one role, every failure is a failure to acquire.

    FRR  = FTA + FNMR (1 − FTA)
    GFRR = FTE + (1 − FTE) FTA + (1 − FTE) (1 − FTA) FNMR = FTE + FRR (1 − FTE)

If mated follows from subjects, templates without one are left out and counted. For one half of the
subjects, comparisons across the halves and those of a template without a subject are, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch
from pipeline.core.stage import Stage, Work
from stages.evaluation.numbers import (
    Numbers,
    count_distinct,
    curve_rows,
    histogram_curve,
    number_half,
    score_edges,
)
from stages.evaluation.shared import (
    EvaluationOptions,
    Rates,
    drawn_bytes,
    need_fused,
    read_templates,
    write_fallback,
)
from stages.evaluation.trials import Enrolled, Failures, Trials
from stages.metrics import bootstrap, verification
from stages.metrics.subjects import subject_pairs
from stages.metrics.verification import Ascending
from stages.metrics.weighted import Weighted, WeightedLists
from stages.tables.comparisons import Comparisons
from stages.tables.enough import need_both_kinds
from stages.tables.schemas import CURVES, NUMBERS

THRESHOLD_RULES: tuple[verification.ThresholdRule, ...] = ("at_most", "nearest")
SCRIPT: Literal["script"] = "script"  # for comparison with published numbers, and without intervals
# AUC needs the whole list in each replicate: bootstrapped up to this many comparisons
FULL_LIST = 100_000
ROC_POINTS = 600


class VerificationOptions(EvaluationOptions):
    """Targets, and which side is enrolled."""

    fmr: Rates = (1e-1, 1e-2, 1e-3, 1e-4)
    """Targets of the threshold."""
    enrolled: Enrolled = "auto"
    """Which side is enrolled; auto: the first, if no template of the list is on both."""


@register("stage", "evaluate_verification")
class EvaluateVerification(Stage):
    """1:1 error rates of one list of scores."""

    name = "evaluate_verification"
    version = 8
    grain = "reduce"
    axis = "comparisons"
    Options = VerificationOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"scores": "compare", "templates": "fuse"}
    rows: ClassVar = {"templates": "templates"}
    consumes: ClassVar = {
        "comparisons": ("a", "b", "mated", "fold"),
        "roles": ("template", "role"),
        "pairings": ("role_a", "role_b"),
        "templates": ("subject",),
    }
    options: VerificationOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def uses(self) -> tuple[str, ...]:
        return ("scores", "templates") if self.options.templates else ("scores",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_fused(self)
        Comparisons.of(tables).refuse_itself(tables)
        need_both_kinds(tables, self.options.half, self.name)

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        # Which are mated and which are acquired, and the scores of the non-mated; for a bootstrap
        # these again, sorted, with two subjects, and the best of them.
        each = 6 + (26 if self.options.replicates else 0)
        return {
            "comparisons with subjects": rows["scores"] * each,
            "subjects drawn": drawn_bytes(self.options.replicates, tables["templates"]),
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        numbers = Numbers(o.replicates, o.level)
        trials = Trials.of(work, o.half, numbers)
        column, subjects = number_half(work.tables["templates"], o.half)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        failures = Failures.of(trials, column, weights, o.enrolled)
        nonmated = np.isfinite(trials.score)
        lost = len(nonmated) - np.count_nonzero(nonmated)
        mated = nonmated & trials.mated
        nonmated ^= mated
        genuine, impostor = trials.score[mated], trials.score[nonmated]
        lists, drawn_from = None, (-1, -1)  # subjects behind the mated comparisons, and behind all
        if o.replicates:
            trials.check_mated(column)
            (own, _), others = trials.subjects(mated, column), trials.subjects(nonmated, column)
            drawn_from = count_distinct(own), min(count_distinct(own), count_distinct(*others))
            if len(genuine) and len(impostor):
                lists = WeightedLists.apart(
                    Weighted(genuine.copy(), (own,)), Weighted(impostor.copy(), others), weights
                )
        genuine.sort()
        impostor.sort()
        pair = Ascending(genuine), Ascending(impostor)
        self._at_targets(numbers, pair, lists, failures, trials, nonmated, column, drawn_from[0])
        kept = len(genuine) + len(impostor)
        self._overall(numbers, pair, lists, {"trials": kept, "subjects": drawn_from[1]})
        if kept and trials.fold is not None and (trials.fold >= 0).all():
            made = mated | nonmated
            accuracy = verification.kfold_accuracy(
                trials.score[made], trials.mated[made], trials.fold[made]
            )
            numbers.add("accuracy", accuracy.mean, trials=kept)
            numbers.add("accuracy_deviation", accuracy.std, trials=kept)
        failures.write(numbers)
        if o.templates:
            built = read_templates(work)
            write_fallback(numbers, built, np.flatnonzero(trials.used[0] | trials.used[1]))
        numbers.add("comparisons_lost", float(lost), trials=len(nonmated))
        return {"numbers": numbers.batch(), "curves": self._curves(*pair)}

    def _at_targets(
        self,
        numbers: Numbers,
        pair: tuple[Ascending, Ascending],
        lists: WeightedLists | None,
        failures: Failures,
        trials: Trials,
        nonmated: Array,
        column: Array,
        subjects: int,
    ) -> None:
        o = self.options
        points = [
            verification.operating_points(*pair, o.fmr, rule) for rule in (*THRESHOLD_RULES, SCRIPT)
        ]
        thresholds = np.concatenate([each.threshold for each in points])
        accepted = trials.score >= np.fmin.reduce(thresholds, initial=np.inf).astype(
            trials.score.dtype
        )
        accepted &= nonmated
        pairs = subject_pairs(
            trials.score[accepted], *trials.subjects(accepted, column), thresholds
        )
        drawn = None if lists is None else bootstrap.tar_of(lists, o.fmr, THRESHOLD_RULES)
        for r, rule in enumerate((*THRESHOLD_RULES, SCRIPT)):
            at = points[r]
            for i, target in enumerate(o.fmr):
                tar = None if drawn is None or rule == SCRIPT else drawn[r][:, i]
                shared = {
                    "target": target,
                    "rule": rule,
                    "achieved": at.fmr[i],
                    "threshold": at.threshold[i],
                    "false_matches": at.false_matches[i],
                    "nonmated": at.n_nonmated,
                    "subject_pairs": pairs[r * len(o.fmr) + i],
                    "few": at.few[i],
                    "misses": at.false_non_matches[i],
                    "trials": at.n_mated,
                    "subjects": subjects,
                }
                numbers.add("tar", float(at.tar[i]), tar, **shared)
                for metric, value, replicates in failures.rejected(at.fnmr[i], tar):
                    numbers.add(metric, value, replicates, **shared)

    def _overall(
        self,
        numbers: Numbers,
        pair: tuple[Ascending, Ascending],
        lists: WeightedLists | None,
        shared: dict[str, int],
    ) -> None:
        """Add what has no target: the EER, with the errors at its threshold, and the AUC."""
        value, threshold = verification.eer(*pair)
        drawn = None if lists is None else bootstrap.eer_of(lists, value)
        known = not np.isnan(threshold)
        genuine, impostor = (each.scores for each in pair)
        key = impostor.dtype.type(threshold)
        matches = int(len(impostor) - np.searchsorted(impostor, key)) if known else -1
        errors = {
            "false_matches": matches,
            "misses": int(np.searchsorted(genuine, key)) if known else -1,
        }
        errors |= {
            "nonmated": len(impostor) if known else -1,
            "few": 0 <= matches < verification.FEW,
        }
        numbers.add("eer", value, drawn, threshold=threshold, **errors, **shared)
        drawn = None if lists is None or shared["trials"] > FULL_LIST else bootstrap.auc_of(lists)
        numbers.add("auc", verification.auc(*pair), drawn, **shared)

    def _curves(self, genuine: Ascending, impostor: Ascending) -> Batch:
        parts = []
        if len(genuine.scores) and len(impostor.scores):
            least = 1 / len(impostor.scores)
            fmr = np.unique(
                np.concatenate([np.geomspace(least, 1, ROC_POINTS), list(self.options.fmr)])
            )
            points = verification.operating_points(genuine, impostor, fmr, "at_most")
            parts.append(("roc", points.fmr, points.tar))
        edges = score_edges(genuine.scores, impostor.scores)  # not every score is a cosine
        parts.append(histogram_curve("mated scores", genuine.scores, edges))
        parts.append(histogram_curve("non-mated scores", impostor.scores, edges))
        return curve_rows(parts)
