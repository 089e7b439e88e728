"""What the intervals of `stages.metrics.bootstrap` promise."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from stages.metrics.bootstrap import (
    interval,
    paired_difference,
    rate_interval,
    subject_weights,
    tar_replicates,
)
from stages.metrics.verification import operating_points


def test_interval_is_the_central_percentiles_of_each_column() -> None:
    replicates = np.stack([np.arange(101.0), np.arange(101.0)[::-1] * 2], axis=1)
    lo, hi = interval(replicates, level=0.9)
    np.testing.assert_allclose([lo, hi], [[5, 10], [95, 190]])


def test_interval_leaves_nan_out() -> None:
    with_nan = np.concatenate([np.arange(101.0), np.full(40, np.nan)])
    assert interval(with_nan) == interval(np.arange(101.0))


@pytest.mark.parametrize("rows", [0, 3])
def test_interval_of_nothing_but_nan_is_nan_without_a_warning(rows: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lo, hi = interval(np.full((rows, 2), np.nan))
    assert np.isnan([lo, hi]).tolist() == [[True, True], [True, True]]


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=r"95 % is 0\.95"):
        interval([0.0, 1.0], level)


@pytest.mark.parametrize(("level", "subjects"), [(0.95, 27), (0.9, 3), (0.95, 1)])
def test_a_rate_without_errors_has_the_exact_binomial_bound_over_subjects(
    level: float, subjects: int
) -> None:
    expected = binomtest(0, subjects, alternative="less").proportion_ci(level, "exact").high
    assert rate_interval(0.0, np.zeros(50), level, subjects) == (0, pytest.approx(expected))
    assert rate_interval(1.0, np.ones(50), level, subjects) == (pytest.approx(1 - expected), 1)


def test_a_bound_never_narrows_what_the_replicates_say() -> None:
    drawn = np.linspace(0.5, 1, 101)
    assert rate_interval(1.0, drawn, 0.9, 10**6) == pytest.approx((0.525, 0.975), abs=1e-9)


@pytest.mark.parametrize(("value", "subjects"), [(0.0, -1), (0.5, 9), (0.3, -1)])
def test_an_interval_without_width_is_none_where_nothing_bounds_the_number(
    value: float, subjects: int
) -> None:
    assert np.isnan(rate_interval(value, np.full(9, value), 0.95, subjects)).all()


def test_without_replicates_a_rate_has_no_interval_at_all() -> None:
    assert np.isnan(rate_interval(0.0, np.full(9, np.nan), 0.95, 9)).all()


def test_a_paired_difference_cancels_what_the_replicates_share() -> None:
    shared = np.random.default_rng(0).normal(size=500)
    found = paired_difference(0.7, 0.6, shared + 0.1, shared)
    np.testing.assert_allclose([found.value, found.lo, found.hi], 0.1)


def test_a_paired_difference_is_a_minus_b_row_by_row() -> None:
    a, b = np.array([[1.0, 5], [2, math.nan], [3, 7]]), np.array([[0.0, 1], [0, 1], [0, 1]])
    found = paired_difference([2, 6], [0, 1], a, b, level=0.5)
    np.testing.assert_array_equal(found.value, [2, 5])
    np.testing.assert_array_equal([found.lo, found.hi], [[1.5, 4.5], [2.5, 5.5]])


def test_replicates_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match=r"paired row by row, found shapes \(3,\) and \(2,\)"):
        paired_difference(0, 0, [1, 2, 3], [1, 2])


def test_the_interval_covers_the_rate_of_the_population_it_samples() -> None:
    # 60 subjects, each with its own shift, so that comparisons of one subject hang together. Of 40
    # samples the 90 % intervals must cover the TAR of the population (read off 3000 subjects) at
    # least 30 times. Measured over 400 samples: these cover 0.88, binomial intervals, which ignore
    # subjects, 0.33.
    rng = np.random.default_rng(7)

    def sample(subjects: int) -> tuple[Any, ...]:
        shift = rng.normal(0, 1, subjects)
        a = np.concatenate([np.repeat(np.arange(subjects), 20), np.repeat(np.arange(subjects), 20)])
        b = np.concatenate(
            [
                a[: subjects * 20],
                (a[: subjects * 20] + rng.integers(1, subjects, subjects * 20)) % subjects,
            ]
        )
        mean = np.where(a == b, 3 + shift[a], 0)
        return rng.normal(mean, 0.5).astype(np.float32), a == b, a, b

    score, mated, _, _ = sample(3000)
    truth = operating_points(score[mated], score[~mated], [0.01]).tar[0]
    weights = subject_weights(60, 200, seed=1)
    covered = 0
    for _ in range(40):
        lo, hi = interval(tar_replicates(*sample(60), [0.01], weights), level=0.9)
        covered += bool(lo[0] <= truth <= hi[0])
    assert covered >= 30
