"""evaluate_identification: 1:N candidate lists → rank and open-set rates, the CMC, histograms.

Rates come with counts and intervals. The closed set is over mated probes; the open set adds the
non-mated ones, whose subject is not in this gallery. Probes are resampled by subject, the gallery
is not. For one half of the subjects, its probes are evaluated in the whole gallery. A probe that
failed counts in FTA and in every denominator; an enrolled template that failed (FTE) is found by
nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Stage, Work
from pipeline.errors import InvalidInput
from stages.evaluation.numbers import (
    Numbers,
    count_distinct,
    curve_rows,
    histogram_curve,
    number_half,
    number_subjects,
)
from stages.evaluation.shared import (
    MOST_TARGETS,
    EvaluationOptions,
    Rates,
    drawn_bytes,
    need_fused,
    read_templates,
    write_fallback,
)
from stages.metrics import bootstrap, identification
from stages.metrics.subjects import subject_pairs
from stages.tables.comparisons import refuse_itself, role_rows
from stages.tables.enough import need_mates, need_same_gallery, need_searched
from stages.tables.schemas import CURVES, NUMBERS

Ranks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_TARGETS)]


class IdentificationOptions(EvaluationOptions):
    """Targets, and the gallery that was searched."""

    fpir: Rates = (1e-1, 1e-2)
    """Targets of the threshold."""
    ranks: Ranks = (1, 5, 10)
    """Ranks k at which the share of probes that is found is given."""
    gallery: str = "gallery"
    """The role of the templates that are enrolled."""


@register("stage", "evaluate_identification")
class EvaluateIdentification(Stage):
    """1:N error rates of one search: closed set over mated probes, open set with all probes."""

    name = "evaluate_identification"
    version = 6
    grain = "reduce"
    axis = "probes"
    Options = IdentificationOptions
    produces: ClassVar = {"numbers": NUMBERS, "curves": CURVES}
    inputs: ClassVar = {"candidates": "search", "templates": "fuse"}
    rows: ClassVar = {"templates": "templates"}
    consumes: ClassVar = {"roles": ("template", "role"), "templates": ("subject",)}
    options: IdentificationOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def uses(self) -> tuple[str, ...]:
        return ("candidates", "templates") if self.options.templates else ("candidates",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_fused(self)
        need_same_gallery(self)
        need_searched(tables, self.options.gallery, "evaluate_identification.gallery")
        refuse_itself(tables, self.options.gallery, "probe")
        need_mates(tables, self.options.gallery, self.options.half, self.name)

    def doubts(self, tables: Mapping[str, Batch]) -> list[str]:
        enrolled = set(
            tables["templates"]["subject"][
                role_rows(tables["roles"], self.options.gallery)
            ].tolist()
        )
        alone = (
            f"Only one subject is enrolled as {self.options.gallery!r}, so that every mated probe"
            " has rank 1."
        )
        return [alone] if len(enrolled) == 1 else []

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        # int64, made with as much again and a mask
        named = rows["candidates"] * sizes["candidates"]["candidate"]
        drawn = drawn_bytes(self.options.replicates, tables["templates"])
        return {"subjects of candidates, and those drawn": named + max(named + named // 8, drawn)}

    def compute(self, work: Work) -> dict[str, Batch]:
        o = self.options
        found, roles = work.inputs["candidates"].read(), work.tables["roles"]
        subject, _, known = number_subjects(work.tables["templates"])
        column, subjects = number_half(work.tables["templates"], o.half)
        gallery, probes = np.unique(role_rows(roles, o.gallery)), role_rows(roles, "probe")
        reach = found["candidate"].shape[1]
        check_gallery(found["candidate"], gallery, "evaluate_identification", o.gallery)
        self._check_reach(gallery, reach)
        numbers = Numbers(o.replicates, o.level)
        if not known[probes].all():
            told = known[probes]  # of the others it is not known whether they have a mate
            numbers.add("probes_unlabelled", float((~told).sum()), trials=len(told))
            probes, found = probes[told], found.take(told)
        if o.half != "all":
            kept = column[probes] >= 0
            probes, found = probes[kept], found.take(kept)
        probe, drawn = subject[probes], column[probes]
        mated = np.isin(probe, subject[gallery]) & someone_enrolled(found)
        named = np.where(found["candidate"] >= 0, subject[found["candidate"]], -1)
        rank = identification.mate_rank(named, probe)
        top = np.where(np.isfinite(found["score"][:, 0]), found["score"][:, 0], -np.inf)
        weights = bootstrap.subject_weights(subjects, o.replicates, o.seed)
        self._closed(numbers, rank[mated], drawn[mated], weights)
        self._open(numbers, top, rank, mated, drawn, weights, (probe, named[:, 0]))
        failed = found["status"] != Status.OK
        fta = float(failed.mean()) if len(failed) else np.nan
        lost = bootstrap.share_replicates(failed, drawn, weights)
        numbers.add("fta", fta, lost, trials=len(failed), subjects=count_distinct(drawn))
        if o.templates:
            built = read_templates(work)
            absent = built["status"][gallery] != Status.OK
            numbers.add("fte", float(absent.mean()) if len(absent) else np.nan, trials=len(absent))
            write_fallback(numbers, built, np.union1d(gallery, probes))
        edges = np.linspace(-1, 1, 101)
        usable = np.isfinite(top)
        return {
            "numbers": numbers.batch(),
            "curves": curve_rows(
                [
                    ("cmc", np.arange(1, reach + 1), identification.cmc(rank[mated], reach)),
                    histogram_curve("top-1, mated probes", np.sort(top[mated & usable]), edges),
                    histogram_curve(
                        "top-1, non-mated probes", np.sort(top[~mated & usable]), edges
                    ),
                ]
            ),
        }

    def _check_reach(self, gallery: Array, reach: int) -> None:
        """Raise InvalidInput if the search kept fewer candidates than the ranks need."""
        o = self.options
        if reach < min(len(gallery), max(o.ranks, default=0)):
            asked = (
                f"evaluate_identification.ranks asks for rank {max(o.ranks)}, and search.k kept"
                f" {reach} of {len(gallery)}"
            )
            raise InvalidInput(
                f"{asked} candidates: raise search.k, or ask for ranks up to {reach}."
            )

    def _closed(self, numbers: Numbers, rank: Array, subject: Array, weights: Array) -> None:
        ranks: Sequence[int] = self.options.ranks
        drawn = bootstrap.rank_replicates(rank, subject, ranks, weights)
        for i, k in enumerate(ranks):
            found = (rank > 0) & (rank <= k)
            errors = {"misses": int(np.count_nonzero(~found)), "subjects": count_distinct(subject)}
            numbers.add(
                "rank",
                float(found.mean()) if len(rank) else np.nan,
                drawn[:, i],
                target=k,
                trials=len(rank),
                **errors,
            )

    def _open(
        self,
        numbers: Numbers,
        top: Array,
        rank: Array,
        mated: Array,
        column: Array,
        weights: Array,
        pair: tuple[Array, Array],
    ) -> None:
        """Add the open-set rates.

        `column`: each probe's column of the weights; `pair`: the subjects of each probe and of its
        best candidate.
        """
        o, others = self.options, ~mated
        # If the mate is at rank 1, the best score is the mate's; elsewhere the score is not
        # read.
        points = identification.tpir_at_fpir(top[others], rank[mated], top[mated], o.fpir)
        drawn = bootstrap.tpir_replicates(
            top[others], column[others], rank[mated], top[mated], column[mated], o.fpir, weights
        )
        met = others & (top > -np.inf)
        pairs = subject_pairs(top[met], pair[0][met], pair[1][met], points.threshold)
        for i, target in enumerate(o.fpir):
            numbers.add(
                "tpir",
                float(points.tpir[i]),
                drawn[:, i],
                target=target,
                rule="at_most",
                achieved=points.fpir[i],
                threshold=points.threshold[i],
                false_matches=points.false_positives[i],
                nonmated=points.n_nonmated,
                subject_pairs=pairs[i],
                few=points.few[i],
                misses=points.misses[i],
                trials=points.n_mated,
                subjects=count_distinct(column[mated]),
            )


def someone_enrolled(found: Batch) -> bool:
    """Whether any template of the gallery is usable: the candidate lists name one if so.

    If probes that did not fail found no candidate, every template of the gallery failed: nobody is
    enrolled, no probe has a mate, and no rate is defined.
    """
    return not (found["status"] == Status.OK).any() or bool((found["candidate"] >= 0).any())


def check_gallery(candidate: Array, gallery: Array, stage: str, role: str) -> None:
    """Raise InvalidInput if a search found templates outside the gallery (template rows)."""
    if not np.isin(candidate[candidate >= 0], gallery).all():
        raise InvalidInput(
            f"{stage}.gallery is {role!r}, and the search found templates of another gallery: give"
            f" search.gallery and {stage}.gallery the same role."
        )
