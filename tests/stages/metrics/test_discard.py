"""What the error-versus-discard characteristic of `stages.metrics.discard`, and what it is held
against, promise.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.metrics.discard import (
    Curve,
    attainable,
    edc,
    fm_edc,
    fnm_edc,
    pair_oracle,
    pair_quality,
    perfect,
    random,
    sample_oracle,
    threshold_for,
)

properties = settings(deadline=None, max_examples=80)

# Few distinct values, so that most lists hold ties.
values = st.integers(-4, 4).map(lambda i: i / 8)
score_lists = st.lists(values, max_size=20)
comparisons = st.lists(st.tuples(st.booleans(), values), min_size=1, max_size=20)
rates = st.one_of(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), st.floats(0, 1))

# Six comparisons by hand: three runs of equal quality; errors are the first, the second and the
# last.
ERROR = [True, True, False, False, False, True]
QUALITY = [0.1, 0.5, 0.1, 0.5, 0.5, 0.9]


def slow_edc(listed: list[tuple[bool, float]]) -> list[tuple[float, float]]:
    """(share discarded, error of the rest) where all below each distinct quality are gone, and the
    end.
    """
    points = []
    for cut in sorted({q for _, q in listed}):
        rest = [wrong for wrong, q in listed if q >= cut]
        points.append((1 - len(rest) / len(listed), sum(rest) / len(rest)))
    return [*points, (1.0, 0.0)]


# Quality of a comparison


@pytest.mark.parametrize(
    ("how", "expected"), [("min", [0.25, 0.5]), ("mean", [0.5, 0.75]), ("product", [0.1875, 0.5])]
)
def test_a_comparison_has_the_quality_of_its_two_samples(how: str, expected: list[float]) -> None:
    assert pair_quality([0.25, 1.0], [0.75, 0.5], how).tolist() == expected  # type: ignore[arg-type]


def test_quality_in_float32_stays_so() -> None:
    assert pair_quality(np.ones(2, np.float32), np.ones(2, np.float32), "mean").dtype == np.float32


def test_a_product_of_negative_qualities_is_refused() -> None:
    with pytest.raises(ValueError, match="Calibrate"):
        pair_quality([0.5, -0.1], [0.5, 0.5], "product")
    with pytest.raises(ValueError, match="qualities of 0 or more, found -2"):
        pair_quality([-2, np.nan, 1], [0.5, 1, np.nan], "product")


def test_qualities_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="one quality a comparison"):
        pair_quality([0.5], [0.5, 0.5])


def test_an_unknown_way_to_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="min, mean, product"):
        pair_quality([0.5], [0.5], "max")  # type: ignore[arg-type]


# The curve


def test_runs_of_equal_quality_are_discarded_together() -> None:
    curve = edc(ERROR, QUALITY)
    assert curve.x.tolist() == [0, 2 / 6, 5 / 6, 1]
    assert curve.y.tolist() == [3 / 6, 2 / 4, 1, 0]


@properties
@given(listed=comparisons)
def test_the_curve_has_a_point_for_every_distinct_quality(listed: list[tuple[bool, float]]) -> None:
    curve = edc(*zip(*listed, strict=True))
    np.testing.assert_allclose(np.stack([curve.x, curve.y], 1), slow_edc(listed), atol=1e-12)


@properties
@given(listed=comparisons, seed=st.integers(0, 1000))
def test_the_curve_does_not_depend_on_the_order_of_the_list(
    listed: list[tuple[bool, float]], seed: int
) -> None:
    shuffled = [listed[i] for i in np.random.default_rng(seed).permutation(len(listed))]
    a, b = (edc(*zip(*each, strict=True)) for each in (listed, shuffled))
    assert (a.x.tolist(), a.y.tolist()) == (b.x.tolist(), b.y.tolist())


def test_constant_quality_discards_all_or_nothing() -> None:
    curve = edc([True, False, False, False], np.ones(4))
    assert (curve.x.tolist(), curve.y.tolist()) == ([0, 1], [0.25, 0])
    assert curve.area(0.2) == pytest.approx(random.area(0.25, 0.2))


def test_one_comparison_is_a_curve() -> None:
    curve = edc([True], [0.3])
    assert (curve.x.tolist(), curve.y.tolist()) == ([0, 1], [1, 0])


def test_no_comparisons_give_nan_and_say_why() -> None:
    curve = edc([], [])
    assert curve.reason == "no comparisons"
    assert math.isnan(curve.area(0.2))
    assert np.isnan(curve.at([0, 0.5])).all()


def test_a_defined_curve_gives_no_reason() -> None:
    assert edc(ERROR, QUALITY).reason == ""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_quality_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="quality must be finite"):
        edc([True, False], [0.1, bad])


def test_quality_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one entry a comparison"):
        edc([True], [0.1, 0.2])


def test_between_points_the_error_is_that_of_the_earlier() -> None:
    curve = Curve(np.array([0, 0.25, 1.0]), np.array([0.5, 0.125, 0.0]))
    assert curve.at([0, 0.24, 0.25, 0.9, 1]).tolist() == [0.5, 0.5, 0.125, 0.125, 0]


@pytest.mark.parametrize(
    ("limit", "area"), [(0, 0), (0.125, 0.0625), (0.25, 0.125), (0.5, 0.15625), (1, 0.21875)]
)
def test_the_area_is_the_sum_of_steps_up_to_the_limit(limit: float, area: float) -> None:
    assert Curve(np.array([0, 0.25, 1.0]), np.array([0.5, 0.125, 0.0])).area(limit) == area


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_shares_outside_the_curve_are_refused(bad: float) -> None:
    curve = edc(ERROR, QUALITY)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        curve.area(bad)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        curve.at([bad])


def test_among_others_the_share_is_that_of_the_whole_list() -> None:
    # The whole list holds two more, at .3 and .6; they move x and leave the error as it is.
    curve = edc([True, True, False], [0.1, 0.4, 0.5], among=[0.1, 0.3, 0.4, 0.5, 0.6])
    assert curve.x.tolist() == [0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1]
    assert curve.y.tolist() == [2 / 3, 1 / 2, 1 / 2, 0, 0, 0]


def test_a_whole_list_shorter_than_its_part_is_refused() -> None:
    with pytest.raises(ValueError, match="among"):
        edc([True, True], [0.1, 0.4], among=[0.1])


# Two kinds of error


def test_a_mated_comparison_at_the_threshold_is_no_error() -> None:
    assert fnm_edc([0.4, 0.5, 0.6, 0.3], [1, 2, 3, 4], 0.5).y.tolist() == [
        2 / 4,
        1 / 3,
        1 / 2,
        1,
        0,
    ]


def test_a_nonmated_comparison_at_the_threshold_is_an_error() -> None:
    assert fm_edc([0.4, 0.5, 0.6, 0.3], [1, 2, 3, 4], 0.5).y.tolist() == [2 / 4, 2 / 3, 1 / 2, 0, 0]


def test_a_threshold_between_two_float32_is_not_rounded_to_one() -> None:
    score = np.array([0.1], np.float32)
    above = float(np.nextafter(np.float64(score[0]), 1))
    assert fnm_edc(score, [1], above).y[0] == 1
    assert fm_edc(score, [1], above).y[0] == 0


@pytest.mark.parametrize("curve", [fnm_edc, fm_edc])
def test_without_a_threshold_the_curve_is_nan_and_says_why(curve: object) -> None:
    found = curve([0.5], [1], math.nan)  # type: ignore[operator]
    assert np.isnan(found.y).all()
    assert "threshold" in found.reason


# The threshold of the full set


@properties
@given(mated=score_lists, nonmated=score_lists.filter(len), target=rates)
def test_at_most_is_the_lowest_threshold_within_the_target(
    mated: list[float], nonmated: list[float], target: float
) -> None:
    tried = [
        t
        for t in {*mated, *nonmated, math.inf}
        if sum(s >= t for s in nonmated) / len(nonmated) <= target
    ]
    assert threshold_for(mated, nonmated, fmr=target) == min(tried)


def test_nearest_may_exceed_the_target() -> None:
    assert threshold_for([0.9], [0.1, 0.2, 0.3, 0.4], fmr=0.2, rule="nearest") == 0.4
    assert threshold_for([0.9], [0.1, 0.2, 0.3, 0.4], fmr=0.2, rule="at_most") == 0.9


@properties
@given(nonmated=score_lists.filter(len), target=rates)
def test_interpolated_is_the_linear_quantile_of_the_nonmated(
    nonmated: list[float], target: float
) -> None:
    found = threshold_for([], nonmated, fmr=target, rule="interpolated")
    assert found == pytest.approx(np.quantile(nonmated, 1 - target), abs=1e-12)


def test_an_interpolated_threshold_that_is_a_score_is_that_score_to_the_bit() -> None:
    # .29 x 100 is 28.999…6 in float64; the place is 29, counted from the best.
    nonmated = np.arange(101) - 71.0
    assert threshold_for([], nonmated, fmr=0.29, rule="interpolated") == 0


@properties
@given(mated=score_lists.filter(len), target=rates)
def test_a_starting_error_is_kept_by_the_highest_threshold_that_keeps_it(
    mated: list[float], target: float
) -> None:
    def fnmr(threshold: float) -> float:
        return sum(s < threshold for s in mated) / len(mated)

    found = threshold_for(mated, [], fnmr=target)
    assert fnmr(found) <= target
    assert found == math.inf or fnmr(np.nextafter(found, math.inf)) > target


def test_a_threshold_chosen_on_nothing_is_nan() -> None:
    assert math.isnan(threshold_for([0.5], [], fmr=0.1))
    assert math.isnan(threshold_for([0.5], [], fmr=0.1, rule="interpolated"))
    assert math.isnan(threshold_for([], [0.5], fnmr=0.1))


@pytest.mark.parametrize(
    "given_", [{}, {"fmr": 0.1, "fnmr": 0.1}, {"fnmr": 0.1, "rule": "nearest"}, {"fmr": 1.5}]
)
def test_a_target_that_is_none_or_not_one_is_refused(given_: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"f(n?)mr|rates"):
        threshold_for([0.5], [0.5], **given_)  # type: ignore[arg-type]


# Reference lines


@pytest.mark.parametrize("reference", [perfect, attainable, random], ids=lambda each: each.name)
@pytest.mark.parametrize("e0", [0, 0.05, 0.3, 1])
@pytest.mark.parametrize("limit", [0, 0.05, 0.2, 1])
def test_the_area_of_a_reference_is_the_integral_of_its_line(
    reference: object, e0: float, limit: float
) -> None:
    middles = (np.arange(200_000) + 0.5) / 200_000 * limit
    expected = reference.line(e0, middles).mean() * limit  # type: ignore[attr-defined]
    assert reference.area(e0, limit) == pytest.approx(expected, abs=1e-8)  # type: ignore[attr-defined]


def test_the_lines_are_what_they_are_called() -> None:
    x = [0, 0.1, 0.2, 0.5, 1]
    np.testing.assert_allclose(perfect.line(0.2, x), [0.2, 0.1, 0, 0, 0])
    np.testing.assert_allclose(attainable.line(0.2, x), [0.2, 0.1 / 0.9, 0, 0, 0])
    np.testing.assert_allclose(random.line(0.2, x), [0.2] * 5)


def test_the_area_of_the_attainable_line_up_to_e0_is_the_published_closed_form() -> None:
    assert attainable.area(0.2, 0.9) == pytest.approx(0.2 + 0.8 * math.log(0.8))


def test_areas_are_computed_for_all_replicates_at_once() -> None:
    assert random.area([[0.1], [0.2], [math.nan]], [0.2, 0.3]).shape == (3, 2)
    np.testing.assert_allclose(attainable.area([1.0, math.nan], 1.0), [1, math.nan])


def test_an_error_that_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="e0"):
        perfect.area(20, 0.2)


# Oracles


@pytest.mark.parametrize(("errors", "n"), [(0, 4), (1, 1), (2, 5), (3, 6), (6, 6), (0, 1)])
def test_no_order_of_discard_has_a_lower_curve_anywhere_than_the_pair_oracle(
    errors: int, n: int
) -> None:
    oracle, at = pair_oracle(errors, n), np.arange(n + 1) / n
    orders = [
        edc(np.isin(np.arange(n), wrong), np.arange(n)).at(at)
        for wrong in itertools.combinations(range(n), errors)
    ]
    np.testing.assert_allclose(oracle.at(at), np.min(orders, axis=0))


@properties
@given(n=st.integers(1, 400), share=st.floats(0, 1), limit=st.floats(0, 1))
def test_the_pair_oracle_is_the_attainable_line_to_within_one_comparison(
    n: int, share: float, limit: float
) -> None:
    errors = int(share * n)
    closed = attainable.area(errors / n, limit)
    assert -1e-12 <= pair_oracle(errors, n).area(limit) - closed <= 1 / n


def test_more_errors_than_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="errors"):
        pair_oracle(3, 2)


def test_the_pair_oracle_of_nothing_is_nan() -> None:
    assert pair_oracle(0, 0).reason == "no comparisons"


def test_the_sample_oracle_ranks_by_share_of_errors_and_then_by_comparisons() -> None:
    # Share of errors (comparisons): 0: 1/1 (1), 1: 2/3 (3), 2: 1/3 (3), 3: 1/3 (3), 4: 0 (0), 5:
    # 1/2 (2), 6: 0/2 (2).
    a, b = [0, 1, 1, 2, 2, 3, 3], [1, 5, 2, 3, 5, 6, 6]
    error = [True, True, False, True, False, False, False]
    assert sample_oracle(a, b, error, 7).tolist() == [0, 1, 3, 4, 6, 2, 5]


def test_the_sample_oracle_discards_errors_one_by_one_where_each_sample_has_one_comparison() -> (
    None
):
    # With 6 errors of 10 comparisons, equals alike would go in one step at .6, and up to .2 the
    # area were that of random.
    a, b, error = np.arange(10), np.arange(10, 20), np.arange(10) < 6
    quality = sample_oracle(a, b, error, 20)
    by_sample = edc(error, pair_quality(quality[a], quality[b]))
    assert by_sample.area(0.2) == pytest.approx(pair_oracle(6, 10).area(0.2))
    assert by_sample.area(0.2) < 0.6 * 0.2


def test_the_sample_oracle_cannot_attain_the_optimum_by_pair() -> None:
    # Two samples of three each have an error with a third, and a good comparison with each other.
    a, b, error = np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([False, True, False])
    quality = sample_oracle(a, b, error, 3)
    by_sample = edc(error, pair_quality(quality[a], quality[b]))
    assert by_sample.area(1.0) > pair_oracle(1, 3).area(1.0)


@properties
@given(seed=st.integers(0, 2**32), n=st.integers(0, 30))
def test_the_sample_oracle_is_never_below_the_pair_oracle(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, error = rng.integers(0, 6, n), rng.integers(6, 12, n), rng.random(n) < 0.3
    quality = sample_oracle(a, b, error, 12)
    at = np.linspace(0, 1, 23)
    found = edc(error, pair_quality(quality[a], quality[b])).at(at)
    bound = pair_oracle(int(error.sum()), n).at(at)
    assert n == 0 or (found >= bound - 1e-12).all()


def test_a_sample_outside_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="samples must be numbered"):
        sample_oracle([0], [3], [True], 3)
