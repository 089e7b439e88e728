"""The tables of a data set, and the columns that flow between stages.

| table       | one row is                                        |
|-------------|---------------------------------------------------|
| faces       | one face in one image                             |
| members     | a face's place in a template (sorted by template) |
| templates   | a set of faces compared as one                    |
| roles       | what a template serves as: reference, probe, gallery |
| comparisons | one 1:1 comparison of a list                      |
| pairings    | *all pairs* of two roles or of one, never materialised |

Readers give ids; `build_tables` resolves them to row numbers and refuses what does not fit
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.schema import Array, Batch, Field, Schema, text
from pipeline.errors import InvalidInput, unknown
from pipeline.plan.dataset import Axis
from stages.tables.pair_layouts import Listed, Product, Triangle

FACES = Schema(
    "faces",
    (
        Field("face_id", "text"),
        Field("path", "text"),  # relative to the data set's root; empty if there is no image
        # of the image file; empty if it is missing, UNREADABLE if it cannot be read
        Field("sha256", "text"),
        Field("subject", "text"),
        Field("box", "float32", (4,), "px: x, y, width, height", optional=True),
        Field("landmarks", "float32", (5, 2), "px: x, y", optional=True),
        Field("score", "float32", (), "detector score, higher = surer", optional=True),
        Field("embedding", "float32", (None,), optional=True),
        Field(
            "variance",
            "float32",
            (None,),
            "of the unit embedding, by dimension or one for all",
            optional=True,
        ),
        Field("quality", "float32", (), "higher = more useful", optional=True),
    ),
)
MEMBERS = Schema(
    "members", (Field("template", "int64"), Field("face", "int64"), Field("media", "text"))
)
TEMPLATES = Schema("templates", (Field("template_id", "text"), Field("subject", "text")))
ROLES = Schema("roles", (Field("template", "int64"), Field("role", "text")))
COMPARISONS = Schema(
    "comparisons",
    (Field("a", "int64"), Field("b", "int64"), Field("mated", "bool"), Field("fold", "int16")),
)
PAIRINGS = Schema("pairings", (Field("role_a", "text"), Field("role_b", "text")))

STATUS = Field("status", "uint8")
REASON = Field("reason", "text")
DETECTIONS = Schema(
    "detections",
    (
        STATUS,
        REASON,
        Field("box", "float32", (4,), "px: x, y, width, height"),
        Field("landmarks", "float32", (5, 2), "px: x, y"),
        Field(
            "score", "float32", (), "detector score, higher = surer; nan if nothing was detected"
        ),
        Field("faces_found", "int32"),
    ),
    finite=("box", "landmarks"),
)
CROPS = Schema("crops", (STATUS, Field("crop", "uint8", (112, 112, 3), "RGB")))
EMBEDDINGS = Schema(
    "embeddings",
    (
        STATUS,
        REASON,
        Field("embedding", "float32", (None,)),
        Field("norm", "float32", (), "L2 norm of the embedding"),
        Field(
            "variance",
            "float32",
            (None,),
            "of the unit embedding, by dimension or one for all",
            optional=True,
        ),
    ),
    finite=("embedding", "norm"),
)
QUALITIES = Schema(
    "qualities",
    (STATUS, REASON, Field("quality", "float32", (), "higher = more useful")),
    finite=("quality",),
)
FUSED = Schema(
    "fused",
    (
        STATUS,
        Field("embedding", "float32", (None,), "unit length, or zeros under fuse.fallback zero"),
        Field("used", "int32", (), "faces with a weight above 0"),
        Field("fallback", "bool"),  # its weights vanished, and fuse.fallback decided
    ),
    finite=("embedding",),
)
SCORES = Schema(
    "scores",
    (
        Field("score", "float32", (), "cosine; nan if a template failed"),
        # 0, or 1 if the first template failed, 2 if the second, 3 if both
        Field("failed", "uint8"),
    ),
)
CANDIDATES = Schema(
    "candidates",
    (
        STATUS,
        Field("candidate", "int64", (None,), "row of templates; -1 = none"),
        Field("score", "float32", (None,), "cosine"),
    ),
)
# One row is one number. `replicates` are its bootstrap values, drawn with the same subject weights
# in every cell, so that differences between cells can be paired.
NUMBERS = Schema(
    "numbers",
    (
        Field("metric", "text"),
        Field("target", "float64"),  # FMR, FPIR or rank asked for; nan if there is none
        Field("rule", "text"),  # at_most, nearest, script, or empty
        Field("value", "float64"),
        Field("low", "float64"),
        Field("high", "float64"),
        Field("achieved", "float64"),  # FMR or FPIR reached at the threshold
        Field("threshold", "float64"),
        # in 1:N false positives: those behind `achieved`; -1 if it does not apply
        Field("false_matches", "int64"),
        # comparisons or probes that `achieved` is over; -1 if it does not apply
        Field("nonmated", "int64"),
        # distinct pairs of subjects behind `false_matches`; -1 if it does not apply
        Field("subject_pairs", "int64"),
        # mated comparisons or probes that are wrong at it; -1 if it does not apply
        Field("misses", "int64"),
        Field("trials", "int64"),  # comparisons, probes or templates that `value` is over
        # subjects behind `trials`, which alone are independent; -1 if not known
        Field("subjects", "int64"),
        Field("few", "bool"),  # fewer than 30 false matches decide; `misses` may be few as well
        Field("replicates", "float64", (None,)),
    ),
)
CURVES = Schema("curves", (Field("curve", "text"), Field("x", "float64"), Field("y", "float64")))


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
