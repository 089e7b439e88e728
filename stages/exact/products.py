"""Cosines of unit rows, as exact as float64, and what a faster product may be off by.

A cosine depends on its two rows and on nothing else; so equal rows have equal cosines, and cos(a,
b) = cos(b, a). A score differs from the vectors' cosine in float64 because their rows are rounded,
to float32 and to the grid, by about 4e-8 for most vectors and by at most √d · 2⁻²⁶ + 2⁻²³ (4.6e-7
at d = 512) for any; and because it is rounded to float32 itself, by 3e-8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AnyUnitRows = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]
FLOAT32, BFLOAT16 = 2.0**-24, 2.0**-8  # the largest relative error of rounding to the type


def wide(unit: AnyUnitRows) -> Floats:
    """Return unit rows in float64, as products take them.

    Widening once is worth it for rows that are multiplied often.
    """
    return unit.astype(np.float64, copy=False)


def cosines(a: AnyUnitRows, b: AnyUnitRows) -> Floats:
    """Return the exact cosines of unit rows a (…, m, d) with b (…, n, d), (…, m, n) float64.

    >>> cosines(np.float32([[1, 0], [0, 1]]), np.float32([[0, 1]]))
    array([[0.],
           [1.]])
    """
    return np.asarray(wide(a) @ wide(b).swapaxes(-1, -2))


def paired(a: AnyUnitRows, b: AnyUnitRows) -> Floats:
    """Return the exact cosine of each unit row of a (…, d) with the same row of b, (…) float64.

    The axes before the last broadcast.

    >>> paired(np.float32([[1, 0], [0, 1]]), np.float32([[0, 1], [0, 1]]))
    array([0., 1.])
    """
    return np.asarray(np.einsum("...d,...d->...", wide(a), wide(b)))


def to_scores(exact: Floats) -> NDArray[np.float32]:
    """Return cosines as scores: rounded once to float32 and clipped to [−1, 1]; −0 becomes 0.

    The sign of a zero sum depends on the order of summation, so it must not be kept.

    >>> to_scores(np.array([1 + 1e-9, -0.0]))
    array([1., 0.], dtype=float32)
    """
    score = exact.astype(np.float32)
    score += np.float32(0)
    return np.clip(score, -1, 1, out=score)


def doubt(dimension: int, unit: float = FLOAT32) -> float:
    """Return how far a fast product of unit rows, summed in float32, can be from the score.

    The rows are rounded to a type whose largest relative error is `unit`, u below. Rounding both
    rows moves a cosine by at most 2u + u² of |a| · |b|; a sum of d products in float32, in any
    order, by d · 2⁻²⁴ / (1 − d · 2⁻²⁴) of Σ |a b| ≤ 1 (Higham, “Accuracy and Stability of Numerical
    Algorithms”, 2002, eq. 3.5); rounding the score to float32 by 2⁻²⁴, and as much again is left
    for the caller's own subtraction. Lengths exceed 1 by less than √d · 2⁻²⁶; so |a| · |b| exceeds
    1, and a cosine exceeds the clipped score, by less than √d · 2⁻²⁴.
    """
    summed = dimension * FLOAT32 / (1 - dimension * FLOAT32)
    longer = dimension**0.5 * FLOAT32
    return float((2 * unit + unit**2 + summed) * (1 + longer) + longer + 2 * FLOAT32)
