"""exp, log, log1p, power and arccos against numbers of 40 digits (mpmath), and at the ends of their
ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import mpmath
import numpy as np
import pytest

from stages.exact import functions

RNG = np.random.default_rng(0)
# Drawn by basic operations alone: a power of NumPy's would be another number on another machine.
SMALL = np.ldexp(0.5 + RNG.random(100), RNG.integers(-990, -3, 100))
CASES = {
    "exp": np.concatenate([RNG.uniform(-700, 700, 200), RNG.uniform(-1, 1, 200), SMALL, [0, 1]]),
    "log": np.concatenate(
        [
            np.ldexp(0.5 + RNG.random(200), RNG.integers(-990, 990, 200)),
            RNG.uniform(0.5, 2, 300),
            1 + RNG.uniform(-1e-6, 1e-6, 99),
        ]
    ),
    "log1p": np.concatenate([RNG.uniform(-0.999, 3, 300), SMALL, -SMALL]),
    "arccos": np.concatenate([RNG.uniform(-1, 1, 400), 1 - SMALL, [1, -1, 0, 0.5, -0.5]]),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_are_a_few_units_in_the_last_place(name: str) -> None:
    ours: Callable[..., np.ndarray] = getattr(functions, name)
    known = {"exp": mpmath.exp, "log": mpmath.log, "log1p": mpmath.log1p, "arccos": mpmath.acos}[
        name
    ]
    with mpmath.workdps(40):
        right = [known(mpmath.mpf(float(x))) for x in CASES[name]]
        errors = [
            abs(mpmath.mpf(float(y)) - r) for y, r in zip(ours(CASES[name]), right, strict=True)
        ]
        scale = [mpmath.pi if name == "arccos" else abs(r) + mpmath.mpf(1e-320) for r in right]
        assert max(e / s for e, s in zip(errors, scale, strict=True)) < 6e-16


def test_the_bits_are_those_that_were_recorded() -> None:
    """Computed once on a processor with AVX-512; a machine of another kind has to find the same."""
    found = [getattr(functions, name)(CASES[name]) for name in CASES]
    found.append(functions.power(RNG_BASE, 2.5))
    assert sha256(np.concatenate(found).tobytes()).hexdigest()[:16] == RECORDED


RNG_BASE = np.random.default_rng(1).random(300)
RECORDED = "491ab50d5bb5cbb7"


def test_what_lies_beyond_the_range_is_what_ieee_754_says() -> None:
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(
        functions.exp([nan, inf, -inf, -800, 800, 0]), [nan, inf, 0, 0, inf, 1]
    )
    np.testing.assert_array_equal(functions.log([0, -1, nan, inf, 1]), [-inf, nan, nan, inf, 0])
    np.testing.assert_array_equal(functions.log1p([-1, -2, nan, 0]), [-inf, nan, nan, 0])
    np.testing.assert_array_equal(functions.arccos([1.1, -1.1, nan, 1]), [nan, nan, nan, 0])
    np.testing.assert_array_equal(functions.power([0, 1, nan], 2.0), [0, 1, nan])
    assert functions.exp(5e-324) == 1
    assert functions.log(5e-324) == pytest.approx(-744.4400719213812)


def test_exp_keeps_the_order() -> None:
    x = np.sort(np.concatenate([RNG.uniform(-30, 0, 20_000), np.linspace(-1e-9, 0, 500)]))
    assert (np.diff(functions.exp(x)) >= 0).all()
