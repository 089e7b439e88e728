"""What the curve and operating points of `stages.metrics.verification` promise."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from stages.metrics.verification import Ascending, auc, eer, operating_points, with_failures

RULES = ("at_most", "nearest")
properties = settings(deadline=None, max_examples=80)

# Few distinct values, so that most lists hold ties within and across the two kinds.
score_lists = st.lists(st.integers(-6, 6).map(lambda i: i / 8), max_size=25)
some_scores = score_lists.filter(len)
targets = st.one_of(st.sampled_from([0.0, 1e-3, 0.1, 0.25, 0.5, 1.0]), st.floats(0, 1))

# By hand, from the top: .9 (mated), .8 (mated), .7 (non-mated), .5 (a tie of both kinds), .1 (two
# non-mated).
MATED = [0.9, 0.8, 0.5]
NONMATED = [0.7, 0.5, 0.1, 0.1]


def counts_at(mated: list[float], nonmated: list[float], threshold: float) -> tuple[int, int]:
    """(false matches, false non-matches): the decision rule, one comparison at a time."""
    return sum(s >= threshold for s in nonmated), sum(s < threshold for s in mated)


def slow_point(
    mated: list[float], nonmated: list[float], target: float, rule: str
) -> tuple[float, int, int]:
    """(threshold, false matches, false non-matches) by trying every observed score."""
    tried = [(t, *counts_at(mated, nonmated, t)) for t in {*mated, *nonmated, math.inf}]
    n = len(nonmated)
    if rule == "at_most":
        return min(point for point in tried if point[1] / n <= target)
    return min(tried, key=lambda point: (abs(point[1] / n - target), -point[1], point[0]))


def nearest_point(mated: list[float], nonmated: list[float], target: float) -> tuple[float, float]:
    """(FMR, TAR) of scikit-learn's curve with all its points: flipped, nearest, first of equals."""
    labels = [1] * len(mated) + [0] * len(nonmated)
    fpr, tpr, _ = roc_curve(labels, [*mated, *nonmated], drop_intermediate=False)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    _, index = min(zip(abs(fpr - target), range(len(fpr)), strict=True))
    return fpr[index], tpr[index]


# Operating points


def test_at_most_takes_the_lowest_threshold_within_the_target() -> None:
    points = operating_points(MATED, NONMATED, [0, 0.25, 0.3, 0.5, 1], "at_most")
    assert points.threshold.tolist() == [0.8, 0.7, 0.7, 0.5, 0.1]
    assert points.false_matches.tolist() == [0, 1, 1, 2, 4]
    assert points.false_non_matches.tolist() == [1, 1, 1, 0, 0]
    assert points.tar.tolist() == [2 / 3, 2 / 3, 2 / 3, 1, 1]


def test_nearest_may_exceed_the_target_and_prefers_the_larger_fmr_when_equally_near() -> None:
    points = operating_points(MATED, NONMATED, [0.1, 0.125, 0.2, 0.75], "nearest")
    assert points.fmr.tolist() == [0, 0.25, 0.25, 1]
    assert points.threshold.tolist() == [0.8, 0.7, 0.7, 0.1]


def test_a_threshold_above_every_score_is_plus_infinity() -> None:
    points = operating_points([0.1], [0.9], [0.5], "at_most")
    assert points.threshold.tolist() == [math.inf]
    assert (points.fmr[0], points.fnmr[0], points.tar[0]) == (0, 1, 0)


@pytest.mark.parametrize("rule", RULES)
@properties
@given(mated=some_scores, nonmated=some_scores, target=targets)
def test_operating_point_equals_trying_every_threshold(
    rule: str, mated: list[float], nonmated: list[float], target: float
) -> None:
    points = operating_points(mated, nonmated, [target], rule)
    threshold, false_matches, false_non_matches = slow_point(mated, nonmated, target, rule)
    assert points.threshold[0] == threshold
    assert (points.false_matches[0], points.false_non_matches[0]) == (
        false_matches,
        false_non_matches,
    )
    assert points.fmr[0] == false_matches / len(nonmated)
    assert points.fnmr[0] == false_non_matches / len(mated)
    assert points.tar[0] == (len(mated) - false_non_matches) / len(mated)


@properties
@given(some_scores, some_scores, targets)
def test_nearest_takes_the_nearest_of_all_points_of_the_roc(
    mated: list[float], nonmated: list[float], target: float
) -> None:
    points = operating_points(mated, nonmated, [target], "nearest")
    assert (points.fmr[0], points.tar[0]) == nearest_point(mated, nonmated, target)


def test_nearest_finds_the_thresholds_of_the_published_erc_code() -> None:
    # Origin: thresholds and FNMR at no discard, printed by the published error-versus-reject
    # threshold code for these distances (accepted when d <= t) at FMR 1e-2, 1e-3, 1e-4.
    i = np.arange(3000)
    mated = 0.20 + 0.28 * np.modf(0.6180339887498949 * i)[0] ** 2
    nonmated = 0.38 + 0.20 * np.sqrt(np.modf(0.7548776662466927 * i)[0])
    points = operating_points(-mated, -nonmated, [1e-2, 1e-3, 1e-4], "nearest")
    golden = [0.39939684669187353, 0.3854033251129528, 0.3799891362357286]
    np.testing.assert_allclose(-points.threshold, golden, rtol=1e-15)
    assert points.false_matches.tolist() == [30, 3, 0]
    # That code rejects a mated distance equal to the threshold, so one comparison of 3000 may
    # differ.
    assert points.fnmr[1] == pytest.approx(0.186333, abs=1.1 / 3000)


@pytest.mark.parametrize(
    ("target", "n", "allowed"),
    [(1e-3, 3000, 3), (0.29, 100, 29), (0.07, 100, 7), (1e-4, 3000, 0), (1e-6, 10**6, 1)],
)
def test_a_target_that_is_a_whole_count_is_not_lost_to_rounding(
    target: float, n: int, allowed: int
) -> None:
    points = operating_points([2.0 * n], np.arange(n, dtype=np.float64), [target])
    assert points.false_matches.tolist() == [allowed]
    assert points.fmr[0] <= target


@properties
@given(st.integers(1, 2000), st.data())
def test_every_achievable_fmr_is_achieved_when_asked_for(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    for rule in RULES:
        assert operating_points([0.0], np.arange(n), [k / n], rule).false_matches[0] == k


def test_few_marks_rates_from_less_than_thirty_false_matches() -> None:
    points = operating_points([2000.0], np.arange(1000.0), [0.029, 0.030])
    assert points.false_matches.tolist() == [29, 30]
    assert points.few.tolist() == [True, False]


def test_the_threshold_decides_float32_scores_as_counted() -> None:
    rng = np.random.default_rng(0)
    mated, nonmated = (rng.normal(mean, 1, 5000).astype(np.float32) for mean in (1, 0))
    for rule in RULES:
        points = operating_points(mated, nonmated, [1e-3, 1e-2, 0.1], rule)
        for threshold, fm, fnm in zip(
            points.threshold, points.false_matches, points.false_non_matches, strict=True
        ):
            assert ((nonmated >= threshold).sum(), (mated < threshold).sum()) == (fm, fnm)


@properties
@given(some_scores, some_scores, st.randoms(use_true_random=False))
def test_the_order_of_comparisons_does_not_matter(
    mated: list[float], nonmated: list[float], rng: object
) -> None:
    mixed_m, mixed_n = mated[:], nonmated[:]
    rng.shuffle(mixed_m)  # type: ignore[attr-defined]
    rng.shuffle(mixed_n)  # type: ignore[attr-defined]
    first, second = (
        operating_points(m, n, [0.1, 0.5]) for m, n in ((mated, nonmated), (mixed_m, mixed_n))
    )
    np.testing.assert_equal(astuple(first), astuple(second))
    assert eer(mated, nonmated) == eer(mixed_m, mixed_n)
    assert auc(mated, nonmated) == auc(mixed_m, mixed_n)


@properties
@given(some_scores, some_scores, st.sampled_from([np.float32, np.float64]))
def test_lists_that_were_sorted_once_give_what_plain_lists_give(
    mated: list[float], nonmated: list[float], dtype: type
) -> None:
    plain = np.array(mated, dtype), np.array(nonmated)
    once = Ascending.of(plain[0]), Ascending.of(plain[1])
    for rule in RULES:
        found = (operating_points(*lists, [0.1, 0.5], rule) for lists in (plain, once))
        np.testing.assert_equal(*map(astuple, found))
    assert (eer(*once), auc(*once)) == (eer(*plain), auc(*plain))


# Empty and wrong input


def test_no_nonmated_scores_leave_every_rate_undefined_with_a_reason() -> None:
    points = operating_points([0.5], [], [0.1])
    rates = np.concatenate([points.threshold, points.fmr, points.fnmr, points.tar])
    assert np.isnan(rates).all()
    assert points.reason == "no non-mated comparisons"


def test_no_mated_scores_leave_the_threshold_defined_but_not_fnmr() -> None:
    points = operating_points([], [0.1, 0.2], [0.5])
    assert (points.threshold[0], points.fmr[0]) == (0.2, 0.5)
    assert np.isnan([points.fnmr[0], points.tar[0]]).all()
    assert points.reason == "no mated comparisons"


def test_nothing_at_all_gives_nan_and_a_reason() -> None:
    assert np.isnan([*eer([], []), auc([], [])]).all()
    assert operating_points([], [], [0.1]).reason == "no mated and no non-mated comparisons"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", [eer, auc, lambda m, n: operating_points(m, n, [0.1])])
def test_a_score_that_is_not_finite_is_refused_with_its_place(call: object, bad: float) -> None:
    with pytest.raises(
        ValueError, match=r"nonmated must be finite, found -?(nan|inf) at index 1 .* FTA"
    ):
        call([0.5], [0.1, bad])  # type: ignore[operator]


@pytest.mark.parametrize("target", [-0.1, 1.1, math.nan])
def test_a_target_outside_0_to_1_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"rates in \[0, 1\]"):
        operating_points([0.5], [0.1], [target])


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="at_most, nearest, found 'closest'"):
        operating_points([0.5], [0.1], [0.1], "closest")


def test_a_matrix_of_scores_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mated must be a 1-D array of scores, found shape \(1, 2\)"
    ):
        auc([[0.5, 0.6]], [0.1])


# Failures to acquire


def test_failures_lower_far_and_raise_frr() -> None:
    # ISO/IEC 19795-1: of 100 attempts 20 fail; of the other 80, 8 match falsely (or 4 do not
    # match).
    far, frr = with_failures(0.1, 0.05, 0.2)
    assert far == pytest.approx(8 / 100)
    assert frr == pytest.approx((20 + 4) / 100)


def test_without_failures_nothing_changes_and_nan_stays() -> None:
    far, frr = with_failures([0.1, math.nan], [0.2, 0.3], 0)
    np.testing.assert_array_equal(far, [0.1, math.nan])
    np.testing.assert_array_equal(frr, [0.2, 0.3])


def test_an_undefined_failure_rate_leaves_both_rates_undefined() -> None:
    assert np.isnan(with_failures(0.1, 0.1, math.nan)).all()


@pytest.mark.parametrize("fta", [-0.01, 1.01])
def test_an_impossible_failure_rate_is_refused(fta: float) -> None:
    with pytest.raises(ValueError, match=r"fta must be a rate in \[0, 1\]"):
        with_failures(0.1, 0.1, fta)
