"""Error rates at steps of discard, the threshold chosen anew on what remains at each.

Conventions
    Direction, decision and the threshold rules "at_most" and "nearest" are those of
    ``verification``.
    Interpolated    the third rule: the linear quantile of the non-mated scores. Of n in descending
                    order, counted from 0, it is the value at place t (n - 1), on the straight line
                    between neighbours. It need not be an observed score, and it accepts the best
                    one even at t = 0.
    Discard         at fraction u of N comparisons, the first int(u N) in order of (quality, index)
                    are gone: int truncates the product in float64, index is the place in the
                    caller's list. So a run of equal quality may be cut, unlike in ``discard.edc``.
                    (The published legacy script leaves equal ones in no particular order: its sort
                    is unstable.) "joint": mated and non-mated in one order. "separate": each kind
                    in its own.
    Legacy form     what CR-FIQA's evaluation draws: joint, fractions ``LEGACY_FRACTIONS``; the
                    threshold is the observed score whose FMR (score >= t) is nearest the target,
                    never +inf, the larger FMR if two are equally near, again at the lowest such
                    threshold; a mated comparison *at* the threshold counts as an error (FNMR = 1 -
                    mean(score > t)).
    Empty input     if a step has no comparison of a kind, rates that need it are nan; ``reason``
                    says from which fraction on, and is "" when all is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.exact.functions import arccos
from stages.exact.sums import dot
from stages.metrics.verification import (
    FEW,
    Counts,
    Floats,
    Scores,
    Targets,
    ThresholdRule,
    as_scores,
    as_targets,
    choose_threshold,
)

DiscardRule = Literal["at_most", "nearest", "interpolated"]
Discard = Literal["joint", "separate"]
Flags = NDArray[np.bool_]
# Mated and non-mated scores, ascending; targets; how many non-mated there are. Gives (T,)
# thresholds.
_Choice = Callable[[Scores, Scores, Floats, int], Floats]

# 0 … 0.95, with the rounding the published curves have
LEGACY_FRACTIONS: Floats = np.arange(0, 0.98, 0.05)

# Non-mated comparisons read in addition to what the largest target needs: affects speed only.
FIRST_READ = 1 << 14


@dataclass(frozen=True)
class Recomputed:
    """Error rates by target and step.

    The columns of one step, over many targets, are the DET of what remains.
    """

    target: Floats  # (T,)
    fraction: Floats  # (S,) asked for
    threshold: Floats  # (T, S)
    fmr: Floats  # (T, S) achieved
    false_matches: Counts  # (T, S)
    fnmr: Floats  # (T, S)
    few: Flags  # (T, S) fewer than 30 false matches
    n_mated: Counts  # (S,) that remain
    n_nonmated: Counts  # (S,)
    reason: str


@dataclass(frozen=True)
class LegacyErc(Recomputed):
    """The legacy form, with the area under each FNMR curve."""

    auc: Floats  # (T,) trapezoids over [0, 0.95], not divided by 0.95; nan if a step is


def recomputed(
    score: ArrayLike,
    mated: ArrayLike,
    quality: ArrayLike,
    targets: Targets,
    fractions: Sequence[float] | Floats,
    discard: Discard = "joint",
    rule: DiscardRule = "at_most",
) -> Recomputed:
    """FNMR at each FMR target after each fraction of discard, each with a threshold chosen anew.

    score (N,) finite; mated (N,) bool; quality (N,) of the comparisons, finite, higher = better;
    targets (T,): FMR in [0, 1]; fractions (S,) in [0, 1], ascending. With many targets this is the
    DET at each discard. Reads all mated comparisons and no more of the non-mated than the largest
    target needs. Raises ValueError for a score or quality that is not finite, lengths that differ,
    rates or fractions outside [0, 1], fractions that descend, an unknown discard or rule.

    >>> found = recomputed(
    ...     [0.9, 0.2, 0.8, 0.5, 0.1, 0.3],
    ...     [True, True, True, False, False, False],
    ...     [3, 1, 2, 3, 2, 1],
    ...     targets=[0.0],
    ...     fractions=[0.0, 0.4],
    ... )
    >>> found.fnmr.round(3), found.threshold
    (array([[0.333, 0.   ]]), array([[0.8, 0.8]]))
    """
    if discard not in get_args(Discard):
        raise ValueError(
            f"discard must be one of {', '.join(get_args(Discard))}, found {discard!r}."
        )
    check_discard_rule(rule)
    data, wanted = _ScoredComparisons.of(score, mated, quality), as_fractions(fractions)
    if (np.diff(wanted) < 0).any():
        raise ValueError(f"fractions must ascend, found {fractions!r}: sort them.")
    return _at_steps(
        data, as_targets(targets), wanted, discard, partial(choose_discard, rule=rule), "left"
    )


def legacy_erc(
    score: ArrayLike, mated: ArrayLike, quality: ArrayLike, targets: Targets
) -> LegacyErc:
    """The error-versus-reject curve in the form of CR-FIQA's evaluation, at 20 steps.

    score (N,), any finite similarity; mated (N,) bool; quality (N,) finite; targets (T,): FMR in
    [0, 1]. Only the order of scores counts: the published thresholds are ``angular_distance`` of
    these, for cosines. There, cosines beyond ±1 are clipped, which makes ties: clip them first.
    Raises ValueError as ``recomputed``.
    """
    data = _ScoredComparisons.of(score, mated, quality)
    found = _at_steps(
        data, as_targets(targets), LEGACY_FRACTIONS, "joint", _nearest_observed, "right"
    )
    return LegacyErc(**vars(found), auc=trapezoids(found.fnmr))


def angular_distance(cosine: ArrayLike) -> Floats:
    """arccos(cosine) / π in [0, 1], in float64; cosines beyond ±1 are clipped, nan stays nan.

    >>> angular_distance([1.0, 0.0, -1.0])
    array([0. , 0.5, 1. ])
    """
    return np.asarray(arccos(np.clip(np.asarray(cosine, np.float64), -1, 1)) / np.pi)


def trapezoids(fnmr: Floats) -> Floats:
    """(…) area under curves (…, 20) of the legacy form: over [0, 0.95], not divided by 0.95.

    >>> round(float(trapezoids(np.full(20, 0.5))), 3)
    0.475
    """
    return dot((fnmr[..., 1:] + fnmr[..., :-1]) / 2, np.diff(LEGACY_FRACTIONS))


# What the sibling modules share: the checks and the choice of thresholds.


def check_discard_rule(rule: str) -> None:
    """Raises ValueError unless rule is a threshold rule."""
    if rule not in get_args(DiscardRule):
        raise ValueError(f"rule must be one of {', '.join(get_args(DiscardRule))}, found {rule!r}.")


def as_fractions(fractions: ArrayLike, name: str = "fractions") -> Floats:
    """fractions as 1-D float64 in [0, 1]; ValueError otherwise."""
    wanted = np.asarray(fractions, np.float64)
    if wanted.ndim != 1 or not np.all((wanted >= 0) & (wanted <= 1)):
        raise ValueError(
            f"{name} must be a list of numbers in [0, 1], found {fractions!r}: 5 % is 0.05."
        )
    return wanted


def choose_discard(
    genuine: Scores, impostor: Scores, target: Floats, total: int, rule: DiscardRule
) -> Floats:
    """(T,) thresholds by the rule; arguments as ``verification.choose_threshold``."""
    if rule != "interpolated":
        kept: ThresholdRule = rule
        return choose_threshold(genuine, impostor, target, kept, total)
    if total == 0:
        return np.full(target.shape, np.nan)
    above, below, part = interpolated_place(target, np.asarray(total))
    upper, lower = (_scores_from_top(impostor, place) for place in (above, below))
    known = np.isfinite(lower)
    step = np.subtract(lower, upper, where=known, out=np.zeros_like(lower))
    return np.where(known, np.maximum(upper + part * step, lower), -np.inf)


def interpolated_place(target: Floats, total: ArrayLike) -> tuple[Counts, Counts, Floats]:
    """The two places, counted from the best non-mated score, that the quantile lies between.

    The third array is how far past the first of them it lies.
    """
    last = np.maximum(np.asarray(total) - 1, 0)
    place, nearest = target * last, np.rint(target * last)
    # As in ``allowed_count``: rounding before the test keeps 0.29 x 100 at 29.
    place = np.where(nearest / np.maximum(last, 1) == target, nearest, place)
    above = np.floor(place)
    return above.astype(np.int64), np.ceil(place).astype(np.int64), place - above


def key_for(threshold: Floats, dtype: np.dtype[Any]) -> Scores:
    """The least number of the scores' own type that is not below each threshold.

    It decides every score as the threshold does.
    """
    key = threshold.astype(dtype)
    return np.where(key < threshold, np.nextafter(key, np.asarray(np.inf, dtype)), key)


# One list, cut at every step.


@dataclass(frozen=True)
class _ScoredComparisons:
    score: Scores
    mated: Flags
    quality: Scores

    @staticmethod
    def of(score: ArrayLike, mated: ArrayLike, quality: ArrayLike) -> _ScoredComparisons:
        found = _ScoredComparisons(
            as_scores(score, "score"), np.asarray(mated, bool), as_scores(quality, "quality")
        )
        shapes = [each.shape for each in (found.score, found.mated, found.quality)]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"score, mated and quality must have one entry a comparison, found shapes {shapes}."
            )
        return found


@dataclass(frozen=True)
class _Cuts:
    """Where ascending steps cut a list that lies in order of (quality, index)."""

    quality: Scores  # (S,) of the first comparison kept, +inf if none is
    first: Counts  # (S,) the index from which on comparisons of that very quality are kept
    kept: Counts  # (S,) how many are kept

    @staticmethod
    def of(quality: Scores, among: Flags | None, fraction: Floats) -> _Cuts:
        """The order is that of all comparisons or of those ``among``; it costs one plain sort."""
        rising = np.sort(quality if among is None else quality[among])
        start = (fraction * rising.size).astype(np.int64)
        value = np.full(start.shape, np.inf, rising.dtype)
        value[start < rising.size] = rising[start[start < rising.size]]
        into = start - np.searchsorted(rising, value)  # how far into a run of equals
        first = np.zeros(start.shape, np.int64)
        # A cut inside a run of equal qualities keeps those that come later in the caller's list:
        # only such runs need the indices of their members, so no full argsort is made.
        for tied in np.unique(value[into > 0]):
            equal = quality == tied
            index = np.flatnonzero(equal if among is None else equal & among)
            first[value == tied] = index[into[value == tied]]
        return _Cuts(value, first, rising.size - start)

    def survived(self, quality: Scores, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """How many steps each comparison survives: it is there at the steps 0 … that number - 1."""
        # Cuts ascend, so a comparison survives exactly the steps whose first kept quality is not
        # above its own, less those that cut its run of equals behind it.
        steps = np.searchsorted(self.quality, quality, side="right")
        for j in np.flatnonzero(self.first):
            steps -= (quality == self.quality[j]) & (index < self.first[j])
        return steps


def _at_steps(
    data: _ScoredComparisons,
    goal: Floats,
    fraction: Floats,
    discard: Discard,
    choose: _Choice,
    side: Literal["left", "right"],
) -> Recomputed:
    """Rates at each target and step; ``choose`` gives the thresholds of one step.

    ``side`` says which mated comparisons at the threshold are errors: "left" those below it,
    "right" those at it as well.
    """
    truth, n_steps = data.mated, fraction.size
    together = discard == "joint"
    cuts = _Cuts.of(data.quality, None if together else ~truth, fraction)
    own = cuts if together else _Cuts.of(data.quality, truth, fraction)
    genuine, survived = _ascending_scores(data, np.flatnonzero(truth), own)
    n_mated = genuine.size - np.cumsum(np.bincount(survived, minlength=n_steps + 1))[:n_steps]
    n_nonmated = cuts.kept - n_mated if together else cuts.kept

    # Only the best non-mated scores can decide a threshold. They are read first, and four times as
    # many again at the steps whose threshold does not lie among them.
    threshold = np.full((goal.size, n_steps), np.nan)
    false_matches, misses = np.zeros((2, goal.size, n_steps), np.int64)
    pending, factor = list(range(n_steps)), 1
    while pending:
        # Only what survives the first of these steps matters: later ones would find little else at
        # the top.
        index = _best_scores(
            data.score,
            ~truth & (data.quality >= cuts.quality[pending[0]]),
            goal.max(initial=0),
            factor,
        )
        top, top_survived = _ascending_scores(data, index, cuts)
        unsolved = []
        for j in pending:
            impostor, mates = top[top_survived > j], genuine[survived > j]
            found = choose(mates, impostor, goal, int(n_nonmated[j]))
            # What decides must be among the scores read; then no threshold lies at or below the
            # last of them.
            if impostor.size < n_nonmated[j] and not (
                impostor.size and (found > impostor[0]).all()
            ):
                unsolved.append(j)
                continue
            threshold[:, j], key = found, key_for(found, impostor.dtype)
            false_matches[:, j] = impostor.size - np.searchsorted(impostor, key)
            misses[:, j] = np.searchsorted(mates, key, side=side)
        pending, factor = unsolved, 4 * factor
    return Recomputed(
        target=goal,
        fraction=fraction,
        threshold=threshold,
        fmr=false_matches / _or_nan(n_nonmated),
        false_matches=false_matches,
        fnmr=misses / _or_nan(np.where(n_nonmated > 0, n_mated, 0)),
        few=false_matches < FEW,
        n_mated=n_mated,
        n_nonmated=n_nonmated,
        reason=_why_undefined(fraction, n_mated, n_nonmated),
    )


def _ascending_scores(
    data: _ScoredComparisons, index: NDArray[np.intp], cuts: _Cuts
) -> tuple[Scores, NDArray[np.intp]]:
    """The scores at ``index``, ascending, and how many steps each survives."""
    index = index[np.argsort(data.score[index], kind="stable")]
    return data.score[index], cuts.survived(data.quality[index], index)


def _best_scores(score: Scores, among: Flags, share: float, factor: int) -> NDArray[np.intp]:
    """Indices of the best scores ``among``: several times this share, and ties with the last."""
    own = score[among]
    wanted = factor * (FIRST_READ + int(4 * share * own.size))
    if wanted < own.size:
        own.partition(own.size - wanted)
        # Ties with the last stay in: a threshold must not separate equal scores.
        among &= score >= own[own.size - wanted]
    return np.flatnonzero(among)


def _nearest_observed(genuine: Scores, impostor: Scores, target: Floats, total: int) -> Floats:
    """The rule of the legacy form: "nearest", but never +inf."""
    found = choose_threshold(genuine, impostor, target, "nearest", total)
    if impostor.size and np.isposinf(found).any():
        # No mated score lies above the best non-mated one: the strictest observed score accepts
        # that and its ties.
        strictest = np.array([(impostor.size - np.searchsorted(impostor, impostor[-1])) / total])
        found = np.where(
            np.isposinf(found),
            choose_threshold(genuine, impostor, strictest, "at_most", total),
            found,
        )
    return found


def _scores_from_top(rising: Scores, place: Counts) -> Floats:
    """The scores at places counted from the best, -inf beyond the list."""
    inside = place < rising.size
    found = np.full(place.shape, -np.inf)
    found[inside] = rising[rising.size - 1 - place[inside]]
    return found


def _or_nan(count: Counts) -> Floats:
    return np.where(count > 0, count, np.nan)


def _why_undefined(fraction: Floats, n_mated: Counts, n_nonmated: Counts) -> str:
    parts = [
        f"no {name} comparisons from fraction {fraction[np.argmin(n > 0)]:g} on"
        for name, n in (("mated", n_mated), ("non-mated", n_nonmated))
        if (n == 0).any()
    ]
    return "; ".join(parts)
