"""Uncertainty of error rates by resampling subjects.

Conventions
    Resampling    subjects are drawn with replacement, so a replicate is one whole-number weight a
                  subject. A mated comparison weighs w[a], a non-mated one w[a] w[b]: the vertex
                  bootstrap (Snijders and Borgatti 1999; Fogliato, Patil and Perona, "Confidence
                  Intervals for Error Rates in 1:1 Matching Tasks", 2024) without comparisons of two
                  copies of one subject. Systems that are compared share the weights, and their
                  difference is taken replicate by replicate.
    Exactness     a replicate is what the metric gives when every comparison is repeated weight
                  times; its threshold is chosen anew. Weight 1 everywhere gives the metric itself,
                  to the bit.
    Subjects      are integers 0 … S-1, the columns of the (R, S) ``weights`` that
                  ``subject_weights`` gives.
    Empty input   nan in a replicate whose mated or non-mated weight is 0; intervals leave nan out.
    Direction, decision, tie and threshold rules are those of ``verification`` and
    ``identification``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.metrics.identification import top_scores
from stages.metrics.verification import Counts, Floats, Targets, ThresholdRule, as_targets, crossing
from stages.metrics.weighted import (
    Weighted,
    WeightedLists,
    Weights,
    as_subjects,
    as_weights,
    barrier_scores,
    blocks,
    ratio,
    running_sums,
    share_above,
    total_weight,
)

# Running sums (rows, n + 1), how many of them each threshold accepts (T,), totals (rows, 1).
_SortedKind = tuple[Counts, Counts, Floats]


@dataclass(frozen=True)
class PairedDifference:
    """a - b with the percentile interval of its paired replicates.

    Each field has the shape of one replicate.
    """

    value: Floats
    lo: Floats
    hi: Floats


def subject_weights(n_subjects: int, replicates: int, seed: int) -> Weights:
    """How often each subject is drawn in each replicate: (R, S) uint16, every row summing to S.

    Row r depends on (seed, r, n_subjects) only, so more replicates extend the same rows.

    >>> subject_weights(3, replicates=2, seed=0).sum(axis=1)
    array([3, 3], dtype=uint64)
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    weights = np.zeros((replicates, n_subjects), np.uint16)
    for rows in blocks(np.arange(replicates), n_subjects):
        # One 64-bit draw a cell, in any block: so a row does not depend on how many rows are asked
        # for.
        drawn = (generator.random((rows.size, n_subjects)) * n_subjects).astype(np.intp)
        drawn += np.arange(rows.size)[:, None] * n_subjects
        weights[rows] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    return weights


def tar_replicates(
    scores: ArrayLike,
    mated: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    targets: Targets,
    weights: ArrayLike,
    rule: ThresholdRule = "at_most",
) -> Floats:
    """TAR = 1 - FNMR at each FMR target, in each replicate: (R, T) float64.

    scores (N,) finite; mated (N,) bool; subject_a, subject_b (N,) int; targets (T,) in [0, 1].
    A replicate reads no more of the non-mated list than its largest target needs.
    Raises ValueError for a score that is not finite, lengths that differ, a subject outside the
    weights, or a mated flag that disagrees with the subjects.

    >>> scores, mated, a, b = [0.9, 0.4, 0.6], [True, True, False], [0, 1, 0], [0, 1, 1]
    >>> tar_replicates(scores, mated, a, b, [0.0], weights=np.array([[1, 1], [2, 0]]))
    array([[0.5],
           [nan]])
    """
    return tar_of(WeightedLists.of(scores, mated, subject_a, subject_b, weights), targets, [rule])[
        0
    ]


def tar_of(lists: WeightedLists, targets: Targets, rules: Sequence[ThresholdRule]) -> list[Floats]:
    """``tar_replicates`` under each of several rules, for the price of one."""
    m_all, n_all = lists.totals
    barriers = barrier_scores(lists.impostor, lists.table, n_all, as_targets(targets), rules)
    shares = share_above(lists.genuine, lists.table, m_all, np.concatenate(barriers, axis=1))
    return np.split(shares, len(rules), axis=1)


def eer_replicates(
    scores: ArrayLike,
    mated: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    weights: ArrayLike,
) -> Floats:
    """EER in each replicate: (R,) float64. Arguments and errors as ``tar_replicates``.

    >>> scores, mated = [0.9, 0.4, 0.6, 0.1], [True, True, False, False]
    >>> eer_replicates(scores, mated, [0, 1, 0, 1], [0, 1, 1, 0], weights=np.array([[1, 1]]))
    array([0.5])
    """
    return eer_of(WeightedLists.of(scores, mated, subject_a, subject_b, weights))


def eer_of(lists: WeightedLists, near: float = 1 / 16) -> Floats:
    """Return ``eer_replicates``; ``near``, about where the EER is, affects speed only.

    A replicate reads no more of the non-mated list than holds the point where FMR overtakes FNMR.
    """
    table = lists.table
    m_all, n_all = lists.totals
    genuine = lists.genuine.best(lists.genuine.score.size)
    size, out = lists.impostor.score.size, np.full(len(table), np.nan)
    pending, count = np.flatnonzero((m_all > 0) & (n_all > 0)), 64 + int(1.5 * near * size)
    while pending.size:
        top, unsolved = lists.impostor.best(count), []
        m_up, n_up = -genuine.score, -top.score
        thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([m_up, n_up]))])
        if n_up.size < size:
            thresholds = thresholds[thresholds <= n_up[-1]]  # below, non-mated scores are missing
        accepted_m, accepted_n = (
            np.searchsorted(up, thresholds, side="right") for up in (m_up, n_up)
        )
        for rows in blocks(pending, m_up.size + n_up.size):
            m, n = running_sums(genuine.weigh(table[rows])), running_sums(top.weigh(table[rows]))
            rates = partial(
                _rates_at, (m, accepted_m, m_all[rows, None]), (n, accepted_n, n_all[rows, None])
            )
            crossed, ends = _bisected(rates, len(rows), len(thresholds) - 1)
            out[rows[crossed]] = crossing(*(rate[crossed] for rate in rates(ends)))[0]
            unsolved.append(rows[~crossed])
        pending, count = np.concatenate(unsolved), 4 * count
    return out


def _bisected(
    rates: Callable[[Counts], tuple[Floats, Floats]], rows: int, last: int
) -> tuple[NDArray[np.bool_], Counts]:
    """Find where FMR reaches FNMR among the thresholds 0 … last, in all replicates at once.

    Returns (rows,) whether it does, and (rows, 2) the thresholds before and at that point.
    """
    # FMR rises and FNMR falls along the thresholds, so bisection finds the one crossing.
    low, high = np.zeros((rows, 1), np.int64), np.full((rows, 1), last, np.int64)
    crossed = np.greater_equal(*rates(high))[:, 0]
    while (high - low > 1).any():
        middle = (low + high) // 2
        past = np.greater_equal(*rates(middle))
        low, high = np.where(past, low, middle), np.where(past, middle, high)
    return crossed, np.hstack([low, high])


def _rates_at(mated: _SortedKind, nonmated: _SortedKind, at: Counts) -> tuple[Floats, Floats]:
    """FMR and FNMR of each replicate at places (rows, …) among the thresholds."""
    (m, accepted_m, m_all), (n, accepted_n, n_all) = mated, nonmated
    matches = np.take_along_axis(m, accepted_m[at], axis=1)
    return np.take_along_axis(n, accepted_n[at], axis=1) / n_all, (m_all - matches) / m_all


def auc_replicates(
    scores: ArrayLike,
    mated: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    weights: ArrayLike,
) -> Floats:
    """AUC in each replicate: (R,) float64. Arguments and errors as ``tar_replicates``.

    Reads every comparison in every replicate: for lists of up to some 10^5 comparisons.
    """
    return auc_of(WeightedLists.of(scores, mated, subject_a, subject_b, weights))


def auc_of(lists: WeightedLists) -> Floats:
    """``auc_replicates`` of lists that were parted before."""
    table = lists.table
    genuine, impostor = (each.best(each.score.size) for each in (lists.genuine, lists.impostor))
    m_up, n_up = -genuine.score, -impostor.score
    # How many non-mated lie above (not below) a mated score.
    above, not_below = (np.searchsorted(n_up, m_up, side=side) for side in ("left", "right"))
    out = np.full(len(table), np.nan)
    solvable = np.flatnonzero((lists.totals[0] > 0) & (lists.totals[1] > 0))
    for rows in blocks(solvable, m_up.size + n_up.size):
        cells, n = genuine.weigh(table[rows]), running_sums(impostor.weigh(table[rows]))
        n_all, m_all = n[:, -1:], cells.sum(axis=1)
        # Twice the weight that a mated score beats, as equal scores count half: a whole number.
        twice_beaten = 2 * n_all - n[:, above] - n[:, not_below]
        out[rows] = (cells * twice_beaten).sum(axis=1) / (2 * m_all * n_all[:, 0])
    return out


def tpir_replicates(
    nonmated_top: ArrayLike,
    nonmated_subject: ArrayLike,
    mated_rank: ArrayLike,
    mated_score: ArrayLike,
    mated_subject: ArrayLike,
    targets: Targets,
    weights: ArrayLike,
    rule: ThresholdRule = "at_most",
) -> Floats:
    """TPIR at each FPIR target, in each replicate: (R, T) float64.

    Probes are resampled, the gallery is not.

    nonmated_top (N,), -inf for a probe that failed; mated_rank (M,), mated_score (M,) as in
    ``tpir_at_fpir``; nonmated_subject (N,), mated_subject (M,) int; targets (T,) in [0, 1]. Raises
    ValueError for a NaN or +inf score, lengths that differ, or a subject outside the weights.
    """
    table, top, rank = as_weights(weights), np.asarray(nonmated_top), np.asarray(mated_rank)
    n_subject = as_subjects(nonmated_subject, "nonmated_subject", top.shape, table)
    m_subject = as_subjects(mated_subject, "mated_subject", rank.shape, table)
    n_score, m_score, _ = top_scores(top, rank, mated_score)
    impostor = Weighted(n_score, (n_subject[top != -np.inf],))
    genuine = Weighted(m_score, (m_subject[rank == 1],))
    # The totals are over every probe: failures and misses belong to the denominators.
    (barrier,) = barrier_scores(
        impostor, table, total_weight(table, n_subject), as_targets(targets), [rule]
    )
    return share_above(genuine, table, total_weight(table, m_subject), barrier)


def rank_replicates(
    mated_rank: ArrayLike, mated_subject: ArrayLike, ranks: Sequence[int], weights: ArrayLike
) -> Floats:
    """Share of mated probes found at rank k or better, in each replicate: (R, K) float64.

    mated_rank (M,) int, 0 a miss; mated_subject (M,) int.
    Raises ValueError for lengths that differ or a subject outside the weights.

    >>> weights = np.array([[1, 1], [2, 0]])
    >>> rank_replicates([1, 2, 0], [0, 1, 1], ranks=[1, 2], weights=weights).round(3)
    array([[0.333, 0.667],
           [1.   , 1.   ]])
    """
    table, rank = as_weights(weights), np.asarray(mated_rank)
    subject = as_subjects(mated_subject, "mated_subject", rank.shape, table)
    found = np.zeros((len(table), len(ranks)))
    for column, k in enumerate(ranks):
        found[:, column] = total_weight(table, subject[(rank > 0) & (rank <= k)])
    return ratio(found, total_weight(table, subject))


def share_replicates(flag: ArrayLike, subject: ArrayLike, weights: ArrayLike) -> Floats:
    """Share of what is flagged, such as FTA, in each replicate: (R,) float64; nan without weight.

    flag (N,) bool; subject (N,) int. Raises ValueError for lengths that differ or a subject outside
    the weights.

    >>> share_replicates([True, False], [0, 1], weights=np.array([[1, 1], [0, 2]]))
    array([0.5, 0. ])
    """
    table, chosen = as_weights(weights), np.asarray(flag, bool)
    column = as_subjects(subject, "subject", chosen.shape, table)
    return ratio(total_weight(table, column[chosen])[:, None], total_weight(table, column))[:, 0]


def interval(replicates: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Percentile interval (Efron 1979) over axis 0; nan replicates are left out, nan if all are.

    replicates (R, …) float; returns (lo, hi), each (…). Raises ValueError for a level outside (0,
    1).

    >>> low, high = interval(np.arange(101), level=0.9)
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 95.0)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, found {level}: 95 % is 0.95.")
    values = np.asarray(replicates, np.float64)
    values = values if len(values) else np.full((1, *values.shape[1:]), np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        lo, hi = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(lo), np.asarray(hi)


def rate_interval(
    value: float, replicates: ArrayLike, level: float, subjects: int
) -> tuple[float, float]:
    """Interval of one rate: ``interval``, widened for a rate of 0 or 1; nan if it has no width.

    If no error was seen, every replicate lacks errors as well, and [0, 0] would claim what is
    not known. With 0 errors among n independent trials the rate is, at a confidence of `level`, at
    most 1 - (1 - level)^(1/n): the one-sided bound of Clopper and Pearson (1934), about 3 / n at 95
    %, the "rule of 3" of ISO/IEC 19795-1. Comparisons of one subject are not independent, so n is
    that of the subjects. Of a rate of 1 it is the same from above. `subjects` < 1: no bound.

    replicates (R,). Returns (lo, hi).

    >>> low, high = rate_interval(0.0, np.zeros(1000), level=0.95, subjects=100)
    >>> low, round(high, 4)
    (0.0, 0.0295)
    """
    lo, hi = (float(end) for end in interval(replicates, level))
    known = lo <= hi and value in (0.0, 1.0) and subjects > 0
    bound = 1 - (1 - level) ** (1 / subjects) if known else 0.0
    lo, hi = (lo, max(hi, bound)) if value == 0.0 else (min(lo, 1 - bound), hi)
    return (lo, hi) if lo < hi else (np.nan, np.nan)


def paired_difference(
    point_a: ArrayLike, point_b: ArrayLike, rep_a: ArrayLike, rep_b: ArrayLike, level: float = 0.95
) -> PairedDifference:
    """a - b: the difference of two estimates, with the percentile interval of their replicates'.

    point_a, point_b (…); rep_a, rep_b (R, …) from the *same* weights. Raises ValueError if shapes
    differ.

    >>> found = paired_difference(0.9, 0.8, [0.9, 0.95, 0.85], [0.8, 0.83, 0.77])
    >>> round(float(found.value), 3), round(float(found.lo), 3), round(float(found.hi), 3)
    (0.1, 0.081, 0.119)
    """
    a, b = np.asarray(rep_a, np.float64), np.asarray(rep_b, np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"replicates must be paired row by row, found shapes {a.shape} and {b.shape}."
        )
    value = np.asarray(point_a, np.float64) - np.asarray(point_b, np.float64)
    return PairedDifference(value, *interval(a - b, level))
