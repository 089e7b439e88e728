"""What `stages.metrics.identification` promises, against plain loops and numbers worked out by
hand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.metrics.identification import cmc, mate_rank, tpir_at_fpir

RULES = ("at_most", "nearest")
properties = settings(deadline=None, max_examples=80)

levels = st.integers(-3, 3).map(lambda i: i / 4)  # few values: many ties
tops = st.lists(st.one_of(levels, st.just(-math.inf)), max_size=15)
mated_probes = st.lists(st.tuples(st.integers(0, 3), levels), max_size=15)
targets = st.one_of(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), st.floats(0, 1))


# Ranks


def test_mate_rank_is_the_first_place_of_the_probes_subject() -> None:
    candidates = [[7, 5, 7], [5, 7, 9], [1, 2, 3]]
    assert mate_rank(candidates, [7, 9, 4]).tolist() == [1, 3, 0]


def test_padding_is_nobodys_mate() -> None:
    assert mate_rank([[4, -1, -1], [-1, -1, -1]], [-1, -1]).tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_lists_hold_no_mate(shape: tuple[int, int]) -> None:
    ranks = mate_rank(np.zeros(shape, np.int64), np.zeros(shape[0], np.int64))
    assert ranks.tolist() == [0] * shape[0]
    assert ranks.dtype == np.int64


def test_mate_rank_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"found \(1, 2\), \(2,\)"):
        mate_rank([[1, 2]], [1, 2])


# Closed set


def test_cmc_is_the_cumulative_share_over_all_mated_probes() -> None:
    # Five probes: two at rank 1, one at 2, one at 4, one not found.
    assert cmc([1, 2, 0, 1, 4], 4).tolist() == [0.4, 0.6, 0.6, 0.8]


def test_a_rank_beyond_the_last_asked_for_is_a_miss() -> None:
    assert cmc([1, 9], 2).tolist() == [0.5, 0.5]


def test_cmc_without_probes_is_nan() -> None:
    assert np.isnan(cmc([], 3)).tolist() == [True, True, True]


@pytest.mark.parametrize(("rank", "max_rank"), [([1], 0), ([-1], 1)])
def test_cmc_refuses_ranks_that_are_none(rank: list[int], max_rank: int) -> None:
    with pytest.raises(ValueError, match="ranks must be 0"):
        cmc(rank, max_rank)


# Open set


def slow_open_set(
    top: list[float], mated: list[tuple[int, float]], target: float, rule: str, presented: int
) -> tuple[float, int, int]:
    """(threshold, false positives, misses) by trying every top-1 score that was observed."""

    def point(threshold: float) -> tuple[float, int, int]:
        found = sum(rank == 1 and score >= threshold for rank, score in mated)
        return threshold, sum(score >= threshold for score in top), len(mated) - found

    observed = {score for score in top if score > -math.inf} | {
        score for rank, score in mated if rank == 1
    }
    tried = [point(threshold) for threshold in {*observed, math.inf}]
    if rule == "at_most":
        return min(p for p in tried if p[1] / presented <= target)
    return min(tried, key=lambda p: (abs(p[1] / presented - target), -p[1], p[0]))


def test_a_hit_needs_rank_1_and_a_score_at_or_above_the_threshold() -> None:
    # FPIR 1/4 lets .6 in and keeps .5 out: the lowest score between is .55. Missed: rank 2, not in
    # the list.
    found = tpir_at_fpir(
        [0.6, 0.5, 0.4, 0.3], [1, 1, 2, 1, 0], [0.9, 0.6, 0.8, 0.55, -math.inf], [0.25]
    )
    assert found.threshold.tolist() == [0.55]
    assert (found.fpir[0], found.false_positives[0]) == (0.25, 1)
    assert (found.tpir[0], found.fnir[0], found.misses[0]) == (0.6, 0.4, 2)


@pytest.mark.parametrize("rule", RULES)
@properties
@given(top=tops.filter(len), mated=mated_probes.filter(len), target=targets, more=st.integers(0, 5))
def test_open_set_equals_trying_every_threshold(
    rule: str, top: list[float], mated: list[tuple[int, float]], target: float, more: int
) -> None:
    presented = len(top) + more
    ranks, scores = zip(*mated, strict=True)
    found = tpir_at_fpir(top, ranks, scores, [target], rule, n_nonmated=presented)
    threshold, false_positives, misses = slow_open_set(top, mated, target, rule, presented)
    assert found.threshold[0] == threshold
    assert (found.false_positives[0], found.misses[0]) == (false_positives, misses)
    assert found.fpir[0] == false_positives / presented
    assert found.fnir[0] == misses / len(mated)
    assert found.tpir[0] == (len(mated) - misses) / len(mated)


def test_a_failed_nonmated_probe_counts_the_same_listed_or_left_out() -> None:
    args = [1, 1], [0.8, 0.35], [0.1, 0.25, 0.5]
    listed = tpir_at_fpir([0.5, 0.4, -math.inf, -math.inf], *args)
    left_out = tpir_at_fpir([0.5, 0.4], *args, n_nonmated=4)
    assert listed.false_positives.tolist() == left_out.false_positives.tolist() == [0, 1, 2]
    assert listed.fpir.tolist() == left_out.fpir.tolist() == [0, 0.25, 0.5]
    assert listed.tpir.tolist() == left_out.tpir.tolist() == [0.5, 0.5, 1]


def test_when_every_nonmated_probe_failed_nothing_limits_the_threshold() -> None:
    found = tpir_at_fpir([-math.inf], [1, 2], [0.3, 0.9], [0.0])
    assert (found.threshold[0], found.false_positives[0], found.tpir[0]) == (0.3, 0, 0.5)


def test_the_score_of_a_mate_that_is_not_first_is_not_read() -> None:
    found = tpir_at_fpir([0.1], [1, 0, 2], [0.5, math.nan, math.inf], [0.0])
    assert found.tpir.tolist() == [1 / 3]


def test_few_marks_less_than_thirty_false_positives() -> None:
    found = tpir_at_fpir(np.arange(100.0), [1], [200.0], [0.29, 0.30])
    assert found.few.tolist() == [True, False]


def test_without_nonmated_probes_all_is_nan_with_a_reason() -> None:
    found = tpir_at_fpir([], [1], [0.5], [0.1])
    assert np.isnan([found.threshold[0], found.fpir[0], found.tpir[0], found.fnir[0]]).all()
    assert found.reason == "no non-mated probes"


def test_without_mated_probes_the_threshold_stands_and_tpir_is_nan() -> None:
    found = tpir_at_fpir([0.1, 0.2], [], [], [0.5])
    assert (found.threshold[0], found.fpir[0]) == (0.2, 0.5)
    assert np.isnan([found.tpir[0], found.fnir[0]]).all()
    assert found.reason == "no mated probes"


@pytest.mark.parametrize(
    ("top", "rank", "score", "presented", "message"),
    [
        ([math.nan], [1], [0.5], None, "nonmated_top must be finite"),
        ([math.inf], [1], [0.5], None, "nonmated_top must be finite"),
        ([0.1], [1], [math.nan], None, "mated_score at rank 1 must be finite"),
        ([0.1], [1, 1], [0.5], None, "must match"),
        ([0.1, 0.2], [1], [0.5], 1, "n_nonmated is 1, but nonmated_top holds 2"),
    ],
)
def test_open_set_refuses_scores_and_counts_that_cannot_be(
    top: list[float], rank: list[int], score: list[float], presented: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tpir_at_fpir(top, rank, score, [0.1], n_nonmated=presented)
