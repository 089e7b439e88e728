"""evaluate_discard_identification: candidate lists, probe quality → FNIR and FPIR versus discard.

The threshold is chosen once, on the probes of the whole set, by the largest FPIR that does not
exceed the target. A mated probe is wrong if its mate is not at rank 1 with score ≥ threshold, a
non-mated one if its best candidate has a score ≥ threshold; each kind is discarded separately,
probes of poorest quality first (ISO/IEC 29794-1:2024, of probes). A probe that failed counts as a
miss, or as no false positive. A probe without a quality, such as one that failed, is counted and
discarded before all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Stage, Work
from stages.evaluation.discard_areas import add_areas, thinned_steps, unscored_first
from stages.evaluation.identification import check_gallery, someone_enrolled
from stages.evaluation.numbers import (
    Numbers,
    count_distinct,
    curve_rows,
    number_half,
    number_subjects,
)
from stages.evaluation.shared import Rates, Resampled, Shares, drawn_bytes, need_quality
from stages.metrics import bootstrap, discard
from stages.metrics.discard_replicates import AreaReplicates, fnm_pauc_replicates
from stages.metrics.identification import mate_rank, tpir_at_fpir
from stages.metrics.weighted import Weighted, as_weights, barrier_scores, total_weight
from stages.tables.comparisons import refuse_itself, role_rows
from stages.tables.enough import need_mates, need_same_gallery, need_searched
from stages.tables.schemas import CURVES, NUMBERS


class DiscardIdentificationOptions(Resampled):
    """Targets of the threshold and limits of the areas, in 1:N."""

    fpir: Rates = (1e-1, 1e-2)
    """Targets of the threshold."""
    limits: Shares = (0.2, 0.3)
    """Shares of probes discarded up to which areas are taken (pAUC)."""
    gallery: str = "gallery"
    """The role of the templates that are enrolled."""


@dataclass(frozen=True)
class _EvaluatedProbes:
    """What is evaluated: (n,) of each probe."""

    top: Array  # score of the best candidate, -inf without one
    rank: Array  # of the mate, 0 a miss
    mated: Array
    quality: Array
    column: Array  # of its subject in the bootstrap weights


@register("stage", "evaluate_discard_identification")
class EvaluateDiscardIdentification(Stage):
    """1:N error versus discarded probes, of one quality method."""

    name = "evaluate_discard_identification"
    version = 4
    grain = "reduce"
    axis = "probes"
    Options = DiscardIdentificationOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"candidates": "search", "quality": "template_quality"}
    rows: ClassVar = {"quality": "templates"}
    consumes: ClassVar = {"roles": ("template", "role"), "templates": ("subject",)}
    options: DiscardIdentificationOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy", "scipy")

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_same_gallery(self)
        need_searched(tables, self.options.gallery, "evaluate_discard_identification.gallery")
        refuse_itself(tables, self.options.gallery, "probe")
        need_mates(tables, self.options.gallery, self.options.half, self.name, open_set=True)

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        named = rows["candidates"] * sizes["candidates"]["candidate"]
        return {
            "subjects of candidates": named,
            "subjects drawn": drawn_bytes(self.options.replicates, tables["templates"]),
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        o, numbers = self.options, Numbers(self.options.replicates, self.options.level)
        p, subjects = self._probes(work, numbers)
        points = tpir_at_fpir(p.top[~p.mated], p.rank[p.mated], p.top[p.mated], o.fpir)
        drawn: dict[str, AreaReplicates] = {}
        if o.replicates:
            weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
            drawn = _area_replicates(p, weights, o)
        parts = []
        for i, target in enumerate(o.fpir):
            limit = points.threshold[i]
            shared: dict[str, Any] = {
                "target": target,
                "rule": "at_most",
                "achieved": points.fpir[i],
                "threshold": limit,
            }
            shared |= {
                "false_matches": points.false_positives[i],
                "nonmated": points.n_nonmated,
                "few": points.few[i],
            }
            returned = p.top >= limit
            missed = ~((p.rank == 1) & returned)
            for name, kind, wrong in (("fnir", p.mated, missed), ("fpir", ~p.mated, returned)):
                if np.isnan(limit) or not kind.any():
                    continue
                curve = discard.edc(wrong[kind], p.quality[kind])
                replicates = drawn.get(name)
                misses = int(wrong[kind].sum()) if name == "fnir" else -1
                counted = {**shared, "misses": misses, "trials": int(kind.sum())}
                start = None if replicates is None else replicates.start[:, i]
                behind = count_distinct(p.column[kind])
                numbers.add(name, float(curve.y[0]), start, **counted, subjects=behind)
                parts.append((f"{name}-edc {target:g}", *thinned_steps(curve)))
                add_areas(numbers, name, curve, replicates, i, o.limits, {}, counted)
        return {"numbers": numbers.batch(), "curves": curve_rows(parts)}

    def _probes(self, work: Work, numbers: Numbers) -> tuple[_EvaluatedProbes, int]:
        """Return the probes that are evaluated, and how many subjects can be drawn.

        Probes without a subject, and those without a quality, are counted.
        """
        o, found, roles = self.options, work.inputs["candidates"].read(), work.tables["roles"]
        read = work.inputs["quality"].read(("status", "quality"))
        subject, _, known = number_subjects(work.tables["templates"])
        column, subjects = number_half(work.tables["templates"], o.half)
        gallery, probes = np.unique(role_rows(roles, o.gallery)), role_rows(roles, "probe")
        check_gallery(found["candidate"], gallery, self.name, o.gallery)
        quality = np.where(read["status"] == Status.OK, read["quality"], np.nan)[probes]
        kept = known[probes]
        if not kept.all():
            numbers.add("probes_unlabelled", float((~kept).sum()), trials=len(kept))
        kept &= column[probes] >= 0
        unscored = float((kept & np.isnan(quality)).sum())
        numbers.add("probes_without_quality", unscored, trials=int(kept.sum()))
        enrolled = subject[gallery] if someone_enrolled(found) else subject[:0]
        probes, quality, found = probes[kept], quality[kept], found.take(kept)
        need_quality(quality, "probe", self.name)
        named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
        best = found["score"][:, 0]
        evaluated = _EvaluatedProbes(
            top=np.where(np.isfinite(best), best, -np.inf),
            rank=mate_rank(named, subject[probes]),
            mated=np.isin(subject[probes], enrolled),
            quality=unscored_first(quality),
            column=column[probes],
        )
        return evaluated, subjects


def _area_replicates(
    p: _EvaluatedProbes, weights: Array, o: DiscardIdentificationOptions
) -> dict[str, AreaReplicates]:
    """Return FNIR, FPIR and their areas in each replicate, by (replicate, target, limit)."""
    top, mated, quality, subject = p.top, p.mated, p.quality, p.column
    table, others = as_weights(weights), ~mated
    met = others & (top > -np.inf)
    listed, total = Weighted(top[met], (subject[met],)), total_weight(table, subject[others])
    (barrier,) = barrier_scores(listed, table, total, np.asarray(o.fpir, np.float64), ["at_most"])
    # All above the barrier is accepted. A probe that failed, or whose mate is not at rank 1, lies
    # below every threshold.
    least = float(top[top > -np.inf].min(initial=0)) - 1
    threshold = np.nextafter(np.maximum(barrier, least), np.inf)
    hit, best = (
        np.where(kept, top, least).astype(np.float64) for kept in (p.rank == 1, top > -np.inf)
    )
    missed = fnm_pauc_replicates(
        hit[mated], quality[mated], subject[mated], threshold, weights, o.limits
    )
    # No score is a threshold: upside down, a false positive is one below it.
    matched = fnm_pauc_replicates(
        -best[others], quality[others], subject[others], -threshold, weights, o.limits
    )
    return {"fnir": missed, "fpir": matched}
