"""Error rates of 1:1 comparison.

Conventions
    Direction       a higher score means more similar.
    Decision        a comparison is accepted when ``score >= threshold``.
    Rates           FMR and FNMR are over comparisons of *acquired* templates (ISO/IEC 19795-1); one
                    that was not made has no score and enters through ``with_failures`` only.
    Tie rule        equal scores share one decision: they are accepted, or rejected, together.
    Threshold rule  a threshold is an observed score (mated or non-mated), or +inf, which accepts
                    nothing. "at_most": the largest FMR that does not exceed the target, at the
                    lowest such threshold. "nearest": the point of the ROC whose FMR is nearest the
                    target (it may exceed it), the larger FMR if two are equally near, again at
                    the lowest such threshold. "script": that of the common IJB 1:1 scripts
                    (``script_rule``), for ``operating_points`` only.
    Empty input     an undefined rate is nan, and ``reason`` says why; ``reason`` is "" when all is
                    defined.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.exact import sums
from stages.metrics.script_rule import script_threshold

ThresholdRule = Literal["at_most", "nearest"]
Scores = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Targets = Sequence[float] | Floats

# "Rule of 30" (ISO/IEC 19795-1): with fewer errors a rate is not known to within 30 % at 90 %
# confidence.
FEW = 30


@dataclass(frozen=True)
class Ascending:
    """Scores (n,) that were checked and sorted once; the functions here take them as any list."""

    scores: Scores

    @staticmethod
    def of(values: ArrayLike | Ascending, name: str = "scores") -> Ascending:
        """Raises ValueError for a score that is not finite or an array that is not 1-D."""
        return (
            values if isinstance(values, Ascending) else Ascending(np.sort(as_scores(values, name)))
        )


@dataclass(frozen=True)
class OperatingPoints:
    """Errors at given FMR targets; every array has one entry a target."""

    target: Floats
    threshold: Floats  # holds float32 scores exactly
    fmr: Floats  # achieved
    false_matches: Counts
    fnmr: Floats
    tar: Floats  # 1 - FNMR
    false_non_matches: Counts
    few: NDArray[np.bool_]  # fewer than 30 false matches
    n_mated: int
    n_nonmated: int
    reason: str


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of each fold at the threshold chosen on the others."""

    fold: NDArray[Any]  # the distinct fold labels, ascending
    accuracy: Floats
    threshold: Floats
    mean: float
    std: float  # between folds, population form (ddof 0), as the benchmarks print it
    reason: str


def operating_points(
    mated: ArrayLike | Ascending,
    nonmated: ArrayLike | Ascending,
    targets: Targets,
    rule: ThresholdRule | Literal["script"] = "at_most",
) -> OperatingPoints:
    """FNMR, and TAR = 1 - FNMR, at each FMR target (the literature's TAR@FAR).

    mated (M,), nonmated (N,): finite scores; targets (T,): FMR in [0, 1].
    Without non-mated scores there is no threshold: it is nan and so is every rate.
    Raises ValueError for a score that is not finite, a target outside [0, 1], or an unknown rule.

    >>> points = operating_points([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.3, 0.2, 0.1], [0.2])
    >>> points.threshold, points.fmr, points.fnmr
    (array([0.6]), array([0.2]), array([0.25]))
    """
    genuine, impostor = _sorted_pair(mated, nonmated)
    goal = as_targets(targets)
    if rule == "script" and impostor.size:
        threshold = np.array(
            [script_threshold(genuine, impostor, each) for each in goal.tolist()], np.float64
        )
    else:
        threshold = choose_threshold(
            genuine, impostor, goal, "nearest" if rule == "script" else rule, impostor.size
        )
    # In the scores' own type: a float64 key would make searchsorted copy all of a float32 list.
    key = threshold.astype(impostor.dtype)
    false_matches = np.asarray(impostor.size - np.searchsorted(impostor, key), np.int64)
    misses = np.asarray(np.searchsorted(genuine, key), np.int64)
    decided = genuine.size if impostor.size else 0
    return OperatingPoints(
        target=goal,
        threshold=threshold,
        fmr=share_of(false_matches, impostor.size),
        false_matches=false_matches,
        fnmr=share_of(misses, decided),
        tar=share_of(decided - misses, decided),
        false_non_matches=np.minimum(misses, decided),
        few=false_matches < FEW,
        n_mated=genuine.size,
        n_nonmated=impostor.size,
        reason=why_undefined(genuine.size, impostor.size),
    )


def eer(mated: ArrayLike | Ascending, nonmated: ArrayLike | Ascending) -> tuple[float, float]:
    """Equal error rate: where the piecewise-linear ROC meets FMR = FNMR, and the nearest threshold.

    mated (M,), nonmated (N,): finite scores. (nan, nan) if either is empty. The threshold is an
    observed score: of the ends of the crossed segment, the one with the smaller |FMR - FNMR|, the
    lower if equal. Raises ValueError for a score that is not finite.

    >>> eer([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.3, 0.2])
    (0.25, 0.6)
    """
    lists = genuine, impostor = _sorted_pair(mated, nonmated)
    if not (genuine.size and impostor.size):
        return np.nan, np.nan

    def rates(thresholds: list[Any]) -> tuple[Floats, Floats]:
        key = np.array(thresholds, impostor.dtype)
        return (impostor.size - np.searchsorted(impostor, key)) / impostor.size, np.searchsorted(
            genuine, key
        ) / genuine.size

    def first_strict(scores: Scores) -> int:
        """The first of ascending scores at which FMR < FNMR.

        FMR falls and FNMR rises with the threshold, so it is found by bisection.
        """

        def strict(i: int) -> bool:
            fmr, fnmr = rates([scores[i]])
            return bool(fmr[0] < fnmr[0])

        return bisect_left(range(scores.size), True, key=strict)

    # The crossing lies between two neighbours among the observed scores.
    first = [first_strict(each) for each in lists]
    above = min(each[i] if i < each.size else np.inf for each, i in zip(lists, first, strict=True))
    below = max(each[i - 1] if i else -np.inf for each, i in zip(lists, first, strict=True))
    fmr, fnmr = rates([above, below])
    gap = np.abs(fmr - fnmr)
    return float(crossing(fmr, fnmr)[0]), float(above if gap[0] < gap[1] else below)


def auc(mated: ArrayLike | Ascending, nonmated: ArrayLike | Ascending) -> float:
    """Area under the ROC: P(mated > non-mated) + P(mated = non-mated) / 2 (Mann and Whitney 1947).

    mated (M,), nonmated (N,): finite scores. nan when either is empty.
    Raises ValueError for a score that is not finite.

    >>> auc([0.9, 0.8, 0.3], [0.4, 0.2])
    0.8333333333333334
    """
    genuine, impostor = _sorted_pair(mated, nonmated)
    if not (genuine.size and impostor.size):
        return np.nan
    below, up_to = (np.searchsorted(impostor, genuine, side=side) for side in ("left", "right"))
    return int(below.sum() + up_to.sum()) / (2 * genuine.size * impostor.size)


def kfold_accuracy(scores: ArrayLike, mated: ArrayLike, fold: ArrayLike) -> FoldAccuracy:
    """Verification accuracy by cross-validation over folds: the LFW protocol (Huang et al. 2007).

    scores (N,) finite; mated (N,) bool; fold (N,) labels. A fold's threshold is the one that
    decides most of the *other* folds' comparisons correctly, among all their distinct scores and
    +inf; of equals, the lowest. With fewer than two folds every number is nan. Raises ValueError
    for a score that is not finite, or lengths that differ.

    >>> found = kfold_accuracy([0.9, 0.1, 0.8, 0.3], [True, False, True, False], [0, 0, 1, 1])
    >>> found.threshold, found.mean
    (array([0.8, 0.9]), 0.75)
    """
    score, truth, label = as_scores(scores, "scores"), np.asarray(mated, bool), np.asarray(fold)
    if not score.shape == truth.shape == label.shape:
        shapes = f"{score.shape}, {truth.shape} and {label.shape}"
        raise ValueError(
            f"scores, mated and fold must have one entry a comparison, found shapes {shapes}."
        )
    order = np.argsort(score, kind="stable")
    score, truth, label = score[order], truth[order], label[order]
    folds = np.unique(label)
    accuracy, threshold = np.full((2, folds.size), np.nan)
    if folds.size > 1:
        reason = ""
    else:
        reason = f"a threshold is chosen on other folds: found {folds.size} fold(s)"
    for i, name in enumerate(folds if not reason else ()):
        test = label == name
        threshold[i] = _most_accurate(score[~test], truth[~test])
        accuracy[i] = np.mean((score[test] >= threshold[i]) == truth[test])
    mean, std = (np.nan, np.nan) if reason else (sums.mean(accuracy), sums.deviation(accuracy))
    return FoldAccuracy(folds, accuracy, threshold, float(mean), float(std), reason)


def with_failures(fmr: ArrayLike, fnmr: ArrayLike, fta: ArrayLike) -> tuple[Floats, Floats]:
    """(FAR, FRR) of a system from FMR, FNMR and the failure-to-acquire rate (ISO/IEC 19795-1).

    FAR = FMR (1 - FTA);  FRR = FTA + FNMR (1 - FTA). Arguments broadcast; nan stays nan.
    Raises ValueError for an FTA outside [0, 1].

    >>> far, frr = with_failures(0.001, 0.1, 0.2)
    >>> round(float(far), 6), round(float(frr), 6)
    (0.0008, 0.28)
    """
    failed = np.asarray(fta, np.float64)
    if ((failed < 0) | (failed > 1)).any():
        raise ValueError(
            f"fta must be a rate in [0, 1], found {fta!r}: divide the failures by the attempts."
        )
    return np.asarray(fmr, np.float64) * (1 - failed), failed + np.asarray(fnmr, np.float64) * (
        1 - failed
    )


# What the sibling modules share: the same input checks and the same threshold rule.


def as_scores(values: ArrayLike, name: str) -> Scores:
    """values as a 1-D array of finite numbers; all types but float32 become float64."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be a 1-D array of scores, found shape {array.shape}: flatten it."
        )
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(
            f"{name} must be finite, found {array[first]} at index {first} ({np.sum(~finite)} such"
            " in all): leave out comparisons of templates that failed and account for them as FTA."
        )
    return array


def as_targets(targets: Targets) -> Floats:
    """targets as a 1-D float64 array of rates in [0, 1]."""
    goal = np.asarray(targets, np.float64)
    if goal.ndim != 1 or not np.all((goal >= 0) & (goal <= 1)):
        raise ValueError(
            f"targets must be a list of rates in [0, 1], found {targets!r}: 0.01 % is 1e-4."
        )
    return goal


def allowed_count(target: Floats, total: ArrayLike) -> Counts:
    """The largest whole k with k / total <= target.

    Rounding before the test keeps 0.29 x 100 at 29.

    >>> allowed_count(np.array([0.29, 0.001]), 100)
    array([29,  0])
    """
    nearest = np.rint(target * np.asarray(total))
    with np.errstate(invalid="ignore"):  # 0 / 0 if a bootstrap replicate holds nothing
        return np.asarray(nearest - (nearest / np.asarray(total) > target), np.int64)


def choose_threshold(
    genuine: Scores, impostor: Scores, target: Floats, rule: ThresholdRule, total: int
) -> Floats:
    """(T,) thresholds by the rule; both lists ascend and share a dtype.

    ``total`` >= impostor.size is the denominator of the rate: non-mated trials that are not in the
    list can never be accepted. If total is 0 every threshold is nan.

    >>> mated, nonmated = np.array([0.3, 0.7, 0.8]), np.array([0.1, 0.2, 0.4, 0.6])
    >>> choose_threshold(mated, nonmated, np.array([0.25, 0]), "at_most", 4)
    array([0.6, 0.7])
    """
    check_rule(rule)
    if total == 0:
        return np.full(target.shape, np.nan)
    # The barrier is the best impostor whose acceptance would be one too many: all above it is
    # accepted.
    barrier = _take_or(impostor, impostor.size - 1 - allowed_count(target, total), -np.inf)
    if rule == "nearest":
        # The barrier's run of equal scores is the next to be accepted: compare the FMR with it and
        # without it, and take the nearer one, the larger if equally near.
        bounds = (np.searchsorted(impostor, barrier, side=side) for side in ("right", "left"))
        fewer, more = (impostor.size - bound for bound in bounds)
        chosen = np.where(more / total - target <= target - fewer / total, more, fewer)
        barrier = _take_or(impostor, impostor.size - 1 - chosen, -np.inf)
    # The threshold is the lowest observed score above the barrier, mated or non-mated.
    above = (
        _take_or(each, np.searchsorted(each, barrier, "right"), np.inf)
        for each in (genuine, impostor)
    )
    return np.minimum(*above).astype(np.float64)


def check_rule(rule: str) -> None:
    """Raises ValueError unless rule is a threshold rule."""
    if rule not in get_args(ThresholdRule):
        raise ValueError(
            f"rule must be one of {', '.join(get_args(ThresholdRule))}, found {rule!r}."
        )


def crossing(fmr: Floats, fnmr: Floats) -> tuple[Floats, Counts]:
    """The rate at which FMR and FNMR are equal, and the index of the first point at or past it.

    Along the last axis FMR rises from 0 and FNMR falls from 1. Between two points both are linear.

    >>> rate, first = crossing(np.array([0, 0.2, 1]), np.array([1, 0.4, 0]))
    >>> round(float(rate), 3), int(first)
    (0.333, 2)
    """
    gap = fmr - fnmr
    after = np.argmax(gap >= 0, axis=-1)[..., None]
    ends = np.concatenate([after - 1, after], axis=-1)
    (gap0, gap1), (fmr0, fmr1) = (
        np.moveaxis(np.take_along_axis(x, ends, -1), -1, 0) for x in (gap, fmr)
    )
    return fmr0 - gap0 / (gap1 - gap0) * (fmr1 - fmr0), after[..., 0]


def share_of(count: Counts, total: int) -> Floats:
    """count / total, nan when total is 0."""
    return count / total if total else np.full(count.shape, np.nan)


def why_undefined(n_mated: int, n_nonmated: int, what: str = "comparisons") -> str:
    """The reason that goes with a nan, "" when both kinds are there."""
    missing = [name for name, n in (("mated", n_mated), ("non-mated", n_nonmated)) if not n]
    return f"no {' and no '.join(missing)} {what}" if missing else ""


def _sorted_pair(
    mated: ArrayLike | Ascending, nonmated: ArrayLike | Ascending
) -> tuple[Scores, Scores]:
    pair = Ascending.of(mated, "mated").scores, Ascending.of(nonmated, "nonmated").scores
    dtype = np.result_type(*pair)
    return pair[0].astype(dtype, copy=False), pair[1].astype(dtype, copy=False)


def _take_or(values: Scores, index: NDArray[np.integer[Any]], outside: float) -> Scores:
    """values[index], and ``outside`` if the index lies beyond either end."""
    inside = (index >= 0) & (index < values.size)
    picked = np.full(index.shape, outside, values.dtype)
    picked[inside] = values[index[inside]]
    return picked


def _most_accurate(score: Scores, mated: NDArray[np.bool_]) -> float:
    """The lowest threshold that decides most comparisons correctly; scores ascending."""
    # Raising the threshold past a comparison wins one decision if it is non-mated, loses one if it
    # is mated.
    gain = np.concatenate([[0], np.cumsum(np.where(mated, -1, 1))])
    # A threshold accepts all equal scores, so only the first of a tie can be one; +inf comes last.
    first_of_tie = np.concatenate([[True], score[1:] != score[:-1], [True]])
    best = int(np.argmax(np.where(first_of_tie, gain, -score.size - 1)))
    return float(score[best]) if best < score.size else float("inf")
