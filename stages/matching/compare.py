"""compare: templates + comparisons → cosine scores, higher = more similar.

A score is a function of its two templates: products are exact (stages/exact), so no tile, shard,
thread or machine changes a bit of it. All pairs of two roles are a matrix product, and all pairs
within one role its upper triangle. A list that holds a fair part of the pairs of its two sides (the
templates that it names first and second) is computed as such a product, too, and its scores are
gathered from the tiles. A sparse list is computed in blocks of dot products. A comparison with a
template that failed scores nan, one with a template of zeros that did not (`fuse.fallback: zero`)
scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage, Work
from stages.exact import products, vectors
from stages.tables.comparisons import Comparisons
from stages.tables.enough import need_comparisons
from stages.tables.pair_layouts import Listed, Product, Triangle
from stages.tables.schemas import SCORES

# comparisons of a sparse list in one gather: few enough to stay in the cache
COMPARISONS_GATHERED = 256
# comparisons of a list that are put in the order of tiles at once: few enough to stay in the cache
COMPARISONS_ORDERED = 1 << 17
# rows and most columns of a tile of a product: 64 MiB of float64
TILE_ROWS, TILE_COLUMNS = 256, 1 << 15
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]  # as `Work.each`
# with fewer than one in so many pairs of its sides, a list takes less time by dot products than by
# tiles
SPARSE_RATIO = 32


@register("stage", "compare")
class Compare(Stage):
    """Cosine of every comparison, of fused templates or of single faces.

    Reads fused templates, or embeddings if each face is its own template.
    """

    name = "compare"
    version = 6
    grain = "tile"
    axis = "comparisons"
    Options = Options
    produces: ClassVar = {"": SCORES}
    inputs: ClassVar = {"templates": "fuse"}
    rows: ClassVar = {"templates": "templates"}
    consumes: ClassVar = {
        "comparisons": ("a", "b"),
        "roles": ("template", "role"),
        "pairings": ("role_a", "role_b"),
    }
    stored = False

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
        form, width = Comparisons.of(tables).form, sizes["templates"]["embedding"]
        sides = 0 if isinstance(form, Listed) else len(form.a) + len(form.b)
        return {"unit rows": rows["templates"] * width, "both sides in float64": 2 * sides * width}

    def compute(self, work: Work) -> dict[str, Batch]:
        templates = work.inputs["templates"].read(("status", "embedding"))
        form = Comparisons.of(work.tables).form
        unit = unit_rows(templates)
        if isinstance(form, Product):
            rows = slice(work.start // len(form.b), work.stop // len(form.b))
            score = product_scores(unit[form.a[rows]], unit[form.b], work.each).ravel()
        elif isinstance(form, Triangle):
            score = triangle_scores(unit[form.role], form, work.start, work.stop, work.each)
        else:  # the shard's own part of a list
            sides = work.each(lambda side: _distinct_rows(side, len(unit)), (form.a, form.b))
            if _is_dense(form.size, *map(len, sides)):
                score = _scores_from_tiles(unit, form.a, form.b, sides, work.each)
            else:
                score = _scores_by_dot_products(unit, form.a, form.b, work.each)
        failed = _failed_sides(
            np.not_equal(templates["status"], Status.OK), form, work.start, work.stop
        )
        if failed.any():
            score[failed > 0] = np.nan
        return {"": Batch({"score": score, "failed": failed})}


def _failed_sides(mask: Array, form: Listed | Product | Triangle, start: int, stop: int) -> Array:
    """Say which template of each comparison start…stop failed: 0 none, 1 first, 2 second, 3 both.

    mask (templates,) bool: the templates that failed. Returns (n,) uint8. Of a list, `form` is the
    shard's own part.
    """
    if not mask.any():
        return np.zeros(stop - start, np.uint8)
    first, second = mask.astype(np.uint8), 2 * mask.astype(np.uint8)
    if isinstance(form, Listed):
        return np.asarray(first[form.a] + second[form.b])
    if isinstance(form, Product):
        rows = slice(start // len(form.b), stop // len(form.b))
        return np.asarray((first[form.a[rows], None] + second[form.b]).ravel())
    found = np.zeros(stop - start, np.uint8)
    for row, columns, cut in form.lines(start, stop):
        found[cut] = first[form.a[row]] + second[form.b[columns]]
    return found


def triangle_scores(unit: Array, form: Triangle, start: int, stop: int, each: Each) -> Array:
    """Return the scores start…stop (float32) of a triangle of templates with unit rows (n, d)."""
    x = products.wide(unit)
    scores = np.empty(stop - start, np.float32)
    low, high = form.rows(start, stop)

    def fill(first: int) -> None:
        last = min(first + TILE_ROWS, high)
        begin, end = max(start, int(form.starts[first])), min(stop, int(form.starts[last]))
        # Column c of the triangle is template c + 1, and row i has no column before i.
        for left in range(first, len(x) - 1, TILE_COLUMNS):
            others = x[left + 1 : left + 1 + TILE_COLUMNS]
            tile = products.to_scores(products.cosines(x[first:last], others))
            for row, columns, cut in form.lines(begin, end):
                near, far = max(columns.start, left), min(columns.stop, left + len(others))
                if near < far:
                    # where in `scores` column 0 of this row would lie
                    zero = begin - start + cut.start - columns.start
                    scores[zero + near : zero + far] = tile[row - first, near - left : far - left]

    each(fill, range(low, high, TILE_ROWS))
    return scores


def product_scores(a: Array, b: Array, each: Each) -> Array:
    """Return the score of each unit row of a (m, d) with each of b (n, d), (m, n) float32."""
    scores, others = np.empty((len(a), len(b)), np.float32), products.wide(b)

    def fill(first: int) -> None:
        rows = products.wide(a[first : first + TILE_ROWS])
        for left in range(0, len(b), TILE_COLUMNS):
            found = products.cosines(rows, others[left : left + TILE_COLUMNS])
            scores[first : first + TILE_ROWS, left : left + TILE_COLUMNS] = products.to_scores(
                found
            )

    each(fill, range(0, len(a), TILE_ROWS))
    return scores


def _is_dense(count: int, a: int, b: int) -> bool:
    """Whether the whole product of the two sides takes less time than one dot product a comparison.

    count: comparisons in the list; a, b: distinct templates on each side.
    """
    return count * SPARSE_RATIO >= a * b > 0


def _distinct_rows(rows: Array, templates: int) -> Array:
    """Return the distinct template rows (int64, ascending) of one side of a list."""
    named = np.zeros(templates, bool)
    named[rows] = True
    return np.flatnonzero(named)


def _scores_from_tiles(
    unit: Array, a: Array, b: Array, sides: Sequence[Array], each: Each
) -> Array:
    """Return the scores (m,) float32 of a list, gathered from tiles of its sides' product.

    `sides` are the distinct template rows of each side.
    """
    side_a, side_b = sides
    place_a, place_b = _places_in_side(side_a, len(unit)), _places_in_side(side_b, len(unit))
    second = products.wide(unit[side_b])
    score = np.empty(len(a), np.float32)
    across = -(-len(side_b) // TILE_COLUMNS)  # tiles side by side, rounded up
    tile_a = (place_a // TILE_ROWS * across).astype(np.uint32)
    tile_b = (place_b // TILE_COLUMNS).astype(np.uint32)
    tiles = -(-len(side_a) // TILE_ROWS) * across

    def ordered(start: int) -> tuple[slice, Array | None, Array]:
        cut = slice(start, start + COMPARISONS_ORDERED)
        number = tile_a[a[cut]] + tile_b[b[cut]] if across > 1 else tile_a[a[cut]]
        return cut, *_tile_order(number, tiles)

    parts = each(ordered, range(0, len(a), COMPARISONS_ORDERED))

    def gather(number: int) -> None:
        touched = [part for part in parts if part[2][number] < part[2][number + 1]]
        if not touched:
            return
        top, left = number // across * TILE_ROWS, number % across * TILE_COLUMNS
        first = unit[side_a[top : top + TILE_ROWS]]
        tile = products.cosines(first, second[left : left + TILE_COLUMNS])
        # A score lies at row · width + column of the flattened tile; the rows are multiplied once.
        row_start, column = (place_a - top) * tile.shape[1], place_b - left
        for cut, order, bounds in touched:
            own: slice | Array = slice(int(bounds[number]), int(bounds[number + 1]))
            own = own if order is None else order[own]
            cells = row_start[a[cut][own]] + column[b[cut][own]]
            score[cut][own] = products.to_scores(tile.ravel()[cells])

    each(gather, range(tiles))
    return score


def _tile_order(number: Array, tiles: int) -> tuple[Array | None, Array]:
    """Return an order that sorts comparisons by tile (None if sorted), and each tile's start.

    number (n,): the tile of each comparison. The starts are (tiles + 1,), places in that order.
    Lists are nearly sorted, so whole runs of one tile are sorted, which are far fewer than the
    comparisons.
    """
    run_starts = np.concatenate([[0], np.flatnonzero(number[1:] != number[:-1]) + 1])
    run_lengths, run_tiles = np.diff(run_starts, append=len(number)), number[run_starts]
    order = None
    if (run_tiles[1:] < run_tiles[:-1]).any():
        # NumPy sorts 16 bits by radix: in linear time, and stable.
        keys = run_tiles.astype(np.uint16) if tiles <= 1 << 16 else run_tiles
        by_tile = np.argsort(keys, kind="stable")
        run_starts, run_lengths = run_starts[by_tile], run_lengths[by_tile]
        run_tiles = run_tiles[by_tile]
        order = _places_in_runs(run_starts, run_lengths, len(number))
    first_runs = np.searchsorted(run_tiles, np.arange(tiles + 1, dtype=run_tiles.dtype))
    return order, np.concatenate([[0], np.cumsum(run_lengths)])[first_runs]


def _places_in_runs(starts: Array, lengths: Array, count: int) -> Array:
    """Return the places start … start + length of all runs, one after another: (count,) int32."""
    # A run is moved as a whole, so all of its places are shifted by the same number.
    shift = (starts - (np.cumsum(lengths) - lengths)).astype(np.int32)
    return np.asarray(np.arange(count, dtype=np.int32) + np.repeat(shift, lengths))


def _places_in_side(side: Array, templates: int) -> Array:
    """Return, by template row, its number (int64) in a side."""
    place = np.zeros(templates, np.int64)
    place[side] = np.arange(len(side))
    return place


def _scores_by_dot_products(unit: Array, a: Array, b: Array, each: Each) -> Array:
    """Return the scores (m,) float32 of a list by one dot product a comparison."""
    score = np.empty(len(a), np.float32)

    def fill(first: int) -> None:
        for start in range(first, min(first + COMPARISONS_ORDERED, len(a)), COMPARISONS_GATHERED):
            cut = slice(start, start + COMPARISONS_GATHERED)
            score[cut] = products.to_scores(products.paired(unit[a[cut]], unit[b[cut]]))

    each(fill, range(0, len(a), COMPARISONS_ORDERED))
    return score


def unit_rows(templates: Batch) -> Array:
    """Return the embeddings as unit rows (n, d) float32 (stages/exact); failed rows are zeros."""
    return vectors.units(templates["embedding"], templates["status"] == Status.OK)
