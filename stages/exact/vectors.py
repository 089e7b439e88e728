"""Lengths and directions of embeddings.

Conventions
    Unit rows   (n, d) float32, every component a multiple of GRID, of length 1 to within √d · GRID:
                what products take.
    No direction   a row of length 0, or with a component that is not finite, becomes a row of
                zeros, which is 0 in every product; nan is not so in all of them. Who asks for unit
                rows says elsewhere which ones failed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.exact.grid import NUMBERS_AT_ONCE, rounded
from stages.exact.sums import total

Vectors = NDArray[np.float32] | NDArray[np.float64]
UnitRows = NDArray[np.float32]
Floats = NDArray[np.float64]


def lengths(vectors: Vectors) -> Floats:
    """Return the Euclidean length of each row of (n, d), (n,) float64; nan if a component is.

    Squares are taken in float64, which holds those of float32 numbers exactly, and summed by
    `sums.total`.

    >>> lengths(np.float32([[3, 4], [0, 0]]))
    array([5., 0.])
    """
    found = np.empty(len(vectors))
    step = max(1, NUMBERS_AT_ONCE // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step].astype(np.float64)
        part *= part
        found[start : start + step] = np.sqrt(total(part))
    return found


def inverse_lengths(length: Floats) -> Floats:
    """Return 1 / length, (n,) float64, and 0 for a row without a direction.

    >>> inverse_lengths(np.array([2.0, 0.0, np.nan]))
    array([0.5, 0. , 0. ])
    """
    known = np.isfinite(length) & (length > 0)
    return np.divide(1.0, length, out=np.zeros(len(length)), where=known)


def units(vectors: Vectors, usable: NDArray[np.bool_] | None = None) -> UnitRows:
    """Return the unit rows of vectors (n, d); those that are not `usable` (n,) bool are zeros.

    A component differs from that of vector / ‖vector‖ by at most GRID / 2 and a rounding to
    float32.

    >>> units(np.float32([[3, 0], [0, np.nan]]))
    array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    scale = inverse_lengths(lengths(vectors))
    if usable is not None:
        scale[~usable] = 0
    unit = np.empty(vectors.shape, np.float32)
    step = max(1, NUMBERS_AT_ONCE // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        cut = slice(start, start + step)
        with np.errstate(invalid="ignore"):  # 0 · inf, of a row that becomes zeros
            np.multiply(vectors[cut], scale[cut, None], out=unit[cut], casting="same_kind")
    unit[scale == 0] = 0  # 0 · nan is nan
    return rounded(unit)
