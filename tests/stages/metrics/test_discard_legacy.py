"""What error rates with a threshold chosen anew at each step of discard promise, and the legacy
form above all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.metrics import discard_steps
from stages.metrics.discard import LEGACY_FRACTIONS, angular_distance, legacy_erc, recomputed
from stages.metrics.verification import operating_points

properties = settings(deadline=None, max_examples=100)
RULES = ("at_most", "nearest", "interpolated")
FRACTIONS = [0, 0.1, 0.29, 0.5, 0.95, 1]


class Comparison(NamedTuple):
    score: float
    mated: bool
    quality: float


# Few distinct scores and qualities, so that most lists hold ties, within and across the kinds, and
# at the cuts.
values = st.integers(-4, 4).map(lambda i: i / 8)
lists = st.lists(st.builds(Comparison, values, st.booleans(), values), max_size=30)
constant = st.lists(st.builds(Comparison, values, st.booleans(), st.just(0.5)), max_size=30)
targets = st.lists(st.sampled_from([0.0, 1e-3, 0.04, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=3)


def columns(
    listed: list[Comparison],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    score, mated, quality = zip(*listed, strict=True) if listed else ((), (), ())
    return np.array(score, float), np.array(mated, bool), np.array(quality, float)


def remaining(
    listed: list[Comparison], fraction: float, separate: bool = False
) -> tuple[list[float], list[float]]:
    """(mated, non-mated) scores that are left: a stable sort, cut at int(u N)."""
    orders = (
        [[c for c in listed if c.mated], [c for c in listed if not c.mated]]
        if separate
        else [listed]
    )
    kept = [
        c
        for each in orders
        for c in sorted(each, key=lambda c: c.quality)[int(fraction * len(each)) :]
    ]
    return [c.score for c in kept if c.mated], [c.score for c in kept if not c.mated]


def slow_threshold(mated: list[float], nonmated: list[float], target: float, rule: str) -> float:
    """By trying every observed score; "legacy" is "nearest" without +inf."""
    n = len(nonmated)
    if rule == "interpolated":
        place = target * (n - 1)
        falling = sorted(nonmated, reverse=True)
        above, below = falling[math.floor(place)], falling[math.ceil(place)]
        return above + (place - math.floor(place)) * (below - above)
    tried = [
        (t, sum(s >= t for s in nonmated))
        for t in {*mated, *nonmated, *([] if rule == "legacy" else [math.inf])}
    ]
    if rule == "at_most":
        return min(t for t, count in tried if count / n <= target)
    return min(tried, key=lambda each: (abs(each[1] / n - target), -each[1], each[0]))[0]


def slow_point(
    mated: list[float], nonmated: list[float], target: float, rule: str
) -> tuple[float, float, float]:
    """(threshold, FMR, FNMR) of what is left."""
    if not nonmated:
        return math.nan, math.nan, math.nan
    t = slow_threshold(mated, nonmated, target, rule)
    wrong = [s <= t if rule == "legacy" else s < t for s in mated]
    fmr = sum(s >= t for s in nonmated) / len(nonmated)
    return t, fmr, sum(wrong) / len(wrong) if wrong else math.nan


def check(
    found: object, listed: list[Comparison], goals: list[float], rule: str, separate: bool = False
) -> None:
    for j, fraction in enumerate(found.fraction):  # type: ignore[attr-defined]
        left = remaining(listed, fraction, separate)
        assert (found.n_mated[j], found.n_nonmated[j]) == tuple(map(len, left))  # type: ignore[attr-defined]
        for i, target in enumerate(goals):
            got = [getattr(found, name)[i, j] for name in ("threshold", "fmr", "fnmr")]
            np.testing.assert_array_equal(got, slow_point(*left, target, rule))


# Golden vector: 3,000 mated and 3,000 non-mated distances by formula, and what the published
# threshold code made of them.


def fr(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x - np.floor(x)


def golden() -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    i = np.arange(3000)
    golden_ratio = fr(0.6180339887498949 * i)
    mated, nonmated = (
        0.20 + 0.28 * golden_ratio**2,
        0.38 + 0.20 * np.sqrt(fr(0.7548776662466927 * i)),
    )
    q_mated, q_nonmated = (
        1 - golden_ratio + 0.3 * fr(0.5698402909980532 * i),
        0.2 + 0.9 * fr(0.8191725133961645 * i),
    )
    interleaved = (
        np.stack(pair, axis=1).ravel() for pair in ((-mated, -nonmated), (q_mated, q_nonmated))
    )
    score, quality = interleaved
    return score, np.tile([True, False], 3000), quality


def test_the_golden_thresholds_without_discard() -> None:
    found = legacy_erc(*golden(), [1e-2, 1e-3, 1e-4])
    expected = [0.39939684669187353, 0.3854033251129528, 0.3799891362357286]
    np.testing.assert_allclose(-found.threshold[:, 0], expected, rtol=0, atol=1e-12)


def test_the_golden_fnmr_at_every_step() -> None:
    expected = [0.186333, 0.11654, 0.086462, 0.054108, 0.031847, 0.012212, 0.001932, *[0.0] * 10]
    expected += [0.001969, 0.002732, 0.004149]
    np.testing.assert_allclose(legacy_erc(*golden(), [1e-3]).fnmr[0], expected, rtol=0, atol=1e-6)


def test_the_golden_areas() -> None:
    found = legacy_erc(*golden(), [1e-2, 1e-3, 1e-4]).auc
    np.testing.assert_allclose(found, [0.01436943, 0.02015217, 0.02230932], rtol=0, atol=1e-8)


def test_the_golden_vector_in_float32_moves_by_no_more_than_a_comparison_a_step() -> None:
    score, mated, quality = golden()
    found = legacy_erc(score.astype(np.float32), mated, quality, [1e-3])
    assert found.threshold.dtype == np.float64
    np.testing.assert_allclose(
        found.fnmr, legacy_erc(score, mated, quality, [1e-3]).fnmr, atol=1 / 150
    )


# The legacy form


def test_the_twenty_steps_are_those_of_the_published_curves() -> None:
    assert len(LEGACY_FRACTIONS) == 20
    np.testing.assert_allclose(LEGACY_FRACTIONS[[0, 1, 19]], [0, 0.05, 0.95])


@pytest.mark.parametrize("start", [1, 1 << 14])
@properties
@given(listed=st.one_of(lists, constant), goals=targets)
def test_the_legacy_form_equals_trying_every_observed_score(
    start: int, listed: list[Comparison], goals: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discard_steps, "FIRST_READ", start)
        found = legacy_erc(*columns(listed), goals)
    check(found, listed, goals, "legacy")


@properties
@given(listed=lists, goals=targets)
def test_the_area_is_that_of_trapezoids_and_nan_where_a_step_is(
    listed: list[Comparison], goals: list[float]
) -> None:
    found = legacy_erc(*columns(listed), goals)
    expected = [sum((y[1:] + y[:-1]) / 2 * 0.05) for y in found.fnmr]
    np.testing.assert_allclose(found.auc, expected, atol=1e-12)


def test_a_mated_comparison_at_the_threshold_is_an_error_in_the_legacy_form() -> None:
    assert legacy_erc([0.5, 0.9, 0.5], [True, True, False], [1, 1, 1], [1.0]).fnmr[0, 0] == 0.5


def test_a_legacy_threshold_is_an_observed_score_even_where_that_exceeds_the_target() -> None:
    listed = [0.1, 0.2, 0.9, 0.9], [True, True, False, False], [1, 1, 1, 1]
    assert (
        legacy_erc(*listed, [0.0]).threshold[0, 0] == 0.1
    )  # both non-mated are accepted: the lowest such score
    assert recomputed(*listed, [0.0], [0.0], rule="nearest").threshold[0, 0] == math.inf


def test_only_the_order_of_scores_counts() -> None:
    score, mated, quality = golden()
    cosine = np.cos(-score * np.pi)
    np.testing.assert_array_equal(
        legacy_erc(cosine, mated, quality, [1e-2, 1e-3]).auc,
        legacy_erc(score, mated, quality, [1e-2, 1e-3]).auc,
    )


def test_the_angular_distance_of_cosines_lies_in_0_to_1() -> None:
    np.testing.assert_allclose(angular_distance([1.0, 0.5, 0.0, -1.0]), [0, 1 / 3, 0.5, 1])


def test_cosines_beyond_one_have_the_distance_of_one() -> None:
    assert angular_distance(np.array([1 + 1e-6, 1.0, -1 - 1e-6], np.float32)).tolist() == [0, 0, 1]


def test_the_angular_distance_of_golden_thresholds_is_the_published_distance() -> None:
    score, mated, quality = golden()
    found = legacy_erc(np.cos(-score * np.pi), mated, quality, [1e-3])
    assert angular_distance(found.threshold)[0, 0] == pytest.approx(0.3854033251129528, abs=1e-12)


# Any rule, any fractions


@pytest.mark.parametrize("start", [1, 1 << 14])
@pytest.mark.parametrize("discard", ["joint", "separate"])
@pytest.mark.parametrize("rule", ["at_most", "nearest"])
@properties
@given(listed=st.one_of(lists, constant), goals=targets)
def test_an_observed_threshold_equals_trying_every_score(
    start: int, discard: str, rule: str, listed: list[Comparison], goals: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discard_steps, "FIRST_READ", start)
        found = recomputed(*columns(listed), goals, FRACTIONS, discard, rule)  # type: ignore[arg-type]
    check(found, listed, goals, rule, discard == "separate")


@pytest.mark.parametrize("start", [1, 1 << 14])
@pytest.mark.parametrize("discard", ["joint", "separate"])
@properties
@given(
    listed=st.one_of(lists, constant),
    goals=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=2),
)
def test_an_interpolated_threshold_is_the_quantile_of_what_remains(
    start: int, discard: str, listed: list[Comparison], goals: list[float]
) -> None:
    # Multiples of 1/4 of scores that are multiples of 1/8: every product and sum is exact in
    # float64.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discard_steps, "FIRST_READ", start)
        found = recomputed(*columns(listed), goals, FRACTIONS, discard, "interpolated")  # type: ignore[arg-type]
    check(found, listed, goals, "interpolated", discard == "separate")


@pytest.mark.parametrize("rule", RULES)
def test_an_answer_beyond_what_is_read_first_is_found(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every non-mated score is the higher the worse its quality: at each step all the best are gone.
    monkeypatch.setattr(discard_steps, "FIRST_READ", 4)
    nonmated = [Comparison(-i / 1024, False, i / 1024) for i in range(400)]
    listed = nonmated + [Comparison(-i / 512 + 1 / 4096, True, i / 512) for i in range(200)]
    found = recomputed(*columns(listed), [0.0, 1 / 64], [0.0, 0.5, 0.75, 0.875], rule=rule)  # type: ignore[arg-type]
    check(found, listed, [0.0, 1 / 64], rule)


@pytest.mark.parametrize("low", [np.float32(1), np.nextafter(np.float32(1), np.float32(2))])
def test_an_interpolated_threshold_between_two_float32_scores_is_not_rounded_to_one(
    low: np.float32,
) -> None:
    # Half way between two neighbours, a cast rounds to the even one: down from the first, up from
    # the second.
    high = np.nextafter(low, np.float32(2))
    score = np.array([low, high, high, low], np.float32)
    found = recomputed(
        score, [False, False, True, True], np.ones(4), [0.5], [0.0], rule="interpolated"
    )
    assert low < found.threshold[0, 0] < high
    assert (found.fmr[0, 0], found.fnmr[0, 0]) == (0.5, 0.5)


@pytest.mark.parametrize("discard", ["joint", "separate"])
@properties
@given(n=st.integers(2, 40), seed=st.integers(0, 2**32))
def test_the_order_of_the_list_does_not_matter_where_no_qualities_are_equal(
    discard: str, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 9, n) / 8, rng.random(n) < 0.5, rng.permutation(n).astype(float)
    order = rng.permutation(n)
    found, other = (
        recomputed(*each, [0.1, 0.5], FRACTIONS, discard)  # type: ignore[arg-type]
        for each in (data, tuple(column[order] for column in data))
    )
    for name, value in vars(found).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def test_where_qualities_are_equal_the_earlier_in_the_list_goes_first() -> None:
    found = recomputed([0.1, 0.9, 0.5], [True, True, False], [1, 1, 1], [0.0], [0.0, 0.34])
    assert (found.n_mated.tolist(), found.fnmr[0].tolist()) == ([2, 1], [0.5, 0])


def test_a_step_of_many_targets_is_the_det_of_what_remains() -> None:
    score, mated, quality = golden()
    goals = np.geomspace(1e-3, 1, 30)
    found = recomputed(score, mated, quality, goals, [0.0, 0.4])
    kept = np.argsort(quality, kind="stable")[int(0.4 * 6000) :]
    expected = operating_points(score[kept][mated[kept]], score[kept][~mated[kept]], goals)
    np.testing.assert_array_equal(found.fmr[:, 1], expected.fmr)
    np.testing.assert_array_equal(found.fnmr[:, 1], expected.fnmr)


def test_fewer_than_thirty_false_matches_are_marked() -> None:
    # Of 3,000 non-mated comparisons 1 % are 30, and of the half that remains 15.
    score, mated, quality = golden()
    found = recomputed(score, mated, quality, [1e-2], [0.0, 0.5], "separate")
    assert found.false_matches.tolist() == [[30, 15]]
    assert found.few.tolist() == [[False, True]]


def test_a_step_without_nonmated_comparisons_is_nan_and_said() -> None:
    found = recomputed([0.1, 0.2, 0.9], [False, False, True], [0, 1, 2], [0.5], [0.0, 0.4, 0.7])
    assert np.isnan(found.fnmr[0]).tolist() == [False, False, True]
    assert found.reason == "no non-mated comparisons from fraction 0.7 on"


def test_a_step_without_mated_comparisons_still_has_a_threshold() -> None:
    found = recomputed([0.1, 0.9], [False, True], [1, 0], [1.0], [0.5])
    assert (found.threshold[0, 0], found.fmr[0, 0]) == (0.1, 1)
    assert np.isnan(found.fnmr).all()
    assert found.reason == "no mated comparisons from fraction 0.5 on"


def test_nothing_at_all_is_nan_everywhere() -> None:
    found = legacy_erc([], [], [], [0.1])
    assert np.isnan(found.fnmr).all()
    assert np.isnan(found.threshold).all()
    assert np.isnan(found.auc).all()
    assert found.n_mated.tolist() == found.n_nonmated.tolist() == [0] * 20


def test_a_list_where_all_is_defined_gives_no_reason() -> None:
    assert legacy_erc(*golden(), [1e-3]).reason == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": [1, math.nan]}, "quality must be finite"),
        ({"score": [1, math.inf]}, "score must be finite"),
        ({"mated": [True]}, "one entry a comparison"),
        ({"targets": [1.5]}, "rates in"),
        ({"fractions": [-0.1]}, "fractions"),
        ({"fractions": [math.nan]}, "fractions"),
        ({"fractions": [0.5, 0.1]}, "ascend"),
        ({"discard": "apart"}, "joint, separate"),
        ({"rule": "best"}, "interpolated"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change: dict[str, object], message: str) -> None:
    usual = {
        "score": [0.1, 0.2],
        "mated": [True, False],
        "quality": [1, 2],
        "targets": [0.1],
        "fractions": [0.0],
    }
    with pytest.raises(ValueError, match=message):
        recomputed(**usual | change)  # type: ignore[arg-type]
