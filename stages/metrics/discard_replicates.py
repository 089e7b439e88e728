"""Uncertainty of error versus discard by resampling subjects.

Conventions
    Resampling, exactness and subjects are those of ``bootstrap``: a replicate is what the metric of
    ``discard`` gives when every comparison is repeated weight times, in place: w[s] for a mated
    one, w[a] w[b] for a non-mated one. Weight 1 everywhere gives the metric itself, to rounding.
    Thresholds      are chosen anew in every replicate. ``threshold_replicates`` gives, for
                    "at_most" and "nearest", the least number above the best non-mated score that
                    stays out: it decides every comparison as the observed threshold does, and need
                    not be one.
    Empty input     nan in a replicate in which nothing has weight, or whose threshold is nan.
    Cost            every comparison is read in every replicate, in blocks: some 20 ns each, 10 ns
                    more for each further threshold. A single replicate holds some 100 bytes a
                    comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.exact.sums import dot
from stages.metrics.discard_legacy_replicates import RunningSums
from stages.metrics.discard_legacy_replicates import legacy_auc_replicates as legacy_auc_replicates
from stages.metrics.discard_steps import (
    DiscardRule,
    as_fractions,
    check_discard_rule,
    interpolated_place,
)
from stages.metrics.verification import (
    Counts,
    Floats,
    Scores,
    Targets,
    ThresholdRule,
    as_scores,
    as_targets,
)
from stages.metrics.weighted import (
    Subjects,
    Weighted,
    Weights,
    as_subjects,
    as_weights,
    barrier_scores,
    blocks,
    running_sums,
    total_weight,
)

# Non-mated comparisons that are read at first, in addition to what the largest target needs:
# affects speed only.
FIRST_READ = 64


@dataclass(frozen=True)
class AreaReplicates:
    """pAUC in each replicate.

    With thresholds (R,) or (R, T), ``start`` has that shape, and areas have one more axis.
    """

    start: Floats  # (R,) or (R, T): the error before any discard
    pauc: Floats  # (R, L) or (R, T, L)
    limits: Floats  # (L,)

    @property
    def over_random(self) -> Floats:
        """pAUC less its expectation under random discard in the same replicate.

        The shape is that of ``pauc``.
        """
        return np.asarray(self.pauc - self.start[..., None] * self.limits)


def threshold_replicates(
    nonmated: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    targets: Targets,
    weights: ArrayLike,
    rule: DiscardRule = "at_most",
) -> Floats:
    """The threshold of each replicate for each FMR target: (R, T) float64.

    nonmated (N,) finite; subject_a, subject_b (N,) int; targets (T,) in [0, 1]. A replicate reads
    no more of the list than its largest target needs. Raises ValueError for a score that is not
    finite, lengths that differ, a subject outside the weights, a target outside [0, 1], or an
    unknown rule.
    """
    check_discard_rule(rule)
    table, score, goal = as_weights(weights), as_scores(nonmated, "nonmated"), as_targets(targets)
    sides = _checked_subjects(table, score, subject_a=subject_a, subject_b=subject_b)
    impostor, total = Weighted(score, sides), total_weight(table, *sides)
    if rule != "interpolated":
        kept: ThresholdRule = rule
        return np.nextafter(barrier_scores(impostor, table, total, goal, [kept])[0], np.inf)
    above, below, part = interpolated_place(goal, total[:, None])
    upper, lower = np.split(
        _scores_at_places(impostor, table, total, np.hstack([above, below])), 2, axis=1
    )
    return np.asarray(np.maximum(upper + part * (lower - upper), lower))


def starting_replicates(
    mated: ArrayLike, subject: ArrayLike, fnmr: float, weights: ArrayLike
) -> Floats:
    """The threshold of each replicate that keeps a starting error FNMR: (R,) float64.

    It is chosen as by ``discard.threshold_for``.

    mated (M,) finite; subject (M,) int. Raises ValueError as ``threshold_replicates``.
    """
    table, score = as_weights(weights), as_scores(mated, "mated")
    sides = _checked_subjects(table, score, subject=subject)
    # Upside down, the lowest mated score that must not be rejected is the best that must stay out.
    rejected = barrier_scores(
        Weighted(-score, sides), table, total_weight(table, *sides), as_targets([fnmr]), ["at_most"]
    )
    return -rejected[0][:, 0]


def fnm_pauc_replicates(
    mated: ArrayLike,
    quality: ArrayLike,
    subject: ArrayLike,
    thresholds: ArrayLike,
    weights: ArrayLike,
    limits: ArrayLike,
) -> AreaReplicates:
    """pAUC of FNM-EDC, with the error it starts from, in each replicate.

    mated (M,) scores and quality (M,), finite; subject (M,) int; thresholds (R,) or (R, T) float, a
    replicate's own; limits (L,) in [0, 1]. Raises ValueError for a score or quality that is not
    finite, lengths that differ, a subject outside the weights, thresholds of another number of
    replicates, or limits outside [0, 1].
    """
    table, score = as_weights(weights), as_scores(mated, "mated")
    return _areas(
        Weighted(score, _checked_subjects(table, score, subject=subject)),
        quality,
        thresholds,
        table,
        limits,
        False,
    )


def fm_pauc_replicates(
    nonmated: ArrayLike,
    quality: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    thresholds: ArrayLike,
    weights: ArrayLike,
    limits: ArrayLike,
) -> AreaReplicates:
    """pAUC of FM-EDC, with the error it starts from, in each replicate.

    nonmated (N,) scores and quality (N,), finite; subject_a, subject_b (N,) int; the rest as
    ``fnm_pauc_replicates``, errors too. Reads every comparison in every replicate: for lists of up
    to some 10^5 comparisons.
    """
    table, score = as_weights(weights), as_scores(nonmated, "nonmated")
    sides = _checked_subjects(table, score, subject_a=subject_a, subject_b=subject_b)
    return _areas(Weighted(score, sides), quality, thresholds, table, limits, True)


def _areas(
    listed: Weighted,
    quality: ArrayLike,
    thresholds: ArrayLike,
    table: Weights,
    limits: ArrayLike,
    matches: bool,
) -> AreaReplicates:
    value = as_scores(quality, "quality")
    ends = as_fractions(limits, "limits")
    at = np.asarray(thresholds, np.float64)
    if value.shape != listed.score.shape:
        raise ValueError(
            f"quality must have one entry a score, found shapes {value.shape} and"
            f" {listed.score.shape}."
        )
    if at.ndim not in (1, 2) or len(at) != len(table):
        raise ValueError(
            f"thresholds must be (R,) or (R, T) for R = {len(table)} replicates, found {at.shape}."
        )
    columns = at.reshape(len(table), at.shape[1] if at.ndim == 2 else 1)
    listed, starts = _in_order_of_quality(listed, value)
    n = listed.score.size
    start, area = np.full(columns.shape, np.nan), np.full((*columns.shape, ends.size), np.nan)
    for rows in blocks(np.arange(len(table)), n):
        cells = listed.weigh(table[rows])
        gone = _sums_up_to(cells, starts)
        total = gone[:, -1:]
        left, weighty = total - gone[:, :-1], total[:, 0] > 0
        # A step is as wide as the weight of its run of equal qualities, cut off at the limit, and
        # as high as the errors among what is left. Both are whole numbers; the totals that they
        # are divided by go into the scale. With nothing left the width is 0.
        widths = [np.diff(np.minimum(gone, end * total), axis=1) for end in ends]
        scale = [width / (np.maximum(left, 1) * np.maximum(total, 1)) for width in widths]
        for j, threshold in enumerate(columns[rows].T):
            known = weighty & ~np.isnan(threshold)
            wrong = (listed.score >= threshold[:, None]) == matches
            lost = _sums_up_to(np.where(wrong, cells, 0), starts)
            remaining = lost[:, -1:] - lost[:, :-1]
            start[rows[known], j] = lost[known, -1] / total[known, 0]
            for k, each in enumerate(scale):
                area[rows[known], j, k] = dot(remaining, each)[known]
    return AreaReplicates(start.reshape(at.shape), area.reshape(*at.shape, ends.size), ends)


def _in_order_of_quality(listed: Weighted, quality: Scores) -> tuple[Weighted, NDArray[np.intp]]:
    """A list by rising quality, scores in float64, and where runs of equals begin, then its end."""
    order = np.argsort(quality, kind="stable")
    rising = quality[order]
    score = listed.score[order].astype(np.float64)
    ordered = Weighted(score, tuple(side[order] for side in listed.subjects))
    is_first = np.ones(order.size, bool)
    is_first[1:] = rising[1:] != rising[:-1]
    return ordered, np.append(np.flatnonzero(is_first), order.size)


def _scores_at_places(impostor: Weighted, table: Weights, total: Floats, place: Counts) -> Floats:
    """(R, P) scores at places (R, P) of each replicate's list, best first; nan if it is empty."""
    out, size = np.full(place.shape, np.nan), impostor.score.size
    pending, count = np.flatnonzero(total > 0), FIRST_READ
    if pending.size and place.size:
        # A guess that affects speed only, as in ``barrier_scores``.
        count += int(1.25 * size * np.max(place[pending] / total[pending, None]))
    while pending.size:
        top, unsolved = impostor.best(count), []
        for rows in blocks(pending, top.score.size):
            found = RunningSums(top.weigh(table[rows]).astype(np.int64)).beyond(place[rows])
            solved = (found < top.score.size).all(axis=1)
            out[rows[solved]] = top.score[found[solved]]
            unsolved.append(rows[~solved])
        pending, count = np.concatenate(unsolved), 4 * count
    return out


def _sums_up_to(cells: NDArray[np.uint32], at: NDArray[np.intp]) -> Floats:
    """(R, K) sums of the first ``at`` cells of each row."""
    sums = running_sums(cells)
    return (sums if at.size == sums.shape[1] else sums[:, at]).astype(np.float64)


def _checked_subjects(table: Weights, score: Scores, **columns: ArrayLike) -> tuple[Subjects, ...]:
    return tuple(as_subjects(column, name, score.shape, table) for name, column in columns.items())
