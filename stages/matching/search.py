"""search: gallery + probes → the k best candidates of every probe, exactly.

A list is ordered by (−score, template row), and a score is the exact cosine of two templates
(stages/exact): no shard, back end or machine changes a bit of it. A faster product only *selects*
(`candidates`): NumPy's from a small gallery, a back end's from a large one; what is selected is
scored exactly. A template that failed is no candidate and has none; one of zeros that did not
(`fuse.fallback: zero`) scores 0 with everyone. FAISS by itself leaves the order of ties open and
accepts nan silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Options, Stage, Work, execution
from pipeline.errors import ResourceRefused
from stages.exact import products
from stages.matching.candidates import (
    COLUMNS_AT_ONCE,
    CROWD,
    PROBES_AT_ONCE,
    Select,
    gpu_of,
    kth_best,
    with_faiss,
    with_numpy,
    with_torch,
)
from stages.matching.compare import TILE_COLUMNS, TILE_ROWS, unit_rows
from stages.tables.comparisons import role_rows
from stages.tables.enough import need_searched
from stages.tables.schemas import CANDIDATES

SCORES_AT_ONCE = 1 << 23  # scores of one product: 64 MiB of float64
# numbers of candidates' unit rows that are gathered at once: few enough to stay in the cache
NUMBERS_GATHERED = 1 << 18
SMALL_GALLERY = 1 << 24  # numbers in a small gallery's embeddings: up to there, one product selects
Floats32 = NDArray[np.float32]
RowNumbers = NDArray[np.int64]


class SearchOptions(Options):
    """How many candidates, and in which gallery.

    The back end decides the speed on large galleries and nothing else, so it is not part of the
    key: torch selects in bfloat16 if the processor has instructions for it, faiss by its flat
    index. Under a profile for cuda, both select on the GPU, in float32, if they have one here.
    """

    k: int = Field(20, ge=1, le=2048)
    """Candidates for each probe."""
    gallery: str = "gallery"
    """The role of the templates to search in."""
    backend: Literal["faiss", "torch"] = execution("torch")
    """What selects in a large gallery; it changes the speed and no number."""


@register("stage", "search")
class Search(Stage):
    """Exact 1:N search of the probes in one gallery."""

    name = "search"
    version = 5
    grain = "tile"
    axis = "probes"
    Options = SearchOptions
    produces: ClassVar = {"": CANDIDATES}
    inputs: ClassVar = {"templates": "fuse"}
    rows: ClassVar = {"templates": "templates"}
    consumes: ClassVar = {"roles": ("template", "role")}
    stored = False
    options: SearchOptions

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def open(self) -> None:
        name, extra = {"faiss": ("faiss", "cpu (or gpu)"), "torch": ("torch", "")}[
            self.options.backend
        ]
        try:
            import_module(name)
        except ImportError as error:
            other = "torch" if self.options.backend == "faiss" else "faiss"
            advice = f"install qfuse[{extra}]" if extra else "reinstall qfuse"
            raise ResourceRefused(
                f"search.backend {name!r} does not import ({error}): {advice}, or set"
                f" search.backend to {other}."
            ) from None

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_searched(tables, self.options.gallery, "search.gallery")

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        k, width = self.options.k, sizes["templates"]["embedding"]
        gallery = len(np.unique(role_rows(tables["roles"], self.options.gallery)))
        lists = {"candidate": rows[""] * k * 8, "score": rows[""] * k * 4}
        lists["probes as unit rows"] = rows[""] * width
        lists["gathered candidates"] = max(8 * NUMBERS_GATHERED, 2 * (k + CROWD) * width)
        if _is_small(gallery, width // 4):
            tile = min(rows[""] * gallery, TILE_ROWS * gallery, SCORES_AT_ONCE)
            return {
                **lists,
                "gallery, and in float64": 3 * gallery * width,
                "a tile of scores": 5 * tile,
            }
        if self._wants_gpu:  # which holds the rest
            return {**lists, "gallery": gallery * width}
        return {
            **lists,
            "gallery, and its index": 2 * gallery * width,
            "scores of a block": 4 * PROBES_AT_ONCE * COLUMNS_AT_ONCE,
        }

    @property
    def _wants_gpu(self) -> bool:
        return self.context.profile.device == "cuda"

    def compute(self, work: Work) -> dict[str, Batch]:
        templates = work.inputs["templates"].read(("status", "embedding"))
        roles, k = work.tables["roles"], self.options.k
        gallery = np.unique(role_rows(roles, self.options.gallery))
        everyone = role_rows(roles, "probe")
        probes = everyone[work.start : work.stop]
        enrolled, seeking = (unit_rows(templates.take(rows)) for rows in (gallery, probes))
        known, usable = (templates["status"][rows] == Status.OK for rows in (gallery, probes))
        candidate = np.full((len(probes), k), -1, np.int64)
        score = np.full((len(probes), k), np.nan, np.float32)
        if usable.any() and known.any():
            gallery, enrolled, seeking = gallery[known], enrolled[known], seeking[usable]
            if _is_small(*enrolled.shape):
                select = with_numpy(enrolled)
                step = max(1, min(TILE_ROWS, SCORES_AT_ONCE // len(enrolled)))
                enrolled = products.wide(enrolled)
            else:
                backend = {"faiss": with_faiss, "torch": with_torch}[self.options.backend]
                device = gpu_of(self.options.backend) if self._wants_gpu else None
                select = backend(enrolled, self.context.profile.threads, device)
                step = len(seeking)
            places = np.flatnonzero(usable)

            def fill(first: int) -> None:
                own = slice(first, first + step)
                found, score[places[own]] = exact_top(enrolled, seeking[own], k, select)
                candidate[places[own]] = np.where(found >= 0, gallery[found], -1)

            work.each(fill, range(0, len(seeking), step))
        return {
            "": Batch(
                {"status": templates["status"][probes], "candidate": candidate, "score": score}
            )
        }


def _is_small(gallery: int, width: int) -> bool:
    return gallery * width <= SMALL_GALLERY


def exact_top(
    gallery: products.AnyUnitRows, probes: Floats32, k: int, select: Select
) -> tuple[RowNumbers, Floats32]:
    """Return each probe's k best gallery rows (p, k) int64 and their scores (p, k) float32.

    Lists shorter than k are padded with −1 and nan. `gallery` (g, d) and `probes` (p, d) are unit
    rows; a gallery given in float64 need not be widened again for each product. Order is (−score,
    row), so a tie at place k goes to the first rows. Only selected candidates are scored.
    """
    best = min(k, len(gallery))
    found = np.full((len(probes), k), -1, np.int64)
    scores = np.full((len(probes), k), np.nan, np.float32)
    selected = select(probes, best)
    # One sort by (probe, row), as a single number: ties then go to the first rows.
    probe, row = np.divmod(np.sort(selected.probe * len(gallery) + selected.row), len(gallery))
    count = np.bincount(probe, minlength=len(probes))
    if len(probe):
        columns, known = _side_by_side(probe, row, count)
        exact = products.to_scores(_candidate_cosines(gallery, columns, probes, count))
        found[:, :best], scores[:, :best] = _k_best(columns, known, exact, best)
    crowded = np.flatnonzero(selected.crowded)
    if len(crowded):
        found[crowded, :best], scores[crowded, :best] = _top_of_all(gallery, probes[crowded], best)
    return found, scores


def _candidate_cosines(
    gallery: products.AnyUnitRows, columns: RowNumbers, probes: Floats32, count: RowNumbers
) -> NDArray[np.float64]:
    """Return the cosines of each probe with its first `count` (p,) candidates, (p, most) float64.

    columns (p, most): the gallery rows of each probe's candidates.
    """
    most, width = columns.shape[1], gallery.shape[1]
    step, exact = max(1, NUMBERS_GATHERED // (most * width)), np.zeros(columns.shape)
    # taken once: new memory costs more than what is written to it
    room = np.empty(step * most * width, gallery.dtype)
    for start in range(0, len(probes), step):
        rows = slice(start, start + step)
        part = columns[rows, : count[rows].max()]
        gathered = room[: part.size * width].reshape(*part.shape, width)
        # not “raise”, which would write to memory of its own
        np.take(gallery, part, axis=0, out=gathered, mode="clip")
        exact[rows, : part.shape[1]] = products.cosines(gathered, probes[rows, None])[..., 0]
    return exact


def _top_of_all(
    gallery: products.AnyUnitRows, probes: Floats32, k: int
) -> tuple[RowNumbers, Floats32]:
    """Return what `exact_top` does, for k templates at most; every score is computed."""
    step, found = max(1, min(TILE_ROWS, SCORES_AT_ONCE // len(gallery))), []
    for start in range(0, len(probes), step):
        part = probes[start : start + step]
        blocks = [
            gallery[left : left + TILE_COLUMNS] for left in range(0, len(gallery), TILE_COLUMNS)
        ]
        score = np.hstack([products.to_scores(products.cosines(part, block)) for block in blocks])
        row, column = np.nonzero(score >= kth_best(score, k)[:, None])
        columns, known = _side_by_side(row, column, np.bincount(row, minlength=len(part)))
        found.append(_k_best(columns, known, np.take_along_axis(score, columns, axis=1), k))
    places, scores = zip(*found, strict=True)
    return np.concatenate(places), np.concatenate(scores)


def _side_by_side(
    row: RowNumbers, column: RowNumbers, count: RowNumbers
) -> tuple[RowNumbers, NDArray[np.bool_]]:
    """Return each row's columns side by side, (rows, most) int64 padded with 0, and which are real.

    row, column (n,) are pairs; rows ascend, and row i has count[i] columns.
    """
    known = np.arange(count.max(initial=0)) < count[:, None]
    columns = np.zeros(known.shape, np.int64)
    columns[known] = column
    return columns, known


def _k_best(
    columns: RowNumbers, known: NDArray[np.bool_], score: Floats32, k: int
) -> tuple[RowNumbers, Floats32]:
    """Return each row's k best columns (rows, k), in the order (−score, column), and their scores.

    columns, known, score (rows, most); columns ascend, and at least k of each row are known.
    """
    # Columns ascend, so a stable sort by −score is one by (−score, column).
    less = np.where(known, -score, np.float32(np.inf))
    taken = np.argsort(less, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns, taken, axis=1), -np.take_along_axis(less, taken, axis=1)
