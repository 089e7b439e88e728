"""The 1:1 comparisons of a data set, and the templates that serve in a role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.core.schema import Array, Batch
from pipeline.errors import InvalidInput, unknown
from stages.tables.pair_layouts import Listed, Product, Triangle

_NO_ROWS = np.empty(0, np.int64)


def role_rows(roles: Batch, role: str) -> Array:
    """Return the template rows that serve as `role`, in table order (int64)."""
    rows: Array = roles["template"][roles["role"] == role]
    return rows


def need_role(roles: Batch, role: str, where: str) -> None:
    """Raise InvalidInput, naming the nearest role, if no template has the one an option names."""
    known = set(roles["role"].tolist())
    if role not in known:
        raise InvalidInput(f"{where}: {unknown('role', role, known)}")


def refuse_itself(tables: Mapping[str, Batch], one: str, other: str) -> None:
    """Raise InvalidInput if a template has both roles: it would be compared with itself."""
    both = np.intersect1d(role_rows(tables["roles"], one), role_rows(tables["roles"], other))
    if len(both):
        name = str(tables["templates"]["template_id"][both[0]])
        raise InvalidInput(
            f"template {name!r} serves as {one!r} and as {other!r} ({len(both)} such), and would be"
            " compared with itself: give each side templates of its own."
        )


@dataclass(frozen=True)
class Comparisons:
    """The 1:1 comparisons of a data set: a list, or all pairs of two roles or within one.

    All pairs are never written out.
    """

    listed: Batch
    form: Listed | Product | Triangle

    @staticmethod
    def of(tables: Mapping[str, Batch]) -> Comparisons:
        """Return the comparisons of a data set's tables.

        If no template has a role of the pairing, there is nothing to pair, and the list counts.
        """
        pairings, listed = tables["pairings"], tables["comparisons"]
        names = [str(pairings[name][0]) for name in ("role_a", "role_b")] if pairings.rows else []
        a, b = (
            (role_rows(tables["roles"], name) for name in names) if names else (_NO_ROWS, _NO_ROWS)
        )
        if not (len(a) and len(b)):
            return Comparisons(listed, Listed(listed["a"], listed["b"]))
        return Comparisons(listed, Triangle(a) if names[0] == names[1] else Product(a, b))

    @property
    def a(self) -> Array:
        """Template rows of the first side: of each comparison, or of the rows of all pairs."""
        return self.form.a

    @property
    def b(self) -> Array:
        return self.form.b

    @property
    def rows(self) -> int:
        return self.form.size

    @property
    def multiple(self) -> int:
        """Shards hold a multiple of so many comparisons: whole rows of a product.

        The rows of a triangle differ in length, so its shards may cut them.
        """
        return len(self.form.b) if isinstance(self.form, Product) else 1

    def pairs(self, start: int, stop: int) -> tuple[Array, Array]:
        """Return the template rows (int64) of comparisons start…stop."""
        if isinstance(self.form, Listed):
            return self.form.templates(slice(start, stop))
        return self.form.templates(np.arange(start, stop, dtype=np.int64))

    def refuse_itself(self, tables: Mapping[str, Batch]) -> None:
        """Raise InvalidInput if a comparison is of a template with itself."""
        form = self.form
        if isinstance(form, Product):
            refuse_itself(
                tables, *(str(tables["pairings"][name][0]) for name in ("role_a", "role_b"))
            )
        elif isinstance(form, Triangle):
            rows, times = np.unique(form.role, return_counts=True)
            if len(twice := rows[times > 1]):
                role, name = (
                    str(x)
                    for x in (
                        tables["pairings"]["role_a"][0],
                        tables["templates"]["template_id"][twice[0]],
                    )
                )
                raise InvalidInput(
                    f"template {name!r} is listed more than once as {role!r} ({len(twice)} such),"
                    " and would be compared with itself: give each template a role once."
                )
        elif len(same := np.flatnonzero(form.a == form.b)):
            raise InvalidInput(
                f"comparison {same[0]} is of a template with itself ({len(same)} such): take these"
                " out."
            )
