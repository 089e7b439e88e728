"""What the replicates of `stages.metrics.bootstrap` promise.

Each is the metric of a list in which every comparison is repeated as often as its subjects were
drawn. The references here do just that, literally.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.metrics import weighted
from stages.metrics.bootstrap import (
    auc_replicates,
    eer_replicates,
    rank_replicates,
    subject_weights,
    tar_replicates,
    tpir_replicates,
)
from stages.metrics.identification import cmc, tpir_at_fpir
from stages.metrics.verification import auc, eer, operating_points

RULES = ("at_most", "nearest")
TARGETS = [0.0, 0.05, 0.2, 0.5, 1.0]
properties = settings(deadline=None, max_examples=60)


class Comparisons(NamedTuple):
    score: NDArray[np.float32]
    mated: NDArray[np.bool_]
    a: NDArray[np.int64]
    b: NDArray[np.int64]

    def repeated(
        self, weight: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(mated, non-mated) scores, each as often as its weight says."""
        mated: list[np.float32] = []
        nonmated: list[np.float32] = []
        for score, is_mated, a, b in zip(*self, strict=True):
            times = int(weight[a]) if is_mated else int(weight[a]) * int(weight[b])
            (mated if is_mated else nonmated).extend([score] * times)
        return np.array(mated, np.float32), np.array(nonmated, np.float32)


def comparisons(n: int, subjects: int, seed: int, values: int = 12) -> Comparisons:
    """A random list in which about a third is mated; few ``values`` make many ties."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, subjects, n)
    b = np.where(rng.random(n) < 1 / 3, a, rng.integers(0, subjects, n))
    score = (rng.integers(0, values, n) + (a == b) * values / 3).astype(np.float32)
    return Comparisons(score, a == b, a, b)


lists = st.builds(
    comparisons,
    n=st.integers(0, 60),
    subjects=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    values=st.sampled_from([1, 3, 12, 1000]),
)


# Drawing subjects


def test_every_replicate_draws_as_many_subjects_as_there_are() -> None:
    weights = subject_weights(310, 50, seed=0)
    assert weights.dtype == np.uint16
    assert weights.sum(axis=1).tolist() == [310] * 50


def test_more_replicates_extend_the_same_rows() -> None:
    np.testing.assert_array_equal(
        subject_weights(37, 5, seed=3), subject_weights(37, 500, seed=3)[:5]
    )


def test_rows_do_not_depend_on_how_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = subject_weights(20, 40, seed=3)
    monkeypatch.setattr(weighted, "CELLS_AT_ONCE", 50)
    np.testing.assert_array_equal(subject_weights(20, 40, seed=3), whole)


def test_rows_and_seeds_differ() -> None:
    first, other = subject_weights(50, 20, seed=1), subject_weights(50, 20, seed=2)
    assert len(np.unique(first, axis=0)) == 20
    assert (first != other).any(axis=1).all()


def test_counts_are_multinomial_in_mean_and_variance() -> None:
    # Multinomial of n draws from n cells: mean 1, variance 1 - 1/n. 20,000 cells: standard error
    # below .02.
    weights = subject_weights(100, 200, seed=5).astype(float)
    assert abs(weights.mean(axis=0) - 1).max() < 5 / math.sqrt(200)
    assert weights.var() == pytest.approx(1 - 1 / 100, abs=0.06)


def test_no_subjects_give_empty_rows() -> None:
    assert subject_weights(0, 3, seed=0).shape == (3, 0)


# TAR at FMR


@pytest.mark.parametrize("rule", RULES)
@properties
@given(data=lists, seed=st.integers(0, 1000))
def test_tar_equals_repeating_each_comparison_weight_times(
    rule: str, data: Comparisons, seed: int
) -> None:
    weights = subject_weights(6, 4, seed)
    found = tar_replicates(*data, TARGETS, weights, rule)
    expected = [operating_points(*data.repeated(row), TARGETS, rule).tar for row in weights]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rule", RULES)
@properties
@given(data=lists)
def test_tar_of_unit_weights_is_the_operating_point_to_the_bit(
    rule: str, data: Comparisons
) -> None:
    found = tar_replicates(*data, TARGETS, np.ones((1, 6), np.uint16), rule)
    expected = operating_points(data.score[data.mated], data.score[~data.mated], TARGETS, rule)
    np.testing.assert_array_equal(found[0], expected.tar)


@pytest.mark.parametrize("rule", RULES)
def test_tar_is_right_where_the_top_of_the_list_weighs_nothing(rule: str) -> None:
    # Below the very best, the next 600 of 1000 non-mated comparisons are between subjects 0 and 1:
    # where one is not drawn, all thresholds but the strictest lie far below the top of the list
    # that is read first.
    score = np.concatenate([np.arange(1000.0), np.arange(0.0, 1000, 5)])
    heavy = (np.arange(1000) >= 399) & (np.arange(1000) < 999)
    a = np.concatenate([np.where(heavy, 0, 2), np.full(200, 2)])
    b = np.concatenate([np.where(heavy, 1, 3), np.full(200, 2)])
    data = Comparisons(score.astype(np.float32), a == b, a, b)
    weights = np.array([[0, 2, 1, 1], [1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 2, 2]], np.uint16)
    found = tar_replicates(*data, [0.0, 0.01, 0.05], weights, rule)
    expected = [
        operating_points(*data.repeated(row), [0.0, 0.01, 0.05], rule).tar for row in weights
    ]
    np.testing.assert_array_equal(found, expected)


def test_tar_is_right_for_a_dense_and_for_a_sparse_table_of_pairs() -> None:
    dense, sparse = comparisons(400, 5, seed=1), comparisons(400, 300, seed=1)
    for data, subjects in ((dense, 5), (sparse, 300)):
        weights = subject_weights(subjects, 5, seed=2)
        expected = [operating_points(*data.repeated(row), TARGETS).tar for row in weights]
        np.testing.assert_array_equal(tar_replicates(*data, TARGETS, weights), expected)


def both(data: Comparisons | tuple[object, ...], weights: object) -> np.ndarray:
    """EER and AUC of each replicate, side by side."""
    return np.stack([eer_replicates(*data, weights), auc_replicates(*data, weights)], axis=1)


@pytest.mark.parametrize("cells", [1, 100, 10**7])
def test_blocks_do_not_change_results(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, weights = comparisons(300, 9, seed=4), subject_weights(9, 30, seed=4)
    expected = tar_replicates(*data, TARGETS, weights), both(data, weights)
    monkeypatch.setattr(weighted, "CELLS_AT_ONCE", cells)
    np.testing.assert_array_equal(tar_replicates(*data, TARGETS, weights), expected[0])
    np.testing.assert_array_equal(both(data, weights), expected[1])


def test_the_order_of_comparisons_does_not_matter() -> None:
    data, weights = comparisons(300, 9, seed=6), subject_weights(9, 30, seed=6)
    order = np.random.default_rng(0).permutation(300)
    mixed = Comparisons(*(column[order] for column in data))
    for rule in RULES:
        np.testing.assert_array_equal(
            tar_replicates(*mixed, TARGETS, weights, rule),
            tar_replicates(*data, TARGETS, weights, rule),
        )


def test_heavy_weights_do_not_overflow() -> None:
    # 65535² does not fit a 32-bit signed integer, and the sum of two does not fit 32 bits at all.
    score, a, b = np.array([0.9, 0.8, 0.7, 0.95]), np.array([0, 1, 0, 2]), np.array([1, 0, 2, 2])
    weights = np.array([[65535, 65535, 1]])
    found = tar_replicates(score, a == b, a, b, [0.0, 0.5], weights)
    assert found.tolist() == [[1, 1]]
    swapped = tar_replicates(-score, a == b, a, b, [0.0, 1e-4, 0.5], weights)
    assert swapped.tolist() == [[0, 0, 0]]


def test_a_replicate_without_mated_or_without_nonmated_weight_is_nan() -> None:
    score, a, b = np.array([0.9, 0.1]), np.array([0, 1]), np.array([0, 2])
    weights = [[0, 1, 2], [3, 0, 0], [1, 1, 1]]
    with np.errstate(all="raise"):
        tar = tar_replicates(score, [True, False], a, b, [0.5], weights)
        numbers = both((score, [True, False], a, b), weights)
    assert np.isnan(tar[:, 0]).tolist() == [True, True, False]
    assert np.isnan(numbers).tolist() == [[True, True], [True, True], [False, False]]


def test_no_comparisons_give_nan() -> None:
    nothing = np.zeros(0, np.int64)
    assert np.isnan(tar_replicates([], nothing == 0, nothing, nothing, [0.1], [[1, 1]])).all()


# EER and AUC


@properties
@given(data=lists, seed=st.integers(0, 1000))
def test_eer_and_auc_equal_repeating_each_comparison_weight_times(
    data: Comparisons, seed: int
) -> None:
    weights = subject_weights(6, 4, seed)
    repeated = [data.repeated(row) for row in weights]
    expected = [
        (eer(m, n)[0], auc(m, n)) if m.size and n.size else (math.nan, math.nan)
        for m, n in repeated
    ]
    np.testing.assert_array_equal(both(data, weights), expected)


def test_an_eer_beyond_the_first_part_of_the_non_mated_list_is_found() -> None:
    # Mated and non-mated scores alike: EER near 1/2, so that half of 5,000 scores must be read, not
    # the best 376.
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 40, 5200), rng.integers(0, 40, 5200)
    data = Comparisons(np.round(rng.normal(size=5200), 2), a == b, a, b)
    weights = subject_weights(40, 20, seed=1)
    repeated = [data.repeated(row) for row in weights]
    found = eer_replicates(*data, weights)
    np.testing.assert_array_equal(found, [eer(m, n)[0] for m, n in repeated])
    assert found.min() > 0.4


# Identification

probes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([0.1, 0.2, 0.5, 0.7])),
    max_size=20,
)
tops = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([-math.inf, 0.1, 0.2, 0.6])), max_size=20
)


@pytest.mark.parametrize("rule", RULES)
@properties
@given(mated=probes, nonmated=tops, seed=st.integers(0, 1000))
def test_tpir_equals_repeating_each_probe_weight_times(
    rule: str, mated: list[tuple[int, int, float]], nonmated: list[tuple[int, float]], seed: int
) -> None:
    weights = np.vstack([np.ones((1, 5), np.uint16), subject_weights(5, 3, seed)])
    subject, rank, score = (np.array([row[i] for row in mated]) for i in range(3))
    other, top = (np.array([row[i] for row in nonmated]) for i in range(2))
    found = tpir_replicates(
        top, other.astype(int), rank, score, subject.astype(int), TARGETS, weights, rule
    )
    for row, replicate in zip(weights, found, strict=True):
        m = [probe for probe in mated for _ in range(row[probe[0]])]
        n = [probe[1] for probe in nonmated for _ in range(row[probe[0]])]
        expected = tpir_at_fpir(
            n, [probe[1] for probe in m], [probe[2] for probe in m], TARGETS, rule
        ).tpir
        np.testing.assert_array_equal(replicate, expected)


@properties
@given(mated=probes, seed=st.integers(0, 1000))
def test_rank_rates_equal_repeating_each_probe_weight_times(
    mated: list[tuple[int, int, float]], seed: int
) -> None:
    weights = np.vstack([np.ones((1, 5), np.uint16), subject_weights(5, 3, seed)])
    rank, subject = [probe[1] for probe in mated], [probe[0] for probe in mated]
    found = rank_replicates(rank, np.array(subject, int), [1, 3], weights)
    for row, replicate in zip(weights, found, strict=True):
        expected = cmc([probe[1] for probe in mated for _ in range(row[probe[0]])], 3)
        np.testing.assert_array_equal(replicate, expected[[0, 2]])


# Wrong input


def test_a_mated_flag_that_disagrees_with_the_subjects_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly where subject_a equals subject_b"):
        tar_replicates([0.1, 0.2], [True, True], [0, 0], [0, 1], [0.1], [[1, 1]])


def test_a_subject_without_a_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"subject_b must be \(1,\) integers in 0 … 1"):
        tar_replicates([0.1], [False], [0], [2], [0.1], [[1, 1]])


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mated_subject must be \(2,\) integers .* found shape \(1,\)"
    ):
        rank_replicates([1, 1], [0], [1], [[1]])


@pytest.mark.parametrize("weights", [[[0.5, 1.5]], [[-1, 3]], [[65536, 0]], [1, 1]])
def test_weights_that_are_not_whole_counts_are_refused(weights: object) -> None:
    with pytest.raises(ValueError, match=r"weights must be \(R, S\) integers in 0 … 65535"):
        tar_replicates([0.1], [False], [0], [1], [0.1], weights)  # type: ignore[arg-type]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="rule must be one of"):
        tar_replicates([0.1], [False], [0], [1], [0.1], [[1, 1]], "closest")
