"""What evaluations share: options, and the templates that they read beside the scores."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.core.schema import Array, Batch
from pipeline.core.stage import Options, Stage, Work
from pipeline.errors import InvalidInput, counted
from stages.evaluation.numbers import Numbers
from stages.metrics.subjects import Half

MOST_TARGETS = 100  # of a list of them: each has curves and replicates of its own
Shares = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(max_length=MOST_TARGETS)]
Rates = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=MOST_TARGETS)]


def need_quality(quality: Array, trial: str, stage: str) -> None:
    """Raise InvalidInput if no trial has a quality (all nan): nothing could be discarded by it."""
    if len(quality) and not np.isfinite(quality).any():
        raise InvalidInput(
            f"{stage}: of {counted(len(quality), trial)} none has a quality score, so nothing can"
            " be discarded by quality: `qfuse status` says why scores lack; mend them, or leave"
            " out this step."
        )


class Resampled(Options):
    """How intervals are made, and of whom."""

    half: Half = "all"
    """All comparisons (in 1:N probes), or those of one half of the subjects."""
    replicates: int = Field(1000, ge=0, le=100_000)
    """Bootstrap draws of subjects; 0 for no intervals."""
    seed: int = Field(0, ge=0)
    """Draws the replicates, and the halves."""
    level: float = Field(0.95, gt=0, lt=1)
    """Confidence of the intervals."""


class EvaluationOptions(Resampled):
    """As of every evaluation with intervals."""

    templates: bool = False
    """Also count templates whose weights vanished and, in 1:N, FTE of the gallery."""


def need_fused(stage: Stage) -> None:
    """Raise InvalidInput if the input `templates` does not say which templates fell back."""
    above = stage.above.get("templates")
    if above is not None and not any(
        field.name == "fallback" for s in above.produces.values() for field in s.fields
    ):
        raise InvalidInput(
            f"the input `templates` of {stage.name} names a step of stage {above.name!r}, which"
            " does not say which templates fell back to equal weights: name the step that fuses"
            " them, or leave out the option `templates`."
        )


def read_templates(work: Work) -> Batch:
    """Return status and fallback of every template.

    Raises InvalidInput if the input does not hold one row a template.
    """
    found = work.inputs["templates"].read(("status", "fallback"))
    if found.rows != work.tables["templates"].rows:
        raise InvalidInput(
            f"the input `templates` of an evaluation has {found.rows:,} rows, and there are"
            f" {work.tables['templates'].rows:,} templates: name the step that builds them, or"
            " leave out the option `templates`."
        )
    return found


def write_fallback(numbers: Numbers, templates: Batch, rows: Array) -> None:
    """Add how many of the templates in `rows` have no weight above 0: `fallback` decided those."""
    numbers.add("fused_fallback", float(templates["fallback"][rows].sum()), trials=len(rows))


def drawn_bytes(replicates: int, templates: Batch) -> int:
    """Return the bytes of bootstrap weights: uint16, and float64 while they are added up."""
    return replicates * len(set(templates["subject"])) * (2 + 8)
