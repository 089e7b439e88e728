"""What EER, AUC and k-fold accuracy of `stages.metrics.verification` promise."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stages.metrics.verification import auc, crossing, eer, kfold_accuracy

properties = settings(deadline=None, max_examples=80)

# Few distinct values, so that most lists hold ties within and across the two kinds.
some_scores = st.lists(st.integers(-6, 6).map(lambda i: i / 8), min_size=1, max_size=25)


def slow_eer(mated: list[float], nonmated: list[float]) -> Fraction:
    """Walk the polyline of exact points until FMR reaches FNMR."""
    before = (Fraction(0), Fraction(1))
    for threshold in sorted({*mated, *nonmated}, reverse=True):
        fm, fnm = sum(s >= threshold for s in nonmated), sum(s < threshold for s in mated)
        after = (Fraction(fm, len(nonmated)), Fraction(fnm, len(mated)))
        gap_before, gap_after = before[0] - before[1], after[0] - after[1]
        if gap_after >= 0:
            return before[0] + (after[0] - before[0]) * -gap_before / (gap_after - gap_before)
        before = after
    raise AssertionError("the last point accepts everything")


# EER and AUC


@pytest.mark.parametrize(
    ("mated", "nonmated", "rate", "threshold"),
    [
        ([0.9, 0.8], [0.2, 0.1], 0.0, 0.8),  # separated: met at the lowest mated score
        ([0.9, 0.6], [0.7, 0.1], 0.5, 0.7),  # an observed point with FMR = FNMR
        ([0.5], [0.5], 0.5, 0.5),  # all tied: half-way between accepting nothing and everything
        ([0.1], [0.9], 1.0, 0.9),  # reversed
        (
            [0.9, 0.8, 0.5],
            [0.7, 0.5, 0.1, 0.1],
            2 / 7,
            0.7,
        ),  # one seventh of the way from (1/4, 1/3) to (1/2, 0)
    ],
)
def test_eer_worked_out_by_hand(
    mated: list[float], nonmated: list[float], rate: float, threshold: float
) -> None:
    found_rate, found_threshold = eer(mated, nonmated)
    assert found_rate == pytest.approx(rate, abs=1e-15)
    assert found_threshold == threshold


@properties
@given(some_scores, some_scores)
def test_eer_equals_walking_the_curve_in_fractions(
    mated: list[float], nonmated: list[float]
) -> None:
    assert eer(mated, nonmated)[0] == pytest.approx(float(slow_eer(mated, nonmated)), abs=1e-14)


@properties
@given(some_scores, some_scores)
def test_eer_is_read_off_the_whole_curve_to_the_bit(
    mated: list[float], nonmated: list[float]
) -> None:
    threshold = np.array([math.inf, *sorted({*mated, *nonmated}, reverse=True)])
    fmr = (np.array(nonmated) >= threshold[:, None]).sum(axis=1) / len(nonmated)
    fnmr = (np.array(mated) < threshold[:, None]).sum(axis=1) / len(mated)
    rate, after = crossing(fmr, fnmr)
    gap = abs(fmr - fnmr)
    assert eer(mated, nonmated) == (rate, threshold[after - (gap[after - 1] < gap[after])])


@properties
@given(some_scores, some_scores)
def test_the_eer_threshold_is_an_observed_score(mated: list[float], nonmated: list[float]) -> None:
    assert eer(mated, nonmated)[1] in {*mated, *nonmated}


def test_auc_counts_a_tie_as_one_half() -> None:
    assert auc([1, 2], [1, 0]) == (1 + 1 + 1 + 0.5) / 4


@properties
@given(some_scores, some_scores)
def test_auc_equals_scikit_learn(mated: list[float], nonmated: list[float]) -> None:
    expected = roc_auc_score([1] * len(mated) + [0] * len(nonmated), [*mated, *nonmated])
    assert auc(mated, nonmated) == pytest.approx(expected, abs=1e-14)


@properties
@given(some_scores, some_scores)
def test_exchanging_the_classes_mirrors_auc(mated: list[float], nonmated: list[float]) -> None:
    assert auc(mated, nonmated) == pytest.approx(1 - auc(nonmated, mated), abs=1e-14)


# Accuracy by cross-validation


def slow_folds(
    scores: list[float], mated: list[bool], fold: list[int]
) -> list[tuple[float, float]]:
    rows = list(zip(scores, mated, fold, strict=True))

    def right(rows: list[tuple[float, bool, int]], threshold: float) -> int:
        return sum((score >= threshold) == truth for score, truth, _ in rows)

    out = []
    for name in sorted(set(fold)):
        train, test = ([row for row in rows if (row[2] == name) == own] for own in (False, True))
        tried = [*{row[0] for row in train}, math.inf]
        threshold = min(tried, key=lambda t: (-right(train, t), t))
        out.append((right(test, threshold) / len(test), threshold))
    return out


@properties
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40
    )
)
def test_kfold_equals_trying_every_threshold_on_the_other_folds(
    rows: list[tuple[int, bool, int]],
) -> None:
    scores, mated, fold = ([row[i] for row in rows] for i in range(3))
    found = kfold_accuracy(scores, mated, fold)
    if len(set(fold)) == 1:
        assert np.isnan([*found.accuracy, *found.threshold, found.mean, found.std]).all()
        return
    expected = slow_folds(scores, mated, fold)
    assert list(zip(found.accuracy, found.threshold, strict=True)) == expected
    assert found.mean == pytest.approx(np.mean([accuracy for accuracy, _ in expected]))
    assert found.std == pytest.approx(np.std([accuracy for accuracy, _ in expected]))


def test_kfold_takes_the_lowest_of_equally_good_thresholds() -> None:
    # On the other fold both .6 and .8 decide 3 of 4 rightly.
    found = kfold_accuracy(
        [0.8, 0.7, 0.6, 0.1, 0.65], [True, False, True, False, True], [0, 0, 0, 0, 1]
    )
    assert found.threshold[1] == 0.6
    assert found.accuracy[1] == 1


def test_kfold_can_reject_everything() -> None:
    found = kfold_accuracy([0.2, 0.9], [False, False], [0, 1])
    assert found.threshold.tolist() == [math.inf, math.inf]
    assert (found.mean, found.std) == (1, 0)


def test_kfold_names_its_folds() -> None:
    found = kfold_accuracy([0.9, 0.1, 0.8], [True, False, True], ["b", "a", "b"])
    assert found.fold.tolist() == ["a", "b"]


@pytest.mark.parametrize("n", [0, 3])
def test_fewer_than_two_folds_give_nan_and_a_reason(n: int) -> None:
    found = kfold_accuracy([0.5] * n, [True] * n, [7] * n)
    assert np.isnan([*found.accuracy, *found.threshold, found.mean, found.std]).all()
    assert found.reason == f"a threshold is chosen on other folds: found {min(n, 1)} fold(s)"


def test_kfold_refuses_lengths_that_differ() -> None:
    with pytest.raises(
        ValueError, match=r"one entry a comparison, found shapes \(2,\), \(1,\) and \(2,\)"
    ):
        kfold_accuracy([0.1, 0.2], [True], [0, 1])
