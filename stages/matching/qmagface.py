"""qmagface: cosine scores and the quality of both templates → quality-aware scores.

    score = s + min(0, β · s − α) · min(q1, q2)

Source: Terhörst et al., “QMagFace: Simple and Accurate Quality-Aware Face Recognition”, WACV 2023.
The two numbers belong to a recognition model and its qualities, which are MagFace's norms there,
and are fitted on other data: the best constant ω of s + ω · min(q1, q2) is found at many
thresholds, and β · s − α is the line through these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage, Work
from stages.tables.comparisons import Comparisons
from stages.tables.enough import need_comparisons
from stages.tables.pair_layouts import Listed
from stages.tables.schemas import SCORES

COMPARISONS_AT_ONCE = 1 << 20  # comparisons handled at once


class QMagFaceOptions(Options):
    """The formula's numbers for this model's scale of quality; no defaults fit all."""

    alpha: float = Field(ge=-1000, le=1000)
    """Taken from β · score (see the formula)."""
    beta: float = Field(ge=-1000, le=1000)
    """Times the score, before α is taken from it."""


@register("stage", "qmagface")
class QMagFace(Stage):
    """Lower the scores of comparisons with a template of low quality (QMagFace)."""

    name = "qmagface"
    grain = "tile"
    axis = "comparisons"
    Options = QMagFaceOptions
    produces: ClassVar = {"": SCORES}
    inputs: ClassVar = {"scores": "compare", "quality": "template_quality"}
    rows: ClassVar = {"quality": "templates"}
    consumes: ClassVar = {
        "comparisons": ("a", "b"),
        "roles": ("template", "role"),
        "pairings": ("role_a", "role_b"),
    }
    stored = False
    options: QMagFaceOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_comparisons(tables)

    def compute(self, work: Work) -> dict[str, Batch]:
        read = work.inputs["quality"].read(("status", "quality"))
        usable, quality = read["status"] == Status.OK, read["quality"].astype(np.float64)
        cosine = work.inputs["scores"].take(np.arange(work.start, work.stop))
        comparisons, o = Comparisons.of(work.tables), self.options
        score, failed = cosine["score"].copy(), cosine["failed"].copy()
        # of a list, a shard has its own part
        first = work.start if isinstance(comparisons.form, Listed) else 0
        for start in range(work.start, work.stop, COMPARISONS_AT_ONCE):
            stop = min(start + COMPARISONS_AT_ONCE, work.stop)
            a, b = comparisons.pairs(start - first, stop - first)
            cut = slice(start - work.start, stop - work.start)
            lower = np.minimum(quality[a], quality[b])
            changed = quality_aware(score[cut].astype(np.float64), lower, o.alpha, o.beta)
            # bit 0: the first template failed, bit 1: the second one did
            failed[cut] |= (~usable[a]).astype(np.uint8) + 2 * (~usable[b]).astype(np.uint8)
            score[cut] = np.where(failed[cut] > 0, np.nan, changed)
        return {"": Batch({"score": score, "failed": failed})}


def quality_aware(cosine: Array, lower_quality: Array, alpha: float, beta: float) -> Array:
    """Return s + min(0, β s − α) · q for cosines s (n,) and the lower quality q (n,) of each pair.

    >>> quality_aware(np.array([0.2, 0.9]), np.array([0.5, 0.5]), alpha=0.4, beta=1.0).round(3)
    array([0.1, 0.9])
    """
    return np.asarray(cosine + np.minimum(0, beta * cosine - alpha) * lower_quality)
