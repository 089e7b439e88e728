"""changed_decisions: the comparisons that two rules decide otherwise, and wrong acceptances.

Conventions
    Threshold   each rule has its own. A score that is nan is neither accepted nor rejected.
    won         mated, accepted by the first rule and rejected by the second; the largest gain
                first, (score − threshold) of the first rule less that of the second. lost: the
                reverse. false: non-mated and accepted by the first rule, highest score first.
    Apart       of one subject (of false matches: one pair of subjects) the most telling comparison
                stands for all.

All pairs of roles are never written out: mated ones are found by subject, false matches by score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.schema import Array, Batch
from stages.evaluation.numbers import number_half, number_subjects
from stages.metrics.subjects import Half
from stages.tables.comparisons import Comparisons
from stages.tables.pair_layouts import Listed


@dataclass(frozen=True)
class Picked:
    """Comparisons of one kind by number, the most telling first; `of` counts all of the kind."""

    numbers: tuple[int, ...]
    of: int


@dataclass(frozen=True)
class Evaluated:
    """The comparisons of a data set, the subject of each template (int64), and the templates whose
    comparisons count.
    """

    comparisons: Comparisons
    subject: Array
    usable: Array

    @staticmethod
    def of(tables: Mapping[str, Batch], half: Half = "all") -> Evaluated:
        """`half`: as the comparisons were evaluated."""
        comparisons, (subject, _, known) = (
            Comparisons.of(tables),
            number_subjects(tables["templates"]),
        )
        inside = number_half(tables["templates"], half)[0] >= 0
        return Evaluated(
            comparisons, subject, inside if isinstance(comparisons.form, Listed) else inside & known
        )

    def templates(self, numbers: Array) -> tuple[Array, Array]:
        """Return the template rows (int64) on both sides of comparisons."""
        return self.comparisons.form.templates(numbers)

    def mated(self) -> Array:
        """Return the numbers (m,) int64 of the mated comparisons, ascending."""
        form, subject, usable = self.comparisons.form, self.subject, self.usable
        if isinstance(form, Listed):
            mated = np.flatnonzero(self.comparisons.listed["mated"])
            a, b = form.templates(mated)
            return np.asarray(mated[usable[a] & usable[b]])
        rows, columns = (np.flatnonzero(usable[side]) for side in (form.a, form.b))
        columns = columns[np.argsort(subject[form.b[columns]], kind="stable")]
        known, wanted = subject[form.b[columns]], subject[form.a[rows]]
        start, stop = (np.searchsorted(known, wanted, side) for side in ("left", "right"))
        size = stop - start
        place = np.arange(size.sum()) + np.repeat(start - (np.cumsum(size) - size), size)
        return form.numbers(np.repeat(rows, size), columns[place])

    def false_matches(self, score: Array, limit: Any) -> Array:
        """Return the numbers (m,) int64 of the non-mated comparisons whose score is `limit` or
        more, ascending.
        """
        accepted = np.flatnonzero(score >= limit)
        a, b = self.templates(accepted)
        listed = isinstance(self.comparisons.form, Listed)
        mated = (
            self.comparisons.listed["mated"][accepted]
            if listed
            else self.subject[a] == self.subject[b]
        )
        return np.asarray(accepted[self.usable[a] & self.usable[b] & ~mated])


def choose(
    evaluated: Evaluated, scores: Sequence[Array], thresholds: Sequence[float], most: int
) -> dict[str, Picked]:
    """Return the comparisons won (at most `most`), lost and false (at most half as many each,
    rounded up).

    scores: (n,) float32 of all comparisons, one of each rule.
    """
    limits = [np.float32(threshold) for threshold in thresholds]  # as they were evaluated
    mated, subject = evaluated.mated(), evaluated.subject
    one, other = (score[mated] for score in scores)
    won, lost = (one >= limits[0]) & (other < limits[1]), (other >= limits[1]) & (one < limits[0])
    found = {}
    for name, here, sign, count in (("won", won, 1, most), ("lost", lost, -1, (most + 1) // 2)):
        gain = (one[here].astype(np.float64) - limits[0]) - (
            other[here].astype(np.float64) - limits[1]
        )
        a, _ = evaluated.templates(mated[here])
        found[name] = _apart(mated[here], sign * gain, subject[a], count)
    false = evaluated.false_matches(scores[0], limits[0])
    a, b = (subject[side] for side in evaluated.templates(false))
    between = np.minimum(a, b) * len(subject) + np.maximum(a, b)
    found["false"] = _apart(false, scores[0][false], between, (most + 1) // 2)
    return found


def _apart(numbers: Array, goodness: Array, group: Array, most: int) -> Picked:
    """Choose the best comparison of each of the best groups; of equal ones the first."""
    order = np.argsort(-goodness, kind="stable")
    first = np.sort(np.unique(group[order], return_index=True)[1])[:most]
    return Picked(tuple(numbers[order[first]].tolist()), len(numbers))
