"""The threshold rule `script` against scikit-learn's `roc_curve`, called as the common IJB scripts
call it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from stages.metrics import script_rule
from stages.metrics.verification import operating_points

TARGETS = (0.0, 1e-3, 0.05, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1.0)


def ijb_script(mated: Any, nonmated: Any) -> list[tuple[float, float]]:
    """(FMR, TAR) at each of TARGETS as these scripts read scikit-learn's curve."""
    labels = [1] * len(mated) + [0] * len(nonmated)
    fpr, tpr, _ = roc_curve(labels, [*mated, *nonmated])
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    places = [min(zip(abs(fpr - t), range(len(fpr)), strict=True))[1] for t in TARGETS]
    return [(fpr[index], tpr[index]) for index in places]


def lists(seed: int) -> tuple[Any, Any]:
    """Scores with as many ties as chance gives, within and across the two kinds, and none in every
    third list.
    """
    rng = np.random.default_rng(seed)
    steps = [4, 20, 10**6][seed % 3]
    sizes = rng.integers(1, [12, 60, 200][seed // 3 % 3], 2)
    dtype = np.float32 if seed % 2 else np.float64
    return tuple(
        (rng.integers(0, steps, size) / steps + shift).astype(dtype)
        for size, shift in zip(sizes, (0.25, 0), strict=True)
    )


def test_script_equals_scikit_learn_on_a_thousand_lists_with_ties_through_any_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = (1, 4, script_rule.WINDOW)
    for seed in range(1000):
        mated, nonmated = lists(seed)
        expected = ijb_script(mated, nonmated)
        for window in windows:
            monkeypatch.setattr(script_rule, "WINDOW", window)
            points = operating_points(mated, nonmated, TARGETS, "script")
            assert [*zip(points.fmr, points.tar, strict=True)] == expected, (seed, window)


def test_script_takes_a_point_that_the_curve_kept_where_a_nearer_one_was_dropped() -> None:
    mated, nonmated = [0.9, 0.45], [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01]
    script, nearest = (
        operating_points(mated, nonmated, [0.3], rule) for rule in ("script", "nearest")
    )
    assert (script.tar[0], script.fmr[0], script.threshold[0]) == (1, 0.4, 0.45)
    assert (nearest.tar[0], nearest.fmr[0]) == (0.5, 0.3)


def test_script_without_non_mated_scores_is_not_defined() -> None:
    points = operating_points([0.5], [], [0.1], "script")
    assert np.isnan([points.threshold[0], points.fmr[0], points.tar[0]]).all()
