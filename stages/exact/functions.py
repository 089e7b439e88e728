"""exp, log and arccos of the same bits everywhere.

They are made of basic operations alone, each one call of NumPy, which rounds it as IEEE 754 says;
those of a mathematical library differ in the last bit from machine to machine. Errors are a few
1e-16, relative to the result or, of arccos, to π.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LN2 = 0.6931471805599453
# the first 32 bits of ln 2, so that its product with a small whole number is exact
_LN2_HIGH = 0.693147180369123816490
_LN2_LOW = 1.90821492927058770002e-10
_ROOT2 = 1.4142135623730951
_EXP = [1 / factorial(n) for n in range(14, -1, -1)]
_ARTANH = [1 / (2 * n + 1) for n in range(10, -1, -1)]  # of x² ≤ 0.0295
# of x² ≤ 1/4
_ARCSIN = [factorial(2 * n) / (4**n * factorial(n) ** 2 * (2 * n + 1)) for n in range(25, -1, -1)]


def exp(values: ArrayLike) -> Floats:
    """Return e^x, float64 in the shape given; 0 and inf if it leaves the range, nan for nan.

    >>> exp([0.0, -1000.0])
    array([1., 0.])
    """
    x = np.asarray(values, np.float64)
    near = np.clip(x, -746, 710)  # beyond, e^x is 0 or inf in float64
    # e^x = 2^k · e^r with |r| ≤ ½ ln 2, where a Taylor polynomial of 15 terms is precise enough.
    # k ln 2 is taken off in two parts (Cody and Waite 1980), so that r loses no digits.
    power = np.rint(near / LN2)
    rest = (near - power * _LN2_HIGH) - power * _LN2_LOW
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        whole = np.nan_to_num(power).astype(np.int32)
        return np.asarray(np.ldexp(_polynomial(_EXP, rest), whole))


def log(values: ArrayLike) -> Floats:
    """Return ln x, float64 in the shape given; −inf at 0, nan below and for nan.

    >>> log([1.0, 0.0])
    array([  0., -inf])
    """
    x = np.asarray(values, np.float64)
    # ln x = k ln 2 + ln m with m in [√½, √2), where the series of artanh converges fast.
    part, power = np.frexp(x)
    small = part < _ROOT2 / 2
    part, power = np.where(small, 2 * part, part), np.where(small, power - 1, power)
    known = (x > 0) & np.isfinite(x)
    y = np.where(known, part, 1.0) - 1  # exact
    whole = np.where(known, power, 0).astype(np.float64)
    found = whole * _LN2_HIGH + (_log1p_near(y) + whole * _LN2_LOW)
    return np.where(known, found, np.where(x == 0, -np.inf, np.where(x == np.inf, np.inf, np.nan)))


def log1p(values: ArrayLike) -> Floats:
    """Return ln(1 + x), float64 in the shape given, precise for small x.

    It is −inf at −1, and nan below −1 and for nan.

    >>> float(log1p(1e-20))
    1e-20
    """
    x = np.asarray(values, np.float64)
    near = np.abs(x) < 0.25
    return np.where(near, _log1p_near(np.where(near, x, 0)), log(1 + np.where(near, 0, x)))


def power(base: ArrayLike, exponent: float) -> Floats:
    """Return x^p, float64 in the shape given, for x ≥ 0 and p > 0.

    The error grows with |p ln x|.

    >>> power([0.0, 4.0], 0.5).round(12)
    array([0., 2.])
    """
    return exp(exponent * log(base))


def arccos(values: ArrayLike) -> Floats:
    """Return arccos x in [0, π], float64 in the shape given; nan outside [−1, 1].

    >>> arccos([1.0, -1.0]).round(12)
    array([0.        , 3.14159265])
    """
    x = np.asarray(values, np.float64)
    # Near ±1 arccos x = 2 arcsin √((1 − |x|) / 2), so that the series is used up to ½ only.
    size = np.abs(x)
    outer = size > 0.5
    with np.errstate(invalid="ignore"):
        half = np.sqrt((1 - size) / 2)
    arcsin = _arcsin_near(np.where(outer, half, x))
    return np.where(outer, np.where(x < 0, np.pi - 2 * arcsin, 2 * arcsin), np.pi / 2 - arcsin)


def _arcsin_near(x: Floats) -> Floats:
    """Return arcsin x for |x| ≤ ½, by its power series."""
    return np.asarray(x * _polynomial(_ARCSIN, x * x))


def _log1p_near(x: Floats) -> Floats:
    """Return ln(1 + x) for x from about −0.3 to 0.42, as 2 artanh(x / (2 + x))."""
    s = x / (2 + x)
    return np.asarray(2 * s * _polynomial(_ARTANH, s * s))


def _polynomial(coefficients: list[float], x: Floats) -> Floats:
    """Return the polynomial of these coefficients, the highest first, by Horner's rule."""
    found = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        found *= x
        found += coefficient
    return found
