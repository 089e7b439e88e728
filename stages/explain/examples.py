"""examples: 1:1 comparisons of a run that show what weighting does, face by face.

Conventions
    Rows        the best row of the headline table whose scores are cosines of templates, and its
                baseline; of a row that averages over several cells, the first cell that has a
                counterpart in the other.
    Threshold   each row has its own, at the main number or, if that has none, at the first headline
                number that has one.
    Faces       stand in the order of their weight under the best row, those that failed last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from pipeline.core.schema import Array, Batch, Status
from pipeline.errors import InvalidInput
from pipeline.plan.graph import Ref, Step
from pipeline.session import Results
from stages.evaluation.numbers import find_number
from stages.explain.changed_decisions import Evaluated, choose
from stages.explain.compared_pair import ComparedPair, find_pair
from stages.explain.crops import jpeg, nearest_with
from stages.explain.explain import Face, Scored, explained
from stages.fusion.fuse import Fuse
from stages.results.quantities import Quantity
from stages.results.ranking import Ranking, distinct
from stages.results.rule_table import Cell, Row

MOST_FACES = 8  # of a template


@dataclass(frozen=True)
class ShownFace:
    """One face under the best row; `former` is its weight under the baseline.

    `picture`: base64 of a JPEG, or empty.
    """

    face: Face
    former: float
    picture: str
    kind: str  # how it was degraded; empty if it was not, or nobody knows


@dataclass(frozen=True)
class ShownTemplate:
    """One template: its heaviest faces, how many it has, and the weight of those not shown."""

    template: str
    subject: str
    faces: tuple[ShownFace, ...]
    count: int
    rest: float
    grouped: bool  # a medium holds several faces
    fallback: str  # what became of it, if its weights vanished


@dataclass(frozen=True)
class Example:
    """One comparison: scores and decisions under (the best row, the baseline)."""

    scores: tuple[float, float]
    accepted: tuple[bool, bool]
    sides: tuple[ShownTemplate, ShownTemplate]


@dataclass(frozen=True)
class Examples:
    """What is shown; of rows and thresholds first the best row's, then the baseline's."""

    rows: tuple[Row, Row]
    cell: Mapping[str, Any]  # the factors that the rows average over
    quantity: Quantity
    thresholds: tuple[float, float]
    # won, lost, false → how many there are, and some of them
    kinds: Mapping[str, tuple[int, tuple[Example, ...]]]
    weighed_by: str
    pictures: bool
    missing: str  # why nothing is shown


def examples(results: Results, ranking: Ranking) -> Examples | None:
    """Return the examples of a run.

    None if none are asked for, or no row has a baseline to compare with.
    """
    met = _rows_and_cells(results, ranking) if ranking.options.pairs else None
    if met is None:
        return None
    q, rows, cells = met
    steps = [_scores(results, cell) for cell in cells]
    thresholds = [
        float(find_number(cell.numbers, q.metric, q.target, q.rule)["threshold"]) for cell in cells
    ]
    kinds: dict[str, tuple[int, tuple[Example, ...]]] = {}
    weighed_by = ""
    pictures = False
    missing = next((said for step in steps if (said := _no_longer_stored(results, step))), "")
    if not missing:
        tables = results.session.dataset.tables
        evaluated = Evaluated.of(tables, getattr(cells[0].step.stage.options, "half", "all"))
        scores = [results.read(step, "", ("score",))["score"] for step in steps]
        chosen = choose(evaluated, scores, thresholds, ranking.options.pairs)
        pairs = {n: _pair(evaluated, tables, n) for each in chosen.values() for n in each.numbers}
        try:
            told = {n: list(explained(results.session, pair, steps)) for n, pair in pairs.items()}
        except InvalidInput as error:
            told, chosen, missing = {}, {}, str(error)
        sides, pictures = _shown_templates(results, steps[0], pairs, told)
        weighed_by = next((cells[0].weighed_by for cells in told.values()), "")
        for name, each in chosen.items():
            kinds[name] = (
                each.of,
                tuple(_comparison_example(scores, thresholds, n, sides[n]) for n in each.numbers),
            )
    cell = {
        name: cells[0].factors[name] for name in ranking.table.average if name in cells[0].factors
    }
    return Examples(
        rows, cell, q, (thresholds[0], thresholds[1]), kinds, weighed_by, pictures, missing
    )


def _rows_and_cells(
    results: Results, ranking: Ranking
) -> tuple[Quantity, tuple[Row, Row], tuple[Cell, Cell]] | None:
    """Return the number at whose thresholds is decided, the two rows and a cell of each."""
    deciding = [q for q in (ranking.main, *ranking.columns) if q and q.metric in ("tar", "eer")]
    for q in deciding:
        for group in ranking.groups:
            base = group.baseline
            if base is None:
                continue
            for row in distinct(group.others, base):
                ours, theirs = (
                    [cell for cell in each.cells if _scored_here(results, cell, q)]
                    for each in (row, base)
                )
                for cell, other in product(ours, theirs):
                    averaged = ranking.table.average
                    if all(cell.factors.get(k) == other.factors.get(k) for k in averaged):
                        return q, (row, base), (cell, other)
    return None


def _scored_here(results: Results, cell: Cell, q: Quantity) -> bool:
    """Whether a cell has this number, over cosines of templates."""
    return cell.step.base == q.step and _scores(results, cell).stage.name == "compare"


def _scores(results: Results, cell: Cell) -> Step:
    return results.plan.steps[cell.step.inputs["scores"].step]


def _no_longer_stored(results: Results, step: Step) -> str:
    """Say which inputs of a step are no longer in the store; "" if all are there."""
    waiting = [Ref(step.name, "")]
    while waiting:
        ref = waiting.pop()
        above = results.plan.steps[ref.step]
        if not above.stored and above.stage.grain != "map":
            waiting += above.inputs.values()
        elif not results.available(above, ref.output):
            return f"{above.name}, which the scores are computed from, is not kept in the store."
    return ""


def _pair(evaluated: Evaluated, tables: Mapping[str, Batch], comparison: int) -> ComparedPair:
    a, b = (
        str(tables["templates"]["template_id"][side[0]])
        for side in evaluated.templates(np.array([comparison]))
    )
    return find_pair(tables, a, b)


def _comparison_example(
    scores: Sequence[Array],
    thresholds: Sequence[float],
    comparison: int,
    sides: tuple[ShownTemplate, ShownTemplate],
) -> Example:
    one, other = (float(score[comparison]) for score in scores)
    accepted = [
        value >= float(np.float32(at)) for value, at in zip((one, other), thresholds, strict=True)
    ]
    return Example((one, other), (accepted[0], accepted[1]), sides)


def _shown_templates(
    results: Results,
    step: Step,
    pairs: Mapping[int, ComparedPair],
    told: Mapping[int, Sequence[Scored]],
) -> tuple[dict[int, tuple[ShownTemplate, ShownTemplate]], bool]:
    """Return the two sides of each comparison, and whether there are pictures."""
    members = results.session.dataset.tables["members"]
    # faces: row, under the best row, former weight
    shown: dict[tuple[int, int], list[tuple[int, Face, float]]] = {}
    for n, (here, before) in told.items():
        for side, row in enumerate(pairs[n].rows):
            start, stop = np.searchsorted(members["template"], [row, row + 1])
            faces, former = here.templates[side].faces, before.templates[side].faces
            every = zip(
                members["face"][start:stop].tolist(),
                faces,
                (face.weight for face in former),
                strict=True,
            )
            shown[n, side] = sorted(
                every, key=lambda item: math.inf if math.isnan(item[1].weight) else -item[1].weight
            )
    rows = np.unique([row for faces in shown.values() for row, _, _ in faces[:MOST_FACES]]).astype(
        np.int64
    )
    pictures = _pictures(results, step, rows)
    sides = {}
    for n, (here, _) in told.items():
        one, other = (
            ShownTemplate(
                pairs[n].ids[side],
                pairs[n].subjects[side],
                tuple(
                    ShownFace(face, former, *pictures.get(row, ("", "")))
                    for row, face, former in shown[n, side][:MOST_FACES]
                ),
                len(shown[n, side]),
                float(np.nansum([face.weight for _, face, _ in shown[n, side][MOST_FACES:]])),
                len({face.media for _, face, _ in shown[n, side]}) < len(shown[n, side]),
                here.templates[side].fell_back,
            )
            for side in (0, 1)
        )
        sides[n] = one, other
    return sides, bool(pictures)


def _pictures(results: Results, step: Step, rows: Array) -> dict[int, tuple[str, str]]:
    """Return face row → (crop as base64 of a JPEG, how it was degraded).

    The crop is the one that was embedded. Empty if no crops are kept.
    """
    above = results.plan.steps[step.inputs["templates"].step]
    if isinstance(above.stage, Fuse):
        embed = results.plan.steps[above.inputs["embeddings"].step]
    else:
        embed = above
    source = nearest_with(results, embed, "crop")
    if source is None or not len(rows) or not results.available(*source):
        return {}
    made, output = source
    columns = [
        field.name
        for field in made.stage.produces[output].fields
        if field.name in ("status", "crop", "kind")
    ]
    read = results.session.reader.source(made, output, range(len(made.tasks))).take(rows, columns)
    return dict(_crop_pictures(rows, read))


def _crop_pictures(rows: Array, read: Batch) -> Iterator[tuple[int, tuple[str, str]]]:
    for i in np.flatnonzero(read["status"] == Status.OK).tolist():
        yield (
            int(rows[i]),
            (
                jpeg(read["crop"][i]),
                str(read["kind"][i]) if "kind" in read else "",
            ),
        )
