"""The threshold at which the common IJB 1:1 scripts read their numbers, for comparison.

    fpr, tpr, _ = sklearn.metrics.roc_curve(label, score)      # drops points, as drop_intermediate
                                                               is its default
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    _, index = min(list(zip(abs(fpr - target), range(len(fpr)))))

A point of the ROC is kept if the counts do not rise by the same steps before it and after it;
the first, the last and (0, 0) always are. Of the kept points the one whose FMR is nearest the
target is taken, of equally near ones the lowest threshold. So FMR may lie further from the target
than that of a point which was dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
WINDOW = 1 << 12  # non-mated scores looked at on either side of the target, at first


def script_threshold(genuine: Scores, impostor: Scores, target: float) -> float:
    """The threshold for one FMR target; both lists ascend, and `impostor` is not empty.

    Both are of one dtype.

    >>> script_threshold(np.array([0.3, 0.7, 0.8]), np.array([0.1, 0.2, 0.4, 0.6]), target=0.25)
    0.3
    """
    size, width = impostor.size, WINDOW
    middle = size - int(target * size)
    while True:
        low, high = max(0, middle - width), min(size, middle + width)
        found, sure = _nearest_kept(genuine, impostor, target, (low, high))
        if sure:
            return found
        width *= 16


def _nearest_kept(
    genuine: Scores, impostor: Scores, target: float, window: tuple[int, int]
) -> tuple[float, bool]:
    """The best kept point within a window of the non-mated scores, and whether none is better."""
    low, high = window
    least = impostor[low] if low else -np.inf
    most = impostor[high - 1] if high < impostor.size else np.inf
    ends = [
        (np.searchsorted(each, least), np.searchsorted(each, most, "right"))
        for each in (genuine, impostor)
    ]
    scores = np.unique(np.concatenate([genuine[slice(*ends[0])], impostor[slice(*ends[1])]]))
    counts = np.array([each.size - np.searchsorted(each, scores) for each in (impostor, genuine)])
    kept = np.ones(scores.size, bool)
    kept[1:-1] = (np.diff(counts, 2) != 0).any(axis=0)
    # The last point is (0, 0), which accepts nothing: +inf. Of equals the first is taken, the
    # lowest threshold.
    beyond = np.append(counts[0], 0) / impostor.size - target
    kept[[0, -1]] = [not low, high == impostor.size]
    distance = np.where(np.append(kept, True), np.abs(beyond), np.inf)
    best = int(np.argmin(distance))
    # What lies outside the window is no nearer than its ends, if the target lies between these.
    outside = min(beyond[0] if low else np.inf, -beyond[-2] if high < impostor.size else np.inf)
    return float(scores[best]) if best < scores.size else float("inf"), bool(
        distance[best] < outside
    )
