"""suppression: of boxes that share much, the one with the best score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def best_apart(
    corners: NDArray[np.floating[Any]],
    score: NDArray[np.floating[Any]],
    most: float,
    of_smaller: bool = False,
) -> NDArray[np.intp]:
    """Return the indices of the boxes that stay, best score first; of equal scores the earlier.

    corners (n, 4): left, top, right, bottom; score (n,). A box goes if it shares more than `most`
    (0…1) with a better one that stays: the intersection over the union or, `of_smaller`, over the
    smaller of the two. Takes as many steps as boxes stay.
    """
    low, high = corners[:, :2], corners[:, 2:]
    area = np.prod(np.maximum(high - low, 0), axis=1)
    left = np.argsort(-score, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[left]) - np.maximum(low[best], low[left])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        whole = area[best] + area[left] - shared
        if of_smaller:
            whole = np.minimum(area[best], area[left])
        left = left[shared <= most * whole]
    return np.array(kept, np.intp)
