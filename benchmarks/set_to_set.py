"""Set-to-set evaluation, both ways on the same arrays: templates, 1:1 scores, rates, 1:N."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import common_method as common
from benchmarks.material import (
    FMR,
    Material,
    Row,
    compare_all,
    draw_list,
    fuse_by,
    pairs_of,
    run,
    stage_of,
    tar_and_auc,
)
from pipeline.core.schema import Array, Batch, text
from pipeline.plan.dataset import Dataset
from stages.matching import search
from stages.metrics import bootstrap, identification

TOP = 20
GALLERIES = ("gallery", "gallery_2")
SPARSE_SHARE = 0.01  # of all pairs
FUSION_RULES = (
    *(
        "mean",
        "media-mean",
        "norm",
        "detector",
        "quality-minmax",
        "quality-linear",
        "quality-power(p=2)",
    ),
    *(
        "quality-softmax(T=0.5)",
        "quality-rank",
        "threshold(t=0.5)",
        "top-k(k=3)",
        "top-fraction(f=0.5)",
        "best",
    ),
    *("trimmed(f=0.2)", "medoid", "crfiqa-script"),
)
TEMPLATES_LINE = "templates: raw features, mean in a medium, sum, unit length"


def rows(made: Material, replicates: int) -> list[Row]:
    return [
        *_template_lines(made),
        *_verification(made),
        *_identification(made),
        *_many(made, replicates),
    ]


def _template_lines(made: Material) -> list[Row]:
    members, features = made.data.tables["members"], made.embedded["embedding"]
    medium = np.unique(members["media"].astype(str), return_inverse=True)[1]
    return [
        Row(
            TEMPLATES_LINE,
            lambda: _media_templates(made)["embedding"],
            lambda: common.media_templates(features, members["template"], medium),
            largest_difference,
        ),
        Row(
            "templates: min-max quality weights, sum, unit length",
            lambda: fuse_by(
                made.data, "quality-minmax", made.embedded, made.scored, features="raw"
            )["embedding"],
            lambda: common.minmax_templates(features, members["template"], made.scored["quality"]),
            largest_difference,
        ),
    ]


def _verification(made: Material) -> list[Row]:
    tables, listed = made.data.tables, made.listed
    scores, mated = compare_all(made.data, made.fused), listed["mated"]
    few = made.with_tables(
        comparisons=draw_list(tables, made.subject, SPARSE_SHARE / 100, SPARSE_SHARE)
    )
    crossed = made.with_tables(
        comparisons=listed.take(slice(0, 0)),
        pairings=Batch({"role_a": text(["reference"]), "role_b": text(["probe"])}),
    )
    scoring = (
        f"{len(mated):,} 1:1 scores of a list, {len(mated) / _cells(made):.1%} of its sides' pairs"
    )
    rating = f"TAR at {len(FMR)} FMRs, false matches, AUC"
    return [
        Row(
            scoring,
            partial(compare_all, made.data, made.fused),
            partial(_gathered, made, made.data),
            largest_difference,
        ),
        Row(
            rating,
            lambda: tar_and_auc(scores, mated),
            lambda: common.tar_table(scores, mated, FMR),
            _same_rates,
        ),
        Row(
            "templates, scores, TAR: the three together",
            lambda: tar_and_auc(compare_all(made.data, _media_templates(made)), mated),
            (TEMPLATES_LINE, scoring, rating),
        ),
        Row(
            f"{few.tables['comparisons'].rows:,} 1:1 scores of a sparse list, {SPARSE_SHARE:.0%} of"
            " the pairs",
            partial(compare_all, few, made.fused),
            partial(_gathered, made, few),
            largest_difference,
        ),
        Row(
            f"{_cells(made):,} 1:1 scores, every reference × every probe",
            partial(compare_all, crossed, made.fused),
        ),
    ]


def _identification(made: Material) -> list[Row]:
    probes, subject, unit = made.roles("probe"), made.subject, made.wide
    enrolled = [made.roles(name) for name in GALLERIES]

    def theirs() -> list[tuple[Array, Array]]:
        return [
            common.mate_ranks(unit[rows], unit[probes], subject[rows], subject[probes])
            for rows in enrolled
        ]

    return [
        Row(
            f"1:N, galleries of {' and '.join(f'{len(rows):,}' for rows in enrolled)},"
            f" {len(probes):,} probes: {TOP} candidates, rank of the mate, best score",
            lambda: [_mate_ranks(made, name, subject[probes]) for name in GALLERIES],
            theirs,
            _same_ranks,
        )
    ]


def _many(made: Material, replicates: int) -> list[Row]:
    mated, (a, b) = made.listed["mated"], pairs_of(made.data)
    sides = made.subject[a], made.subject[b]
    ways = [
        compare_all(made.data, fuse_by(made.data, rule, made.embedded, made.scored))
        for rule in FUSION_RULES[:2]
    ]

    def replicated(scores: Array) -> Array:
        weights = bootstrap.subject_weights(int(made.subject.max()) + 1, replicates, seed=0)
        return bootstrap.tar_replicates(scores, mated, *sides, FMR, weights)

    def difference() -> bootstrap.PairedDifference:
        points = [tar_and_auc(scores, mated)[0] for scores in ways]
        return bootstrap.paired_difference(*points, *(replicated(scores) for scores in ways))

    def sixteen() -> list[Array]:
        fused = (fuse_by(made.data, rule, made.embedded, made.scored) for rule in FUSION_RULES)
        return [tar_and_auc(compare_all(made.data, templates), mated)[0] for templates in fused]

    return [
        Row(f"{len(FUSION_RULES)} fusion rules one after another: templates, scores, TAR", sixteen),
        Row(
            f"{replicates:,} bootstrap replicates of TAR at {len(FMR)} FMRs, one rule",
            partial(replicated, ways[0]),
        ),
        Row(
            f"the paired differences of two rules, {replicates:,} replicates (of sixteen: eight"
            " times as long)",
            difference,
        ),
    ]


def _cells(made: Material) -> int:
    return len(made.roles("reference")) * len(made.roles("probe"))


def _media_templates(made: Material) -> Batch:
    return fuse_by(made.data, "mean", made.embedded, made.scored, features="raw", media="mean")


def _gathered(made: Material, data: Dataset) -> Array:
    return common.pair_scores(made.wide, *pairs_of(data))


def _mate_ranks(made: Material, gallery: str, probe_subject: Array) -> tuple[Array, Array]:
    found = run(stage_of(search.Search, k=TOP, gallery=gallery), made.data, templates=made.fused)
    named = np.where(found["candidate"] >= 0, made.subject[found["candidate"]], -1)
    return identification.mate_rank(named, probe_subject), found["score"][:, 0]


def largest_difference(theirs: Array, ours: Array) -> str:
    lost = int(np.isnan(theirs).reshape(len(theirs), -1).any(axis=1).sum())
    note = f"; common method: {lost} without a vector" if lost else ""
    return f"largest difference {np.nanmax(np.abs(theirs - ours)):.1e}{note}"


def _same_rates(theirs: Any, ours: Any) -> str:
    if np.array_equal(theirs[1], ours[1]):
        counts = "identical"
    else:
        counts = f"DIFFERENT ({theirs[1]} and {ours[1]})"
    return (
        f"false matches {counts}; TAR within {np.abs(theirs[0] - ours[0]).max():.1e}, AUC"
        f" {abs(theirs[2] - ours[2]):.1e}"
    )


def _same_ranks(theirs: Any, ours: Any) -> str:
    (rank, best), (found, score) = (
        tuple(map(np.concatenate, zip(*each, strict=True))) for each in (theirs, ours)
    )
    expected = np.where(rank <= TOP, rank, 0)  # a list of TOP candidates knows no further rank
    same = np.mean(expected == found) * 100
    return f"{same:.5g} % of ranks identical; best scores within {np.abs(best - score).max():.1e}"
