"""search: gallery + probes → the k best candidates of every probe, exactly.

A list is ordered by (−score, template row), and a score is the exact cosine of two templates (stages/exact): no shard, back
end or machine changes a bit of it. Of a small gallery all scores are computed exactly. Of a large one a back end only
*selects* (stages/selection.py), and what it selects is scored exactly. FAISS by itself leaves the order of ties open and
takes nan without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import ResourceRefused
from pipeline.registry import register
from pipeline.schema import Array, Batch
from pipeline.stage import Options, Stage, Work, execution
from stages.compare import TILE, WIDTH, Each, unit_rows
from stages.exact import products
from stages.selection import COLUMNS, PROBES, Select, with_faiss, with_torch
from stages.tables import CANDIDATES, need_role, role_rows

CELLS = 1 << 23  # scores of one product, or numbers gathered at once to score candidates: 64 MiB of float64
SMALL = 1 << 24  # numbers in a small gallery's embeddings: up to there, all scores cost less than selecting
GROUP = 16  # columns of a group
Floats = NDArray[np.float32]


class SearchOptions(Options):
    """`k` candidates a probe. `backend` decides speed only, and of a large gallery, so it is no part of the key."""

    k: int = Field(20, ge=1, le=2048)
    gallery: str = "gallery"
    backend: Literal["faiss", "torch"] = execution("faiss")


@register("stage", "search")
class Search(Stage):
    """Exact 1:N search of the probes in one gallery."""

    name = "search"
    version = 4
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
        name, extra = {"faiss": ("faiss", "cpu (or gpu)"), "torch": ("torch", "")}[self.options.backend]
        try:
            import_module(name)
        except ImportError as error:
            other = "torch" if self.options.backend == "faiss" else "faiss"
            advice = f"install qfuse[{extra}]" if extra else "reinstall qfuse"
            raise ResourceRefused(
                f"search.backend {name!r} does not import ({error}): {advice}, or set search.backend to {other}."
            ) from None

    def fits(self, tables: Mapping[str, Batch]) -> None:
        need_role(tables["roles"], self.options.gallery, "search.gallery")

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        k, width = self.options.k, sizes["templates"]["embedding"]
        gallery = len(np.unique(role_rows(tables["roles"], self.options.gallery)))
        lists = {"candidate": rows[""] * k * 8, "score": rows[""] * k * 4}
        lists["probes as unit rows"] = rows[""] * width
        if _is_small(gallery, width // 4):
            tile = min(rows[""] * gallery, TILE * gallery, CELLS)
            return {**lists, "gallery in float64": 2 * gallery * width, "a tile of scores": 12 * tile}
        return {**lists, "gallery, and its index": 2 * gallery * width, "scores of a block": 4 * PROBES * COLUMNS}

    def compute(self, work: Work) -> dict[str, Batch]:
        templates = work.inputs["templates"].read(("status", "embedding"))
        roles, k = work.tables["roles"], self.options.k
        gallery, everyone = np.unique(role_rows(roles, self.options.gallery)), role_rows(roles, "probe")
        probes = everyone[work.start : work.stop]
        enrolled, seeking = (unit_rows(templates.take(rows)) for rows in (gallery, probes))
        known, usable = enrolled.any(axis=1), seeking.any(axis=1)  # what failed has no direction
        candidate = np.full((len(probes), k), -1, np.int64)
        score = np.full((len(probes), k), np.nan, np.float32)
        if usable.any() and known.any():
            gallery, enrolled, seeking = gallery[known], enrolled[known], seeking[usable]
            if _is_small(*enrolled.shape):
                found, scores = tiled_top(products.wide(enrolled), seeking, k, work.each)
            else:
                backend = {"faiss": with_faiss, "torch": with_torch}[self.options.backend]
                found, scores = exact_top(enrolled, seeking, k, backend(enrolled, self.context.profile.threads))
            candidate[usable] = np.where(found >= 0, gallery[found], -1)
            score[usable] = scores
        return {"": Batch({"status": templates["status"][probes], "candidate": candidate, "score": score})}


def _is_small(gallery: int, width: int) -> bool:
    return gallery * width <= SMALL


def tiled_top(gallery: products.Rows, probes: Floats, k: int, each: Each) -> tuple[NDArray[np.int64], Floats]:
    """Return the k best gallery rows (p, k) int64 of every probe and their scores (p, k) float32; −1 and nan pad.

    `gallery` (g, d) and `probes` (p, d) are unit rows; a gallery in float64 need not be widened for each tile. Order is
    (−score, row), and a tie at the k-th place goes to the first rows. Every score is computed.
    """
    best, step = min(k, len(gallery)), max(1, min(TILE, CELLS // len(gallery)))
    found = np.full((len(probes), k), -1, np.int64)
    scores = np.full((len(probes), k), np.nan, np.float32)

    def fill(first: int) -> None:
        rows = slice(first, first + step)
        blocks = [gallery[left : left + WIDTH] for left in range(0, len(gallery), WIDTH)]
        exact = [products.as_scores(products.cosines(probes[rows], block)) for block in blocks]
        found[rows, :best], scores[rows, :best] = _best(np.hstack(exact) if len(exact) > 1 else exact[0], best)

    each(fill, range(0, len(probes), step))
    return found, scores


def _best(scores: Floats, k: int) -> tuple[Array, Array]:
    """Return the columns (n, k) of the k largest of each row, in the order of (−score, column), and their scores.

    The k-th of the best of each group of columns is a bound that k scores of a row reach, and few others do.
    """
    count, size = scores.shape
    if size >= 2 * GROUP * k:
        grouped = scores[:, : size // GROUP * GROUP].reshape(count, GROUP, -1).max(axis=1)
        least = np.partition(grouped, grouped.shape[1] - k, axis=1)[:, grouped.shape[1] - k, None]
    else:
        least = np.partition(scores, size - k, axis=1)[:, size - k, None]
    row, column = np.divmod(np.flatnonzero(scores >= least), size)
    return _ranked(row, column, scores[row, column], count, k)


def _ranked(row: Array, column: Array, score: Array, rows: int, k: int) -> tuple[Array, Array]:
    """Return of each row its k best columns (rows, k) in the order of (−score, column), and their scores.

    row, column, score (n,), at least k of each row; rows and, in each, columns ascend.
    """
    begin = np.searchsorted(row, np.arange(rows + 1))
    place = np.arange(len(row)) - begin[row]
    less = np.full((rows, int(np.diff(begin).max(initial=0))), np.inf, np.float32)
    less[row, place] = -score
    taken = np.argsort(less, axis=1, kind="stable")[:, :k]
    return column[begin[:-1, None] + taken], -np.take_along_axis(less, taken, axis=1)


def exact_top(gallery: Floats, probes: Floats, k: int, select: Select) -> tuple[NDArray[np.int64], Floats]:
    """Return what `tiled_top` does; only what is selected is scored exactly."""
    best = min(k, len(gallery))
    found = np.full((len(probes), k), -1, np.int64)
    scores = np.full((len(probes), k), np.nan, np.float32)
    selected = select(probes, best)
    order = np.lexsort((selected.row, selected.probe))
    probe, row, exact = selected.probe[order], selected.row[order], np.empty(len(order), np.float32)
    step = max(1, CELLS // (4 * gallery.shape[1]))
    for start in range(0, len(order), step):
        cut = slice(start, start + step)
        exact[cut] = products.as_scores(products.paired(gallery[row[cut]], probes[probe[cut]]))
    named, crowded = np.flatnonzero(~selected.crowded), np.flatnonzero(selected.crowded)
    if len(named):
        found[named, :best], scores[named, :best] = _ranked(np.searchsorted(named, probe), row, exact, len(named), best)
    if len(crowded):
        found[crowded], scores[crowded] = tiled_top(gallery, probes[crowded], k, _in_turn)
    return found, scores


def _in_turn(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    return [function(item) for item in items]
