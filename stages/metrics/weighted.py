"""Score lists whose comparisons weigh what their subjects weigh: what the bootstrap computes on.

Conventions
    weights (R, S) uint16 holds one replicate a row, one subject a column. Everything is exact
    whole-number arithmetic and bounded in memory: replicates go in blocks, and read no more of a
    list than they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from stages.metrics.verification import (
    Counts,
    Floats,
    Scores,
    ThresholdRule,
    allowed_count,
    as_scores,
    check_rule,
)

Weights = NDArray[np.uint16]
Subjects = NDArray[np.integer[Any]]

# replicates x comparisons handled at once: about 1 MB, so that a block stays in cache
CELLS_AT_ONCE = 1 << 17
COMPARISONS_AT_ONCE = 1 << 22  # comparisons whose pairs of subjects are counted at once


@dataclass(frozen=True)
class Weighted:
    """Scores with their subjects: one column weighs w[a], two weigh w[a] w[b]."""

    score: Scores
    subjects: tuple[Subjects, ...]

    def best(self, count: int) -> Weighted:
        """The ``count`` best and all that tie with the last of them, in descending order."""
        rising = -self.score
        if count < rising.size:
            keep = np.flatnonzero(rising <= np.partition(rising, count - 1)[count - 1])
        else:
            keep = np.arange(rising.size)
        order = keep[np.argsort(rising[keep], kind="stable")]
        return Weighted(
            self.score[order], tuple(column[order].astype(np.intp) for column in self.subjects)
        )

    def weigh(self, block: Weights) -> NDArray[np.uint32]:
        """(rows, n) weights; a product of two uint16 fits in uint32."""
        columns = [np.take(block.astype(np.uint32), column, axis=1) for column in self.subjects]
        return columns[0] if len(columns) == 1 else columns[0] * columns[1]


@dataclass(frozen=True)
class WeightedLists:
    """Mated and non-mated comparisons with the weights (R, S) of replicates.

    ``totals`` is what each list weighs in each replicate, (R,). ``of`` checks a comparison list and
    splits it by kind; ``apart`` takes two lists that are split already, unchecked.
    """

    genuine: Weighted
    impostor: Weighted
    table: Weights
    totals: tuple[Floats, Floats]

    @staticmethod
    def of(
        scores: ArrayLike,
        mated: ArrayLike,
        subject_a: ArrayLike,
        subject_b: ArrayLike,
        weights: ArrayLike,
    ) -> WeightedLists:
        table = as_weights(weights)
        score = as_scores(scores, "scores")
        truth = np.asarray(mated, bool)
        a = as_subjects(subject_a, "subject_a", score.shape, table)
        b = as_subjects(subject_b, "subject_b", score.shape, table)
        if truth.shape != score.shape or (truth != (a == b)).any():
            raise ValueError(
                "mated must be true exactly where subject_a equals subject_b: mend one or the"
                " other."
            )
        return WeightedLists.apart(
            Weighted(score[truth], (a[truth],)),
            Weighted(score[~truth], (a[~truth], b[~truth])),
            table,
        )

    @staticmethod
    def apart(genuine: Weighted, impostor: Weighted, table: Weights) -> WeightedLists:
        totals = total_weight(table, *genuine.subjects), total_weight(table, *impostor.subjects)
        return WeightedLists(genuine, impostor, table, totals)


def barrier_scores(
    impostor: Weighted,
    table: Weights,
    total: Floats,
    target: Floats,
    rules: Sequence[ThresholdRule],
) -> list[Floats]:
    """(R, T) for each rule: the best score that must stay out; all scores above it are accepted.

    -inf if none must stay out, nan if the denominator ``total`` (R,) is 0. A replicate is solved on
    the ``count`` best scores, and again on more if those did not hold the answer: the first guess
    affects speed only.
    """
    for rule in rules:
        check_rule(rule)
    size = impostor.score.size
    out = [np.full((total.size, target.size), -np.inf) for _ in rules]
    for barrier in out:
        barrier[total == 0] = np.nan
    # About as many scores decide as the largest target allows, and a quarter more for chance.
    pending = np.flatnonzero(total) if size and target.size else np.zeros(0, np.intp)
    count = int(1.25 * size * target.max(initial=0)) + 64
    while pending.size:
        top = impostor.best(count)
        n, rising, unsolved = top.score.size, -top.score, []
        for rows in blocks(pending, n):
            found = _first_excluded(
                rising, top.weigh(table[rows]), total[rows, None], target, rules
            )
            for barrier, where in zip(out, found, strict=True):
                barrier[rows] = np.where(where < n, top.score[np.minimum(where, n - 1)], -np.inf)
            unsolved.append(rows[np.any([(where == n).any(axis=1) for where in found], axis=0)])
        pending = np.concatenate(unsolved) if n < size else pending[:0]
        count *= 4
    return out


def _first_excluded(
    rising: Scores,
    cells: NDArray[np.uint32],
    total: Floats,
    target: Floats,
    rules: Sequence[ThresholdRule],
) -> list[Counts]:
    """(rows, T) for each rule: position of the first score that must stay out.

    It is n, past the end, if the cells do not reach so far.
    """
    rows, n = cells.shape
    # One running sum over all rows, so that one searchsorted answers for every replicate and
    # target.
    running = np.zeros(cells.size + 1, np.int64)
    np.cumsum(cells.ravel(), out=running[1:])
    start = np.arange(rows)[:, None] * n
    before = running[start]

    def first_beyond(allowed: Counts) -> Counts:
        found = np.searchsorted(running[1:], before + allowed, side="right") - start
        return np.asarray(np.minimum(found, n), np.int64)

    at_most = first_beyond(allowed_count(target, total))
    if "nearest" not in rules:
        return [at_most for _ in rules]
    tie = rising[np.minimum(at_most, n - 1)]
    # "nearest": accepting the run of equal scores at the barrier as well may come closer to the
    # target from above than leaving it out does from below.
    bounds = (np.searchsorted(rising, tie, side=side) for side in ("left", "right"))
    fewer, more = (running[start + bound] - before for bound in bounds)
    more_is_nearer = more / total - target <= target - fewer / total
    nearest = np.where(more_is_nearer, first_beyond(more), at_most)
    return [nearest if rule == "nearest" else at_most for rule in rules]


def share_above(genuine: Weighted, table: Weights, total: Floats, barrier: Floats) -> Floats:
    """(R, T): the weighted share of the scores above each barrier; nan if nothing has weight."""
    falling = genuine.best(genuine.score.size)
    count = np.searchsorted(-falling.score, -barrier)
    accepted = np.zeros(barrier.shape)
    for rows in blocks(np.arange(len(barrier)), falling.score.size):
        accepted[rows] = np.take_along_axis(
            running_sums(falling.weigh(table[rows])), count[rows], axis=1
        )
    return ratio(np.where(np.isnan(barrier), np.nan, accepted), total)


def total_weight(table: Weights, a: Subjects, b: Subjects | None = None) -> Floats:
    """(R,) sum of w[a], or of w[a] w[b] = w' C w, C counting the comparisons of each subject pair.

    No replicate touches every comparison; whole numbers far below 2^53 are exact in float64.

    >>> total_weight(np.array([[2, 1, 0]], np.uint16), np.array([0, 1]), np.array([1, 2]))
    array([2.])
    """
    size, w = table.shape[1], table.astype(np.float64)
    if b is None:
        return np.asarray(w @ np.bincount(a, minlength=size).astype(np.float64))
    count: Any
    # A dense S × S table is faster to count into, as long as it is not much larger than the list.
    if a.size > size * size // 20:
        dense = np.zeros(size * size)
        for start in range(0, a.size, COMPARISONS_AT_ONCE):
            part = slice(start, start + COMPARISONS_AT_ONCE)
            dense += np.bincount(a[part].astype(np.intp) * size + b[part], minlength=dense.size)
        count = dense.reshape(size, size)
    else:
        count = sparse.coo_array((np.ones(a.size), (a, b)), shape=(size, size)).tocsr()
    return np.asarray((w * (w @ count)).sum(axis=1), np.float64)


def running_sums(cells: NDArray[np.uint32]) -> Counts:
    """(R, n) -> (R, n + 1) sums of the first 0, 1, … n cells of each row."""
    out = np.zeros((cells.shape[0], cells.shape[1] + 1), np.int64)
    np.cumsum(cells, axis=1, out=out[:, 1:])
    return out


def ratio(part: Floats, total: Floats) -> Floats:
    """part (R, T) / total (R,), nan if the total is 0."""
    return part / np.where(total > 0, total, np.nan)[:, None]


def blocks(rows: NDArray[np.intp], width: int) -> Iterator[NDArray[np.intp]]:
    """rows in runs of about CELLS_AT_ONCE / width."""
    step = max(1, CELLS_AT_ONCE // max(1, width))
    return (rows[i : i + step] for i in range(0, rows.size, step))


def as_weights(weights: ArrayLike) -> Weights:
    """weights as (R, S) uint16; ValueError for anything but whole numbers in its range."""
    table = np.asarray(weights)
    whole = table.ndim == 2 and table.dtype.kind in "iu"
    if not whole or (table.size and not 0 <= table.min() <= table.max() < 1 << 16):
        raise ValueError(
            f"weights must be (R, S) integers in 0 … 65535, found {table.dtype} {table.shape}."
        )
    return table.astype(np.uint16, copy=False)


def as_subjects(subject: ArrayLike, name: str, shape: tuple[int, ...], table: Weights) -> Subjects:
    """subject as integers of the given shape, each a column of the weights; else ValueError."""
    index = np.asarray(subject)
    # int32 serves as well, in half the memory
    index = index if index.dtype.kind == "i" else index.astype(np.intp)
    if index.shape != shape or (
        index.size and not 0 <= index.min() <= index.max() < table.shape[1]
    ):
        raise ValueError(
            f"{name} must be {shape} integers in 0 … {table.shape[1] - 1}, the columns of weights;"
            f" found shape {index.shape}: number the subjects with np.unique(...,"
            " return_inverse=True)."
        )
    return index
