"""Sums that depend on no machine and, if that matters, not on the order of the summands."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from stages.exact.grid import GRID

Floats = NDArray[np.float64]
ROWS_AT_ONCE = 1024  # that `weighted` widens at once: some megabytes


def total(values: Floats) -> Floats:
    """Return the sum along the last axis, by halves: x[i] + x[i + n/2], and again on the result.

    values (…, n) are overwritten. The order of additions follows from n alone; a library's own sum
    may follow the width of the machine's vector units.

    >>> float(total(np.arange(5.0)))
    10.0
    """
    size = values.shape[-1]
    if size == 0:
        return np.zeros(values.shape[:-1])
    while size > 1:
        half = (size + 1) // 2
        values[..., : size - half] += values[..., half:size]
        size = half
    return np.array(values[..., 0])


def dot(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return Σ a · b along the last axis, float64, by `total`. a, b (…, n) broadcast.

    >>> float(dot([1, 2, 3], [1, 1, 2]))
    9.0
    """
    return total(np.multiply(a, b, dtype=np.float64))


def mean(values: ArrayLike) -> float:
    """Return the mean of values (n,), n ≥ 1, whatever their order.

    Their sum is rounded once (Shewchuk 1997; `math.fsum`).

    >>> mean([1e16, 1.0, -1e16])
    0.3333333333333333
    """
    array = np.asarray(values, np.float64)
    return (
        math.fsum(array.tolist()) / len(array) if np.isfinite(array).all() else float(array.sum())
    )


def deviation(values: ArrayLike) -> float:
    """Return the standard deviation (population form) of values (n,), n ≥ 1, in no order.

    >>> deviation([1.0, 3.0])
    1.0
    """
    array = np.asarray(values, np.float64)
    return math.sqrt(mean((array - mean(array)) ** 2))


def by_group(group: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """Return the sum (count,) float64 of each group's values, added from the smallest up.

    group (n,) int64 in 0 … count − 1, values (n,) float64. The order of a group's members does not
    matter, as values are sorted first.

    >>> by_group(np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0]), 2)
    array([4., 2.])
    """
    order = np.lexsort((values, group))
    # bincount adds one value after another, in the order given
    return np.asarray(np.bincount(group[order], values[order], count), np.float64)


def shares(group: NDArray[np.int64], weight: Floats, count: int) -> Floats:
    """Return weights as multiples of GRID that sum to between ½ and 1 in each group.

    group (n,) int64 in 0 … count − 1, weight (n,) float64 ≥ 0. A weight is divided by the largest
    of its group and scaled by a power of two, so the order of the members does not matter. A weight
    below about GRID / 2 of the sum vanishes; a group whose weights are all 0 keeps them.

    >>> shares(np.array([0, 0, 1]), np.array([3.0, 1.0, 7.0]), 2).round(6)
    array([0.5     , 0.166667, 0.5     ])
    """
    top = np.zeros(count)
    np.maximum.at(top, group, weight)
    # whole numbers: sums of under 2²⁷ are exact
    steps = np.rint(weight / np.where(top > 0, top, 1)[group] / GRID)
    _, power = np.frexp(np.bincount(group, steps, count) * GRID)
    return np.asarray(np.rint(np.ldexp(steps, -power[group])) * GRID)


def weighted(
    vectors: NDArray[np.float32], scale: Floats, group: NDArray[np.int64], share: Floats, count: int
) -> Floats:
    """Return Σ share · unit row of each group, (count, d) float64, exactly (stages/exact/grid.py).

    vectors (n, d), finite; scale (n,) is 1 / length of each, as `vectors.inverse_lengths` has it;
    group (n,) ascends; share (n,) as from `shares`.
    """
    summed, steps = np.zeros((count, vectors.shape[1])), scale / GRID
    # else vectors are so short that float32 cannot hold 1 / length
    if (steps < np.finfo(np.float32).max).all():
        steps = steps.astype(np.float32)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        cut = slice(start, start + ROWS_AT_ONCE)
        # In steps of the grid: whole numbers, whose products and sums float64 holds exactly.
        unit = vectors[cut] * steps[cut, None]
        wide = np.rint(unit, out=unit).astype(np.float64)
        first, last = int(group[cut][0]), int(group[cut][-1]) + 1
        begin = np.searchsorted(group[cut], np.arange(first, last + 1))
        rows = sparse.csr_matrix(
            (share[cut], np.arange(len(wide)), begin), shape=(last - first, len(wide))
        )
        summed[first:last] += np.asarray(rows @ wide)
    summed *= GRID
    return summed


def weighted_means(
    vectors: NDArray[np.float32], weight: Floats, group: NDArray[np.int64], count: int
) -> Floats:
    """Return Σ w x / Σ w of each group and dimension, up to a factor of the group's own.

    vectors (n, d), finite; weight (n, d) or (n, 1), finite and above 0; group (n,) ascends. Returns
    (count, d) float64, 0 if a group is empty. Both sums are exact, of values rounded to multiples
    of GRID: before that, a group's components and its weights in each dimension are scaled so that
    their largest is 1, the weights also by a power of two near 1 / n.

    >>> vectors, weight = np.float32([[1, 0], [0, 1]]), np.array([[1.0], [3.0]])
    >>> weighted_means(vectors, weight, np.array([0, 0]), 1)
    array([[0.125, 0.375]])
    """
    means = np.zeros((count, vectors.shape[1]))
    begin = np.searchsorted(group, np.arange(count + 1))
    first = 0
    while first < count:
        # Whole groups of about ROWS_AT_ONCE rows together, at least one group.
        last = max(
            first + 1, int(np.searchsorted(begin, begin[first] + ROWS_AT_ONCE, side="right")) - 1
        )
        rows, size = slice(begin[first], begin[last]), np.diff(begin[first : last + 1])
        some = size > 0
        if some.any():
            means[first:last][some] = _means_of_whole_groups(
                vectors[rows], weight[rows], size[some]
            )
        first = last
    return means


def _means_of_whole_groups(
    vectors: NDArray[np.float32], weight: Floats, size: NDArray[np.int64]
) -> Floats:
    """Return `weighted_means` of groups whose rows follow each other, `size` ≥ 1 rows each."""
    starts, own = np.cumsum(size) - size, np.repeat(np.arange(len(size)), size)
    x = vectors.astype(np.float64)
    w = weight / np.maximum.reduceat(weight, starts)[own]
    # Sums of multiples of GRID² are exact up to 2⁵³ of them, that is up to 2. So components are
    # scaled below 1, and the n weights of a group to 1 / n at most, by powers of two. The weights'
    # scale cancels in Σ w x / Σ w; that of the components stays.
    _, exponent = np.frexp(np.maximum.reduceat(np.abs(x).max(axis=1), starts))
    _, halvings = np.frexp(size - 1)
    x, w = np.ldexp(x, -exponent[own, None]), np.ldexp(w, -halvings[own, None])
    x, w = (np.rint(each / GRID) * GRID for each in (x, w))
    add = sparse.csr_matrix(
        (np.ones(len(own)), (own, np.arange(len(own)))), shape=(len(size), len(own))
    )
    above, below = (np.asarray(add @ each) for each in (w * x, w))
    return np.asarray(above / below)
