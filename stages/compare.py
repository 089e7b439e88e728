"""compare: templates + comparisons → cosine scores, higher = more similar.

All pairs of two roles are one matrix product a shard, whose shards hold whole rows; a list is read in blocks. Either way
a score depends on its two templates alone. A comparison with a template that failed scores nan.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pipeline.registry import register
from pipeline.schema import Array, Batch, Status
from pipeline.stage import Options, Stage, Work
from stages.tables import SCORES, Comparisons

BLOCK = 1 << 16  # comparisons of a list in one gather


@register("stage", "compare")
class Compare(Stage):
    """Cosine of every comparison. Reads fused templates, or embeddings where each face is its own template."""

    name = "compare"
    grain = "tile"
    axis = "comparisons"
    Options = Options
    produces: ClassVar = {"": SCORES}
    inputs: ClassVar = {"templates": "fuse"}
    consumes: ClassVar = {"comparisons": ("a", "b"), "roles": ("template", "role"), "pairings": ("role_a", "role_b")}
    stored = False

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def compute(self, work: Work) -> dict[str, Batch]:
        unit = unit_rows(work.inputs["templates"].read(("status", "embedding")))
        comparisons = Comparisons.of(work.tables)
        if comparisons.is_product:
            width = len(comparisons.b)
            rows = comparisons.a[work.start // width : work.stop // width]
            score = (unit[rows] @ unit[comparisons.b].T).ravel()
        else:
            listed = work.tables["comparisons"]
            score = np.empty(listed.rows, np.float32)
            for start in range(0, listed.rows, BLOCK):
                cut = slice(start, start + BLOCK)
                score[cut] = np.einsum("ij,ij->i", unit[listed["a"][cut]], unit[listed["b"][cut]])
        return {"": Batch({"score": score.astype(np.float32, copy=False)})}


def unit_rows(templates: Batch) -> Array:
    """Return the embeddings (n, d) float32 at unit length; rows that failed are nan."""
    embedding = templates["embedding"]
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = np.divide(embedding, length, out=np.full_like(embedding, np.nan), where=length > 0)
    unit[templates["status"] != Status.OK] = np.nan
    return np.asarray(unit)
