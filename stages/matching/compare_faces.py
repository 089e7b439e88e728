"""compare_faces: faces + comparisons → one score a comparison, without fusing any template.

Every face of the one template is compared with every face of the other, and a score rule
(`score_rules`) makes one score of these cosines. So a comparison costs as much as its templates
have pairs of faces, some hundred times what a fused one costs. A comparison with a template that
has no usable face scores nan.

Cosines are exact and so are the sums of a rule, so a score depends on the faces of its two
templates alone: not on their order, nor on which template is the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from pydantic import field_validator

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage, Work
from stages.exact import products, vectors
from stages.matching.score_rules import score_rule_named
from stages.tables.comparisons import Comparisons
from stages.tables.enough import need_comparisons
from stages.tables.pair_layouts import Listed
from stages.tables.schemas import SCORES

FACES_AT_ONCE = 4096  # faces of second templates in one product: some megabytes of cosines


class CompareFacesOptions(Options):
    """How the scores of all pairs of faces become one."""

    rule: str = "max"
    """A score rule with its parameters, as `softmax(T=5)`; `qfuse steps` lists them."""

    @field_validator("rule")
    @classmethod
    def _known(cls, label: str) -> str:
        score_rule_named(label)
        return label


@register("stage", "compare_faces")
class CompareFaces(Stage):
    """Score-level fusion: compare the faces of two templates, and make one score of it."""

    name = "compare_faces"
    version = 2
    grain = "tile"
    axis = "comparisons"
    Options = CompareFacesOptions
    produces: ClassVar = {"": SCORES}
    inputs: ClassVar = {"embeddings": "embed"}
    rows: ClassVar = {"embeddings": "faces"}
    consumes: ClassVar = {
        "comparisons": ("a", "b"),
        "roles": ("template", "role"),
        "pairings": ("role_a", "role_b"),
        "members": ("template", "face"),
    }
    stored = False
    options: CompareFacesOptions

    def identity(self) -> Any:
        return score_rule_named(self.options.rule).identity

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_comparisons(tables)

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        return {
            "faces as unit rows": tables["members"].rows * sizes["embeddings"]["embedding"],
            "pairs": rows[""] * 32,
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        comparisons, rule = Comparisons.of(work.tables), score_rule_named(self.options.rule)
        form = comparisons.form
        # the shard's own
        if isinstance(form, Listed):
            a, b = (form.a, form.b)
        else:
            a, b = comparisons.pairs(work.start, work.stop)
        unit, bounds = _usable_faces(work, 1 + max(a.max(initial=-1), b.max(initial=-1)))
        size = np.diff(bounds)
        score = np.full(len(a), np.nan, np.float32)
        order = np.flatnonzero((size[a] > 0) & (size[b] > 0))
        order = order[np.argsort(a[order], kind="stable")]
        starts = np.flatnonzero(np.diff(a[order], prepend=-1))

        def fill(cut: tuple[int, int]) -> None:
            own = order[slice(*cut)]
            template = int(a[own[0]])
            one = unit[bounds[template] : bounds[template + 1]]
            for block in _runs_of_comparisons(own, size[b[own]]):
                rows, begin = _concatenated_ranges(bounds[b[block]], size[b[block]])
                score[block] = products.to_scores(
                    rule.score(products.cosines(unit[rows], one), begin)
                )

        work.each(fill, pairwise([*starts, len(order)]))
        lost = (size == 0).astype(np.uint8)
        return {"": Batch({"score": score, "failed": lost[a] + 2 * lost[b]})}


def _usable_faces(work: Work, templates: int) -> tuple[Array, Array]:
    """Return the unit rows (n, d) of the usable faces, and where each template's faces begin.

    Faces come template by template; the starts are (templates + 1,).
    """
    members = work.tables["members"]
    read = work.inputs["embeddings"].take(members["face"], ("status", "embedding"))
    usable = read["status"] == Status.OK
    unit = vectors.units(read["embedding"][usable])
    return unit, np.searchsorted(members["template"][usable], np.arange(templates + 1))


def _runs_of_comparisons(order: Array, size: Array) -> Iterator[Array]:
    """Yield runs of comparisons whose second templates have about FACES_AT_ONCE faces together."""
    number = (np.cumsum(size) - size) // FACES_AT_ONCE
    yield from np.split(order, np.flatnonzero(np.diff(number)) + 1)


def _concatenated_ranges(start: Array, size: Array) -> tuple[Array, Array]:
    """Return the rows start … start + size of all entries, and where each entry begins."""
    begin = np.cumsum(size) - size
    return np.repeat(start - begin, size) + np.arange(size.sum()), begin
