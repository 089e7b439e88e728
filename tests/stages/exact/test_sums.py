"""Sums: weighted ones exact and in no order, others in one order; against fractions and
math.fsum."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.exact import sums, vectors
from stages.exact.grid import GRID

properties = settings(deadline=None, max_examples=40)


def fused(x: np.ndarray, group: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    share = sums.shares(group, weight, count)
    return sums.weighted(x, vectors.inverse_lengths(vectors.lengths(x)), group, share, count)


def material(seed: int, rows: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, 9)) * 10.0 ** rng.uniform(-3, 3, (rows, 1))).astype(np.float32)
    return (
        x,
        np.sort(rng.integers(0, count, rows)),
        rng.random(rows) ** 8 * 10.0 ** rng.uniform(-200, 200),
    )


@properties
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 3000))
def test_no_order_of_the_members_changes_a_bit_of_a_weighted_sum(seed: int, rows: int) -> None:
    x, group, weight = material(seed, rows, 4)
    order = np.random.default_rng(seed).permutation(rows)
    order = order[np.argsort(group[order], kind="stable")]
    np.testing.assert_array_equal(
        fused(x[order], group[order], weight[order], 4), fused(x, group, weight, 4)
    )


def test_a_weighted_sum_is_exact() -> None:
    x, group, weight = material(0, 40, 3)
    share = sums.shares(group, weight, 3)
    found = fused(x, group, weight, 3)
    steps = np.rint(
        x * (vectors.inverse_lengths(vectors.lengths(x)) / GRID).astype(np.float32)[:, None]
    )
    for g in range(3):
        parts = [
            [Fraction(float(w)) * Fraction(float(v)) for v in row]
            for w, row in zip(share, steps, strict=True)
        ]
        exact = [
            sum(parts[i][d] for i in np.flatnonzero(group == g)) * Fraction(GRID) for d in range(9)
        ]
        assert found[g].tolist() == [float(value) for value in exact]


def test_a_weighted_sum_has_the_direction_of_the_float64_one() -> None:
    x, group, _ = material(1, 3000, 3)
    weight = np.random.default_rng(1).random(3000)
    found = fused(x, group, weight, 3)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    for g in range(3):
        expected = (unit * weight[:, None])[group == g].sum(axis=0)
        cosine = found[g] @ expected / np.linalg.norm(found[g]) / np.linalg.norm(expected)
        assert cosine == pytest.approx(1, abs=1e-10)


@properties
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 200))
def test_shares_are_multiples_of_the_grid_that_sum_to_between_a_half_and_one(
    seed: int, rows: int
) -> None:
    _, group, weight = material(seed, rows, 3)
    share = sums.shares(group, weight, 3)
    assert ((share / GRID) % 1 == 0).all()
    for g in set(group.tolist()):
        assert 0.5 - 1e-6 <= share[group == g].sum() <= 1 + 1e-6
        own, given_weight = share[group == g], weight[group == g]
        # Every share may be off by a rounding, and so may the sum, by as many as it has terms.
        off = np.abs(own / own.sum() - given_weight / given_weight.sum())
        assert off.max() <= 2 * (1 + len(own)) * GRID


def test_weights_that_all_vanish_stay_0() -> None:
    assert sums.shares(np.array([0, 0, 1]), np.array([0.0, 0.0, 2.0]), 2).tolist() == [0, 0, 0.5]


@properties
@given(st.lists(st.floats(-1e6, 1e6), max_size=70))
def test_a_total_is_near_the_exact_sum(values: list[float]) -> None:
    found = float(sums.total(np.array(values)))
    assert found == pytest.approx(math.fsum(values), abs=1e-9 * (1 + sum(map(abs, values))))


def test_a_total_takes_halves() -> None:
    # 1e16 + 1 is 1e16: which additions are made decides the result.
    assert sums.total(np.array([1e16, 1.0, -1e16, 1.0])) == 2.0  # (1e16 − 1e16) + (1 + 1)
    assert sums.total(np.array([1e16, 1.0, 1.0, -1e16, 7.0])) == ((1e16 - 1e16) + 1.0) + (1.0 + 7.0)
    assert sums.total(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).tolist() == [6, 15]
    assert sums.total(np.empty((2, 0))).tolist() == [0, 0]


@properties
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_mean_deviation_and_sums_of_groups_do_not_depend_on_order(
    values: list[float], seed: int
) -> None:
    given, rng = np.array(values), np.random.default_rng(seed)
    group, order = rng.integers(0, 3, len(given)), rng.permutation(len(given))
    assert sums.mean(given[order]) == sums.mean(given)
    assert sums.deviation(given[order]) == sums.deviation(given)
    np.testing.assert_array_equal(
        sums.by_group(group[order], given[order], 3), sums.by_group(group, given, 3)
    )
    assert sums.mean(given) == pytest.approx(given.mean(), abs=1e-6)
    assert sums.deviation(given) == pytest.approx(given.std(), abs=1e-6)
    expected = [given[group == g].sum() for g in range(3)]
    assert sums.by_group(group, given, 3) == pytest.approx(expected, abs=1e-6)


@properties
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 60), one=st.booleans())
def test_weighted_means_are_right_and_in_no_order(seed: int, rows: int, one: bool) -> None:
    x, group, _ = material(seed, rows, 4)
    rng = np.random.default_rng(seed)
    weight = 10.0 ** rng.uniform(-4, 4, (rows, 1 if one else 9))
    found = sums.weighted_means(x, weight, group, 5)
    order = rng.permutation(rows)
    order = order[np.argsort(group[order], kind="stable")]
    np.testing.assert_array_equal(
        sums.weighted_means(x[order], weight[order], group[order], 5), found
    )
    for g in range(5):
        own = group == g
        if not own.any():
            assert not found[g].any()
            continue
        expected = (x[own] * weight[own]).sum(axis=0) / (np.ones((1, 9)) * weight[own]).sum(axis=0)
        scale = np.abs(x[own]).max()
        _, shift = np.frexp(np.float64(scale))
        np.testing.assert_allclose(np.ldexp(found[g], shift), expected, atol=rows * 1e-6 * scale)


def test_lengths_are_those_of_float64() -> None:
    x = np.random.default_rng(0).standard_normal((700, 513)).astype(np.float32)
    np.testing.assert_allclose(
        vectors.lengths(x), np.linalg.norm(x.astype(np.float64), axis=1), rtol=1e-15
    )


@pytest.mark.parametrize("size", [1e-38, 1e-32, 1e-20, 1e30])
def test_a_weighted_sum_of_very_short_or_long_vectors_is_that_of_their_directions(
    size: float,
) -> None:
    x, group, _ = material(2, 30, 2)
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    weight = np.random.default_rng(2).random(30)
    np.testing.assert_allclose(
        fused((unit * np.float32(size)).astype(np.float32), group, weight, 2),
        fused(unit, group, weight, 2),
        atol=1e-6,
    )
