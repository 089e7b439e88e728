"""Rank correlations against plain loops over faces and pairs."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.metrics.correlation import rank_correlation

properties = settings(deadline=None, max_examples=60)
# Few distinct values, so that most lists hold ties, and some that lack.
values = st.one_of(st.integers(-3, 3).map(float), st.just(math.nan))
tables = st.integers(0, 12).flatmap(
    lambda n: st.lists(st.lists(values, min_size=n, max_size=n), min_size=1, max_size=4).map(
        lambda rows: np.array(rows, float).reshape(len(rows), n)
    )
)


def paired(a: np.ndarray, b: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x == x and y == y]


def slow_spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's coefficient of ranks, a rank being how many are smaller and half of how many are
    equal.
    """
    pairs = paired(a, b)
    ranks = [
        [sum(v < x for v in side) + (sum(v == x for v in side) + 1) / 2 for x in side]
        for side in ([p[0] for p in pairs], [p[1] for p in pairs])
    ]
    if len(pairs) < 2 or any(len(set(side)) == 1 for side in ranks):
        return math.nan
    mean = (len(pairs) + 1) / 2
    x, y = ([r - mean for r in side] for side in ranks)
    return sum(p * q for p, q in zip(x, y, strict=True)) / math.sqrt(
        sum(p * p for p in x) * sum(q * q for q in y)
    )


def slow_kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b: (concordant − discordant) / √(pairs not tied in the one · pairs not tied in
    the other).
    """
    signs = [(np.sign(p[0] - q[0]), np.sign(p[1] - q[1])) for p, q in combinations(paired(a, b), 2)]
    one, other = sum(x != 0 for x, _ in signs), sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / math.sqrt(one * other) if one and other else math.nan


SLOW = {"spearman": slow_spearman, "kendall": slow_kendall}


@pytest.mark.parametrize("kind", SLOW)
@properties
@given(table=tables)
def test_a_correlation_is_that_of_the_faces_that_have_both_qualities(
    kind: Any, table: np.ndarray
) -> None:
    found = rank_correlation(table, kind)
    expected = [[SLOW[kind](a, b) for b in table] for a in table]
    assert found.shape == (len(table), len(table))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.array_equal(found, found.T, equal_nan=True)


@pytest.mark.parametrize("kind", SLOW)
@properties
@given(table=tables)
def test_only_the_order_counts(kind: Any, table: np.ndarray) -> None:
    np.testing.assert_array_equal(
        rank_correlation(np.exp(table), kind), rank_correlation(table, kind)
    )


@pytest.mark.parametrize(("kind", "value"), [("spearman", 0.8), ("kendall", 2 / 3)])
def test_two_neighbours_of_four_that_change_places(kind: Any, value: float) -> None:
    # By hand: Spearman 1 − 6·2 / (4·15) = 0.8; five of the six pairs agree and one does not, (5 −
    # 1) / 6.
    found = rank_correlation([[1, 2, 3, 4], [1, 3, 2, 4]], kind)
    np.testing.assert_allclose(found, [[1, value], [value, 1]], atol=1e-12)


@pytest.mark.parametrize("kind", SLOW)
def test_a_constant_quality_or_fewer_than_two_faces_in_common_have_no_correlation(
    kind: Any,
) -> None:
    found = rank_correlation([[1, 2, 3], [7, 7, 7], [math.nan, math.nan, 4]], kind)
    assert found[0, 0] == 1
    assert np.isnan(found[1:]).all()
    assert np.isnan(rank_correlation(np.empty((2, 0)), kind)).all()


@pytest.mark.parametrize("kind", SLOW)
def test_an_infinite_quality_is_the_best_or_the_worst(kind: Any) -> None:
    assert rank_correlation([[-math.inf, 0, math.inf], [1, 2, 3]], kind)[0, 1] == pytest.approx(1)


def test_another_shape_or_kind_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"qualities must be \(methods, faces\), found the shape \(3,\)"
    ):
        rank_correlation([1, 2, 3])
    with pytest.raises(ValueError, match="'spearman' or 'kendall', found 'pearson'"):
        rank_correlation([[1, 2]], "pearson")  # type: ignore[arg-type]
