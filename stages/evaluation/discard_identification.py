"""evaluate_discard_identification: candidate lists, probe quality → FNIR and FPIR versus discard.

The threshold is chosen once, on the probes of the whole set, by the largest FPIR that does not
exceed the target. A mated probe is wrong if its mate is not at rank 1 with score ≥ threshold, a
non-mated one if its best candidate has a score ≥ threshold; each kind is discarded by itself,
probes of poorest quality first (ISO/IEC 29794-1:2024, of probes). A probe that failed counts as a
miss, or as no false positive. A probe without a quality, such as one that failed, is counted and
discarded before all others.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """`fpir`: targets of the threshold. `limits`: shares of probes discarded, for areas (pAUC)."""

    fpir: Rates = (1e-1, 1e-2)
    limits: Shares = (0.2, 0.3)
    gallery: str = "gallery"


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
        found, roles = work.inputs["candidates"].read(), work.tables["roles"]
        read = work.inputs["quality"].read(("status", "quality"))
        subject, _, known = number_subjects(work.tables["templates"])
        column, subjects = number_half(work.tables["templates"], o.half)
        gallery, probes = np.unique(role_rows(roles, o.gallery)), role_rows(roles, "probe")
        check_gallery(found["candidate"], gallery, self.name, o.gallery)
        quality = np.where(read["status"] == Status.OK, read["quality"], np.nan)[probes]
        told = known[probes]
        if not told.all():
            numbers.add("probes_unlabelled", float((~told).sum()), trials=len(told))
        told &= column[probes] >= 0
        numbers.add(
            "probes_without_quality",
            float((told & np.isnan(quality)).sum()),
            trials=int(told.sum()),
        )
        enrolled = subject[gallery] if someone_enrolled(found) else subject[:0]
        probes, quality, found = probes[told], quality[told], found.take(told)
        need_quality(quality, "probe", self.name)
        quality, mated = unscored_first(quality), np.isin(subject[probes], enrolled)
        named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
        rank = mate_rank(named, subject[probes])
        top = np.where(np.isfinite(found["score"][:, 0]), found["score"][:, 0], -np.inf)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        points = tpir_at_fpir(top[~mated], rank[mated], top[mated], o.fpir)
        if o.replicates:
            drawn = _area_replicates(top, rank, mated, quality, column[probes], weights, o)
        else:
            drawn = {}
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
            missed = ~((rank == 1) & (top >= limit))
            for name, kind, wrong in (("fnir", mated, missed), ("fpir", ~mated, top >= limit)):
                if np.isnan(limit) or not kind.any():
                    continue
                curve = discard.edc(wrong[kind], quality[kind])
                again = drawn.get(name)
                start, trials = float(curve.y[0]), int(kind.sum())
                shared["misses"] = int(wrong[kind].sum()) if name == "fnir" else -1
                first = None if again is None else again.start[:, i]
                numbers.add(
                    name,
                    start,
                    first,
                    **shared,
                    trials=trials,
                    subjects=count_distinct(column[probes][kind]),
                )
                parts.append((f"{name}-edc {target:g}", *thinned_steps(curve)))
                counted = {**shared, "trials": trials}
                add_areas(numbers, name, curve, again, i, o.limits, {}, counted)
        return {"numbers": numbers.batch(), "curves": curve_rows(parts)}


def _area_replicates(
    top: Array,
    rank: Array,
    mated: Array,
    quality: Array,
    subject: Array,
    weights: Array,
    o: DiscardIdentificationOptions,
) -> dict[str, AreaReplicates]:
    """Return FNIR, FPIR and their areas in each replicate, by (replicate, target, limit)."""
    table, others = as_weights(weights), ~mated
    met = others & (top > -np.inf)
    listed, total = Weighted(top[met], (subject[met],)), total_weight(table, subject[others])
    (barrier,) = barrier_scores(listed, table, total, np.asarray(o.fpir, np.float64), ["at_most"])
    # All above the barrier is accepted. A probe that failed, or whose mate is not at rank 1, lies
    # below every threshold.
    least = float(top[top > -np.inf].min(initial=0)) - 1
    threshold = np.nextafter(np.maximum(barrier, least), np.inf)
    hit, best = (
        np.where(kept, top, least).astype(np.float64) for kept in (rank == 1, top > -np.inf)
    )
    missed = fnm_pauc_replicates(
        hit[mated], quality[mated], subject[mated], threshold, weights, o.limits
    )
    # No score is a threshold: upside down, a false positive is one below it.
    matched = fnm_pauc_replicates(
        -best[others], quality[others], subject[others], -threshold, weights, o.limits
    )
    return {"fnir": missed, "fpir": matched}
