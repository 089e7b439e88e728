"""detector_scores: detector scores that came with the data set, for rules that weigh by them.

With embeddings that are given there is no `align` step: `fuse: {inputs: {detections:
detector_scores}}` reads these instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Batch, Field, Schema
from pipeline.core.stage import Stage
from pipeline.errors import InvalidInput
from stages.tables.schemas import REASON, STATUS

DETECTOR_SCORES = Schema(
    "detector_scores",
    (STATUS, REASON, Field("score", "float32", (), "detector score, higher = surer")),
    finite=("score",),
)


@register("stage", "detector_scores")
class DetectorScores(Stage):
    """Take detector scores that came with the data set."""

    name = "detector_scores"
    grain = "map"
    produces: ClassVar = {"": DETECTOR_SCORES}
    consumes: ClassVar = {"faces": ("score",)}

    def fits(self, tables: Mapping[str, Batch]) -> None:
        if "score" not in tables["faces"]:
            raise InvalidInput(
                "detector_scores: the data set brings no detector scores; leave the step out, or"
                " detect with align."
            )

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        reason = np.full(rows.rows, "", dtype=object)
        return {
            "": Batch(
                {"status": np.zeros(rows.rows, np.uint8), "reason": reason, "score": rows["score"]}
            )
        }
