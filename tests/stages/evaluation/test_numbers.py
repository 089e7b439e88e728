"""What `stages.evaluation.numbers` promises of histograms and of the halves of the subjects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, text
from stages.evaluation.numbers import (
    Numbers,
    find_number,
    histogram_curve,
    number_half,
    number_subjects,
    score_edges,
)
from stages.metrics.subjects import in_second_half

EDGES = np.linspace(-1, 1, 101)
# On the edges, beside them by one float32, beyond the ends, and anywhere.
near_edges = st.tuples(st.sampled_from(EDGES.tolist()), st.sampled_from([-np.inf, 0, np.inf])).map(
    lambda at: float(
        np.float32(at[0]) if at[1] == 0 else np.nextafter(np.float32(at[0]), np.float32(at[1]))
    )
)
cosines = st.lists(st.one_of(near_edges, st.floats(-1, 1, width=32)), max_size=30)


@settings(deadline=None, max_examples=50)
@given(cosines, st.sampled_from([np.float32, np.float64]))
def test_a_histogram_of_ascending_scores_is_numpys_with_what_is_beyond_in_the_end_bins(
    values: list[float], dtype: type
) -> None:
    scores = np.sort(np.array(values, dtype))
    name, x, y = histogram_curve("h", scores, EDGES)
    expected = np.histogram(np.clip(scores.astype(np.float64), -1, 1), EDGES)[0] / max(
        1, len(values)
    )
    assert name == "h"
    np.testing.assert_array_equal(x, EDGES[:-1])
    np.testing.assert_array_equal(y, expected)


def test_the_subjects_of_a_half_are_numbered_without_gaps_and_those_outside_it_not_at_all() -> None:
    names = [f"n{i % 7}" for i in range(20)] + ["", ""]
    templates = Batch({"subject": text(names)})
    second = in_second_half(names[:20])
    sizes = 0
    for half, mine in (("choose", ~second), ("report", second)):
        number, count = number_half(templates, half)
        assert (number >= 0).tolist() == [
            *mine.tolist(),
            False,
            False,
        ]  # without a subject it is in neither half
        assert sorted(set(number[number >= 0].tolist())) == list(range(count))
        sizes += count
    assert (sizes, number_subjects(templates)[1]) == (7, 9)


def test_all_subjects_are_numbered_in_the_order_of_their_names() -> None:
    templates = Batch({"subject": text(["b", "a", "", "b"])})
    number, count = number_half(templates, "all")
    assert (number.tolist(), count) == (number_subjects(templates)[0].tolist(), 3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1, 1, width=32), max_size=5), st.sampled_from([0, 1]))
def test_histograms_of_cosines_have_the_same_edges_whatever_the_scores(
    values: list[float], ulp: int
) -> None:
    # rounding may push one past an end
    scores = np.sort(np.array(values, np.float32)) * np.float32(1 + ulp * 2e-7)
    np.testing.assert_array_equal(score_edges(scores, np.empty(0, np.float32)), EDGES)


@pytest.mark.parametrize(
    ("one", "other", "ends"),
    [
        ([-2.07], [0.5], (-3, 1)),
        ([], [-1.5, 4.2], (-2, 5)),
        ([0.1, 7.0], [], (-1, 7)),
        ([], [], (-1, 1)),
    ],
)
def test_edges_reach_to_the_whole_numbers_beyond_other_scores(
    one: list[float], other: list[float], ends: tuple[float, float]
) -> None:
    edges = score_edges(np.float32(one), np.float32(other))
    assert (edges[0], edges[-1], len(edges)) == (*ends, 101)


def test_a_number_is_found_at_its_own_target_however_small() -> None:
    numbers = Numbers(0, 0.95)
    for target in (1e-8, 1e-9):
        numbers.add("tar", target, target=target)
    assert find_number(numbers.batch(), "tar", 1e-9)["value"] == 1e-9
    with pytest.raises(KeyError, match="no number tar at 0"):
        find_number(numbers.batch(), "tar", 0.0)
