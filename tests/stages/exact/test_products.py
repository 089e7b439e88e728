"""Products of unit rows: exact against whole-number arithmetic, whatever the order, and the bound
of faster ones.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.exact import products, vectors
from stages.exact.grid import GRID

properties = settings(deadline=None, max_examples=40)


def drawn(rows: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, width)) * 10.0 ** rng.uniform(-6, 6, (rows, 1))).astype(
        np.float32
    )


def in_fractions(a: np.ndarray, b: np.ndarray) -> Fraction:
    return sum(
        (Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0)
    )


@properties
@given(seed=st.integers(0, 10**6), width=st.integers(1, 700))
def test_a_cosine_is_the_exact_product_of_its_unit_rows(seed: int, width: int) -> None:
    unit = vectors.units(drawn(4, width, seed))
    exact = [[in_fractions(a, b) for b in unit] for a in unit]
    assert products.cosines(unit, unit).tolist() == exact
    assert products.paired(unit, unit[::-1]).tolist() == [exact[i][3 - i] for i in range(4)]


@properties
@given(seed=st.integers(0, 10**6), width=st.integers(2, 600))
def test_no_order_of_the_dimensions_changes_a_bit(seed: int, width: int) -> None:
    unit, order = (
        vectors.units(drawn(5, width, seed)),
        np.random.default_rng(seed).permutation(width),
    )
    np.testing.assert_array_equal(
        products.cosines(unit[:, order], unit[:, order]), products.cosines(unit, unit)
    )


def test_equal_rows_have_equal_cosines_and_the_sides_may_be_swapped() -> None:
    unit = vectors.units(
        np.concatenate([np.repeat(drawn(1, 512, 1), 9, axis=0), drawn(300, 512, 2)])
    )
    found = products.cosines(unit, unit)
    assert (found[:9] == found[0]).all()
    np.testing.assert_array_equal(found, found.T)


def test_unit_rows_are_on_the_grid_and_near_the_vector() -> None:
    given = drawn(200, 512, 3)
    unit = vectors.units(given).astype(np.float64)
    assert ((unit / GRID) % 1 == 0).all()
    wide = given.astype(np.float64)
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    assert np.abs(unit - expected).max() <= GRID / 2 + 2.0**-25 * np.abs(expected).max()


def test_scores_are_within_1e_7_of_the_float64_cosine_of_the_vectors() -> None:
    given = drawn(300, 512, 4)
    wide = given.astype(np.float64)
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    unit = vectors.units(given)
    apart = np.abs(products.to_scores(products.cosines(unit, unit)) - expected @ expected.T)
    assert apart.max() < 1e-7


@pytest.mark.parametrize("width", [3, 500, 512, 1000, 4043])
@pytest.mark.parametrize("scale", [1e-38, 1e-32, 1.0, 3e38])
def test_vectors_that_all_round_one_way_stay_within_the_bound_and_minus_1_and_1(
    width: int, scale: float
) -> None:
    unit = vectors.units(np.float32([[scale] * width, [-scale] * width]))
    score = products.to_scores(products.cosines(unit, unit))
    assert np.abs(score - [[1, -1], [-1, 1]]).max() <= width**0.5 * 2.0**-26 + 2.0**-23 + 2.0**-25
    assert np.abs(score).max() <= 1


def test_a_row_without_direction_is_zeros_and_scores_0() -> None:
    given = np.float32([[0, 0], [np.nan, 1], [np.inf, 1], [3, 4], [3, 4]])
    unit = vectors.units(given, np.array([True, True, True, True, False]))
    assert not unit[[0, 1, 2, 4]].any()
    assert not np.signbit(unit[[0, 1, 2, 4]]).any()
    assert products.cosines(unit, unit)[3].tolist() == pytest.approx([0, 0, 0, 1, 0], abs=1e-7)


def test_a_score_of_0_has_no_sign() -> None:
    assert not np.signbit(products.to_scores(np.array([-0.0, 0.0, -1e-60]))).any()


@pytest.mark.parametrize("width", [1, 7, 512, 4096])
@pytest.mark.parametrize("kind", ["alike", "any", "opposed"])
def test_a_float32_product_is_within_the_doubt(width: int, kind: str) -> None:
    given = np.abs(drawn(60, width, 5)) if kind == "alike" else drawn(60, width, 5)
    unit = vectors.units(np.concatenate([given, -given]) if kind == "opposed" else given)
    exact = products.to_scores(products.cosines(unit, unit))
    one_by_one = np.zeros(exact.shape, np.float32)  # the worst order: every sum is rounded
    for column in unit.T:
        one_by_one += np.outer(column, column)
    for found in (unit @ unit.T, one_by_one):
        assert np.abs(found.astype(np.float64) - exact).max() <= products.doubt(width)


@pytest.mark.parametrize("width", [7, 512])
def test_a_bfloat16_product_is_within_the_doubt(width: int) -> None:
    import torch

    unit = vectors.units(np.abs(drawn(80, width, 6)))
    half = torch.from_numpy(unit).to(torch.bfloat16)
    apart = (half @ half.T).double().numpy() - products.to_scores(products.cosines(unit, unit))
    assert np.abs(apart).max() <= products.doubt(width, products.BFLOAT16) + products.BFLOAT16
