"""Pairs of subjects behind false matches, and two halves of the subjects.

Conventions
    Halves    a subject is in the second half if the SHA-256 digest of "half:" and its name, in
              UTF-8, begins with a byte of 128 or more. So the half of a subject depends on its name
              alone: it is the same in every run, data set and list, and the halves are of equal
              size but for chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.metrics.verification import Counts

# of the subjects: one to choose parameters on, the other to report
Half = Literal["all", "choose", "report"]


def subject_pairs(
    scores: ArrayLike, subject_a: ArrayLike, subject_b: ArrayLike, thresholds: ArrayLike
) -> Counts:
    """How many distinct unordered pairs of subjects have a comparison with ``score >= threshold``.

    scores (N,) float; subject_a, subject_b (N,) int, not negative; thresholds (T,), each of them a
    score or +inf. Returns (T,) int64, -1 for a nan threshold. Memory grows with what the lowest
    threshold accepts.

    >>> subject_pairs([0.9, 0.8, 0.7], [0, 1, 2], [1, 0, 3], [0.8, 0.7])
    array([1, 2])
    """
    score, limits = np.asarray(scores), np.asarray(thresholds, np.float64)
    out = np.full(limits.shape, -1, np.int64)
    known = np.argsort(limits, kind="stable")[: int((~np.isnan(limits)).sum())]
    if not known.size:
        return out
    # a float64 limit would widen every score
    kept = np.flatnonzero(score >= limits[known[0]].astype(score.dtype))
    score = score[kept]
    a, b = (np.asarray(each)[kept].astype(np.int64) for each in (subject_a, subject_b))
    # one number for each unordered pair: the larger subject, then the smaller, as two digits
    base = 1 + max(int(a.max(initial=0)), int(b.max(initial=0)))
    pair = np.maximum(a, b) * base + np.minimum(a, b)
    for i in known:  # rising, so each threshold leaves a part of what the one before has left
        above = score >= limits[i].astype(score.dtype)
        score, pair = score[above], pair[above]
        ordered = np.sort(pair)
        out[i] = int(np.count_nonzero(ordered[1:] != ordered[:-1])) + min(1, ordered.size)
    return out


def in_second_half(names: Iterable[str]) -> NDArray[np.bool_]:
    """Whether each subject is in the second half, by its name: (n,) bool.

    >>> in_second_half(["Ada", "Grace", "Mary"])
    array([ True,  True, False])
    """
    return np.array([sha256(f"half:{name}".encode()).digest()[0] >= 128 for name in names], bool)
