"""Two templates by id, their place among the comparisons, and the cells that compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput, UsageError, unknown
from pipeline.plan.graph import Step
from pipeline.session import Session
from stages.evaluation.numbers import number_subjects
from stages.results.quantities import rule_first
from stages.tables.comparisons import Comparisons
from stages.tables.pair_layouts import Listed


@dataclass(frozen=True)
class ComparedPair:
    """Two templates, and the `number` of their comparison; None if the data set has none."""

    ids: tuple[str, str]
    rows: tuple[int, int]
    subjects: tuple[str, str]
    roles: tuple[tuple[str, ...], tuple[str, ...]]
    number: int | None
    comparisons: int
    mated: bool | None  # None: a subject is not known
    fold: int | None


def find_pair(tables: Mapping[str, Batch], a: str, b: str) -> ComparedPair:
    """Return two templates by id.

    Raises InvalidInput for an unknown id, and for a template with itself.
    """
    one, other = (_template_row(tables, name) for name in (a, b))
    if one == other:
        raise InvalidInput(
            f"{a!r} was given twice: with itself a template scores 1, which tells nothing; give two"
            " templates."
        )
    subject, _, known = number_subjects(tables["templates"])
    same = bool(subject[one] == subject[other]) if known[one] and known[other] else None
    comparisons, listed = Comparisons.of(tables), tables["comparisons"]
    places = (comparisons.form.number(*rows) for rows in ((one, other), (other, one)))
    number = min((place for place in places if place is not None), default=None)
    in_list = number is not None and isinstance(comparisons.form, Listed)
    roles = tables["roles"]
    return ComparedPair(
        ids=(a, b),
        rows=(one, other),
        subjects=(
            str(tables["templates"]["subject"][one]),
            str(tables["templates"]["subject"][other]),
        ),
        roles=tuple(
            tuple(roles["role"][roles["template"] == row].tolist()) for row in (one, other)
        ),  # type: ignore[arg-type]
        number=number,
        comparisons=comparisons.rows,
        mated=bool(listed["mated"][number]) if in_list else same,
        fold=int(listed["fold"][number]) if in_list and listed["fold"][number] >= 0 else None,
    )


def _template_row(tables: Mapping[str, Batch], name: str) -> int:
    ids = tables["templates"]["template_id"]
    if len(found := np.flatnonzero(ids == name)):
        return int(found[0])
    members, faces, what = tables["members"], tables["faces"]["face_id"], ""
    holding = [
        ids[t]
        for t in members["template"][
            np.isin(members["face"], np.flatnonzero(faces == name))
        ].tolist()
    ]
    if not holding:
        what, holding = "subject ", ids[tables["templates"]["subject"] == name].tolist()
    if holding:
        named = ", ".join(map(repr, holding[:5])) + (", …" if len(holding) > 5 else "")
        has = f"a subject, whose templates are {named}" if what else f"a face; it is in {named}"
        raise InvalidInput(f"{name!r} is not a template but {has}: give a template.")
    sentence = unknown("template", name, ids.tolist())
    if "known are" in sentence:
        shown = ", ".join(map(repr, ids[:3].tolist()))
        sentence = (
            f"unknown template {name!r}: the data set has {len(ids):,}, such as {shown}; give one"
            " of these ids."
        )
    raise InvalidInput(sentence)


def chosen_cells(session: Session, where: Sequence[str] = ()) -> list[Step]:
    """Return the compare steps that agree with every FACTOR=VALUE, rules first.

    The order is that of the config's values.

    A cell that lacks a factor agrees with any value of it.

    Raises UsageError for an unknown factor or value, or what is not FACTOR=VALUE; InvalidInput if
    it compares nothing.
    """
    steps = list(session.plan.cells("compare"))
    if not steps:
        raise InvalidInput(
            f"{session.config.full_name} has no `compare` step, so it has no scores: add `compare:"
            " {}` to steps."
        )
    kept, factors = agreeing_steps(session, steps, where), session.config.factors
    order = {
        name: {str(value): i for i, value in enumerate(values)} for name, values in factors.items()
    }
    return sorted(
        kept,
        key=lambda step: [order[k].get(str(step.factors.get(k)), -1) for k in rule_first(factors)],
    )


def agreeing_steps(session: Session, steps: Sequence[Step], where: Sequence[str]) -> list[Step]:
    """Return the steps that agree with every FACTOR=VALUE.

    A cell without a factor agrees with any value of it. Raises UsageError for an unknown factor or
    value, or what is not FACTOR=VALUE.
    """
    factors = session.config.factors
    wanted: dict[str, str] = {}
    for words in where:
        name, separator, value = words.partition("=")
        if not separator:
            raise UsageError(f"--where {words!r}: expected FACTOR=VALUE, as in --where rule=mean.")
        if name not in factors:
            raise UsageError(f"--where {words}: {unknown('factor', name, factors)}")
        if value not in map(str, factors[name]):
            raise UsageError(
                f"--where {words}: {unknown(f'value of {name}', value, map(str, factors[name]))}"
            )
        if wanted.setdefault(name, value) != value:
            raise UsageError(
                f"--where {words}: {name}={wanted[name]} was asked for as well; no cell has both."
            )
    return [
        step for step in steps if all(str(step.factors.get(k, v)) == v for k, v in wanted.items())
    ]
