"""compare: templates + comparisons → cosine scores, higher = more similar.

All pairs of two roles are a matrix product, and all pairs of one its upper triangle. So is a list that holds a fair part of
the pairs of its two sides, the templates that it names first and second: its scores are gathered from the tiles of that
product. A sparse list is read in blocks of dot products. Tiles begin at multiples of TILE and WIDTH of the whole sides, those
of a triangle at the diagonal, and sides and choice depend on the whole list, so a score is the same to the last bit in
whatever shard it falls. (Its last bits may depend on which other templates the data set compares.) A comparison with a
template that failed scores nan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pipeline.registry import register
from pipeline.schema import Array, Batch, Status
from pipeline.stage import Options, Stage, Work
from stages.forms import Product, Triangle
from stages.tables import SCORES, Comparisons

BLOCK = 256  # comparisons of a sparse list in one gather: few enough to stay in the cache
LISTED = 1 << 17  # comparisons of a list that are put in the order of tiles at once: few enough to stay in the cache
TILE, WIDTH = 512, 1 << 15  # rows and most columns of a tile of a product: 64 MiB of scores
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]  # as `Work.each`
SPARSE = 32  # a list with fewer than one in so many pairs of its sides costs less by dot products than by tiles


@register("stage", "compare")
class Compare(Stage):
    """Cosine of every comparison. Reads fused templates, or embeddings where each face is its own template."""

    name = "compare"
    version = 4
    grain = "tile"
    axis = "comparisons"
    Options = Options
    produces: ClassVar = {"": SCORES}
    inputs: ClassVar = {"templates": "fuse"}
    rows: ClassVar = {"templates": "templates"}
    consumes: ClassVar = {"comparisons": ("a", "b"), "roles": ("template", "role"), "pairings": ("role_a", "role_b")}
    whole: ClassVar = ("comparisons",)
    stored = False

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        form, copied = Comparisons.of(tables).form, 0
        if isinstance(form, Product):
            copied = len(form.a) + len(form.b)
        elif isinstance(form, Triangle) and not _together(form.role):
            copied = len(form.role)
        return {"templates at unit length": (rows["templates"] + copied) * sizes["templates"]["embedding"]}

    def compute(self, work: Work) -> dict[str, Batch]:
        templates = work.inputs["templates"].read(("status", "embedding"))
        unit, lost = unit_rows(templates), (templates["status"] != Status.OK).astype(np.uint8)
        comparisons = Comparisons.of(work.tables)
        form = comparisons.form
        if isinstance(form, Product):
            a, b, width = form.a, form.b, len(form.b)
            rows = slice(work.start // width, work.stop // width)
            score = product(unit[a], unit[b], rows.start, rows.stop, work.each).ravel()
            failed = (lost[a[rows], None] + 2 * lost[b]).ravel()
        elif isinstance(form, Triangle):
            score = triangle(_rows(unit, form.role), form, work.start, work.stop, work.each)
            failed = _failed(lost[form.role], form, work.start, work.stop)
        else:
            part = comparisons.listed.take(slice(work.start, work.stop))
            sides = work.each(lambda name: _side(comparisons.listed[name], len(unit)), "ab")
            if _dense(comparisons.rows, *map(len, sides)):
                score = _from_tiles(unit, part["a"], part["b"], sides, work.each)
            else:
                score = _dots(unit, part["a"], part["b"], work.each)
            failed = lost[part["a"]] + 2 * lost[part["b"]] if lost.any() else np.zeros(part.rows, np.uint8)
        return {"": Batch({"score": score.astype(np.float32, copy=False), "failed": failed.astype(np.uint8, copy=False)})}


def triangle(x: Array, form: Triangle, start: int, stop: int, each: Each) -> Array:
    """Return the scores start…stop (float32) of a triangle whose templates are `x` (n, d) float32.

    The tiles of TILE rows begin at the column of their first row, so that of those below the diagonal few are computed.
    """
    a, b = x[:-1], x[1:]
    scores = np.empty(stop - start, np.float32)
    low, high = form.rows(start, stop)

    def fill(first: int) -> None:
        begin, end = max(start, form.starts[first]), min(stop, form.starts[min(first + TILE, len(a))])
        for left in range(first, len(b), WIDTH):
            found = tile(a, b, first, left)
            for row, columns, cut in form.lines(int(begin), int(end)):
                near, far = max(columns.start, left), min(columns.stop, left + found.shape[1])
                if near < far:
                    place = cut.start + int(begin) - start - columns.start
                    scores[place + near : place + far] = found[row - first, near - left : far - left]

    each(fill, range(low // TILE * TILE, high, TILE))
    return scores


def _failed(lost: Array, form: Triangle, start: int, stop: int) -> Array:
    """Return which of the templates failed, as in SCORES, of comparisons start…stop; `lost` is 1 where a template did."""
    failed = np.zeros(stop - start, np.uint8)
    for row, columns, cut in form.lines(start, stop) if lost.any() else ():
        failed[cut] = lost[row] + 2 * lost[1:][columns]
    return failed


def product(a: Array, b: Array, start: int, stop: int, each: Each) -> Array:
    """Return rows start…stop of a @ b.T, (stop − start, n) float32, for a (m, d) and b (n, d) float32."""
    scores = np.empty((stop - start, len(b)), np.float32)

    def fill(first: int) -> None:
        low, high = max(first, start), min(first + TILE, stop)
        for left in range(0, len(b), WIDTH):
            scores[low - start : high - start, left : left + WIDTH] = tile(a, b, first, left)[low - first : high - first]

    each(fill, range(start // TILE * TILE, stop, TILE))
    return scores


def tile(a: Array, b: Array, first: int, left: int = 0) -> Array:
    """Return the tile of a @ b.T, for a (m, d) and b (n, d) float32, that begins at row `first` and column `left`.

    The last bits of a matrix product may change with its shape: a tile has TILE rows whatever is asked for, the last
    one zeros behind its end, and WIDTH columns or what is left of `b`.
    """
    rows = np.zeros((TILE, a.shape[1]), np.float32)
    part = a[first : first + TILE]
    rows[: len(part)] = part
    return np.asarray(rows @ b[left : left + WIDTH].T)


def _dense(count: int, a: int, b: int) -> bool:
    """Whether so many comparisons of `a` templates with `b` are had for less from their whole product."""
    return count * SPARSE >= a * b > 0


def _side(rows: Array, templates: int) -> Array:
    """Return the distinct template rows (int64, ascending) of one side of a list."""
    named = np.zeros(templates, bool)
    named[rows] = True
    return np.flatnonzero(named)


def _from_tiles(unit: Array, a: Array, b: Array, sides: Sequence[Array], each: Each) -> Array:
    """Return the scores (m,) float32 of a list, tile by tile; `sides` are the two of the whole list."""
    side_a, side_b = sides
    place_a, place_b = _places(side_a, len(unit)), _places(side_b, len(unit))
    first, second = _rows(unit, side_a), _rows(unit, side_b)
    score = np.empty(len(a), np.float32)
    across = -(-len(side_b) // WIDTH)
    tile_a, tile_b = (place_a // TILE * across).astype(np.uint32), (place_b // WIDTH).astype(np.uint32)
    tiles = -(-len(side_a) // TILE) * across

    def ordered(start: int) -> tuple[slice, Array | None, Array]:
        cut = slice(start, start + LISTED)
        return cut, *_by_tile(tile_a[a[cut]] + tile_b[b[cut]] if across > 1 else tile_a[a[cut]], tiles)

    parts = each(ordered, range(0, len(a), LISTED))

    def gather(number: int) -> None:
        touched = [part for part in parts if part[2][number] < part[2][number + 1]]
        if not touched:
            return
        top, left = number // across * TILE, number % across * WIDTH
        found = tile(first, second, top, left)
        row, column = (place_a - top) * found.shape[1], place_b - left
        for cut, order, bounds in touched:
            where: slice | Array = slice(int(bounds[number]), int(bounds[number + 1]))
            where = where if order is None else order[where]
            score[cut][where] = found.ravel()[row[a[cut][where]] + column[b[cut][where]]]

    each(gather, range(tiles))
    return score


def _by_tile(number: Array, tiles: int) -> tuple[Array | None, Array]:
    """Return an order that makes tile numbers ascend, None where they do, and where in it each tile begins, (tiles + 1,).

    Lists are nearly in order, so runs of one tile are sorted, which are far fewer than comparisons.
    """
    starts = np.concatenate([[0], np.flatnonzero(number[1:] != number[:-1]) + 1])
    lengths, tile_of = np.diff(starts, append=len(number)), number[starts]
    order = None
    if (tile_of[1:] < tile_of[:-1]).any():
        small = tile_of.astype(np.uint16) if tiles <= 1 << 16 else tile_of  # NumPy sorts 16 bits by radix
        runs = np.argsort(small, kind="stable")
        starts, lengths, tile_of = starts[runs], lengths[runs], tile_of[runs]
        shift = (starts - (np.cumsum(lengths) - lengths)).astype(np.int32)
        order = np.arange(len(number), dtype=np.int32) + np.repeat(shift, lengths)
    bounds = np.searchsorted(tile_of, np.arange(tiles + 1, dtype=tile_of.dtype))
    return order, np.concatenate([[0], np.cumsum(lengths)])[bounds]


def _places(side: Array, templates: int) -> Array:
    """Return, by template row, its number (int64) in a side."""
    place = np.zeros(templates, np.int64)
    place[side] = np.arange(len(side))
    return place


def _rows(unit: Array, side: Array) -> Array:
    """Return the rows of a side, without a copy where they lie together."""
    return unit[side[0] : side[-1] + 1] if _together(side) else unit[side]


def _together(side: Array) -> bool:
    """Whether rows (n,), at least one, follow one upon the other."""
    return bool(side[-1] - side[0] == len(side) - 1 and (np.diff(side) == 1).all())


def _dots(unit: Array, a: Array, b: Array, each: Each) -> Array:
    """Return the scores (m,) float32 of a list by one dot product a comparison."""
    score = np.empty(len(a), np.float32)

    def fill(first: int) -> None:
        for start in range(first, min(first + LISTED, len(a)), BLOCK):
            cut = slice(start, start + BLOCK)
            score[cut] = np.einsum("ij,ij->i", unit[a[cut]], unit[b[cut]])

    each(fill, range(0, len(a), LISTED))
    return score


def unit_rows(templates: Batch) -> Array:
    """Return the embeddings (n, d) float32 at unit length; rows that failed are nan."""
    embedding = templates["embedding"]
    length = np.sqrt(np.einsum("ij,ij->i", embedding, embedding))
    length[~(length > 0) | (templates["status"] != Status.OK)] = np.nan
    return np.asarray(embedding / length[:, None])
