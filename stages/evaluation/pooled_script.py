"""evaluate_pooled_script: 1:N as a widespread script computes it, to compare with its numbers.

The script merges both galleries of IJB-C and pools the scores of every probe with every gallery
template of another subject. Its threshold is the ceil(probes · target)-th largest of them, and it
counts mated probes whose mate scores above that, whatever its rank. The target is called FPIR
there. It is none: FPIR is over the best scores of probes that have no mate, and here every probe
has one. So these numbers have a name of their own, no interval and no place in the headline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage, Work
from pipeline.errors import InvalidInput
from stages.evaluation.identification import check_gallery
from stages.evaluation.numbers import Numbers, curve_rows, number_subjects
from stages.evaluation.shared import Rates
from stages.metrics import identification
from stages.tables.comparisons import refuse_itself, role_rows
from stages.tables.enough import need_mates, need_same_gallery, need_searched
from stages.tables.schemas import CURVES, NUMBERS


class PooledScriptOptions(Options):
    """As the widespread script has them."""

    targets: Rates = (1e-1, 1e-2, 1e-3)
    """What the script calls FPIR."""
    gallery: str = "gallery"
    """The role of both galleries together."""


@register("stage", "evaluate_pooled_script")
class EvaluatePooledScript(Stage):
    """Share of mated probes above a threshold among all pooled impostor scores; not a TPIR."""

    name = "evaluate_pooled_script"
    version = 2
    grain = "reduce"
    axis = "probes"
    Options = PooledScriptOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"candidates": "search"}
    consumes: ClassVar = {"roles": ("template", "role"), "templates": ("subject",)}
    options: PooledScriptOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_same_gallery(self)
        need_searched(tables, self.options.gallery, "evaluate_pooled_script.gallery")
        refuse_itself(tables, self.options.gallery, "probe")
        need_mates(tables, self.options.gallery, "all", self.name)

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        return {
            "subjects of candidates, and masks": (
                rows["candidates"] * sizes["candidates"]["candidate"] * 2
            )
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        found, roles = work.inputs["candidates"].read(), work.tables["roles"]
        subject, _, known = number_subjects(work.tables["templates"])
        gallery, probes = np.unique(role_rows(roles, o.gallery)), role_rows(roles, "probe")
        check_gallery(found["candidate"], gallery, "evaluate_pooled_script", o.gallery)
        numbers = Numbers(0, 0.95)
        if not known[probes].all():
            told = known[probes]  # of the others it is not known whose scores are an impostor's
            numbers.add("probes_unlabelled", float((~told).sum()), trials=len(told))
            probes, found = probes[told], found.take(told)
        probe, there, score = subject[probes], found["candidate"] >= 0, found["score"]
        own = there & (subject[found["candidate"]] == probe[:, None])
        mated = np.isin(probe, subject[gallery])
        mate = np.where(own, score, -np.inf).max(axis=1, initial=-np.inf)[mated]
        threshold, share = identification.pooled_script(
            score[there & ~own], mate, len(probes), o.targets
        )
        self._check_reach(found, there, len(gallery), threshold)
        for i, target in enumerate(o.targets):
            numbers.add(
                "pooled_script",
                float(share[i]),
                target=target,
                threshold=threshold[i],
                trials=len(mate),
            )
        return {"numbers": numbers.batch(), "curves": curve_rows([])}

    def _check_reach(self, found: Batch, there: Array, gallery: int, threshold: Array) -> None:
        """Raise InvalidInput if scores that were not kept could lie above a threshold."""
        reach = found["candidate"].shape[1]
        cut = (found["status"] == Status.OK) & there[:, -1] & (reach < gallery)
        # What is missing from a list is no larger than its last score: up to the threshold it
        # changes nothing.
        last = found["score"][:, -1][cut].max(initial=-np.inf)
        short = [
            target
            for target, limit in zip(self.options.targets, threshold, strict=True)
            if limit < last
        ]
        if short:
            named = ", ".join(f"{target:g}" for target in short)
            raise InvalidInput(
                f"evaluate_pooled_script: at {named} the threshold lies below the last of the"
                f" {reach} candidates of a probe ({threshold.min():.4f} < {last:.4f}), so impostor"
                f" scores that count may be missing: raise search.k (up to the {gallery} templates"
                " of the gallery), or ask for smaller targets."
            )
