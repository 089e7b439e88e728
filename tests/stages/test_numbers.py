"""What `stages.numbers` promises of histograms and of the halves of the subjects."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.schema import Batch, text
from stages.metrics.subjects import in_second_half
from stages.numbers import histogram, number_half, number_subjects

EDGES = np.linspace(-1, 1, 101)
# On the edges, beside them by one float32, beyond the ends, and anywhere.
near_edges = st.tuples(st.sampled_from(EDGES.tolist()), st.sampled_from([-np.inf, 0, np.inf])).map(
    lambda at: float(np.float32(at[0]) if at[1] == 0 else np.nextafter(np.float32(at[0]), np.float32(at[1])))
)
cosines = st.lists(st.one_of(near_edges, st.floats(-1, 1, width=32)), max_size=30)


@settings(deadline=None, max_examples=50)
@given(cosines, st.sampled_from([np.float32, np.float64]))
def test_a_histogram_of_ascending_scores_is_numpys_with_what_is_beyond_in_the_end_bins(
    values: list[float], dtype: type
) -> None:
    scores = np.sort(np.array(values, dtype))
    name, x, y = histogram("h", scores, EDGES)
    expected = np.histogram(np.clip(scores.astype(np.float64), -1, 1), EDGES)[0] / max(1, len(values))
    assert name == "h"
    np.testing.assert_array_equal(x, EDGES[:-1])
    np.testing.assert_array_equal(y, expected)


def test_the_subjects_of_a_half_are_numbered_without_gaps_and_those_outside_it_not_at_all() -> None:
    names = [f"n{i % 7}" for i in range(20)] + ["", ""]
    templates = Batch({"subject": text(names)})
    second = in_second_half(names[:20])
    sizes = []
    for half, mine in (("choose", ~second), ("report", second)):
        number, count = number_half(templates, half)
        assert (number[:20] >= 0).tolist() == mine.tolist()
        assert sorted(set(number[number >= 0].tolist())) == list(range(count))
        sizes.append(count)
    assert sum(sizes) == number_subjects(templates)[1] == 9  # a template without a subject is in a half as well


def test_all_subjects_are_numbered_in_the_order_of_their_names() -> None:
    templates = Batch({"subject": text(["b", "a", "", "b"])})
    number, count = number_half(templates, "all")
    assert (number.tolist(), count) == (number_subjects(templates)[0].tolist(), 3)
