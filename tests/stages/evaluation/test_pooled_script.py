"""The pooled script's arithmetic on candidate lists, against its own on the whole matrix of
scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Work
from pipeline.errors import InvalidInput
from stages.evaluation.numbers import find_number
from stages.evaluation.pooled_script import EvaluatePooledScript, PooledScriptOptions
from stages.metrics.identification import pooled_script
from stages.tables.schemas import CURVES, NUMBERS
from stages.tables.tables import ProtocolLists, build_tables, singletons

Make = Callable[..., Any]


def a_set(probes: list[str], gallery: int = 6) -> dict[str, Batch]:
    """Templates of the subjects s0 … of the gallery, then one probe of each name given."""
    subjects = [f"s{i}" for i in range(gallery)] + probes
    names = [f"t{i}" for i in range(len(subjects))]
    found = ProtocolLists(
        face_id=names,
        path=names,
        sha256=names,
        subject=subjects,
        role_template=names,
        role=["gallery"] * gallery + ["probe"] * len(probes),
        **singletons(names, subjects),
    )
    return build_tables(found, "a set")


@pytest.fixture(scope="session")
def pooled(source: Make, context: Make) -> Callable[..., Batch]:
    def run(probes: list[str], score: Any, k: int, targets: Any, gallery: int = 6) -> Batch:
        """`score` (p, g): a row of nan is a probe that failed."""
        failed = np.isnan(score).all(axis=1)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        candidate = np.where(failed[:, None], -1, order)
        status = np.where(failed, Status.EMPTY, Status.OK).astype(np.uint8)
        found = {
            "status": status,
            "candidate": candidate,
            "score": np.take_along_axis(score, order, axis=1),
        }
        work = Work(0, len(probes), a_set(probes, gallery), {"candidates": source(Batch(found))})
        made = EvaluatePooledScript(PooledScriptOptions(targets=targets), context()).compute(work)
        NUMBERS.check(made["numbers"])
        CURVES.check(made["curves"])
        return made["numbers"]

    return run


def by_the_script(probes: list[str], score: np.ndarray, target: float) -> tuple[float, float]:
    """(threshold, share) on the whole matrix, one score at a time."""
    impostors = sorted(
        (
            s
            for name, row in zip(probes, score, strict=True)
            for g, s in enumerate(row)
            if name != f"s{g}"
        )
    )
    threshold = impostors[-math.ceil(len(probes) * target)]
    own = [row[int(name[1:])] for name, row in zip(probes, score, strict=True)]
    return threshold, sum(s > threshold for s in own) / len(own)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [4, 6])
def test_lists_that_reach_far_enough_give_what_the_whole_matrix_gives(
    pooled: Make, seed: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    probes = [f"s{i}" for i in rng.integers(0, 6, 30)]
    own = np.array([[name == f"s{g}" for g in range(6)] for name in probes])
    score = (np.round(rng.random((30, 6)), 1) + 0.4 * own).astype(np.float32)  # ties abound
    found = pooled(probes, score, k, (0.05, 0.1, 0.3))
    for target in (0.05, 0.1, 0.3):
        row = find_number(found, "pooled_script", target)
        assert (row["threshold"], row["value"]) == by_the_script(probes, score, target)
        assert (row["trials"], row["rule"], row["few"]) == (30, "", False)


def test_a_mate_counts_at_whatever_rank_and_above_the_threshold_only(pooled: Make) -> None:
    # Two impostors at .75 stand before the mate of s0, whose .5 is above the third largest
    # impostor, .25; that of s1 ties.
    score = np.float32([[0.5, 0.75, 0.75], [0.0, 0.25, 0.25]])
    row = find_number(pooled(["s0", "s1"], score, 3, (1.0,), gallery=3), "pooled_script")
    assert (row["threshold"], row["value"]) == (0.75, 0)
    score[0, 2] = 0.125
    row = find_number(pooled(["s0", "s1"], score, 3, (1.0,), gallery=3), "pooled_script")
    assert (row["threshold"], row["value"]) == (0.25, 0.5)


def test_a_probe_that_failed_is_a_miss(pooled: Make) -> None:
    score = np.float32([[0.5, 0.25], [np.nan, np.nan]])
    row = find_number(pooled(["s0", "s1"], score, 2, (0.5,), gallery=2), "pooled_script")
    assert (row["threshold"], row["value"], row["trials"]) == (0.25, 0.5, 2)


def test_lists_that_may_lack_impostors_that_count_are_refused(pooled: Make) -> None:
    score = np.float32([[0.75, 0.5, 0.25, 0.25, 0, 0], [0, 0, 0, 0, 0, 0.125]])
    with pytest.raises(
        InvalidInput,
        match=r"at 1 the threshold lies below the last of the 2 candidates .* raise search\.k",
    ):
        pooled(["s0", "s5"], score - [[0], [0.5]], 2, (1.0,))
    assert (
        find_number(pooled(["s0", "s5"], score - [[0], [0.5]], 6, (1.0,)), "pooled_script")[
            "threshold"
        ]
        == 0.25
    )


def test_a_target_that_is_a_whole_count_is_not_lost_to_rounding() -> None:
    threshold, share = pooled_script(np.arange(100.0), [97.5], 30, [0.1, 0.0])
    assert threshold.tolist() == [
        97,
        99,
    ]  # the third largest, not the fourth; never fewer than the largest
    assert share.tolist() == [1, 0]


def test_without_probes_there_is_no_number(pooled: Make) -> None:
    row = find_number(pooled([], np.zeros((0, 6), np.float32), 2, (0.1,)), "pooled_script")
    assert np.isnan([row["value"], row["threshold"]]).all()
