"""evaluate_discard: 1:1 scores and template quality → error versus discard, in two conventions.

    standard   FNM-EDC and FM-EDC of ISO/IEC 29794-1:2024: the threshold is chosen once, on all
               comparisons (`threshold: fixed`), mated and non-mated are discarded each by
               themselves (`discard: separate`), and every distinct quality is a point. The options
               change one thing at a time.
    legacy     the curve of CR-FIQA's published evaluation: both kinds discarded together, in twenty
               steps, the threshold chosen anew at each.

A comparison's quality is made of those of its two templates (`pair`). A comparison with a failed
template is left out and counted. One with a template without quality is counted, and discarded
before all others (`unscored: first`): so methods that fail on different faces are judged on the
same comparisons, at the same threshold. Intervals resample subjects, and choose the threshold anew
in each replicate. Intervals and oracles are of the standard form itself: a fixed threshold, each
kind by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Stage, Work
from pipeline.errors import InvalidInput
from stages.evaluation.discard_areas import add_areas, thinned_steps, unscored_first
from stages.evaluation.numbers import (
    Numbers,
    count_distinct,
    curve_rows,
    histogram_curve,
    number_half,
)
from stages.evaluation.shared import Rates, Resampled, Shares, drawn_bytes, need_quality
from stages.evaluation.trials import Trials
from stages.evaluation.verification import FULL_LIST
from stages.metrics import bootstrap, discard
from stages.metrics import discard_replicates as again
from stages.metrics.discard import Curve, Discard, DiscardRule, PairQuality
from stages.metrics.discard_replicates import AreaReplicates
from stages.metrics.verification import FEW, Ascending
from stages.tables.comparisons import Comparisons
from stages.tables.enough import need_both_kinds
from stages.tables.schemas import CURVES, NUMBERS

STARTING = "starting"  # the rule by which a threshold follows from an FNMR
# comparisons up to which the legacy AUC is bootstrapped: each replicate walks all of them in every
# step
SHORT_LIST = 20_000
DET_FMR = np.geomspace(1e-4, 1, 41)
QUALITY_BINS = 60
ROUNDED = 1e-4  # how far rounding pushes a cosine past ±1, at most


class DiscardOptions(Resampled):
    """Targets of the threshold, limits of the areas, and what departs from the standard curve."""

    fmr: Rates = (1e-2, 1e-3, 1e-4)
    """Targets of the threshold, which `rule` chooses."""
    fnmr: Rates = ()
    """Starting errors, each a threshold too: the highest whose FNMR is not above it."""
    limits: Shares = (0.2, 0.3)
    """Shares discarded up to which areas are taken (pAUC)."""
    pair: PairQuality = "min"
    """The quality of a comparison from those of its two templates."""
    unscored: Literal["first", "left_out"] = "first"
    """Comparisons without a quality: discarded first, or left out."""
    rule: DiscardRule = "at_most"
    """The threshold of a target: the largest FMR not above it, the nearest one, or the script's."""
    discard: Discard = "separate"
    """Mated and non-mated comparisons: each ranked by itself, or together."""
    threshold: Literal["fixed", "recomputed"] = "fixed"
    """Chosen once on all comparisons (the standard), or anew at each share discarded."""
    legacy: bool = True
    """Also the legacy form of the CR-FIQA papers."""
    det_at: Rates = (0.0, 0.1, 0.2, 0.3)
    """Shares discarded at which a DET is drawn."""


@dataclass(frozen=True)
class _EvaluatedComparisons:
    """What is evaluated: (n,) of each comparison.

    `rows`: both templates of each mated one. `subjects`: columns of both templates in `weights` (R,
    S), of no comparison if there are no replicates.
    """

    score: Array
    mated: Array
    quality: Array
    rows: tuple[Array, Array]
    subjects: tuple[Array, Array]
    weights: Array


@register("stage", "evaluate_discard")
class EvaluateDiscard(Stage):
    """1:1 error versus discard of one quality method."""

    name = "evaluate_discard"
    version = 3
    grain = "reduce"
    axis = "comparisons"
    Options = DiscardOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"scores": "compare", "quality": "quality"}
    rows: ClassVar = {"quality": "templates"}
    consumes: ClassVar = {
        "comparisons": ("a", "b", "mated", "fold"),
        "roles": ("template", "role"),
        "pairings": ("role_a", "role_b"),
        "templates": ("subject",),
    }
    options: DiscardOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy", "scipy")

    def fits(self, tables: Mapping[str, Batch]) -> None:
        Comparisons.of(tables).refuse_itself(tables)
        need_both_kinds(tables, self.options.half, self.name)

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        drawn = drawn_bytes(self.options.replicates, tables["templates"])
        # bytes: scores and qualities in several orders, and subjects
        each = 44 + (8 if self.options.replicates else 0)
        return {
            "comparisons with quality and subjects": rows["scores"] * each,
            "subjects drawn": drawn,
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        numbers = Numbers(o.replicates, o.level)
        found = self._comparisons(work, numbers)
        lists = Ascending.of(found.score[found.mated]), Ascending.of(found.score[~found.mated])
        thresholds = [discard.threshold_for(*lists, fmr=target, rule=o.rule) for target in o.fmr]
        thresholds += [discard.threshold_for(*lists, fnmr=start) for start in o.fnmr]
        drawn = self._drawn(found)
        # As float64 scalars, not Python's: those would be rounded to float32, perhaps onto a score.
        parts = [
            part
            for i, limit in enumerate(np.array(thresholds))
            for part in self._at(numbers, found, i, limit, drawn)
        ]
        if o.legacy:
            parts += self._legacy(numbers, found)
        parts += _det_curves(found, o)
        edges = np.linspace(*_histogram_range(found.quality), QUALITY_BINS + 1)
        kinds = (("mated", found.mated), ("non-mated", ~found.mated))
        parts += [
            histogram_curve(f"quality, {name}", np.sort(found.quality[kind]), edges)
            for name, kind in kinds
        ]
        return {"numbers": numbers.batch(), "curves": curve_rows(parts)}

    def _comparisons(self, work: Work, numbers: Numbers) -> _EvaluatedComparisons:
        o = self.options
        trials = Trials.of(work, o.half, numbers)
        read = work.inputs["quality"].read(("status", "quality"))
        quality = np.where(read["status"] == Status.OK, read["quality"], np.nan).astype(np.float32)
        column, subjects = number_half(work.tables["templates"], o.half)
        kept = np.isfinite(trials.score)
        numbers.add("comparisons_lost", float(len(kept) - np.count_nonzero(kept)), trials=len(kept))
        try:
            paired = discard.pair_quality(*trials.form.chosen(kept, quality), o.pair)
        except ValueError as problem:
            raise InvalidInput(f"evaluate_discard.pair is {o.pair!r}: {problem}") from None
        scored = np.isfinite(paired)
        numbers.add(
            "comparisons_without_quality",
            float(len(scored) - np.count_nonzero(scored)),
            trials=len(kept),
        )
        need_quality(paired, "comparison", self.name)
        if o.unscored == "first":
            paired = unscored_first(paired)
        else:
            kept[np.flatnonzero(kept)[~scored]] = False
            paired = paired[scored]
        if o.replicates:
            trials.check_mated(column)
        template = np.arange(len(quality), dtype=np.int32)
        return _EvaluatedComparisons(
            score=trials.score[kept],
            mated=trials.mated[kept],
            quality=paired,
            rows=trials.form.chosen(kept & trials.mated, template),
            subjects=trials.subjects(kept if o.replicates else np.zeros_like(kept), column),
            weights=bootstrap.subject_weights(subjects, o.replicates, o.seed),
        )

    def _at(
        self,
        numbers: Numbers,
        c: _EvaluatedComparisons,
        i: int,
        limit: np.float64,
        drawn: Mapping[str, AreaReplicates],
    ) -> Iterator[tuple[str, Array, Array]]:
        """Add the numbers at one target, whose threshold is `limit`, and give the curves there."""
        o = self.options
        target, rule = [*((t, o.rule) for t in o.fmr), *((t, STARTING) for t in o.fnmr)][i]
        at = target_label(target, rule)
        matches, impostors = int((~c.mated & (c.score >= limit)).sum()), int((~c.mated).sum())
        found_here, few = self._curves(c, target, rule, limit)
        # errors that set the threshold
        deciding = int((c.score[c.mated] < limit).sum()) if rule == STARTING else matches
        shared: dict[str, Any] = {
            "target": target,
            "rule": rule,
            "threshold": limit,
            "few": few or deciding < FEW,
        }
        shared |= {
            "achieved": matches / impostors if impostors else np.nan,
            "false_matches": matches,
            "nonmated": impostors,
        }
        for name, kind in (("fnm", c.mated), ("fm", ~c.mated)):
            curve, found = found_here[name], drawn.get(name)
            start, trials = float(curve.y[0]), int(kind.sum())
            shared["misses"] = int((c.score[kind] < limit).sum()) if name == "fnm" else -1
            sides = [subject[kind] for subject in c.subjects] if o.replicates else []
            subjects = count_distinct(*sides) if sides else -1
            first = None if found is None else found.start[:, i]
            numbers.add(f"{name}r", start, first, **shared, trials=trials, subjects=subjects)
            yield f"{name}-edc {at}", *thinned_steps(curve)
            bounded = name == "fnm" and self._standard(rule) and not np.isnan(start)
            lines = _oracles(c, limit) if bounded else {}
            for what, line in lines.items():
                yield f"{name}-edc {at} {what}", *thinned_steps(line)
            add_areas(numbers, name, curve, found, i, o.limits, lines, {**shared, "trials": trials})

    def _drawn(self, c: _EvaluatedComparisons) -> dict[str, AreaReplicates]:
        """Return the areas in each replicate, of the standard form itself."""
        o, found = self.options, {}
        if o.replicates and self._standard(o.rule) and c.mated.any() and not c.mated.all():
            others = c.subjects[0][~c.mated], c.subjects[1][~c.mated]
            own = c.score[c.mated], c.quality[c.mated], c.subjects[0][c.mated]
            starting = [
                again.starting_replicates(own[0], own[2], start, c.weights)[:, None]
                for start in o.fnmr
            ]
            fixed = again.threshold_replicates(c.score[~c.mated], *others, o.fmr, c.weights, o.rule)
            thresholds = np.hstack([fixed, *starting])
            found["fnm"] = again.fnm_pauc_replicates(*own, thresholds, c.weights, o.limits)
            if len(others[0]) <= FULL_LIST:
                own = c.score[~c.mated], c.quality[~c.mated], others[0]
                found["fm"] = again.fm_pauc_replicates(
                    *own, others[1], thresholds, c.weights, o.limits
                )
        return found

    def _standard(self, rule: str) -> bool:
        """Whether a curve is of the standard form itself.

        The threshold of a starting error is always fixed.
        """
        return self.options.discard == "separate" and (
            self.options.threshold == "fixed" or rule == STARTING
        )

    def _curves(
        self, c: _EvaluatedComparisons, target: float, rule: str, limit: np.float64
    ) -> tuple[dict[str, Curve], bool]:
        """The standard curves of both kinds, and whether few false matches decide a used step."""
        o = self.options
        if np.isnan(limit):
            return dict.fromkeys(("fnm", "fm"), discard.edc([], [])), False
        if o.threshold == "fixed" or rule == STARTING:
            among = c.quality if o.discard == "joint" else None
            misses, matches = c.score[c.mated] < limit, c.score[~c.mated] >= limit
            fnm = discard.edc(misses, c.quality[c.mated], among)
            fm = discard.edc(matches, c.quality[~c.mated], among)
            return {"fnm": fnm, "fm": fm}, False
        steps = discard.LEGACY_FRACTIONS
        at = discard.recomputed(c.score, c.mated, c.quality, [target], steps, o.discard, o.rule)
        few = at.few[0, steps <= max(o.limits, default=0.0)].any()
        kinds = {"fnm": (at.n_mated, at.fnmr[0]), "fm": (at.n_nonmated, at.fmr[0])}
        # As in `discard.edc`: if none of a kind remains of those that were there, it has no
        # error.
        y = {
            name: np.where((left > 0) | (left[0] == 0), error, 0.0)
            for name, (left, error) in kinds.items()
        }
        return {
            name: Curve(np.append(steps, 1.0), np.append(error, 0.0)) for name, error in y.items()
        }, bool(few)

    def _legacy(
        self, numbers: Numbers, c: _EvaluatedComparisons
    ) -> Iterator[tuple[str, Array, Array]]:
        o, cosine = self.options, _clipped(c.score)
        found = discard.legacy_erc(cosine, c.mated, c.quality, o.fmr)
        drawn = None
        if o.replicates and len(c.score) <= SHORT_LIST and c.mated.any() and not c.mated.all():
            drawn = again.legacy_auc_replicates(
                cosine, c.mated, c.quality, *c.subjects, o.fmr, c.weights
            )
        for i, target in enumerate(o.fmr):
            numbers.add(
                "erc_auc",
                float(found.auc[i]),
                None if drawn is None else drawn[:, i],
                target=target,
                rule="nearest",
                achieved=float(found.fmr[i, 0]),
                threshold=float(found.threshold[i, 0]),
                false_matches=int(found.false_matches[i, 0]),
                nonmated=int(found.n_nonmated[0]),
                few=bool(found.few[i].any()),
                misses=int(np.rint(np.nan_to_num(found.fnmr[i, 0]) * found.n_mated[0])),
                trials=len(c.score),
            )
            yield f"erc {target:g}", found.fraction, found.fnmr[i]


def departures(options: DiscardOptions, legacy: bool = False) -> list[str]:
    """Say how the options depart from the standard's form or, with `legacy`, from the legacy form.

    Of the legacy form only the options that reach it count.
    """
    o = options
    said = [f"pair quality by {o.pair}"] if o.pair != "min" else []
    said += ["comparisons without a quality left out"] if o.unscored == "left_out" else []
    if not legacy:
        said += ["both kinds discarded together"] if o.discard == "joint" else []
        said += (
            ["threshold chosen anew at each of twenty steps"] if o.threshold == "recomputed" else []
        )
        said += [f"threshold rule {o.rule.replace('_', ' ')}"] if o.rule != "at_most" else []
    return said


def target_label(target: float, rule: str) -> str:
    """Return how the names of curves say at which target they are."""
    return f"fnmr {target:g}" if rule == STARTING else f"{target:g}"


def _clipped(score: Array) -> Array:
    """Return cosines without what rounding pushed past ±1; other scores stay as they are."""
    return np.clip(score, -1, 1) if np.abs(score).max(initial=0) <= 1 + ROUNDED else score


def _oracles(c: _EvaluatedComparisons, limit: np.float64) -> dict[str, Curve]:
    """Return the two bounds of FNM-EDC: discard of errors first, by pairs and by samples."""
    a, b = c.rows
    wrong = c.score[c.mated] < limit
    quality = discard.sample_oracle(a, b, wrong, int(max(a.max(), b.max())) + 1)
    return {
        "pair_oracle": discard.pair_oracle(int(wrong.sum()), len(wrong)),
        "sample_oracle": discard.edc(wrong, np.minimum(quality[a], quality[b])),
    }


def _det_curves(c: _EvaluatedComparisons, o: DiscardOptions) -> Iterator[tuple[str, Array, Array]]:
    """The DET of what remains after each share of discard: FNMR against FMR."""
    shares = sorted(o.det_at)
    if not shares or not c.mated.any() or c.mated.all():
        return
    found = discard.recomputed(c.score, c.mated, c.quality, DET_FMR, shares, o.discard, "at_most")
    for j, share in enumerate(shares):
        yield f"det {share:g}", found.fmr[:, j], found.fnmr[:, j]


def _histogram_range(quality: Array) -> tuple[float, float]:
    low, high = float(quality.min(initial=np.inf)), float(quality.max(initial=-np.inf))
    if low < high:
        return low, high
    # one quality for all, or none at all
    return (low - 0.5, low + 0.5) if low == high else (0.0, 1.0)
