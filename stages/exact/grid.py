"""The grid on which sums of products are exact.

A component of a unit row is a multiple of GRID = 2⁻²⁶. So a product of two is a multiple of 2⁻⁵²,
and a partial sum of the dot product of two unit rows is at most 1 (Cauchy and Schwarz), give or
take the rounding to the grid: fewer than 2⁵³ steps of 2⁻⁵². float64 holds each of them, so that no
order of summation, width of a vector unit or fused multiplication changes a bit. The same holds for
Σ w x if the weights are multiples of GRID that sum to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = 2.0**-26
NUMBERS_AT_ONCE = 1 << 17  # numbers that are widened at once: few enough to stay in the cache


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round components of unit rows to multiples of GRID, in place; −0 becomes 0.

    >>> rounded(np.float32([1e-9, 0.5]))
    array([0. , 0.5], dtype=float32)
    """
    values *= np.float32(1 / GRID)  # a power of two: nothing is lost
    np.rint(values, out=values)
    values *= np.float32(GRID)
    values += np.float32(0)
    return values
