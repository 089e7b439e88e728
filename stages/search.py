"""search: gallery + probes → the k best candidates of every probe, exactly.

A list is ordered by (−score, template row), and neither shards nor the back end change a bit of it, in either way:

small gallery   scores come from tiles of the product of all probes with all the gallery, as in `compare`. Their last bits
                may depend on a probe's place among the probes and on the gallery's size.
large gallery   a back end (FAISS flat or torch) only *selects*: every gallery template within a guard band of the k-th
                score is re-scored in float64. A score depends on the two templates alone. FAISS by itself leaves the order
                of ties open and takes nan without a word.

Identical templates of a gallery have identical scores, so they stand in the order of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import ResourceRefused
from pipeline.registry import register
from pipeline.schema import Array, Batch
from pipeline.stage import Options, Stage, Work, execution
from stages.compare import TILE, WIDTH, Each, tile, unit_rows
from stages.tables import CANDIDATES, need_role, role_rows

CELLS = 1 << 23  # scores of one product, or float64 numbers gathered at once to re-score candidates: 64 MiB at most
SMALL = 1 << 23  # numbers in a small gallery's embeddings, 32 MiB: up to there, tiles cost less than a second scoring
FULL = 64  # a small gallery is filled with zeros to a multiple of it, so that one kernel computes every column
GROUP = 16  # columns of a group, a divisor of FULL
GUARD = 1e-4  # cosine; far above what the order of summation can move a float32 product of unit vectors
Floats = NDArray[np.float32]
Select = Callable[[Floats, int], tuple[Floats, NDArray[np.int64]]]


class SearchOptions(Options):
    """`k` candidates a probe. `backend` decides speed only, and of a large gallery, so it is no part of the key."""

    k: int = Field(20, ge=1, le=2048)
    gallery: str = "gallery"
    backend: Literal["faiss", "torch"] = execution("faiss")


@register("stage", "search")
class Search(Stage):
    """Exact 1:N search of the probes in one gallery."""

    name = "search"
    version = 3
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
        if _is_small(gallery, width // 4):
            return {
                **lists,
                "probes at unit length": rows[""] * width,
                "gallery": 2 * gallery * width,
                "tiles of scores": (TILE + min(rows[""], TILE)) * gallery * 4,
            }
        reach = min(gallery, k + 16)
        return {
            **lists,
            "probes at unit length": rows[""] * width,
            "gallery, and its index": 2 * gallery * width,
            "candidates to score again": rows[""] * reach * 12 + min(CELLS, rows[""] * reach * width // 4) * 8,
        }

    def compute(self, work: Work) -> dict[str, Batch]:
        templates = work.inputs["templates"].read(("status", "embedding"))
        roles, k = work.tables["roles"], self.options.k
        gallery, everyone = np.unique(role_rows(roles, self.options.gallery)), role_rows(roles, "probe")
        first, last = work.start // TILE * TILE, -(-work.stop // TILE) * TILE  # whole tiles of probes
        cut = slice(work.start - first, work.stop - first)
        enrolled, seeking = (unit_rows(templates.take(rows)) for rows in (gallery, everyone[first:last]))
        known, present = ~np.isnan(enrolled[:, 0]), ~np.isnan(seeking[:, 0])
        usable = present[cut]
        probes = everyone[work.start : work.stop]
        candidate = np.full((len(probes), k), -1, np.int64)
        score = np.full((len(probes), k), np.nan, np.float32)
        if usable.any() and known.any():
            if _is_small(*enrolled.shape):
                # What failed keeps its place, as zeros, so that the bits of what did not fail do not move.
                enrolled[~known], seeking[~present] = 0, 0
                found, scores = tiled_top(enrolled, seeking, k, cut, known, work.each)
                found, scores = found[usable], scores[usable]
            else:
                gallery, enrolled = gallery[known], enrolled[known]
                backend = {"faiss": with_faiss, "torch": with_torch}[self.options.backend]
                select = backend(enrolled, self.context.profile.threads)
                found, scores = exact_top(enrolled, seeking[cut][usable], k, select)
            candidate[usable] = np.where(found >= 0, gallery[found], -1)
            score[usable] = scores
        return {"": Batch({"status": templates["status"][probes], "candidate": candidate, "score": score})}


def _is_small(gallery: int, width: int) -> bool:
    return gallery * width <= SMALL and gallery <= WIDTH


def tiled_top(
    gallery: Floats, probes: Floats, k: int, cut: slice, enrolled: Array, each: Each
) -> tuple[NDArray[np.int64], Floats]:
    """Return the k best gallery rows (n, k) int64 of the n probes in `cut`, and their scores float32; −1 and nan pad.

    `gallery` (g, d) is the whole one and `probes` (p, d) are whole tiles, unit rows or zeros; rows that are not `enrolled`
    (g,) bool are never found. Order is (−score, row), and a tie at the k-th place goes to the first rows.
    """
    start, stop = cut.start, cut.stop
    size, best = len(gallery), min(k, int(enrolled.sum()))
    full = np.zeros((-(-size // FULL) * FULL, gallery.shape[1]), np.float32)
    full[:size] = gallery
    lost = np.append(np.flatnonzero(~enrolled), np.arange(size, len(full)))
    found = np.full((stop - start, k), -1, np.int64)
    scores = np.full((stop - start, k), np.nan, np.float32)

    def fill(first: int) -> None:
        low, high = max(first, start), min(first + TILE, stop)
        part = tile(probes, full, first)[low - first : high - first]
        part[:, lost] = -np.inf
        rows = slice(low - start, high - start)
        found[rows, :best], scores[rows, :best] = _best(part, best)

    each(fill, range(start // TILE * TILE, stop, TILE))
    return found, scores


def _best(scores: Floats, k: int) -> tuple[Array, Array]:
    """Return the columns (n, k) of the k largest of each row, in the order of (−score, column), and their scores.

    Columns are a multiple of FULL. The k-th of the best of each group of columns is a bound that k scores of a row reach,
    and few others do.
    """
    count, size = scores.shape
    best = scores.reshape(count, GROUP, -1).max(axis=1) if size >= 2 * GROUP * k else scores
    least = np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k, None]
    row, column = np.divmod(np.flatnonzero(scores >= least), size)
    begin = np.searchsorted(row, np.arange(count + 1))
    place = np.arange(len(row)) - begin[row]
    less = np.full((count, int(np.diff(begin).max())), np.inf, np.float32)
    less[row, place] = -scores[row, column]
    taken = np.argsort(less, axis=1, kind="stable")[:, :k]
    return column[begin[:-1, None] + taken], -np.take_along_axis(less, taken, axis=1)


def with_faiss(gallery: Floats, threads: int = 1) -> Select:
    """Return a selector of the best gallery rows by FAISS's flat index; it keeps to `threads` in the calling thread."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery))

    def select(probes: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        scores, rows = index.search(np.ascontiguousarray(probes), count)
        return scores, rows

    return select


def with_torch(gallery: Floats, threads: int = 1) -> Select:
    """Return a selector of the best gallery rows by a product in PyTorch; it keeps to `threads` in the calling thread."""
    import torch

    torch.set_num_threads(threads)
    matrix = torch.from_numpy(np.ascontiguousarray(gallery)).T

    def select(probes: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        step = max(1, CELLS // len(gallery))
        parts = [torch.from_numpy(np.ascontiguousarray(probes[i : i + step])) for i in range(0, len(probes), step)]
        tops = [torch.topk(part @ matrix, count, dim=1) for part in parts]
        return np.concatenate([t.values.numpy() for t in tops]), np.concatenate([t.indices.numpy() for t in tops])

    return select


def exact_top(gallery: Floats, probes: Floats, k: int, select: Select) -> tuple[NDArray[np.int64], Floats]:
    """Return the k best gallery rows (p, k) int64 of every probe and their scores (p, k) float32; −1 and nan pad.

    `gallery` (g, d) and `probes` (p, d) are unit rows without nan. Order is (−score, row).
    """
    found = np.full((len(probes), k), -1, np.int64)
    scores = np.full((len(probes), k), np.nan, np.float32)
    waiting = np.arange(len(probes))
    reach = min(len(gallery), k + 16)
    while len(waiting):
        near, rows = select(probes[waiting], reach)
        # Enough was selected when its last score lies below the guard band of the k-th, or when it is everything.
        settled = np.full(len(waiting), True) if reach == len(gallery) else near[:, -1] < near[:, k - 1] - GUARD
        step = max(1, CELLS // (reach * gallery.shape[1]))
        for start in range(0, int(settled.sum()), step):
            block = np.flatnonzero(settled)[start : start + step]
            best, exact = _ranked(gallery, probes[waiting[block]], rows[block], k)
            found[waiting[block], : best.shape[1]] = best
            scores[waiting[block], : best.shape[1]] = exact
        waiting = waiting[~settled]
        reach = min(len(gallery), reach * 4)
    return found, scores


def _ranked(gallery: Floats, probes: Floats, rows: NDArray[np.int64], k: int) -> tuple[Array, Array]:
    """Re-score candidate rows (p, c) in float64, in one fixed order, and return the best k of each probe."""
    rows = np.sort(rows, axis=1)
    # Widened first: einsum would cast in buffers whose ends fall where the shapes say, and the sums with them.
    near = gallery[rows].astype(np.float64)
    exact = np.einsum("pcd,pd->pc", near, probes.astype(np.float64)).astype(np.float32)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(exact, order, axis=1)
