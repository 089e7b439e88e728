"""acquisition: which faces a run lost and why, and what is worth knowing of faces that it kept.

Conventions
    Failures  rows whose status is not OK, counted where they arise: a face that align lost is not counted again by embed.
    Notes     rows whose status is OK and that carry a reason all the same, such as a choice among several faces.
    Kinds     reasons that differ in numbers only are one kind, its numbers written as N.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.remarks import remarks
from pipeline.session import Results

STEPS = (("align", "detections"), ("embed", ""))  # the stages that acquire faces, and which output says how it went


@dataclass(frozen=True)
class Kind:
    """Reasons of one kind. `example` is the first face in the order of the data set, with its numbers."""

    step: str
    status: str
    reason: str
    example: str
    count: int


@dataclass(frozen=True)
class Acquired:
    """Failures and notes, most frequent first, and the config steps that were looked at."""

    failures: tuple[Kind, ...]
    notes: tuple[Kind, ...]
    looked_at: tuple[str, ...]

    @property
    def lost(self) -> int:
        return sum(kind.count for kind in self.failures)


def acquired(results: Results) -> Acquired:
    """Count what the align and embed steps say of faces, in whatever cell; a face says one thing once."""
    steps = [step for stage, output in STEPS for step in results.cells(stage) if results.available(step, output)]
    looked_at = tuple(dict.fromkeys(step.base for step in steps))
    counts: dict[tuple[str, str, str], list[str]] = {}
    for remark in remarks(results.plan, results.session.store):
        if remark.step in looked_at:
            kind = re.sub(r"\d+(?:[.,]\d+)*", "N", remark.reason)
            example = remark.id if kind == remark.reason else remark.sentence
            counts.setdefault((remark.step, remark.status, kind), []).append(example)
    kinds = sorted((Kind(*key, found[0], len(found)) for key, found in counts.items()), key=lambda kind: -kind.count)
    notes = tuple(kind for kind in kinds if kind.status == "ok")
    failures = tuple(kind for kind in kinds if kind.status != "ok")
    return Acquired(failures, notes, looked_at)
