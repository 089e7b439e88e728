"""Rates of 1:N search.

Conventions
    Candidate list  one row a probe: ``candidate (P, k) int64`` gallery rows and ``score (P, k)
                    float32``, in the order (-score, gallery row), padded with -1.
    Rank            1 is the best; 0 says that the mate is not in the list, or the probe failed to
                    acquire.
    Decision        a candidate is returned when ``score >= threshold``.
    Denominators    every probe presented (ISO/IEC 19795-1): one that failed to acquire is a miss if
                    mated, and no false positive if non-mated.
    Tie rule        in a rank, of equal scores the smaller gallery row stands first; at a threshold,
                    equal scores are returned, or not, together.
    Threshold rule  as in ``verification``, of FPIR instead of FMR and top-1 instead of comparison
                    scores.
    Empty input     an undefined rate is nan, and ``reason`` says why; ``reason`` is "" when all is
                    defined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.metrics.verification import (
    FEW,
    Counts,
    Floats,
    Scores,
    Targets,
    ThresholdRule,
    as_scores,
    as_targets,
    choose_threshold,
    share_of,
    why_undefined,
)


@dataclass(frozen=True)
class OpenSetPoints:
    """Open-set rates at given FPIR targets; every array has one entry a target."""

    target: Floats
    threshold: Floats
    fpir: Floats  # achieved
    false_positives: Counts
    tpir: Floats  # 1 - FNIR
    fnir: Floats
    misses: Counts
    few: NDArray[np.bool_]  # fewer than 30 false positives
    n_mated: int
    n_nonmated: int
    reason: str


def mate_rank(candidate_subject: ArrayLike, probe_subject: ArrayLike) -> Counts:
    """Where the probe's own subject first stands in its candidate list.

    candidate_subject (P, k) int, negative in padding; probe_subject (P,) int, negative when
    unknown. Returns (P,) int64: the rank from 1, or 0 when not among the k. Raises ValueError for
    shapes that do not fit.

    >>> mate_rank([[7, 3, 5], [5, 7, -1]], [3, 4])
    array([2, 0])
    """
    candidates, probes = np.asarray(candidate_subject), np.asarray(probe_subject)
    if candidates.ndim != 2 or probes.shape != candidates.shape[:1]:
        raise ValueError(
            f"candidate_subject must be (P, k), probe_subject (P,): found {candidates.shape},"
            f" {probes.shape}."
        )
    if not candidates.size:
        return np.zeros(probes.shape, np.int64)
    # A probe of unknown subject (-1) must not find its mate in the padding (-1).
    hit = (candidates == probes[:, None]) & (candidates >= 0)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def cmc(rank: ArrayLike, max_rank: int) -> Floats:
    """Cumulative match characteristic: the share of mated probes whose mate is at rank k or better.

    rank (P,) int as from ``mate_rank``, mated probes only, 0 a miss. Lists of k candidates say
    nothing of ranks beyond k: ask for max_rank <= k. Returns (max_rank,) float64, nan without
    probes (ISO/IEC 19795-1, closed-set identification). Raises ValueError for max_rank < 1 or a
    negative rank.

    >>> cmc([1, 1, 3, 0], max_rank=3)
    array([0.5 , 0.5 , 0.75])
    """
    ranks = np.asarray(rank, np.int64)
    if max_rank < 1 or (ranks < 0).any():
        raise ValueError(
            f"ranks must be 0 (miss) or more and max_rank 1 or more, found max_rank {max_rank}."
        )
    found = np.bincount(ranks[ranks <= max_rank], minlength=max_rank + 1)[1:]
    return share_of(np.cumsum(found), ranks.size)


def tpir_at_fpir(
    nonmated_top: ArrayLike,
    mated_rank: ArrayLike,
    mated_score: ArrayLike,
    targets: Targets,
    rule: ThresholdRule = "at_most",
    n_nonmated: int | None = None,
) -> OpenSetPoints:
    """Open-set TPIR at each FPIR target, FNIR = 1 - TPIR (ISO/IEC 19795-1).

    A mated probe counts if its mate is at rank 1 (as in the papers) and its score >= threshold.
    nonmated_top (N,): top-1 score of each non-mated probe, -inf if it failed or found no candidate.
    mated_rank (M,) int: rank of the mate, 0 a miss. mated_score (M,): the mate's score, read at
    rank 1 only. targets (T,): FPIR in [0, 1]. n_nonmated: non-mated probes presented, if
    nonmated_top leaves some out. Without non-mated probes all rates are nan.

    Raises ValueError for a NaN or +inf score, lengths that differ, or n_nonmated below the scores
    given.

    >>> points = tpir_at_fpir([0.3, 0.6], [1, 1, 0], [0.8, 0.5, 0.0], [0.5])
    >>> points.threshold, points.fpir, points.tpir.round(3)
    (array([0.5]), array([0.5]), array([0.667]))
    """
    impostor, genuine, presented = top_scores(nonmated_top, mated_rank, mated_score)
    total = presented if n_nonmated is None else n_nonmated
    if total < presented:
        raise ValueError(
            f"n_nonmated is {total}, but nonmated_top holds {presented}: count every probe."
        )
    goal = as_targets(targets)
    dtype = np.result_type(impostor, genuine)
    n_mated = np.asarray(mated_rank).size
    impostor, genuine = np.sort(impostor.astype(dtype)), np.sort(genuine.astype(dtype))
    threshold = choose_threshold(genuine, impostor, goal, rule, total)
    false_positives = np.asarray(impostor.size - np.searchsorted(impostor, threshold), np.int64)
    hits = np.asarray(genuine.size - np.searchsorted(genuine, threshold), np.int64)
    base = n_mated if total else 0
    return OpenSetPoints(
        target=goal,
        threshold=threshold,
        fpir=share_of(false_positives, total),
        false_positives=false_positives,
        tpir=share_of(hits, base),
        fnir=share_of(n_mated - hits, base),
        misses=base - hits,
        few=false_positives < FEW,
        n_mated=n_mated,
        n_nonmated=total,
        reason=why_undefined(n_mated, total, "probes"),
    )


def pooled_script(
    impostors: ArrayLike, mate_score: ArrayLike, n_probes: int, targets: Targets
) -> tuple[Floats, Floats]:
    """(thresholds, shares of mated probes above them) as a widespread script computes them.

    This is neither FPIR nor TPIR. impostors (N,): scores of every probe with every gallery template
    of another subject, all in one list (the best ceil(n_probes * target) of them are enough).
    mate_score (M,): the score of each mated probe with its mate, -inf if it has none. A threshold
    is the ceil(n_probes * target)-th largest impostor, at least the first, or -inf if there are
    fewer; a probe counts if its mate's score exceeds it, whatever its rank. Both (T,), nan without
    a probe.

    >>> pooled_script([0.6, 0.5, 0.2, 0.1], [0.9, 0.4], n_probes=2, targets=[0.5])
    (array([0.6]), array([0.5]))
    """
    falling, mates = -np.sort(-as_scores(impostors, "impostors")), np.asarray(mate_score)
    # Rounding before the ceiling keeps 0.1 x 30 at 3.
    place = np.maximum(np.ceil(np.round(as_targets(targets) * n_probes, 9)).astype(np.int64), 1) - 1
    threshold = np.full(place.shape, -np.inf if n_probes else np.nan)
    inside = place < falling.size
    threshold[inside] = falling[place[inside]]
    return threshold, share_of((mates[:, None] > threshold).sum(axis=0), mates.size)


def top_scores(
    nonmated_top: ArrayLike, mated_rank: ArrayLike, mated_score: ArrayLike
) -> tuple[Scores, Scores, int]:
    """Return the scores that can be false positives and those that can be hits, checked.

    The third value is how many non-mated probes are listed.
    """
    top, rank, score = np.asarray(nonmated_top), np.asarray(mated_rank), np.asarray(mated_score)
    if rank.shape != score.shape:
        raise ValueError(
            f"mated_rank and mated_score must match, found shapes {rank.shape}, {score.shape}."
        )
    impostor = as_scores(top[~np.isneginf(top)], "nonmated_top")
    return impostor, as_scores(score[rank == 1], "mated_score at rank 1"), top.size
