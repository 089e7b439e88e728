"""Of boxes that share much, the one with the best score stays: against a loop over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.detectors.suppression import best_apart


def by_pairs(corners: np.ndarray, score: np.ndarray, most: float, of_smaller: bool) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(score)), key=lambda i: -score[i]):
        for j in kept:
            (a, b, c, d), (e, f, g, h) = corners[i], corners[j]
            shared = max(min(c, g) - max(a, e), 0) * max(min(d, h) - max(b, f), 0)
            areas = (c - a) * (d - b), (g - e) * (h - f)
            if shared > most * (min(areas) if of_smaller else sum(areas) - shared):
                break
        else:
            kept.append(i)
    return kept


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    most=st.floats(0, 1),
    of_smaller=st.booleans(),
)
def test_the_best_stay(seed: int, count: int, most: float, of_smaller: bool) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 40, (count, 2))
    corners = np.concatenate([low, low + rng.integers(1, 40, (count, 2))], axis=1).astype(float)
    score = rng.integers(0, 10, count) / 10  # some are equal
    found = best_apart(corners, score, most, of_smaller)
    assert found.tolist() == by_pairs(corners, score, most, of_smaller)


@pytest.mark.parametrize(("of_smaller", "stay"), [(False, [0, 1]), (True, [0])])
def test_a_small_box_within_a_large_one_shares_little_of_both_and_all_of_itself(
    of_smaller: bool, stay: list[int]
) -> None:
    corners = np.array([[0.0, 0, 10, 10], [2, 2, 4, 4]])
    assert best_apart(corners, np.array([0.9, 0.8]), 0.3, of_smaller).tolist() == stay
