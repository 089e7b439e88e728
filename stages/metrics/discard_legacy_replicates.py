"""Uncertainty of the legacy form of error versus discard by resampling subjects.

Conventions are those of ``discard_replicates``, which passes this module on, and of the legacy form
in ``discard_steps``. Of a comparison repeated weight times, the copies are neighbours in the order
of (quality, index): a cut may part them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.metrics.discard_steps import LEGACY_FRACTIONS, Flags, trapezoids
from stages.metrics.verification import (
    Counts,
    Floats,
    Scores,
    Targets,
    allowed_count,
    as_scores,
    as_targets,
)
from stages.metrics.weighted import Subjects, Weighted, WeightedLists, Weights, blocks

# Non-mated comparisons that are read at first, in addition to what the largest target needs:
# affects speed only.
FIRST_READ = 64


def legacy_auc_replicates(
    score: ArrayLike,
    mated: ArrayLike,
    quality: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    targets: Targets,
    weights: ArrayLike,
) -> Floats:
    """AUC of the legacy form (``discard.legacy_erc``) in each replicate: (R, T) float64.

    score (N,), quality (N,) finite; mated (N,) bool; subject_a, subject_b (N,) int; targets (T,):
    FMR in [0, 1]. A replicate that has a step without comparisons of a kind gives nan. Reads all
    mated comparisons at all 20 steps of every replicate, and of the non-mated what the largest
    target needs: for lists of up to about 20,000 comparisons, half of them mated, which take some
    two seconds for 1,000 replicates.

    Raises ValueError for a score or quality that is not finite, lengths that differ, a subject
    outside the weights, a target outside [0, 1], or a mated flag that disagrees with the subjects.
    """
    lists = WeightedLists.of(score, mated, subject_a, subject_b, weights)
    goal = as_targets(targets)
    value = as_scores(quality, "quality")
    truth = np.asarray(mated, bool)
    if value.shape != truth.shape:
        raise ValueError(
            f"quality must have one entry a score, found shapes {value.shape} and {truth.shape}."
        )
    place = np.empty(value.size, np.intp)  # in order of (quality, index)
    place[np.argsort(value, kind="stable")] = np.arange(value.size)
    mates = _BestFirst.of(lists.genuine, place[truth])
    whole = _BestFirst.of(lists.impostor, place[~truth])
    out, n = np.full((len(lists.table), goal.size), np.nan), lists.impostor.score.size
    pending = np.flatnonzero((lists.totals[0] > 0) & (lists.totals[1] > 0))
    count = FIRST_READ + int(4 * n * goal.max(initial=0))
    while pending.size:
        top, unsolved = _BestFirst.of(lists.impostor, place[~truth], count), []
        for rows in blocks(
            pending, value.size + LEGACY_FRACTIONS.size * (mates.score.size + top.score.size)
        ):
            fnmr, solved = _legacy_fnmr(lists.table[rows], mates, whole, top, goal)
            out[rows[solved]] = trapezoids(fnmr[solved])
            unsolved.append(rows[~solved])
        pending, count = np.concatenate(unsolved), 4 * count
    return out


class RunningSums:
    """Running sums of whole numbers (…, n) along the last axis.

    The other axes are flattened to G groups.
    """

    def __init__(self, cells: Counts) -> None:
        self.size = cells.shape[-1]
        # One running sum over all groups, so that one searchsorted answers for every group and
        # target.
        self.running = np.zeros(cells.size + 1, np.int64)
        np.cumsum(cells.ravel(), out=self.running[1:])
        self.start = np.arange(int(np.prod(cells.shape[:-1])))[:, None] * self.size
        self.before = self.running[self.start]

    def first(self, count: ArrayLike) -> Counts:
        """(G, T) sums of the first ``count`` cells of each group."""
        return np.asarray(self.running[self.start + count] - self.before)

    def beyond(self, weight: ArrayLike) -> Counts:
        """(G, T) cell at which the sum first exceeds ``weight`` >= 0; n if it never does."""
        found = np.searchsorted(self.running[1:], self.before + weight, side="right") - self.start
        return np.asarray(np.minimum(found, self.size), np.int64)


@dataclass(frozen=True)
class _BestFirst:
    """Comparisons of one kind, best first, with their places in the order of discard."""

    score: Scores  # negated, so that it ascends
    subjects: tuple[Subjects, ...]
    place: NDArray[np.intp]

    @staticmethod
    def of(listed: Weighted, place: NDArray[np.intp], count: int | None = None) -> _BestFirst:
        # ``best`` carries the columns of subjects along, and the place just so.
        size = listed.score.size
        carried = Weighted(listed.score, (*listed.subjects, place)).best(
            size if count is None else count
        )
        return _BestFirst(
            -carried.score, carried.subjects[:-1], np.asarray(carried.subjects[-1], np.intp)
        )

    def weigh(self, block: Weights) -> Counts:
        return Weighted(self.score, self.subjects).weigh(block).astype(np.int64)


def _legacy_fnmr(
    block: Weights, mates: _BestFirst, whole: _BestFirst, top: _BestFirst, goal: Floats
) -> tuple[Floats, Flags]:
    """(rows, T, S) FNMR of the legacy form, and (rows,) whether ``top`` held every answer.

    ``top`` are the best non-mated comparisons, ``whole`` all of them.
    """
    shape = (len(block), LEGACY_FRACTIONS.size)
    # gone[r, i] is the weight in replicate r of the i comparisons that are discarded first.
    gone = np.zeros((len(block), mates.place.size + whole.place.size + 1), np.int64)
    for each in (mates, whole):
        gone[:, each.place + 1] = each.weigh(block)
    np.cumsum(gone, axis=1, out=gone)
    cut = (LEGACY_FRACTIONS * gone[:, -1:]).astype(np.int64)  # how many copies each step discards

    def remaining(some: _BestFirst) -> RunningSums:
        """How many copies of each comparison are left at each step; a cut may part copies."""
        before, after = gone[:, None, some.place], gone[:, None, some.place + 1]
        return RunningSums(np.clip(after - cut[:, :, None], 0, after - before))

    m, n = remaining(mates), remaining(top)
    m_all = m.first([m.size])
    n_all = (gone[:, -1:] - cut).reshape(-1, 1) - m_all
    defined = (m_all > 0) & (n_all > 0)
    total, last = np.where(n_all > 0, n_all, 1), n.size - 1

    def tie(cell: Counts, side: Literal["left", "right"]) -> Counts:
        """How many of the top lie above the tie of a cell, or above and in it."""
        bound = np.searchsorted(top.score, top.score[np.minimum(cell, last)], side=side)
        return np.asarray(np.where(cell <= last, bound, n.size))

    def above(barrier: Counts) -> tuple[Counts, Counts]:
        """How many mated and non-mated comparisons of the lists lie above the barrier."""
        score = np.where(barrier <= last, top.score[np.minimum(barrier, last)], np.inf)
        return np.asarray(np.searchsorted(mates.score, score)), tie(barrier, "left")

    def lowest(sums: RunningSums, some: _BestFirst, count: Counts) -> Scores:
        """The lowest score, negated, that is left among the first ``count``; -inf if none is."""
        weight = sums.first(count)
        return np.where(
            weight > 0,
            some.score[np.minimum(sums.beyond(np.maximum(weight - 1, 0)), sums.size - 1)],
            -np.inf,
        )

    # The choice of "nearest" in verification.choose_threshold, on weights instead of a list: the
    # cell that must stay out, then its whole tie if that comes nearer to the target.
    barrier = n.beyond(allowed_count(goal, total))
    fewer, more = (n.first(tie(barrier, side)) for side in ("left", "right"))
    barrier = np.where(more / total - goal <= goal - fewer / total, n.beyond(more), barrier)
    accepted_m, accepted_n = above(barrier)
    # A threshold is an observed score: if nothing lies above the barrier, the best tie is
    # accepted.
    nothing = (m.first(accepted_m) == 0) & (n.first(accepted_n) == 0)
    barrier = np.where(nothing, n.beyond(n.first(tie(n.beyond([0]), "right"))), barrier)
    accepted_m, accepted_n = above(barrier)
    threshold = np.maximum(lowest(m, mates, accepted_m), lowest(n, top, accepted_n))
    matches = m.first(np.searchsorted(mates.score, threshold))
    fnmr = np.where(defined, (m_all - matches) / np.maximum(m_all, 1), np.nan)
    solved = (barrier <= last) | ~defined | (n.size == whole.place.size)
    return np.moveaxis(fnmr.reshape(*shape, goal.size), 1, 2), solved.reshape(
        *shape, goal.size
    ).all(axis=(1, 2))
