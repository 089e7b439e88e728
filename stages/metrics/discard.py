"""Error versus discard: how an error rate falls as comparisons of poor quality are set aside.

Conventions
    Direction       a higher score means more similar, a higher quality more useful; quality is of a
                    comparison (``pair_quality`` makes it from those of its two samples) or, in 1:N,
                    of a probe.
    Decision        accepted when ``score >= threshold``: FNM errors are mated comparisons below the
                    threshold, FM errors non-mated ones at or above it (in 1:N: mated probes that
                    miss, non-mated that match).
    EDC             ISO/IEC 29794-1:2024: the threshold is chosen once, on the full set. x is the
                    share of comparisons discarded, y the error of those that remain. Runs of equal
                    quality are discarded together. Between two points the curve stays at the
                    earlier one's error, and it ends at (1, 0). ``discard_steps`` has the form that
                    chooses the threshold anew at each step.
    pAUC            the integral of those steps from 0 to a limit, not divided by the limit.
    Threshold rule  to a target FMR, on mated and non-mated of the full set: "at_most", "nearest" as
                    in ``verification``, "interpolated" as in ``discard_steps``. To a starting error
                    of the mated: the highest threshold whose FNMR does not exceed it, which is a
                    mated score, or +inf at FNMR 1.
    References      "perfect": NIST's straight line, which nothing attains. "attainable": the
                    optimum where all errors are discarded first, comparison by comparison; a
                    quality of *samples* cannot attain it. "random": the expectation of discard at
                    random.
    Empty input     an undefined error is nan, and ``reason`` says why; ``reason`` is "" when all is
                    defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.exact.functions import log1p
from stages.exact.sums import dot
from stages.metrics.discard_steps import LEGACY_FRACTIONS as LEGACY_FRACTIONS
from stages.metrics.discard_steps import Discard as Discard
from stages.metrics.discard_steps import DiscardRule as DiscardRule
from stages.metrics.discard_steps import Flags, check_discard_rule, choose_discard
from stages.metrics.discard_steps import LegacyErc as LegacyErc
from stages.metrics.discard_steps import Recomputed as Recomputed
from stages.metrics.discard_steps import angular_distance as angular_distance
from stages.metrics.discard_steps import legacy_erc as legacy_erc
from stages.metrics.discard_steps import recomputed as recomputed
from stages.metrics.verification import (
    Ascending,
    Floats,
    Scores,
    allowed_count,
    as_scores,
    as_targets,
)

PairQuality = Literal["min", "mean", "product"]


@dataclass(frozen=True)
class Curve:
    """Steps: from x[i] up to x[i+1] the error is y[i].

    x starts at 0 and ends at 1, where the error is 0.

    >>> curve = Curve(np.array([0, 0.5, 1]), np.array([0.2, 0.1, 0]))
    >>> curve.at([0.25, 0.5]), round(curve.area(0.5), 3)
    (array([0.2, 0.1]), 0.1)
    """

    x: Floats  # (K,) share discarded, rising
    y: Floats  # (K,) error of what remains
    reason: str = ""

    def at(self, fractions: ArrayLike) -> Floats:
        """The error after each fraction of discard, in the shape given.

        Raises ValueError for a fraction outside [0, 1].
        """
        return np.asarray(
            self.y[
                np.searchsorted(self.x, _shares_without_nan(fractions, "fractions"), side="right")
                - 1
            ]
        )

    def area(self, limit: float) -> float:
        """pAUC: the integral of the steps from 0 to the limit, not divided by it.

        Raises ValueError for a limit outside [0, 1].
        """
        ends = np.minimum(self.x, _shares_without_nan(limit, "limit"))
        return float(dot(self.y[:-1], np.diff(ends)))


@dataclass(frozen=True)
class Reference:
    """A line to hold a curve against; arguments broadcast, e0 is the error before any discard."""

    name: str
    _line: Callable[[Floats, Floats], Floats]
    _area: Callable[[Floats, Floats], Floats]

    def line(self, e0: ArrayLike, x: ArrayLike) -> Floats:
        """The error after discarding a share x; nan stays nan.

        Raises ValueError for an error or a share outside [0, 1].
        """
        return np.asarray(self._line(_shares(e0, "e0"), _shares(x, "x")))

    def area(self, e0: ArrayLike, limit: ArrayLike) -> Floats:
        """The integral of the line from 0 to the limit. Raises ValueError as ``line``."""
        return np.asarray(self._area(_shares(e0, "e0"), _shares(limit, "limit")))


def _attainable_line(e0: Floats, x: Floats) -> Floats:
    # (e0 − x) / (1 − x): x errors are gone from the numerator, x comparisons from the denominator.
    left = np.maximum(e0 - x, 0)
    return np.divide(left, 1 - x, where=x < 1, out=np.zeros_like(left))


def _attainable_area(e0: Floats, limit: Floats) -> Floats:
    # ∫ (e0 − x) / (1 − x) dx from 0 to t ≤ e0 is t + (1 − e0) ln(1 − t).
    end = np.minimum(limit, e0)
    with np.errstate(invalid="ignore"):  # all wrong: 0 · ln 0
        return np.asarray(end + np.where(e0 < 1, (1 - e0) * log1p(-end), 0 * e0))


def _perfect_line(e0: Floats, x: Floats) -> Floats:
    return np.maximum(e0 - x, 0)


def _perfect_area(e0: Floats, limit: Floats) -> Floats:
    return np.asarray((e0**2 - _perfect_line(e0, limit) ** 2) / 2)


perfect = Reference("perfect", _perfect_line, _perfect_area)
attainable = Reference("attainable", _attainable_line, _attainable_area)
random = Reference("random", lambda e0, x: e0 + 0 * x, lambda e0, limit: e0 * limit)


def pair_quality(a: ArrayLike, b: ArrayLike, how: PairQuality = "min") -> Scores:
    """The quality of comparisons from those of their two samples, (n,); nan stays nan.

    The result is float32 or float64, as the qualities are.

    a, b (n,). "min" is that of ISO/IEC 29794-1. Raises ValueError for shapes that differ, an
    unknown ``how``, or a product of negative qualities.

    >>> pair_quality([0.2, 0.9], [0.5, 0.4])
    array([0.2, 0.4])
    """
    if how not in get_args(PairQuality):
        raise ValueError(f"how must be one of {', '.join(get_args(PairQuality))}, found {how!r}.")
    one, two = np.asarray(a), np.asarray(b)
    one, two = (
        q if q.dtype in (np.float32, np.float64) else q.astype(np.float64) for q in (one, two)
    )
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(
            f"a and b must have one quality a comparison, found shapes {one.shape} and {two.shape}."
        )
    if how == "min":
        return np.minimum(one, two)
    if how == "mean":
        return np.asarray((one + two) / 2)
    lowest = min(np.fmin.reduce(q, initial=np.inf) for q in (one, two))
    if lowest < 0:
        raise ValueError(
            f"a product needs qualities of 0 or more, found {lowest}: two poor samples would make a"
            " good pair. Calibrate the qualities to [0, 1] first, or use min."
        )
    return np.asarray(one * two)


def edc(error: ArrayLike, quality: ArrayLike, among: ArrayLike | None = None) -> Curve:
    """The exact error-versus-discard characteristic: a point for each quality, then (1, 0).

    error (n,) bool: wrong at the one threshold; quality (n,) finite. The same function serves
    FNM-EDC, FM-EDC and, in 1:N, FNIR and FPIR against the share of probes discarded. Without
    comparisons the error is nan.

    among (N,): if these n comparisons are discarded in one order with others, the quality of all N.
    x is then the share of all that is discarded, and the error is 0 once none of these n remains.

    Raises ValueError for a quality that is not finite or lengths that differ.

    >>> curve = edc([True, False, False, False], [0.2, 0.4, 0.4, 0.9])
    >>> curve.x, curve.y
    (array([0.  , 0.25, 0.75, 1.  ]), array([0.25, 0.  , 0.  , 0.  ]))
    """
    wrong, value = np.asarray(error, bool), as_scores(quality, "quality")
    if wrong.shape != value.shape:
        raise ValueError(
            f"error and quality must have one entry a comparison, found {wrong.shape} and"
            f" {value.shape}."
        )
    if not value.size:
        return _undefined("no comparisons")
    own, of_errors = np.sort(value), np.sort(value[wrong])
    rising = own if among is None else np.sort(as_scores(among, "among"))
    if rising.size < own.size:
        raise ValueError(
            f"among must hold the quality of every comparison, found {rising.size} for {own.size}."
        )
    # before each run of equals
    gone = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
    errors = of_errors.size - np.searchsorted(of_errors, rising[gone])
    left = own.size - (gone if among is None else np.searchsorted(own, rising[gone]))
    x, y = np.ones(gone.size + 1), np.zeros(gone.size + 1)
    np.divide(gone, rising.size, out=x[:-1])
    np.divide(errors, left, where=left > 0, out=y[:-1])
    return Curve(x, y)


def fnm_edc(mated: ArrayLike, quality: ArrayLike, threshold: float) -> Curve:
    """False non-matches versus discard: the share of mated comparisons with score < threshold.

    mated (M,) scores, quality (M,), both finite; the threshold is fixed, whatever is discarded. A
    threshold of nan (no non-mated comparison to choose it on) gives a curve of nan. Raises
    ValueError as ``edc``.

    >>> fnm_edc([0.9, 0.2, 0.8], [3, 1, 2], threshold=0.5).y.round(3)
    array([0.333, 0.   , 0.   , 0.   ])
    """
    return _edc_at(as_scores(mated, "mated") < np.float64(threshold), quality, threshold)


def fm_edc(nonmated: ArrayLike, quality: ArrayLike, threshold: float) -> Curve:
    """False matches versus discard: the share of non-mated comparisons with score >= threshold.

    nonmated (N,) scores, quality (N,), both finite. A threshold of nan gives a curve of nan. Raises
    ValueError as ``edc``.

    >>> fm_edc([0.1, 0.7], [2, 1], threshold=0.5).y
    array([0.5, 0. , 0. ])
    """
    return _edc_at(as_scores(nonmated, "nonmated") >= np.float64(threshold), quality, threshold)


def threshold_for(
    mated: ArrayLike | Ascending,
    nonmated: ArrayLike | Ascending,
    *,
    fmr: float | None = None,
    fnmr: float | None = None,
    rule: DiscardRule = "at_most",
) -> float:
    """The threshold of the full set, from a target FMR by the rule, or from a starting error FNMR.

    mated (M,), nonmated (N,): finite scores; exactly one of fmr and fnmr, in [0, 1]. A starting
    error has one rule, "at_most". nan if the list that decides (non-mated for fmr, mated for
    fnmr) is empty. Raises ValueError for a score that is not finite, a rate outside [0, 1], both
    rates or none, an unknown rule, or another rule with fnmr.

    >>> threshold_for([0.9, 0.7, 0.3], [0.6, 0.4, 0.2, 0.1], fmr=0.25)
    0.6
    >>> threshold_for([0.9, 0.7, 0.3], [], fnmr=0.4)
    0.7
    """
    check_discard_rule(rule)
    if (fmr is None) == (fnmr is None):
        raise ValueError(f"give exactly one of fmr and fnmr, found fmr={fmr} and fnmr={fnmr}.")
    genuine = Ascending.of(mated, "mated").scores
    impostor = Ascending.of(nonmated, "nonmated").scores
    if fmr is not None:
        dtype = np.result_type(genuine, impostor)
        genuine, impostor = (each.astype(dtype, copy=False) for each in (genuine, impostor))
        return float(choose_discard(genuine, impostor, as_targets([fmr]), impostor.size, rule)[0])
    if rule != "at_most":
        raise ValueError(
            f"a starting error (fnmr) is kept by the rule at_most alone, found {rule!r}."
        )
    goal = as_targets([fnmr if fnmr is not None else np.nan])
    if not genuine.size:
        return float("nan")
    allowed = int(allowed_count(goal, genuine.size)[0])
    return float(genuine[allowed]) if allowed < genuine.size else float("inf")


def pair_oracle(errors: int, n: int) -> Curve:
    """The exact optimum: all ``errors`` among n comparisons are discarded first, one by one.

    No quality has a lower curve anywhere. Its area exceeds the closed form of ``attainable`` by at
    most e0 / n. Raises ValueError unless 0 <= errors <= n.

    >>> pair_oracle(1, 4).y
    array([0.25, 0.  , 0.  ])
    """
    if not 0 <= errors <= n:
        raise ValueError(f"errors must be a count from 0 to n = {n}, found {errors}.")
    if not n:
        return edc([], [])
    # After k comparisons are gone, all of them errors, errors − k of n − k remain.
    gone = np.arange(min(errors, n - 1) + 1)
    return Curve(np.append(gone / n, 1.0), np.append((errors - gone) / (n - gone), 0.0))


def sample_oracle(a: ArrayLike, b: ArrayLike, error: ArrayLike, templates: int) -> Floats:
    """A quality of samples that knows the errors: (templates,) float64, 0 the worst, no two alike.

    a, b (n,) int: the two samples of each comparison, 0 … templates - 1; error (n,) bool. A sample
    ranks by the share of its comparisons that are errors, a higher share being worse; of equal
    shares more comparisons are worse, of equal numbers the first (alike, samples that are nothing
    but errors would go in one step, which may pass a limit). One without comparisons counts as free
    of errors. With the minimum over the pair it bounds nothing: it is a strong per-sample quality,
    and cannot attain ``pair_oracle``, as good comparisons of a poor sample go with the bad ones.
    Raises ValueError for lengths that differ or a sample outside the range.

    >>> sample_oracle([0, 0, 1], [1, 2, 2], [True, True, False], templates=3)
    array([0., 1., 2.])
    """
    one, two, wrong = np.asarray(a), np.asarray(b), np.asarray(error, bool)
    if not one.shape == two.shape == wrong.shape or one.ndim != 1:
        raise ValueError(
            f"a, b and error must have one entry a comparison, found {one.shape}, {two.shape},"
            f" {wrong.shape}."
        )
    both = np.concatenate([one, two]).astype(np.intp)
    if both.size and not 0 <= both.min() <= both.max() < templates:
        raise ValueError(
            f"samples must be numbered 0 … {templates - 1}, found {both.min()} … {both.max()}."
        )
    count = np.bincount(both, minlength=templates)
    bad = np.bincount(both[np.concatenate([wrong, wrong])], minlength=templates)
    share = bad / np.maximum(count, 1)
    quality = np.zeros(templates)
    quality[np.lexsort((-count, -share))] = np.arange(templates)  # worst first, and stable
    return quality


def _edc_at(error: Flags, quality: ArrayLike, threshold: float) -> Curve:
    found = edc(error, quality)
    if not np.isnan(threshold) or found.reason:
        return found
    return _undefined("no threshold: it was chosen on no comparisons")


def _undefined(reason: str) -> Curve:
    return Curve(np.array([0.0, 1.0]), np.full(2, np.nan), reason)


def _shares_without_nan(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """values as float64 in [0, 1]; nan does not pass."""
    array = _shares(values, name)
    if np.isnan(array).any():
        raise ValueError(f"{name} must lie in [0, 1], found {values!r}.")
    return array


def _shares(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """values as float64 in [0, 1]; nan passes."""
    array = np.asarray(values, np.float64)
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"{name} must lie in [0, 1], found {values!r}: 20 % is 0.2.")
    return array
