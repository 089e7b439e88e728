"""What the replicates of `stages.metrics.discard_replicates` promise.

Each is the metric of a list in which every comparison is repeated, in place, as often as its
subjects were drawn. The references here do just that, literally.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.metrics import discard_legacy_replicates, discard_replicates, weighted
from stages.metrics.bootstrap import subject_weights
from stages.metrics.discard import fm_edc, fnm_edc, legacy_erc, random, threshold_for
from stages.metrics.discard_replicates import (
    AreaReplicates,
    fm_pauc_replicates,
    fnm_pauc_replicates,
    legacy_auc_replicates,
    starting_replicates,
    threshold_replicates,
)

RULES = ("at_most", "nearest", "interpolated")
TARGETS = [0.0, 0.05, 0.25, 0.5, 1.0]
LIMITS = [0.0, 0.2, 0.3, 1.0]
properties = settings(deadline=None, max_examples=60)


class Comparisons(NamedTuple):
    score: NDArray[np.float32]
    mated: NDArray[np.bool_]
    quality: NDArray[np.float32]
    a: NDArray[np.int64]
    b: NDArray[np.int64]

    def of(self, mated: bool) -> Comparisons:
        return Comparisons(*(column[self.mated == mated] for column in self))

    def repeated(self, weight: NDArray[np.integer]) -> Comparisons:
        """Each comparison as often as its weight says, its copies side by side."""
        times = np.where(
            self.mated, weight[self.a].astype(int), weight[self.a].astype(int) * weight[self.b]
        )
        return Comparisons(*(np.repeat(column, times) for column in self))


def comparisons(
    n: int, subjects: int, seed: int, scores: int = 12, qualities: int = 8
) -> Comparisons:
    """A random list in which about half is mated; few ``scores`` and ``qualities`` make many
    ties."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, subjects, n)
    b = np.where(rng.random(n) < 0.5, a, rng.integers(0, subjects, n))
    score = (rng.integers(0, scores, n) + (a == b) * scores // 3).astype(np.float32)
    return Comparisons(score, a == b, rng.integers(0, qualities, n).astype(np.float32), a, b)


lists = st.builds(
    comparisons,
    n=st.integers(0, 50),
    subjects=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    scores=st.sampled_from([1, 3, 12, 1000]),
    qualities=st.sampled_from([1, 4, 1000]),
)


def areas(data: Comparisons, threshold: float, mated: bool) -> list[float]:
    own = data.of(mated)
    curve = (fnm_edc if mated else fm_edc)(own.score, own.quality, threshold)
    return [float(curve.y[0]), *(curve.area(limit) for limit in LIMITS)]


def replicates(
    data: Comparisons, thresholds: NDArray[np.float64], weights: NDArray[np.uint16], mated: bool
) -> AreaReplicates:
    own = data.of(mated)
    if mated:
        return fnm_pauc_replicates(own.score, own.quality, own.a, thresholds, weights, LIMITS)
    return fm_pauc_replicates(own.score, own.quality, own.a, own.b, thresholds, weights, LIMITS)


def legacy(
    data: Comparisons, targets: list[float], weights: NDArray[np.uint16]
) -> NDArray[np.float64]:
    return legacy_auc_replicates(
        data.score, data.mated, data.quality, data.a, data.b, targets, weights
    )


# Thresholds


@pytest.mark.parametrize("start", [1, 64])
@pytest.mark.parametrize("rule", RULES)
@properties
@given(data=lists, seed=st.integers(0, 1000))
def test_a_threshold_decides_as_that_of_the_repeated_list(
    start: int, rule: str, data: Comparisons, seed: int
) -> None:
    weights, own = subject_weights(6, 4, seed), data.of(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discard_replicates, "FIRST_READ", start)
        found = threshold_replicates(own.score, own.a, own.b, TARGETS, weights, rule)  # type: ignore[arg-type]
    assert found.shape == (4, len(TARGETS))
    for row, thresholds in zip(weights, found, strict=True):
        left = data.repeated(row)
        mated, nonmated = left.of(True).score, left.of(False).score
        for target, threshold in zip(TARGETS, thresholds, strict=True):
            expected = threshold_for(mated, nonmated, fmr=target, rule=rule)  # type: ignore[arg-type]
            assert math.isnan(threshold) == math.isnan(expected)
            np.testing.assert_array_equal(left.score >= threshold, left.score >= expected)


@properties
@given(data=lists, seed=st.integers(0, 1000))
def test_an_interpolated_threshold_is_that_of_the_repeated_list_itself(
    data: Comparisons, seed: int
) -> None:
    weights, own = subject_weights(6, 4, seed), data.of(False)
    found = threshold_replicates(own.score, own.a, own.b, TARGETS, weights, "interpolated")
    expected = [
        [
            threshold_for([], data.repeated(row).of(False).score, fmr=target, rule="interpolated")
            for target in TARGETS
        ]
        for row in weights
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_threshold_is_right_where_the_top_of_the_list_weighs_nothing(rule: str) -> None:
    # Below the very best, the next 600 of 1000 are between subjects 0 and 1: where one is not
    # drawn, the threshold for 5 % lies far below the top of the list that is read first, and the
    # one for 0 does not.
    score = np.arange(1000.0)
    heavy = (score >= 399) & (score < 999)
    a, b = np.where(heavy, 0, 2), np.where(heavy, 1, 3)
    weights = np.array([[0, 2, 1, 1], [1, 1, 1, 1], [2, 0, 1, 2]], np.uint16)
    found = threshold_replicates(score, a, b, [0.0, 0.05], weights, rule)  # type: ignore[arg-type]
    for row, thresholds in zip(weights, found, strict=True):
        left = np.repeat(score, row[a].astype(int) * row[b])
        expected = [threshold_for([], left, fmr=target, rule=rule) for target in (0.0, 0.05)]  # type: ignore[arg-type]
        np.testing.assert_array_equal(left[:, None] >= thresholds, left[:, None] >= expected)


@properties
@given(data=lists, seed=st.integers(0, 1000), error=st.sampled_from(TARGETS))
def test_a_starting_error_is_kept_in_each_replicate(
    data: Comparisons, seed: int, error: float
) -> None:
    weights, own = subject_weights(6, 4, seed), data.of(True)
    expected = [threshold_for(data.repeated(row).of(True).score, [], fnmr=error) for row in weights]
    np.testing.assert_array_equal(starting_replicates(own.score, own.a, error, weights), expected)


# Areas


@pytest.mark.parametrize("mated", [True, False])
@pytest.mark.parametrize("cells", [1, 1 << 17])
@properties
@given(data=lists, seed=st.integers(0, 1000))
def test_an_area_equals_that_of_the_repeated_list(
    cells: int, mated: bool, data: Comparisons, seed: int
) -> None:
    weights, own = subject_weights(6, 4, seed), data.of(False)
    thresholds = threshold_replicates(own.score, own.a, own.b, TARGETS, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighted, "CELLS_AT_ONCE", cells)
        found = replicates(data, thresholds, weights, mated)
    expected = [
        [areas(data.repeated(row), t, mated) for t in own_t]
        for row, own_t in zip(weights, thresholds, strict=True)
    ]
    np.testing.assert_allclose(
        np.concatenate([found.start[..., None], found.pauc], axis=-1), expected, atol=1e-12
    )


@pytest.mark.parametrize("mated", [True, False])
@properties
@given(data=lists, threshold=st.integers(-1, 20))
def test_unit_weights_give_the_metric_itself(
    mated: bool, data: Comparisons, threshold: int
) -> None:
    found = replicates(data, np.array([float(threshold)]), np.ones((1, 6), np.uint16), mated)
    np.testing.assert_allclose(
        [found.start[0], *found.pauc[0]], areas(data, threshold, mated), atol=1e-12
    )


def test_one_threshold_a_replicate_gives_one_area_a_limit() -> None:
    weights = subject_weights(6, 5, seed=1)
    found = replicates(comparisons(40, 6, seed=0), np.full(5, 6.0), weights, True)
    assert (found.start.shape, found.pauc.shape, found.over_random.shape) == ((5,), (5, 4), (5, 4))


def test_several_thresholds_give_what_each_gives_alone() -> None:
    weights, data = subject_weights(6, 5, seed=1), comparisons(40, 6, seed=0)
    thresholds = np.stack([np.full(5, 6.0), np.arange(5.0)], axis=1)
    together = replicates(data, thresholds, weights, False)
    for j in range(2):
        np.testing.assert_array_equal(
            together.pauc[:, j], replicates(data, thresholds[:, j], weights, False).pauc
        )


def test_over_random_pairs_the_area_with_the_start_of_its_own_replicate() -> None:
    found = replicates(
        comparisons(40, 6, seed=0), np.full(5, 6.0), subject_weights(6, 5, seed=1), True
    )
    np.testing.assert_allclose(
        found.over_random, found.pauc - random.area(found.start[:, None], LIMITS)
    )


def test_constant_quality_is_no_better_than_random_in_any_replicate() -> None:
    data = comparisons(60, 6, seed=3, qualities=1)
    found = replicates(data, np.full(30, 6.0), subject_weights(6, 30, seed=1), False)
    assert found.start.std() > 0
    np.testing.assert_allclose(found.over_random, 0, atol=1e-12)


def test_a_replicate_in_which_nothing_has_weight_is_nan() -> None:
    data = Comparisons(*(np.array(column) for column in ([0.5], [True], [1.0], [0], [0])))
    found = replicates(data, np.array([0.9, 0.9]), np.array([[0, 2], [1, 1]], np.uint16), True)
    assert np.isnan(found.start).tolist() == [True, False]
    assert np.isnan(found.pauc).all(axis=1).tolist() == [True, False]


def test_a_replicate_without_a_threshold_is_nan() -> None:
    data = comparisons(40, 6, seed=0)
    found = replicates(data, np.array([np.nan, 6.0]), np.ones((2, 6), np.uint16), True)
    assert np.isnan(found.pauc).all(axis=1).tolist() == [True, False]


# The legacy form


@pytest.mark.parametrize("start", [1, 64])
@properties
@given(
    data=lists,
    seed=st.integers(0, 1000),
    targets=st.sampled_from([TARGETS, [0.0], [0.05], [0.01, 0.1]]),
)
def test_a_legacy_area_equals_that_of_the_repeated_list(
    start: int, data: Comparisons, seed: int, targets: list[float]
) -> None:
    weights = subject_weights(6, 4, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discard_legacy_replicates, "FIRST_READ", start)
        found = legacy(data, targets, weights)
    expected = [legacy_erc(*data.repeated(row)[:3], targets).auc for row in weights]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("start", [1, 64])
@pytest.mark.parametrize("seed", range(6))
def test_a_legacy_area_of_a_longer_list_equals_that_of_the_repeated_list(
    seed: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough that hardly a step lacks a kind, and that the best of the non-mated must be read
    # further.
    monkeypatch.setattr(discard_legacy_replicates, "FIRST_READ", start)
    data = comparisons(
        900, 40, seed, scores=[30, 10_000][seed % 2], qualities=[7, 10_000][seed // 2 % 2]
    )
    weights = subject_weights(40, 6, seed)
    found = legacy(data, [0.0, 0.01, 0.1], weights)
    expected = [legacy_erc(*data.repeated(row)[:3], [0.0, 0.01, 0.1]).auc for row in weights]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@properties
@given(data=lists)
def test_unit_weights_give_the_legacy_area_itself(data: Comparisons) -> None:
    found = legacy(data, TARGETS, np.ones((1, 6), np.uint16))
    np.testing.assert_allclose(found[0], legacy_erc(*data[:3], TARGETS).auc, atol=1e-12)


def test_a_legacy_replicate_without_a_kind_is_nan() -> None:
    data = comparisons(200, 4, seed=0)
    found = legacy(data, [0.1], np.array([[4, 0, 0, 0], [1, 1, 1, 1]], np.uint16))
    assert np.isnan(found[:, 0]).tolist() == [True, False]


# What is refused


def test_a_mated_flag_that_disagrees_with_the_subjects_is_refused() -> None:
    with pytest.raises(ValueError, match="mated must be true"):
        legacy_auc_replicates([1.0], [True], [1.0], [0], [1], [0.1], np.ones((1, 2), int))


def test_thresholds_of_another_number_of_replicates_are_refused() -> None:
    with pytest.raises(ValueError, match="R = 2 replicates"):
        fnm_pauc_replicates([1.0], [1.0], [0], [0.5], np.ones((2, 1), int), LIMITS)


def test_limits_that_are_no_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="limits"):
        fnm_pauc_replicates([1.0], [1.0], [0], [0.5], np.ones((1, 1), int), [20])


@pytest.mark.parametrize("quality", [[1.0, 2.0], [math.nan]])
def test_quality_that_does_not_fit_is_refused(quality: list[float]) -> None:
    with pytest.raises(ValueError, match="quality must"):
        fnm_pauc_replicates([1.0], quality, [0], [0.5], np.ones((1, 1), int), LIMITS)
    with pytest.raises(ValueError, match="quality must"):
        legacy_auc_replicates([1.0], [True], quality, [0], [0], [0.1], np.ones((1, 1), int))


def test_a_subject_outside_the_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="subject_b"):
        threshold_replicates([1.0], [0], [2], [0.1], np.ones((1, 2), int))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="interpolated"):
        threshold_replicates([1.0], [0], [1], [0.1], np.ones((1, 2), int), "best")  # type: ignore[arg-type]
