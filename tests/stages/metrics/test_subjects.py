"""What `stages.metrics.subjects` promises of pairs of subjects, and of halves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.metrics.subjects import in_second_half, subject_pairs

comparison = st.tuples(
    st.integers(-3, 3).map(lambda i: i / 4), st.integers(0, 4), st.integers(0, 4)
)
limits = st.lists(st.sampled_from([-0.75, -0.5, 0.0, 0.25, 0.75, math.inf, math.nan]), max_size=6)


@settings(deadline=None, max_examples=50)
@given(st.lists(comparison, max_size=20), limits, st.sampled_from([np.float32, np.float64]))
def test_pairs_equal_a_set_of_unordered_pairs(
    rows: list[tuple[float, int, int]], thresholds: list[float], dtype: type
) -> None:
    score, a, b = (np.array([row[i] for row in rows]) for i in range(3))
    found = subject_pairs(score.astype(dtype), a.astype(np.int32), b.astype(np.int64), thresholds)
    expected = [
        -1 if math.isnan(t) else len({frozenset(row[1:]) for row in rows if row[0] >= t})
        for t in thresholds
    ]
    assert found.tolist() == expected


def test_a_subjects_half_depends_on_its_name_alone() -> None:
    names = [f"subject {i}" for i in range(40)]
    half = in_second_half(names)
    assert in_second_half(names[::-1])[::-1].tolist() == half.tolist()
    # Of these names once and for all: whoever changes the rule moves subjects between halves that
    # parameters were chosen on.
    assert in_second_half(["a", "b", "c", "Ärmel", "sub"]).tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_halves_are_balanced_but_for_chance() -> None:
    share = in_second_half(f"s{i}" for i in range(4000)).mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
