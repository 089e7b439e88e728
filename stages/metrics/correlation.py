"""Do two quality methods order the same faces in the same way?

Conventions
    Direction   higher = better, and only the order counts: a monotone change of a quality changes
                no rank correlation.
    Ties        equal qualities share the mean of their ranks (Spearman); Kendall's coefficient is
                tau-b.
    No quality  nan. A pair of qualities is correlated over the rows that have both, so the entries
                of one matrix may be over different rows; infinities are ranked as what they are.
    Undefined   nan: fewer than two such rows, or a quality that is constant over them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stages.exact.sums import dot, mean

Floats = NDArray[np.float64]


def rank_correlation(
    qualities: ArrayLike, kind: Literal["spearman", "kendall"] = "spearman"
) -> Floats:
    """Return how far each two of M qualities agree on the order of n faces: (M, M) in [−1, 1].

    qualities (M, n) float, nan if there is none. `spearman` is Pearson's coefficient of the
    ranks (Spearman 1904), `kendall` is tau-b (Kendall 1945). Raises ValueError for another shape or
    kind.

    >>> rank_correlation([[0.1, 0.5, 0.9], [3, 2, 1]])
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    table = np.asarray(qualities, np.float64)
    if table.ndim != 2:
        raise ValueError(f"qualities must be (methods, faces), found the shape {table.shape}.")
    if kind not in ("spearman", "kendall"):
        raise ValueError(f"kind must be 'spearman' or 'kendall', found {kind!r}.")
    known = ~np.isnan(table)
    if kind == "spearman":
        own = [stats.rankdata(row[there]) for row, there in zip(table, known, strict=True)]
    else:
        own = []
    found = np.full((len(table), len(table)), np.nan)
    for i in range(len(table)):
        for j in range(i + 1):
            both = known[i] & known[j]
            if kind == "kendall":
                value = _kendall(table[i, both], table[j, both])
            else:
                value = _pearson(*(_ranks_of_part(table[k, both], own[k]) for k in (i, j)))
            found[i, j] = found[j, i] = value
    return found


def _ranks_of_part(part: Floats, own: Floats) -> Floats:
    """Return the ranks of some of a quality's values.

    `own` are the ranks of all of them, which serve if the part is all.
    """
    return own if len(part) == len(own) else np.asarray(stats.rankdata(part), np.float64)


def _pearson(a: Floats, b: Floats) -> float:
    """Return the correlation of two lists of ranks; nan if one is constant."""
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    a, b = a - mean(a), b - mean(b)
    return float(np.clip(dot(a, b) / np.sqrt(dot(a, a) * dot(b, b)), -1, 1))


def _kendall(a: Floats, b: Floats) -> float:
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    found: Any = stats.kendalltau(a, b, variant="b")
    return float(np.clip(found.statistic, -1, 1))
