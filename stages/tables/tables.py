"""The tables of a data set: which there are, their axes, and how a reader's ids become rows.

Readers give ids; `build_tables` resolves them to row numbers and refuses what does not fit
together. `schemas` has the columns of each table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.schema import Array, Batch, Schema, text
from pipeline.errors import InvalidInput
from pipeline.plan.dataset import Axis
from stages.tables.comparisons import Comparisons, role_rows
from stages.tables.schemas import COMPARISONS, FACES, MEMBERS, PAIRINGS, ROLES, TEMPLATES


class FaceLayout:
    """Tables and axes of every face data set: faces, templates, comparisons, probes.

    Comparisons are a list or all pairs of roles.

    `growing`: faces are added to such a set, or taken out of it, so its first shards are small.
    """

    schemas: Mapping[str, Schema] = {
        schema.name: schema for schema in (FACES, MEMBERS, TEMPLATES, ROLES, COMPARISONS, PAIRINGS)
    }
    sorted_index: Mapping[tuple[str, str], str] = {("members", "template"): "templates"}

    def __init__(self, growing: bool = False) -> None:
        self.growing = growing

    def same_rows(self, one: str, other: str, tables: Mapping[str, Batch]) -> bool:
        """Whether two axes number the same rows.

        Faces and templates do if every face is a template of its own, in the same order.
        """
        members, count = tables["members"], tables["templates"].rows
        alike = {one, other} == {"faces", "templates"} and members.rows == count == tables[
            "faces"
        ].rows
        return alike and all(
            (members[name] == np.arange(count)).all() for name in ("template", "face")
        )

    def axes(self, tables: Mapping[str, Batch], shard_rows: Mapping[str, int]) -> dict[str, Axis]:
        def named(axis: str, column: str, most: int) -> Axis:
            names = tables[axis][column]
            growing = self.growing and axis not in shard_rows
            return Axis(len(names), shard_rows.get(axis, most), names=names, growing=growing)

        comparisons = Comparisons.of(tables)
        return {
            "faces": named("faces", "face_id", 1024),
            "templates": named("templates", "template_id", 4096),
            "comparisons": Axis(
                comparisons.rows, shard_rows.get("comparisons", 1 << 26), comparisons.multiple
            ),
            "probes": Axis(
                len(role_rows(tables["roles"], "probe")), shard_rows.get("probes", 8192)
            ),
        }


LAYOUT, GROWING = FaceLayout(), FaceLayout(growing=True)


@dataclass
class ProtocolLists:
    """What a reader found, still by id. Order is kept; `build_tables` turns ids into rows."""

    face_id: list[str]
    path: list[str]
    sha256: list[str]
    subject: list[str]
    template_id: list[str]
    template_subject: list[str]
    member_template: list[str]
    member_face: list[str]
    member_media: list[str]
    role_template: list[str] = field(default_factory=list)
    role: list[str] = field(default_factory=list)
    comparison_a: list[str] = field(default_factory=list)
    comparison_b: list[str] = field(default_factory=list)
    mated: Sequence[bool] = ()
    fold: Sequence[int] = ()
    # all pairs of two roles or, if both are one, every unordered pair of it
    all_pairs: tuple[str, str] | None = None
    columns: dict[str, Array] = field(default_factory=dict)  # optional columns of faces


def build_tables(found: ProtocolLists, where: str) -> dict[str, Batch]:
    """Return the six tables.

    Raises InvalidInput with the first ten duplicate and the first ten unknown ids.
    """
    faces = _numbered(found.face_id, "face", where)
    templates = _numbered(found.template_id, "template", where)
    problems: list[str] = []
    template = _resolve(found.member_template, templates, "members: template", problems)
    face = _resolve(found.member_face, faces, "members: face", problems)
    role_template = _resolve(found.role_template, templates, "roles: template", problems)
    a = _resolve(found.comparison_a, templates, "comparisons: template", problems)
    b = _resolve(found.comparison_b, templates, "comparisons: template", problems)
    if problems:
        more = f" (and {len(problems) - 10} more)" if len(problems) > 10 else ""
        raise InvalidInput(f"{where}: " + "; ".join(problems[:10]) + more)
    order = np.argsort(template, kind="stable")
    fold = np.asarray(found.fold if len(found.fold) else [-1] * len(a), dtype=np.int16)
    pairs: list[tuple[str, str]] = [found.all_pairs] if found.all_pairs else []
    return {
        "faces": Batch(
            {
                "face_id": text(found.face_id),
                "path": text(found.path),
                "sha256": text(found.sha256),
                "subject": text(found.subject),
                **found.columns,
            }
        ),
        "members": Batch(
            {
                "template": template[order],
                "face": face[order],
                "media": text(found.member_media)[order],
            }
        ),
        "templates": Batch(
            {"template_id": text(found.template_id), "subject": text(found.template_subject)}
        ),
        "roles": Batch({"template": role_template, "role": text(found.role)}),
        "comparisons": Batch(
            {"a": a, "b": b, "mated": np.asarray(found.mated, dtype=bool), "fold": fold}
        ),
        "pairings": Batch(
            {"role_a": text(x for x, _ in pairs), "role_b": text(y for _, y in pairs)}
        ),
    }


def singletons(face_id: Sequence[str], subject: Sequence[str]) -> dict[str, Any]:
    """Return the Protocol fields that make every face a template (and a medium) of its own.

    >>> singletons(["a.jpg"], ["Ada"])["template_subject"]
    ['Ada']
    """
    ids = list(face_id)
    return {
        "template_id": ids,
        "template_subject": list(subject),
        "member_template": ids,
        "member_face": ids,
        "member_media": ids,
    }


def _numbered(ids: Sequence[str], kind: str, where: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    twice: list[str] = []
    for row, name in enumerate(ids):
        if rows.setdefault(name, row) != row:
            twice.append(f"{kind} {name!r} in rows {rows[name]} and {row}")
    if twice:
        more = f" (and {len(twice) - 10} more)" if len(twice) > 10 else ""
        raise InvalidInput(
            f"{where}: every {kind} needs an id of its own; given twice:"
            f" {'; '.join(twice[:10])}{more}."
        )
    return rows


def _resolve(ids: Sequence[str], rows: Mapping[str, int], what: str, problems: list[str]) -> Array:
    found = np.fromiter((rows.get(name, -1) for name in ids), dtype=np.int64, count=len(ids))
    problems += [
        f"{what} {ids[i]!r} in row {i} is not in the data set"
        for i in np.flatnonzero(found < 0).tolist()
    ]
    return found
