"""acquisition: which faces a run lost and why, and what is worth knowing of faces that it kept.

Conventions
    Failures  rows whose status is not OK, counted where they arise: a face that align lost is not counted again by embed.
    Notes     rows whose status is OK and that carry a reason all the same, such as a choice among several faces.
    Kinds     reasons that differ in numbers only are one kind, its numbers written as N.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.graph import Step
from pipeline.schema import Array, Batch, Status
from pipeline.session import Results


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
    """Failures and notes, most frequent first, and the names of the steps that were looked at."""

    failures: tuple[Kind, ...]
    notes: tuple[Kind, ...]
    looked_at: tuple[str, ...]

    @property
    def lost(self) -> int:
        return sum(kind.count for kind in self.failures)


def acquired(results: Results) -> Acquired:
    """Read what the first align and embed step of each name say of every face."""
    seen: dict[str, Step] = {}
    counts: dict[tuple[str, str, str], list[str]] = {}
    for stage, output in (("align", "detections"), ("embed", "")):
        for step in results.cells(stage):
            if step.base in seen or not results.available(step, output):
                continue
            seen[step.base] = step
            for status, kind, example in _reasons(results, step, output):
                counts.setdefault((step.base, status, kind), []).append(example)
    kinds = sorted((Kind(*key, found[0], len(found)) for key, found in counts.items()), key=lambda kind: -kind.count)
    notes = tuple(kind for kind in kinds if kind.status == "ok")
    failures = tuple(kind for kind in kinds if kind.status != "ok")
    return Acquired(failures, notes, tuple(step.name for step in seen.values()))


def _reasons(results: Results, step: Step, output: str) -> Iterator[tuple[str, str, str]]:
    """Yield (status, kind of reason, example) of every face that has something to tell."""
    read = results.read(step, output, ("status", "reason"))
    arises: Array = (read["status"] != Status.OK) | (read["reason"] != "")
    above = results.upstream(step, "align")
    if above is not None and results.available(above, "detections"):
        arises &= results.read(above, "detections", ("status",))["status"] == Status.OK
    faces: Batch = results.session.dataset.tables["faces"]
    for i in np.flatnonzero(arises).tolist():
        path = str(faces["path"][i])
        reason = str(read["reason"][i])
        kind = re.sub(r"\d+(?:[.,]\d+)*", "N", reason)
        example = path or str(faces["face_id"][i])
        yield Status(int(read["status"][i])).name.lower(), kind, example if kind == reason else f"{example}: {reason}"
