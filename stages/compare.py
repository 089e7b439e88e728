"""compare: templates + comparisons → cosine scores, higher = more similar.

All pairs of two roles are a matrix product, computed in tiles that do not depend on shards; a list is read in blocks. So
a score is the same to the last bit in whatever shard it falls. A comparison with a template that failed scores nan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.registry import register
from pipeline.schema import Array, Batch, Status
from pipeline.stage import Options, Stage, Work
from stages.tables import SCORES, Comparisons

BLOCK = 256  # comparisons of a list in one gather: few enough to stay in the cache
TILE = 256  # rows of a product in one matrix product


@register("stage", "compare")
class Compare(Stage):
    """Cosine of every comparison. Reads fused templates, or embeddings where each face is its own template."""

    name = "compare"
    version = 2
    grain = "tile"
    axis = "comparisons"
    Options = Options
    produces: ClassVar = {"": SCORES}
    inputs: ClassVar = {"templates": "fuse"}
    rows: ClassVar = {"templates": "templates"}
    consumes: ClassVar = {"comparisons": ("a", "b"), "roles": ("template", "role"), "pairings": ("role_a", "role_b")}
    stored = False

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        comparisons = Comparisons.of(tables)
        sides = len(comparisons.a) + len(comparisons.b) if comparisons.is_product else 0
        return {"templates at unit length": (rows["templates"] + sides) * sizes["templates"]["embedding"]}

    def compute(self, work: Work) -> dict[str, Batch]:
        templates = work.inputs["templates"].read(("status", "embedding"))
        unit, lost = unit_rows(templates), (templates["status"] != Status.OK).astype(np.uint8)
        comparisons = Comparisons.of(work.tables)
        if comparisons.is_product:
            a, b, width = comparisons.a, comparisons.b, len(comparisons.b)
            rows = slice(work.start // width, work.stop // width)
            score = product(unit[a], unit[b], rows.start, rows.stop).ravel()
            failed = (lost[a[rows], None] + 2 * lost[b]).ravel()
        else:
            listed = work.tables["comparisons"]
            score = np.empty(listed.rows, np.float32)
            for start in range(0, listed.rows, BLOCK):
                cut = slice(start, start + BLOCK)
                score[cut] = np.einsum("ij,ij->i", unit[listed["a"][cut]], unit[listed["b"][cut]])
            failed = lost[listed["a"]] + 2 * lost[listed["b"]]
        return {"": Batch({"score": score.astype(np.float32, copy=False), "failed": failed.astype(np.uint8, copy=False)})}


def product(a: Array, b: Array, start: int, stop: int) -> Array:
    """Return rows start…stop of a @ b.T, (stop − start, n) float32, for a (m, d) and b (n, d) float32.

    The last bits of a matrix product may change with its shape. Every tile has TILE rows, the last one filled with
    zeros, and begins at a multiple of TILE of the whole product: a row's scores do not depend on start and stop.
    """
    scores = np.empty((stop - start, len(b)), np.float32)
    for first in range(start // TILE * TILE, stop, TILE):
        tile = np.zeros((TILE, a.shape[1]), np.float32)
        part = a[first : first + TILE]
        tile[: len(part)] = part
        low, high = max(first, start), min(first + TILE, stop)
        scores[low - start : high - start] = (tile @ b.T)[low - first : high - first]
    return scores


def unit_rows(templates: Batch) -> Array:
    """Return the embeddings (n, d) float32 at unit length; rows that failed are nan."""
    embedding = templates["embedding"]
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = np.divide(embedding, length, out=np.full_like(embedding, np.nan), where=length > 0)
    unit[templates["status"] != Status.OK] = np.nan
    return np.asarray(unit)
