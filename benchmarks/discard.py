"""Error versus discard: the legacy form at three sizes, the standard form, its bootstrap."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import common_method as common
from benchmarks.material import Material, Row, pairs_of
from pipeline.core.schema import Array
from stages.metrics import bootstrap, discard, discard_replicates

FMR = (1e-2, 1e-3, 1e-4)
LIMIT = 0.2
SHORT = 3000  # comparisons of each kind, as in the field's lists of 6,000 pairs
TIMED = 1  # steps of the common method that are timed if all twenty would take minutes


def rows(made: Material, scores: Array, replicates: int) -> list[Row]:
    """Return the lines; `scores` are those of the whole list."""
    mated, (a, b) = made.listed["mated"], pairs_of(made.data)
    # of a template: the lowest quality among its faces
    lowest = np.full(len(made.subject), np.inf, np.float32)
    members = made.data.tables["members"]
    np.minimum.at(lowest, members["template"], made.scored["quality"][members["face"]])
    quality = discard.pair_quality(lowest[a], lowest[b])
    rng = np.random.default_rng(2)
    genuine, impostor = np.flatnonzero(mated), np.flatnonzero(~mated)
    sizes = [len(scores), min(1_000_000, len(scores) // 2), min(2 * SHORT, len(scores) // 4)]
    lines: list[Row] = []
    for size in sizes:
        share = min(size // 2, len(genuine))
        chosen = np.concatenate(
            [rng.choice(genuine, share, False), rng.choice(impostor, size - share, False)]
        )
        chosen = rng.permutation(chosen) if size < len(scores) else np.arange(size)
        part = scores[chosen], mated[chosen], quality[chosen]
        whole = size <= sizes[-1]
        steps = discard.LEGACY_FRACTIONS if whole else discard.LEGACY_FRACTIONS[:TIMED]
        lines.append(
            Row(
                f"legacy error versus discard, {size:,} comparisons, 20 steps × {len(FMR)} FMRs",
                partial(_legacy, *part),
                partial(common.discard_steps, *part, FMR, steps),
                partial(_same_errors, len(steps), _megabytes(partial(_legacy, *part))),
                times=discard.LEGACY_FRACTIONS.size / len(steps),
            )
        )
    threshold = discard.threshold_for(scores[mated], scores[~mated], fmr=FMR[1])
    few, many = np.flatnonzero(mated)[:SHORT], impostor[:: max(1, len(impostor) // SHORT)][:SHORT]
    return [
        *lines,
        Row(
            f"standard error versus discard (FNM-EDC and FM-EDC), {len(scores):,} comparisons,"
            " every distinct quality",
            lambda: _standard(scores, mated, quality, threshold),
            told=lambda found: f"{found[0]:,} and {found[1]:,} points",
        ),
        Row(
            f"{replicates:,} bootstrap replicates of pAUC({LIMIT}), {len(few) + len(many):,}"
            " comparisons",
            _replicated(made, scores, quality, few, many, (a, b), replicates),
        ),
    ]


def _legacy(scores: Array, mated: Array, quality: Array) -> Array:
    return discard.legacy_erc(np.clip(scores, -1, 1), mated, quality, FMR).fnmr


def _standard(scores: Array, mated: Array, quality: Array, threshold: float) -> tuple[int, int]:
    one = discard.fnm_edc(scores[mated], quality[mated], threshold)
    other = discard.fm_edc(scores[~mated], quality[~mated], threshold)
    return len(one.x), len(other.x)


def _replicated(
    made: Material,
    scores: Array,
    quality: Array,
    few: Array,
    many: Array,
    sides: tuple[Array, Array],
    replicates: int,
) -> Callable[[], Any]:
    a, b = (made.subject[side] for side in sides)

    def work() -> Array:
        weights = bootstrap.subject_weights(int(made.subject.max()) + 1, replicates, seed=0)
        limits = discard_replicates.threshold_replicates(
            scores[many], a[many], b[many], FMR[:1], weights
        )
        own = scores[few], quality[few], a[few]
        return discard_replicates.fnm_pauc_replicates(*own, limits, weights, [LIMIT]).pauc

    return work


def _megabytes(function: Callable[[], Any]) -> float:
    """Return what a function allocates at its peak, in MB."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def _same_errors(steps: int, megabytes: float, theirs: Array, ours: Array) -> str:
    if steps == ours.shape[1]:
        told = ""
    else:
        told = f"common method: {steps} of 20 steps timed, × {20 // steps}; "
    return (
        f"{told}{megabytes:.0f} MB beside the lists; FNMR within"
        f" {np.nanmax(np.abs(theirs - ours[:, :steps])):.1e}"
    )
