"""trials: the 1:1 comparisons that an evaluation is over, and the templates of them that failed.

A product of roles is never written out: what is asked of it is broadcast from its rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import InvalidInput
from pipeline.schema import Array
from pipeline.stage import Work
from stages.metrics import bootstrap, verification
from stages.numbers import Half, Numbers, number_half, number_subjects
from stages.tables import Comparisons

Enrolled = Literal["auto", "first", "none"]  # which side of the comparisons is enrolled


@dataclass(frozen=True)
class Trials:
    """The comparisons that are evaluated.

    `score`, `failed`, `mated` (n,); `fold` (n,) of a list. `a`, `b`: template rows of each or, of a product, of its rows and
    of its columns. `sides_apart`: there are comparisons, and no template stands on both sides of those that were given,
    whatever was left out of them since.
    """

    score: Array
    failed: Array
    mated: Array
    fold: Array | None
    a: Array
    b: Array
    is_product: bool
    sides_apart: bool
    used: tuple[Array, Array]  # by either side: masks over templates

    @staticmethod
    def of(work: Work, half: Half, numbers: Numbers) -> Trials:
        """Leave out, and count, what is not known to be mated or not, and what lies across the halves of the subjects."""
        compared, comparisons = work.inputs["scores"].read(), Comparisons.of(work.tables)
        subject, _, known = number_subjects(work.tables["templates"])
        inside = number_half(work.tables["templates"], half)[0] >= 0
        if not comparisons.is_product:
            a, b = comparisons.listed["a"], comparisons.listed["b"]
            mated, fold = comparisons.listed["mated"], comparisons.listed["fold"]
            used = _used(work, len(subject), a, b)
            apart = _apart(*used)
            if half != "all":
                # Those of two halves, and those of a template that is in neither.
                across = (inside[a] != inside[b]) | ~known[a] | ~known[b]
                numbers.add("comparisons_across_halves", float(across.sum()), trials=len(a))
                kept = inside[a] & inside[b]
                a, b, mated, fold, compared = a[kept], b[kept], mated[kept], fold[kept], compared.take(kept)
                used = _used(work, len(subject), a, b)
            return Trials(compared["score"], compared["failed"], mated, fold, a, b, False, apart, used)
        a, b = comparisons.a, comparisons.b
        apart = _apart(*_used(work, len(subject), a, b))
        shape, told = (len(a), len(b)), int(known[a].sum()) * int(known[b].sum())
        if told < comparisons.rows:
            numbers.add("comparisons_unlabelled", float(comparisons.rows - told), trials=comparisons.rows)
        if half != "all":
            first, second = int((known & inside)[a].sum()), int((known & inside)[b].sum())
            across = first * (int(known[b].sum()) - second) + (int(known[a].sum()) - first) * second
            numbers.add("comparisons_across_halves", float(across), trials=told)
        rows, columns = (known & inside)[a], (known & inside)[b]
        score, failed = compared["score"].reshape(shape), compared["failed"].reshape(shape)
        if not (rows.all() and columns.all()):
            cut = np.ix_(rows, columns)
            score, failed = score[cut], failed[cut]
        a, b = a[rows], b[columns]
        mated = subject[a][:, None] == subject[b]
        used = _used(work, len(subject), a, b)
        return Trials(score.ravel(), failed.ravel(), mated.ravel(), None, a, b, True, apart, used)

    def subjects(self, chosen: Array, subject: Array) -> tuple[Array, Array]:
        """Return the subjects of both sides, int32, of the comparisons at a mask (n,); `subject` is that of each template."""
        number = subject.astype(np.int32)
        if not self.is_product:
            rows = np.flatnonzero(chosen)
            return number[self.a[rows]], number[self.b[rows]]
        at = chosen.reshape(len(self.a), len(self.b))
        sides = number[self.a][:, None], number[self.b]
        return np.broadcast_to(sides[0], at.shape)[at], np.broadcast_to(sides[1], at.shape)[at]

    def templates(self, chosen: Array) -> tuple[Array, Array]:
        """Return the template rows of both sides, of the comparisons at a mask (n,)."""
        if not self.is_product:
            return self.a[chosen], self.b[chosen]
        row, column = np.divmod(np.flatnonzero(chosen), max(1, len(self.b)))
        return self.a[row], self.b[column]

    def check_mated(self, subject: Array) -> None:
        """Raise InvalidInput where a list says something else than the subjects, as these are what is resampled."""
        if self.is_product:
            return
        wrong = np.flatnonzero(self.mated != (subject[self.a] == subject[self.b]))
        if len(wrong):
            mated = self.mated[wrong[0]]
            what = "mated, and its templates are not of one" if mated else "non-mated, and its templates are of one"
            raise InvalidInput(
                f"comparison {wrong[0]} is listed as {what} subject ({len(wrong)} such). Intervals resample subjects: mend "
                "the list or the subjects, or set evaluate_verification.replicates to 0 to do without."
            )

    def sides(self, templates: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Return of each side (used, failed): masks over templates."""
        lost = np.zeros((2, templates), bool)
        for side, (bit, rows) in enumerate(((1, self.a), (2, self.b)) if self.failed.any() else ()):
            at: Array = np.asarray(self.failed & bit, bool)
            if self.is_product:
                at = np.asarray(at.reshape(len(self.a), len(self.b)).any(axis=2 - bit))
            lost[side, rows[at]] = True
        return (self.used[0], lost[0]), (self.used[1], lost[1])


def _used(work: Work, templates: int, a: Array, b: Array) -> tuple[Array, Array]:
    """Return which templates stand among rows `a` and among rows `b`."""

    def named(rows: Array) -> Array:
        used = np.zeros(templates, bool)
        used[rows] = True
        return used

    first, second = work.each(named, (a, b))
    return first, second


def _apart(first: Array, second: Array) -> bool:
    return bool(first.any() and second.any() and not (first & second).any())


@dataclass(frozen=True)
class _Share:
    """A share of templates, with its replicates (R,)."""

    of: int
    value: float
    replicates: Array

    @staticmethod
    def made(used: Array, lost: Array, column: Array, weights: Array) -> _Share:
        value = float(lost.sum() / used.sum()) if used.any() else float("nan")
        return _Share(int(used.sum()), value, bootstrap.share_replicates(lost[used], column[used], weights))


@dataclass(frozen=True)
class Failures:
    """Failures to acquire and, where the first side of the comparisons is enrolled, to enrol."""

    fta: _Share
    fte: _Share | None

    @staticmethod
    def of(trials: Trials, column: Array, weights: Array, enrolled: Enrolled = "auto") -> Failures:
        """`enrolled`: the first side, none, or the first side where the sides have no template in common."""
        (used_a, lost_a), (used_b, lost_b) = trials.sides(len(column))
        if enrolled == "none" or (enrolled == "auto" and not trials.sides_apart):
            return Failures(_Share.made(used_a | used_b, lost_a | lost_b, column, weights), None)
        fte, fta = _Share.made(used_a, lost_a, column, weights), _Share.made(used_b, lost_b, column, weights)
        return Failures(fta, fte)

    def rejected(self, fnmr: float, tar: Array | None) -> list[tuple[str, float, Array | None]]:
        """Return FRR and, where enrolment is told apart, GFRR: (metric, value, replicates)."""
        _, frr = verification.with_failures(np.nan, fnmr, self.fta.value)
        drawn = None if tar is None else verification.with_failures(np.nan, 1 - tar, self.fta.replicates)[1]
        found: list[tuple[str, float, Array | None]] = [("frr", float(frr), drawn)]
        if self.fte is not None:
            _, gfrr = verification.with_failures(np.nan, frr, self.fte.value)
            again = None if drawn is None else verification.with_failures(np.nan, drawn, self.fte.replicates)[1]
            found.append(("gfrr", float(gfrr), again))
        return found

    def write(self, numbers: Numbers) -> None:
        numbers.add("fta", self.fta.value, self.fta.replicates, trials=self.fta.of)
        if self.fte is not None:
            numbers.add("fte", self.fte.value, self.fte.replicates, trials=self.fte.of)
