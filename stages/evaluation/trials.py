"""trials: the 1:1 comparisons that an evaluation is over, and the templates of them that failed.

All pairs of roles are never written out: they are worked on by rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.core.schema import Array
from pipeline.core.stage import Work
from pipeline.errors import InvalidInput
from stages.evaluation.numbers import Numbers, count_distinct, number_half, number_subjects
from stages.metrics import bootstrap, verification
from stages.metrics.subjects import Half
from stages.tables.comparisons import Comparisons
from stages.tables.pair_layouts import Listed, Product, Triangle

Enrolled = Literal["auto", "first", "none"]  # which side of the comparisons is enrolled


@dataclass(frozen=True)
class Trials:
    """The comparisons that are evaluated.

    `score`, `failed`, `mated` (n,); `fold` (n,) of a list. `form`: which two templates each is of.
    `sides_apart`: there are comparisons, and no template stands on both sides of those that were
    given, including those left out since; in all pairs of one role the sides are the same.
    """

    score: Array
    failed: Array
    mated: Array
    fold: Array | None
    form: Listed | Product | Triangle
    sides_apart: bool
    used: tuple[Array, Array]  # by either side: masks over templates

    @staticmethod
    def of(work: Work, half: Half, numbers: Numbers) -> Trials:
        """Read the comparisons that are evaluated.

        Left out, and counted, are comparisons not known to be mated or non-mated, and those across
        the halves of the subjects.
        """
        compared, comparisons = work.inputs["scores"].read(), Comparisons.of(work.tables)
        subject, _, known = number_subjects(work.tables["templates"])
        inside = number_half(work.tables["templates"], half)[0] >= 0
        form: Listed | Product | Triangle = comparisons.form
        used = _templates_on_sides(work, len(subject), form)
        if isinstance(form, Listed):
            mated = comparisons.listed["mated"]
            fold = comparisons.listed["fold"]
            apart = _sides_apart(*used)
            if half != "all":
                # Those of two halves, and those of a template that is in neither.
                a, b = form.a, form.b
                across = (inside[a] != inside[b]) | ~known[a] | ~known[b]
                numbers.add("comparisons_across_halves", float(across.sum()), trials=form.size)
                kept = inside[a] & inside[b]
                form = Listed(a[kept], b[kept])
                mated = mated[kept]
                fold = fold[kept]
                compared = compared.take(kept)
                used = _templates_on_sides(work, len(subject), form)
            return Trials(compared["score"], compared["failed"], mated, fold, form, apart, used)
        apart = isinstance(form, Product) and _sides_apart(*used)
        told = form.among(known).size
        within = form.among(known & inside)
        if told < form.size:
            numbers.add("comparisons_unlabelled", float(form.size - told), trials=form.size)
        if half != "all":
            across = told - within.size - form.among(known & ~inside).size
            numbers.add("comparisons_across_halves", float(across), trials=told)
        score, failed = (form.cut(known & inside, compared[name]) for name in ("score", "failed"))
        used = _templates_on_sides(work, len(subject), within)
        return Trials(score, failed, within.same(subject), None, within, apart, used)

    def subjects(self, chosen: Array, subject: Array) -> tuple[Array, Array]:
        """Return the subjects (int32) of both sides, for the comparisons at a mask (n,).

        `subject` is that of each template.
        """
        return self.form.chosen(chosen, subject.astype(np.int32))

    def check_mated(self, subject: Array) -> None:
        """Raise InvalidInput if a list contradicts the subjects, which are what is resampled."""
        if not isinstance(self.form, Listed):
            return
        wrong = np.flatnonzero(self.mated != (subject[self.form.a] == subject[self.form.b]))
        if len(wrong):
            mated = self.mated[wrong[0]]
            if mated:
                what = "mated, and its templates are not of one"
            else:
                what = "non-mated, and its templates are of one"
            raise InvalidInput(
                f"comparison {wrong[0]} is listed as {what} subject ({len(wrong)} such). Intervals"
                " resample subjects: mend the list or the subjects, or set the evaluation's"
                " replicates to 0 to do without."
            )

    def sides(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Return of each side (used, failed): masks over templates."""
        lost = np.zeros((2, len(self.used[0])), bool)
        for side, rows in enumerate(self.form.failed(self.failed) if self.failed.any() else ()):
            lost[side, rows] = True
        return (self.used[0], lost[0]), (self.used[1], lost[1])


def _templates_on_sides(
    work: Work, templates: int, form: Listed | Product | Triangle
) -> tuple[Array, Array]:
    """Return which templates stand on side a and which on side b."""

    def named(rows: Array) -> Array:
        used = np.zeros(templates, bool)
        used[rows] = True
        return used

    first, second = work.each(named, (form.a, form.b))
    return first, second


def _sides_apart(first: Array, second: Array) -> bool:
    return bool(first.any() and second.any() and not (first & second).any())


@dataclass(frozen=True)
class _Share:
    """A share of templates, with its replicates (R,)."""

    of: int
    value: float
    replicates: Array
    subjects: int

    @staticmethod
    def made(used: Array, lost: Array, column: Array, weights: Array) -> _Share:
        value = float(lost.sum() / used.sum()) if used.any() else float("nan")
        drawn = bootstrap.share_replicates(lost[used], column[used], weights)
        return _Share(int(used.sum()), value, drawn, count_distinct(column[used]))


@dataclass(frozen=True)
class Failures:
    """Failures to acquire and, if the first side of the comparisons is enrolled, to enrol."""

    fta: _Share
    fte: _Share | None

    @staticmethod
    def of(trials: Trials, column: Array, weights: Array, enrolled: Enrolled = "auto") -> Failures:
        """`enrolled`: the first side, none, or auto: the first side if no template is on both."""
        (used_a, lost_a), (used_b, lost_b) = trials.sides()
        if enrolled == "none" or (enrolled == "auto" and not trials.sides_apart):
            return Failures(_Share.made(used_a | used_b, lost_a | lost_b, column, weights), None)
        fte = _Share.made(used_a, lost_a, column, weights)
        fta = _Share.made(used_b, lost_b, column, weights)
        return Failures(fta, fte)

    def rejected(self, fnmr: float, tar: Array | None) -> list[tuple[str, float, Array | None]]:
        """Return FRR and, if failures to enrol are known, GFRR: (metric, value, replicates)."""
        _, frr = verification.with_failures(np.nan, fnmr, self.fta.value)
        if tar is None:
            drawn = None
        else:
            drawn = verification.with_failures(np.nan, 1 - tar, self.fta.replicates)[1]
        found: list[tuple[str, float, Array | None]] = [("frr", float(frr), drawn)]
        if self.fte is not None:
            _, gfrr = verification.with_failures(np.nan, frr, self.fte.value)
            if drawn is None:
                again = None
            else:
                again = verification.with_failures(np.nan, drawn, self.fte.replicates)[1]
            found.append(("gfrr", float(gfrr), again))
        return found

    def write(self, numbers: Numbers) -> None:
        for metric, share in (("fta", self.fta), ("fte", self.fte)):
            if share is not None:
                numbers.add(
                    metric, share.value, share.replicates, trials=share.of, subjects=share.subjects
                )
