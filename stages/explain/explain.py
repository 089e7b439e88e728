"""explain: one comparison score → its templates → their media → their faces, and their effect.

Conventions
    Weight    what a face's embedding counts for in its template: the unit embedding, or the raw one
              under `features: raw`. The weights of a template sum to 1 over its usable faces. They
              are not computed a second time: fuse itself returns them. Of a vector rule they are
              each face's share, the mean over dimensions, and the effect is computed from them.
    effective   1 / Σ w², the effective number of faces: their number if all weights are equal.
    own, other  cosine of a face with its own template, and with the template that it is compared
                with.
    effect      score − the score without this face, the others keeping their proportions; nan if
                none are left.
    Decision  score ≥ threshold. A score that is not in the store is computed from the two
              templates, to the same bits.

Only what concerns the two templates is read: the shards that hold their faces, and the thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Source, Work
from pipeline.errors import InvalidInput
from pipeline.plan.graph import Step
from pipeline.plan.more_damage import doubting
from pipeline.session import Session
from stages.exact import products, sums, vectors
from stages.explain.compared_pair import ComparedPair
from stages.fusion import rules
from stages.fusion.fuse import WEIGHED_BY, Fuse
from stages.matching.compare import unit_rows


@dataclass(frozen=True)
class Face:
    """One face of a template; numbers are nan if unknown, `value` is what the rule weighs by."""

    face: str
    media: str
    status: str
    reason: str
    value: float
    weight: float
    own: float
    other: float
    effect: float


@dataclass(frozen=True)
class Template:
    """A template as one cell fused it.

    `fallback`: its weights vanished, and `fuse.fallback` decided.
    """

    template: str
    status: str
    fallback: bool
    effective: float
    faces: tuple[Face, ...]
    # (d,) float32 of unit length, nan if it failed
    embedding: Array = field(repr=False, compare=False)

    @property
    def used(self) -> int:
        return sum(face.weight > 0 for face in self.faces)

    @property
    def fell_back(self) -> str:
        """Say what became of a template whose weights vanished; "" for any other."""
        if not self.fallback:
            return ""
        if self.used:
            instead = "its faces count equally"
        else:
            instead = "it is a vector of zeros and scores 0 with everyone"
        return f"every weight of this template vanished, so {instead}"


@dataclass(frozen=True)
class Decision:
    """One threshold of an evaluation: `metric` tar (at the FMR `target`) or eer."""

    step: str
    metric: str
    target: float
    rule: str
    threshold: float
    accepted: bool | None  # None if there is no score


@dataclass(frozen=True)
class Scored:
    """The comparison in one cell.

    `weighed_by` names what `Face.value` is, and is empty if the rule reads nothing.
    """

    step: str
    factors: Mapping[str, Any]
    score: float
    stored: bool
    decisions: tuple[Decision, ...]
    rule: str  # empty if each face is its own template
    media: str
    features: str
    weighed_by: str
    templates: tuple[Template, Template]


def explained(session: Session, pair: ComparedPair, steps: Sequence[Step]) -> Iterator[Scored]:
    """Yield the comparison of a pair in each compare step, in that order.

    Raises InvalidInput if templates are not made by fuse, or what they were made of is not in the
    store any more.
    """
    members = session.dataset.tables["members"]
    bounds = [np.searchsorted(members["template"], [row, row + 1]) for row in pair.rows]
    places = np.concatenate([np.arange(*bound) for bound in bounds])
    reader = _Reader(session, members["face"][places])
    side = np.repeat([0, 1], [int(stop - start) for start, stop in bounds])
    with doubting(session.plan):
        for step in steps:
            yield _cell_score(reader, step, pair, side, members["media"][places])


class _Reader:
    """Reads what steps say of the faces of the two templates, each once."""

    def __init__(self, session: Session, faces: Array) -> None:
        self.session, self.plan, self.faces = session, session.plan, faces
        self._kept: dict[tuple[str, str, bool], Batch] = {}

    def rows(self, step: Step, output: str, remarks: bool = False) -> Batch:
        """Return the rows of these faces from a map step, in order; from a reduce step all rows.

        `remarks`: status and reason only.
        """
        name = (step.name, output, remarks)
        if name not in self._kept:
            columns = ("status", "reason") if remarks else None
            source = Source(
                tuple(t.start for t in step.tasks),
                tuple(t.stop for t in step.tasks),
                lambda shard, wanted: self.shard(step, output, shard, wanted),
            )
            self._kept[name] = (
                source.read() if step.stage.grain == "reduce" else source.take(self.faces, columns)
            )
        return self._kept[name]

    def shard(
        self,
        step: Step,
        output: str,
        shard: int,
        columns: Sequence[str] | None,
        rows: slice = slice(None),
    ) -> Batch:
        store, key = self.session.store, step.tasks[shard].keys[output]
        if not store.has(step.output(output), key):
            raise InvalidInput(
                f"{step.name} is not kept in {store.root}, and these faces were fused from it: "
                f"`qfuse run CONFIG --until {step.base}` computes and keeps it."
            )
        return store.read(step.output(output), key, columns, rows)

    def remarks(self, below: Step) -> tuple[Array, Array]:
        """Return (status, reason) of each face at the first step, up to `below`, that failed it.

        For a face that did not fail, its note.
        """
        status, reason = np.zeros(len(self.faces), np.uint8), np.full(len(self.faces), "", object)
        above, waiting = {below.name}, [below]
        while waiting:
            found = [self.plan.steps[ref.step] for ref in waiting.pop().inputs.values()]
            waiting += [step for step in found if step.name not in above]
            above |= {step.name for step in found}
        for step in self.plan.steps.values():
            output, schema = next(iter(step.stage.produces.items()))
            if (
                step.name not in above
                or step.stage.grain != "map"
                or all(f.name != "reason" for f in schema.fields)
            ):
                continue
            said = self.rows(step, output, remarks=True)
            fresh = (status == Status.OK) & ((said["status"] != Status.OK) | (reason == ""))
            reason = np.where(fresh & (said["reason"] != ""), said["reason"], reason)
            status = np.where(fresh, said["status"], status)
        return status, reason


def _cell_score(
    reader: _Reader, step: Step, pair: ComparedPair, side: Array, media: Array
) -> Scored:
    above = reader.plan.steps[step.inputs["templates"].step]
    status, reason = reader.remarks(above)
    options = getattr(above.stage, "options", None)
    weighed_by, value, raw = "", np.full(len(side), np.nan), False
    if isinstance(above.stage, Fuse):
        templates, embedded, weight = _fused_templates(reader, above, above.stage, side, media)
        rule = rules.fusion_rule_named(above.stage.options.rule)
        raw = above.stage.options.features == "raw"
        weighed_by, value = _weighed_by(reader, above, rule, embedded)
    elif above.stage.grain == "map":
        embedded = reader.rows(above, step.inputs["templates"].output)
        templates = Batch({**embedded.columns, "fallback": np.zeros(2, bool)})
        weight = np.where(embedded["status"] == Status.OK, 1.0, np.nan)
    else:
        raise InvalidInput(
            f"steps.{above.base}: `explain` knows templates made by fuse, and these are by"
            f" {above.stage.name}."
        )

    unit, stored = unit_rows(templates), _stored_score(reader, step, pair.number)
    lost = templates["status"] != Status.OK
    made_now = (
        np.nan if lost.any() else float(products.to_scores(products.paired(unit[0], unit[1])))
    )
    score = made_now if stored is None else stored
    effects = _effects(embedded, weight, side, unit, lost, raw)
    names = reader.session.dataset.tables["faces"]["face_id"][reader.faces]
    codes = [Status(code).name.lower() for code in status.tolist()]
    columns = (names, media, np.array(codes, object), reason, value, weight, *effects)
    faces = [Face(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    squares = sums.by_group(side, np.nan_to_num(weight) ** 2, 2)
    made = [
        Template(
            template=pair.ids[t],
            status=Status(int(templates["status"][t])).name.lower(),
            fallback=bool(templates["fallback"][t]),
            effective=float(1 / squares[t]) if squares[t] > 0 else np.nan,
            faces=tuple(face for face, of in zip(faces, side.tolist(), strict=True) if of == t),
            embedding=np.full_like(unit[t], np.nan) if lost[t] else unit[t],
        )
        for t in (0, 1)
    ]
    return Scored(
        step=step.name,
        factors=dict(step.factors),
        score=score,
        stored=stored is not None,
        decisions=tuple(_decisions(reader, step, score)),
        rule=str(getattr(options, "rule", "")),
        media=str(getattr(options, "media", "none")),
        features="raw" if raw else "unit",
        weighed_by=weighed_by,
        templates=(made[0], made[1]),
    )


def _weighed_by(
    reader: _Reader, step: Step, rule: rules.FusionRule, embedded: Batch
) -> tuple[str, Array]:
    """Return the name of what a rule weighs faces by, and its value for each face.

    The name is empty if the rule reads nothing.
    """
    for name in (name for name in WEIGHED_BY if name in rule.needs):
        read = reader.plan.steps[step.inputs[name].step]
        value = reader.rows(read, step.inputs[name].output)[WEIGHED_BY[name]]
        if name == "quality":
            what = f"quality: {getattr(read.stage.options, 'method', read.base)}"
        else:
            what = "detector score"
        return what, value.astype(np.float64)
    if rule.label.partition("(")[0] == "norm":
        return "norm", embedded["norm"].astype(np.float64)
    return "", np.full(embedded.rows, np.nan)


def _fused_templates(
    reader: _Reader, step: Step, fuse: Fuse, side: Array, media: Array
) -> tuple[Batch, Batch, Array]:
    """Return the two templates as fuse makes them, their embeddings, and the (n,) weights.

    A weight is nan if the face is not usable.
    """
    tables = {"members": Batch({"template": side, "face": np.arange(len(side)), "media": media})}
    read = {
        name: reader.rows(reader.plan.steps[ref.step], ref.output)
        for name, ref in step.inputs.items()
    }
    work = Work(0, 2, tables, {name: _source(rows) for name, rows in read.items()})
    templates, weight = fuse.explained(work)
    total = sums.by_group(side, np.nan_to_num(weight), 2)[side]
    alone = np.where(np.isnan(weight), np.nan, 0.0)  # of a template whose weights vanished
    return templates, read["embeddings"], np.divide(weight, total, out=alone, where=total > 0)


def _source(batch: Batch) -> Source:
    return Source(
        (0,),
        (batch.rows,),
        lambda shard, columns: batch if columns is None else batch.select(columns),
    )


def _effects(
    embedded: Batch, weight: Array, side: Array, unit: Array, lost: Array, raw: bool
) -> tuple[Array, Array, Array]:
    """Return (own, other, effect), each (n,) float64, of faces with weights (n,).

    `unit` (2, d) are the two templates; `lost` (2,) says which of them has no direction: then own,
    other and effect are nan.
    """
    direction = vectors.units(embedded["embedding"], embedded["status"] == Status.OK)
    none = ~direction.any(axis=1)
    own, other = (
        np.where(none | lost[which], np.nan, products.paired(direction, unit[which]))
        for which in (side, 1 - side)
    )
    usable = np.isfinite(weight)
    counted = np.nan_to_num(weight) * (embedded["norm"] if raw else 1)
    share = sums.shares(side, np.nan_to_num(counted), 2)
    # A template is Σ share · direction, and without one face it is that sum less its part. All are
    # whole multiples of one step, so the sum and every difference are exact.
    part = share[:, None] * direction
    whole = np.stack([part[side == t].sum(axis=0) for t in (0, 1)])[side]
    with_it, without = (_cosines_beside(each, unit[1 - side]) for each in (whole, whole - part))
    return own, other, np.where(usable & ~lost[1 - side], with_it - without, np.nan)


def _cosines_beside(x: Array, unit: Array) -> Array:
    """Return the cosine of each row of x (n, d) with the unit row beside it.

    A row without a direction gives nan.
    """
    direction = vectors.units(x)
    return np.where(direction.any(axis=1), products.paired(direction, unit), np.nan)


def _stored_score(reader: _Reader, step: Step, number: int | None) -> float | None:
    """Return the score that was evaluated, or None if it is not stored."""
    for shard, task in enumerate(step.tasks if number is not None else ()):
        if task.start <= (number or 0) < task.stop and reader.session.store.has(
            step.output(""), task.keys[""]
        ):
            row = (number or 0) - task.start
            return float(reader.shard(step, "", shard, ("score",), slice(row, row + 1))["score"][0])
    return None


def _decisions(reader: _Reader, step: Step, score: float) -> Iterator[Decision]:
    for evaluation in reader.plan.cells("evaluate_verification"):
        if evaluation.inputs["scores"].step != step.name:
            continue
        n = reader.shard(evaluation, "numbers", 0, ("metric", "target", "rule", "threshold"))
        kept = np.flatnonzero(np.isin(n["metric"], ("tar", "eer")) & ~np.isnan(n["threshold"]))
        for metric, target, rule, threshold in zip(
            *(n[name][kept].tolist() for name in n), strict=True
        ):
            accepted = None if np.isnan(score) else score >= threshold
            yield Decision(evaluation.base, metric, target, rule, threshold, accepted)
