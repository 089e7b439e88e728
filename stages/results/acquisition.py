"""acquisition: which faces a run lost and why, and what is worth knowing of faces that it kept.

Conventions
    Failures  rows whose status is not OK, counted where they arise: a face that align lost is not
              counted again by embed.
    Notes     rows whose status is OK and that carry a reason all the same, such as a choice among
              several faces.
    Kinds     reasons that differ in numbers only are one kind, told in the words of its first face.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.run.row_failures import Remark, remarks
from pipeline.session import Results

# the stages that acquire faces, and which output says how it went
STEPS = (("align", "detections"), ("embed", ""))


@dataclass(frozen=True)
class ReasonKind:
    """Reasons of one kind.

    `reason` and `example` are of the first face in the order of the data set.
    """

    step: str
    status: str
    reason: str
    example: str
    count: int


@dataclass(frozen=True)
class Acquired:
    """Failures and notes, most frequent first, and the config steps that were looked at."""

    failures: tuple[ReasonKind, ...]
    notes: tuple[ReasonKind, ...]
    looked_at: tuple[str, ...]

    @property
    def lost(self) -> int:
        return sum(kind.count for kind in self.failures)


def acquired(results: Results) -> Acquired:
    """Count what the align and embed steps say of faces, in whatever cell.

    What several cells say of a face in the same words counts once.
    """
    steps = [
        step
        for stage, output in STEPS
        for step in results.cells(stage)
        if results.available(step, output)
    ]
    looked_at = tuple(dict.fromkeys(step.base for step in steps))
    alike: dict[tuple[str, str, str], list[Remark]] = {}
    for remark in remarks(results.plan, results.session.store):
        if remark.step in looked_at:
            kind = re.sub(r"\d+(?:[.,]\d+)*", "0", remark.reason)
            alike.setdefault((remark.step, remark.status, kind), []).append(remark)
    kinds = sorted(map(_kind, alike.values()), key=lambda kind: -kind.count)
    notes = tuple(kind for kind in kinds if kind.status == "ok")
    failures = tuple(kind for kind in kinds if kind.status != "ok")
    return Acquired(failures, notes, looked_at)


def _kind(same: Sequence[Remark]) -> ReasonKind:
    """Return one kind: the reason that all share, or the first face's as an example.

    The reasons of one kind differ in numbers only.
    """
    first = same[0]
    such = "such as: " if any(remark.reason != first.reason for remark in same) else ""
    return ReasonKind(first.step, first.status, such + first.reason, first.id, len(same))
