"""evaluate_discard_identification: 1:N candidate lists and the quality of probes → FNIR and FPIR against probes discarded.

The threshold is chosen once, on the non-mated probes of the whole set, by the largest FPIR that does not exceed the target.
A mated probe is wrong where its mate is not at rank 1 with score ≥ threshold, a non-mated one where its best candidate has
a score ≥ threshold; each kind is discarded by itself, probes of poorest quality first (ISO/IEC 29794-1:2024, of probes). A
probe that failed counts as a miss, or as no false positive; one without a quality is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.registry import register
from pipeline.schema import Batch, Status
from pipeline.stage import Stage, Work
from stages.evaluate_discard import thinned
from stages.evaluate_identification import check_gallery
from stages.evaluation import Rate, Resampled, drawn_bytes
from stages.metrics import bootstrap, discard
from stages.metrics.discard_replicates import AreaReplicates, fnm_pauc_replicates
from stages.metrics.identification import mate_rank, tpir_at_fpir
from stages.numbers import Numbers, curves, number_half, number_subjects
from stages.tables import CURVES, NUMBERS, need_role, refuse_itself, role_rows


class DiscardIdentificationOptions(Resampled):
    """`fpir`: targets of the threshold. `limits`: shares of probes discarded up to which areas are taken (pAUC)."""

    fpir: tuple[Rate, ...] = (1e-1, 1e-2)
    limits: tuple[Rate, ...] = (0.2, 0.3)
    gallery: str = "gallery"


@register("stage", "evaluate_discard_identification")
class EvaluateDiscardIdentification(Stage):
    """1:N error versus discarded probes, of one quality measure."""

    name = "evaluate_discard_identification"
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
        need_role(tables["roles"], self.options.gallery, "evaluate_discard_identification.gallery")
        refuse_itself(tables, self.options.gallery, "probe")

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        named = rows["candidates"] * sizes["candidates"]["candidate"]
        return {"subjects of candidates": named, "subjects drawn": drawn_bytes(self.options.replicates, tables["templates"])}

    def compute(self, work: Work) -> dict[str, Batch]:
        o, numbers = self.options, Numbers(self.options.replicates, self.options.level)
        found, roles = work.inputs["candidates"].read(), work.tables["roles"]
        read = work.inputs["quality"].read(("status", "quality"))
        subject, _, known = number_subjects(work.tables["templates"])
        column, subjects = number_half(work.tables["templates"], o.half)
        gallery, probes = np.unique(role_rows(roles, o.gallery)), role_rows(roles, "probe")
        check_gallery(found["candidate"], gallery, self.name, o.gallery)
        quality = np.where(read["status"] == Status.OK, read["quality"], np.nan)[probes]
        told = known[probes] & (column[probes] >= 0)
        numbers.add("probes_without_quality", float((told & np.isnan(quality)).sum()), trials=int(told.sum()))
        kept = told & np.isfinite(quality)
        probes, quality, found = probes[kept], quality[kept], found.take(kept)
        mated = np.isin(subject[probes], subject[gallery])
        named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
        rank = mate_rank(named, subject[probes])
        top = np.where(np.isfinite(found["score"][:, 0]), found["score"][:, 0], -np.inf)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        points = tpir_at_fpir(top[~mated], rank[mated], top[mated], o.fpir)
        parts = []
        for i, target in enumerate(o.fpir):
            limit = points.threshold[i]
            shared: dict[str, Any] = {"target": target, "rule": "at_most", "achieved": points.fpir[i], "threshold": limit}
            shared |= {"false_matches": points.false_positives[i], "nonmated": points.n_nonmated, "few": points.few[i]}
            missed = ~((rank == 1) & (top >= limit))
            for name, kind, wrong in (("fnir", mated, missed), ("fpir", ~mated, top >= limit)):
                if np.isnan(limit) or not kind.any():
                    continue
                curve = discard.edc(wrong[kind], quality[kind])
                drawn = _drawn(wrong[kind], quality[kind], column[probes[kind]], weights, o.limits)
                start, trials = float(curve.y[0]), int(kind.sum())
                numbers.add(name, start, drawn.start, **shared, trials=trials)
                parts.append((f"{name}-edc {target:g}", *thinned(curve)))
                for j, share in enumerate(o.limits):
                    area, chance = curve.area(share), float(discard.random.area(start, share))
                    numbers.add(f"{name}_pauc({share:g})", area, drawn.pauc[:, j], **shared, trials=trials)
                    over = drawn.over_random[:, j]
                    numbers.add(f"{name}_pauc({share:g})_over_random", area - chance, over, **shared, trials=trials)
                    numbers.add(f"{name}_pauc({share:g})_random", chance, **shared, trials=trials)
        return {"numbers": numbers.batch(), "curves": curves(parts)}


def _drawn(wrong: Any, quality: Any, subject: Any, weights: Any, limits: tuple[float, ...]) -> AreaReplicates:
    """Return the areas in each replicate of the probes, at the threshold of the whole set.

    What is wrong is a score of 0 below the threshold 1. The threshold stays: the non-mated probes that decide it are of
    other subjects.
    """
    return fnm_pauc_replicates(np.where(wrong, 0.0, 1.0), quality, subject, np.ones(len(weights)), weights, limits)
