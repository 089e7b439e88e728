"""conventions: how the numbers of a report are made, in sentences that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.errors import counted
from stages.evaluation.verification import FULL_LIST
from stages.results.quantities import AREA, COUNTS, Quantity, flawless, is_area, number_label
from stages.results.rule_table import RuleTable, departures_by_step, sides_enrolled

MANY = 100  # subjects: with fewer, percentile intervals were seen to hold less than they claim
LEFT_OUT = {
    "comparisons_across_halves": (
        "comparisons of subjects of two halves or, in a list, of a template whose subject is not "
        "known, left out of every other number; a subject's half follows from its name"
    ),
    "comparisons_unlabelled": (
        "comparisons of a template whose subject is not known, left out of every other number"
    ),
    "probes_unlabelled": "probes whose subject is not known, left out of every other number",
}


def intervals(table: RuleTable) -> str:
    """Say how the intervals of a table were made."""
    if not table.replicates:
        return "No intervals: the evaluation drew no bootstrap replicates."
    averaged = ""
    if table.average:
        named = " and ".join(
            f"{name} ({len(values)} values)" for name, values in table.average.items()
        )
        averaged = (
            f" Values are means over {named}; replicate r draws the same subjects in every cell, so"
            " replicates are averaged one by one, and an interval speaks of other subjects, not of"
            " other seeds."
        )
    bare = any(
        q.metric == "auc" and math.isnan(row.entries[q].low)
        for row in table.rows
        for q in row.entries
    )
    subjects = min(
        (e.subjects for row in table.rows for e in row.entries.values() if e.subjects > 0),
        default=MANY,
    )
    narrow = f" With {subjects} subjects they are somewhat too narrow." if subjects < MANY else ""
    missing = f" AUC has one up to {FULL_LIST:,} comparisons." if bare else ""
    return (
        f"Intervals in brackets: percentile {table.level * 100:g} % of a subject-clustered"
        f" bootstrap, {table.replicates:,} replicates.{narrow}{missing}{averaged}"
    )


def no_errors(table: RuleTable, quantities: Sequence[Quantity]) -> list[str]:
    """Name the numbers by which no row has an error.

    These cannot tell rows apart. Only numbers that two rows or more have are asked about.
    """
    named = [
        q.label
        for q in quantities
        if q.rule in ("", "at_most")
        and len(held := [row.entries[q].value for row in table.rows if q in row.entries]) > 1
        and q.metric not in COUNTS | {"fta", "fte", "fmr", "fpir"}
        and AREA.fullmatch(q.metric) is None
        and all(flawless(q.metric, value) for value in held)
    ]
    if not named:
        return []
    by = "it" if len(named) == 1 else "these"
    return [
        f"No row has a single error in {', '.join(named)}: this set cannot tell the rows apart by"
        f" {by}. The interval then reaches at least to the exact binomial bound of no error among"
        " the subjects (the “rule of 3” of ISO/IEC 19795-1)."
    ]


def undefined(table: RuleTable) -> list[str]:
    """Name the rates that no row has defined, and say why if the set explains it."""
    rates = [
        q
        for q in table.quantities
        if q.metric in ("tar", "eer", "rank", "tpir") and q.rule in ("", "at_most")
    ]
    held = {q: [row.entries[q] for row in table.rows if q in row.entries] for q in rates}
    lacking = [q for q, entries in held.items() if all(math.isnan(e.value) for e in entries)]
    if not lacking:
        return []
    closed = all(q.metric == "tpir" and all(e.nonmated == 0 for e in held[q]) for q in lacking)
    why = (
        ": every probe has a mate in the gallery (reader `folder`: dataset.options.left_out leaves"
        " subjects out)"
    )
    return [
        "Not defined in any row, and not shown:"
        f" {', '.join(q.label for q in lacking)}{why if closed else ''}."
    ]


def unreachable(table: RuleTable, quantities: Sequence[Quantity]) -> list[str]:
    """Name the targets that are less than one of the non-mated comparisons (probes)."""
    said: dict[tuple[str, int], list[Quantity]] = {}
    for q in quantities:
        nonmated = [row.entries[q].nonmated for row in table.rows if q in row.entries]
        if (
            q.metric in ("tar", "tpir")
            and q.rule == "at_most"
            and q.target
            and 0 < min(nonmated, default=0) * q.target < 1
        ):
            said.setdefault((q.metric, min(nonmated)), []).append(q)
    return [
        _one_of(metric, count, [q.target or 0 for q in found])
        for (metric, count), found in said.items()
    ]


def _one_of(metric: str, count: int, targets: Sequence[float]) -> str:
    rate, trials = (
        ("FMR", "non-mated comparison") if metric == "tar" else ("FPIR", "non-mated probe")
    )
    named, most = ", ".join(map(number_label, targets)), max(targets)
    return (
        f"{rate} ≤ {named}: of {counted(count, trials)} that is less than one, so it is held as 0;"
        f" for 30 errors at {number_label(most)} it would take {math.ceil(30 / most - 1e-9):,}."
    )


def differences(table: RuleTable) -> str:
    """Say what a difference is."""
    if not table.baseline:
        return "There is no baseline, so no differences are given."
    named = ", ".join(f"{name} = {value}" for name, value in table.baseline.items())
    compared = sum(row.reference is not None and not row.is_baseline for row in table.rows)
    return (
        f"Differences are row − baseline ({named}; all else that both have equal), paired replicate"
        " by replicate, in percentage points. ▲ better and ▼ worse: the interval leaves out 0 and"
        " rests on 30 errors: false matches at both thresholds, and mated errors of one of the"
        f" two. {compared} {'row is' if compared == 1 else 'rows are'} compared, and the intervals"
        " are not widened for it."
    )


def rates(quantities: Sequence[Quantity], among: Sequence[Quantity] = ()) -> list[str]:
    """Say how the rates among some quantities are defined.

    `among` holds every quantity of the table, if `quantities` is only a part of them.
    """
    metrics, discarding = {q.metric for q in quantities}, any(is_area(q.metric) for q in quantities)
    enrolled = any(q.metric == "fte" and q.kind == "1:1" for q in (*quantities, *among))
    said = []
    if metrics & {"tar", "frr", "eer"}:
        said.append(
            "1:1. A comparison is accepted when its score ≥ threshold. TAR = 1 − FNMR; FMR and"
            " FNMR are over comparisons of acquired templates. FRR = FTA + FNMR · (1 − FTA)"
            " includes failures to acquire: FTA is the share of the"
            f" {'probes' if enrolled else 'compared templates'} none of whose faces was usable."
        )
    if "gfrr" in metrics:
        said.append(
            "GFRR = FTE + (1 − FTE) · FRR includes failures to enrol (ISO/IEC 19795-1, an attempt a"
            " transaction): FTE is the share of the references, the first templates of the"
            " comparisons, none of whose faces was usable."
        )
    if "eer" in metrics:
        said.append("EER is where the piecewise linear ROC meets FMR = FNMR.")
    if "auc" in metrics:
        said.append(
            "AUC is the chance that a mated score exceeds a non-mated one, equal scores counting"
            " half."
        )
    if metrics & {"tar", "frr", "tpir"} or discarding:
        said.append(
            "“FMR ≤ t” is the point with the largest FMR that does not exceed t; “FMR ≈ t” is the"
            " point nearest t, which may exceed it; “as scripts have it” takes it from what"
            " scikit-learn's roc_curve keeps, as the common IJB scripts do. The FMR actually held"
            " stands in the table of every number."
        )
    if metrics & {"tar", "frr", "tpir", "rank", "eer"} or discarding:
        said.append(
            "† rests on fewer than 30 errors of a kind in at least one cell, false matches (false"
            " positives) or mated errors: its true value is very uncertain, and its interval is too"
            " narrow. The table of every number has the counts, and the distinct pairs of subjects"
            " behind the false matches."
        )
    if metrics & {"rank", "tpir"}:
        said.append(
            "1:N. rank-k is the share of mated probes whose mate is among the k best candidates."
            " TPIR counts a mated probe whose mate is at rank 1 with score ≥ threshold; FPIR is"
            " over probes that have no mate in the gallery. Probes are resampled, the gallery is"
            " not."
        )
    if "pooled_script" in metrics:
        said.append(
            "The pooled script is a widespread script's arithmetic, for comparison with its"
            " published numbers only: the threshold is the ceil(probes · target)-th largest of the"
            " scores of all probes with all gallery templates of other subjects, and a mated probe"
            " counts when its mate scores above it, at whatever rank. It is not TPIR at an FPIR."
        )
    if discarding:
        said.append(
            "Error versus discard. EDC (ISO/IEC 29794-1:2024): the threshold is chosen once, on all"
            " comparisons; x is the share of comparisons discarded, poorest quality first, equal"
            " qualities together, mated and non-mated each by themselves unless the config says"
            " otherwise. pAUC(L) is the area under its steps from 0 to L, not divided by L, in"
            " percent. Random, expected: error · L, the mean over all orders. Pair oracle: all"
            " errors first, one by one, which no quality of samples attains; attainable is its"
            " closed form, perfect NIST's straight line, which nothing attains; sample oracle: a"
            " quality of samples that knows the errors, strong and no bound."
        )
    if "erc_auc" in metrics:
        said.append(
            "ERC AUC, legacy: the form of CR-FIQA's published evaluation. Mated and non-mated"
            " comparisons are discarded together in twenty steps; the threshold is chosen anew at"
            " each, at the observed score whose FMR is nearest the target; a mated score at the"
            " threshold is an error. The area is by trapezoids over [0, 0.95], in percent. It is"
            " marked † where fewer than 30 false matches decide at any of the steps."
        )
    if "accuracy" in metrics:
        said.append(
            "Accuracy is the mean over folds, each decided at the threshold chosen on the other"
            " folds; SD is over folds, with their number as divisor."
        )
    lost = {
        "fused_fallback": (
            "templates of which no face has a weight above 0: fuse.fallback says what they are"
        ),
        "comparisons_lost": "comparisons without a score, because a template failed",
        "comparisons_without_quality": (
            "comparisons of which a template has no quality, discarded first"
        ),
        "probes_without_quality": "probes without a quality, discarded first",
        **LEFT_OUT,
    }
    names = {q.metric: q.label[:1].upper() + q.label[1:] for q in quantities}
    said += [f"{names[name]}: {what}." for name, what in lost.items() if name in metrics]
    return said


def enrolment(table: RuleTable) -> list[str]:
    """Say which side of the 1:1 comparisons was taken for enrolled, and why."""
    enrolled = "the first side of the comparisons is enrolled"
    why = {
        ("auto", True): f"as no template stands on both sides, {enrolled}",
        ("auto", False): "as templates stand on both sides of the comparisons, none is enrolled",
        ("first", True): f"{enrolled}, as the config says",
        ("none", False): "no side of the comparisons is enrolled, as the config says",
    }
    ends = {
        True: "its failures are FTE, and FTA is of the second side",
        False: "every failure is one to acquire (FTA)",
    }
    return [
        f"1:1, enrolled: {option}: {why[option, apart]}; {ends[apart]}."
        for option, apart in sides_enrolled(table)
    ]


def variants(table: RuleTable) -> list[str]:
    """Say in what each evaluating step departs from a form of error versus discard.

    The forms are the standard's and the legacy one.
    """
    forms = ("the standard's form", "the legacy form")
    return [
        f"{step} is not {form} itself: {', '.join(but)}."
        for step, departures in departures_by_step(table).items()
        for form, but in zip(forms, departures, strict=True)
        if but
    ]


def everything(table: RuleTable) -> list[str]:
    """Return every convention behind a table."""
    return [
        *rates(table.quantities),
        *variants(table),
        *enrolment(table),
        *undefined(table),
        *unreachable(table, table.quantities),
        *no_errors(table, table.quantities),
        intervals(table),
        differences(table),
    ]
