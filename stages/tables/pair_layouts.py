"""Layouts: which two templates each comparison is of.

The comparisons are a list, all pairs of two roles, or all pairs within one role.

Conventions
    Product    every template of side a with every one of side b, numbered row by row: comparison
               i·n + j.
    Triangle   every unordered pair of n templates once, the earlier one first, numbered row by row:
               the comparison of i < j is i·n − i(i+1)/2 + (j − i − 1). It is laid out as the
               product of side a, all but the last template, with side b, all but the first, of
               whose row i there are only columns i and after.
    Numbers    of comparisons are int64. Neither form is ever written out: a triangle is walked row
               by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.core.schema import Array

RowPairs = tuple[Array, Array]


@dataclass(frozen=True)
class Listed:
    """Comparisons one by one: the template rows `a`, `b` (n,) of each.

    >>> Listed(np.array([4, 5]), np.array([6, 7])).number(5, 7)
    1
    """

    a: Array
    b: Array

    @property
    def size(self) -> int:
        return len(self.a)

    def templates(self, numbers: Array | slice) -> RowPairs:
        """Return the template rows of the comparisons of these numbers."""
        return self.a[numbers], self.b[numbers]

    def number(self, a: int, b: int) -> int | None:
        """Return the number of the first comparison of a with b; None if there is none."""
        found = np.flatnonzero((self.a == a) & (self.b == b))
        return int(found[0]) if len(found) else None

    def chosen(self, mask: Array, values: Array) -> RowPairs:
        """Return, for the comparisons at a mask (n,), the values of both of their templates.

        `values` has one entry a template.
        """
        rows = np.flatnonzero(mask)
        return values[self.a[rows]], values[self.b[rows]]

    def failed(self, failed: Array) -> RowPairs:
        """Return the template rows that failed, side a and side b; `failed` as in SCORES."""
        return self.a[(failed & 1) > 0], self.b[(failed & 2) > 0]


@dataclass(frozen=True)
class Product:
    """Every template of `a` (m,) with every one of `b` (n,); rows of templates.

    >>> product = Product(np.array([4, 5]), np.array([6, 7]))
    >>> product.size, product.templates(np.array([1, 2]))
    (4, (array([4, 5]), array([7, 6])))
    """

    a: Array
    b: Array

    @property
    def size(self) -> int:
        return len(self.a) * len(self.b)

    def templates(self, numbers: Array) -> RowPairs:
        row, column = np.divmod(numbers, max(1, len(self.b)))
        return self.a[row], self.b[column]

    def numbers(self, rows: Array, columns: Array) -> Array:
        """Return the numbers of the comparisons at these rows and columns."""
        return np.asarray(rows * len(self.b) + columns)

    def number(self, a: int, b: int) -> int | None:
        return _number_of_pair(self, a, b)

    def chosen(self, mask: Array, values: Array) -> RowPairs:
        at = mask.reshape(len(self.a), len(self.b))
        return np.broadcast_to(values[self.a][:, None], at.shape)[at], np.broadcast_to(
            values[self.b], at.shape
        )[at]

    def failed(self, failed: Array) -> RowPairs:
        at = failed.reshape(len(self.a), len(self.b))
        return self.a[((at & 1) > 0).any(axis=1)], self.b[((at & 2) > 0).any(axis=0)]

    def same(self, values: Array) -> Array:
        """Return of every comparison whether both templates have one value, (m · n,) bool."""
        return np.asarray((values[self.a][:, None] == values[self.b]).ravel())

    def among(self, templates: Array) -> Product:
        """Return the comparisons that are of two templates at a mask."""
        return Product(self.a[templates[self.a]], self.b[templates[self.b]])

    def cut(self, templates: Array, values: Array) -> Array:
        """Return the `values` (one a comparison) of comparisons `among` these templates."""
        rows, columns = templates[self.a], templates[self.b]
        if rows.all() and columns.all():
            return values
        return np.asarray(values.reshape(len(self.a), len(self.b))[np.ix_(rows, columns)].ravel())


@dataclass(frozen=True)
class Triangle:
    """Every unordered pair of the templates `role` (n,), rows of templates, once.

    >>> triangle = Triangle(np.array([4, 5, 6]))
    >>> triangle.size, triangle.templates(np.arange(3))
    (3, (array([4, 4, 5]), array([5, 6, 6])))
    """

    role: Array

    @property
    def a(self) -> Array:
        return self.role[:-1]

    @property
    def b(self) -> Array:
        return self.role[1:]

    @property
    def size(self) -> int:
        return len(self.role) * max(0, len(self.role) - 1) // 2

    @cached_property
    def starts(self) -> Array:
        """The number (n,) int64 of each row's first comparison.

        The last row has none: its entry is where it would begin.
        """
        # the rows before row i hold (n − 1) + (n − 2) + … + (n − i) comparisons
        row = np.arange(len(self.role), dtype=np.int64)
        return np.asarray(row * (len(self.role) - 1) - row * (row - 1) // 2)

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of rows that comparisons start…stop touch."""
        if start >= stop:
            return 0, 0
        first, last = self.starts.searchsorted([start, stop - 1], side="right")
        return int(first) - 1, int(last)

    def lines(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield each row's part of comparisons start…stop: row, columns, numbers − `start`."""
        for row in range(*self.rows(start, stop)):
            # Row i has the columns i … n − 2; `zero` is the number that its column 0 would have.
            zero = int(self.starts[row]) - row
            first, last = zero + row, zero + len(self.role) - 1
            low, high = max(start, first), min(stop, last)
            yield row, slice(low - zero, high - zero), slice(low - start, high - start)

    def templates(self, numbers: Array) -> RowPairs:
        row = self.starts.searchsorted(numbers, side="right") - 1
        column = row + numbers - self.starts[row]
        return self.role[row], self.role[column + 1]  # side b begins with the second template

    def numbers(self, rows: Array, columns: Array) -> Array:
        """Return the numbers of the comparisons at these rows and columns.

        Those below the diagonal are not comparisons, and are left out.
        """
        there = columns >= rows
        rows, columns = rows[there], columns[there]
        return np.asarray(self.starts[rows] + columns - rows)

    def number(self, a: int, b: int) -> int | None:
        return _number_of_pair(self, a, b)

    def chosen(self, mask: Array, values: Array) -> RowPairs:
        of_a, of_b, count = values[self.a], values[self.b], np.count_nonzero(mask)
        first, second = np.empty(count, values.dtype), np.empty(count, values.dtype)
        done = 0
        for row, columns, cut in self.lines(0, self.size):
            found = of_b[columns][mask[cut]]
            part = slice(done, done + len(found))
            first[part], second[part] = of_a[row], found
            done = part.stop
        return first, second

    def failed(self, failed: Array) -> RowPairs:
        # whether a row, or a column, has any comparison whose first, or second, template failed
        failed_a, failed_b = np.zeros(len(self.a), bool), np.zeros(len(self.b), bool)
        for row, columns, cut in self.lines(0, self.size):
            failed_a[row] = (failed[cut] & 1).any()
            failed_b[columns] |= (failed[cut] & 2) > 0
        return self.a[failed_a], self.b[failed_b]

    def same(self, values: Array) -> Array:
        """Return whether both templates of each comparison have one value, (n(n−1)/2,) bool."""
        of_a, of_b, found = values[self.a], values[self.b], np.empty(self.size, bool)
        for row, columns, cut in self.lines(0, self.size):
            np.equal(of_a[row], of_b[columns], out=found[cut])
        return found

    def among(self, templates: Array) -> Triangle:
        return Triangle(self.role[templates[self.role]])

    def cut(self, templates: Array, values: Array) -> Array:
        kept_a, kept_b = templates[self.a], templates[self.b]
        if templates[self.role].all():
            return values
        found, done = np.empty(self.among(templates).size, values.dtype), 0
        for row, columns, cut in self.lines(0, self.size):
            if kept_a[row]:
                part = values[cut][kept_b[columns]]
                found[done : done + len(part)] = part
                done += len(part)
        return found


def _number_of_pair(form: Product | Triangle, a: int, b: int) -> int | None:
    row, column = np.flatnonzero(form.a == a)[:1], np.flatnonzero(form.b == b)[:1]
    if len(row) == len(column) == 1 and len(found := form.numbers(row, column)):
        return int(found[0])
    return None
