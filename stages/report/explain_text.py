"""explain_text: what `qfuse explain` prints: one line a cell, or every face of one cell."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.errors import counted
from stages.explain.compared_pair import ComparedPair
from stages.explain.explain import Decision, Face, Scored, Template
from stages.report.text_table import add_numbers, shortened, text_table
from stages.results.quantities import name_of, number_label, rule_first

if TYPE_CHECKING:
    from rich.table import Table

MOST_CELLS, MOST_FACES = 40, 20
WORDS = {True: "yes", False: "no", None: "–"}


def to_json(pair: ComparedPair, cells: Iterable[Scored]) -> dict[str, Any]:
    """Return everything that is known of a comparison; embeddings are left out."""
    sides = zip(pair.ids, pair.subjects, pair.roles, strict=True)
    records = []
    for cell in cells:
        record = asdict(cell)
        for template, made in zip(record["templates"], cell.templates, strict=True):
            del template["embedding"]
            template["used"] = made.used
        records.append(record)
    return {
        "templates": [
            {"template": name, "subject": subject, "roles": list(roles)}
            for name, subject, roles in sides
        ],
        "comparison": pair.number,
        "comparisons": pair.comparisons,
        "mated": pair.mated,
        "fold": pair.fold,
        "cells": records,
    }


def heading(pair: ComparedPair, cells: Sequence[Scored]) -> list[str]:
    """Say what is compared: the pair, then each template."""
    mated = {
        True: "mated",
        False: "non-mated",
        None: "a subject is not known, so neither mated nor non-mated",
    }[pair.mated]
    place = "not among the comparisons of this data set: computed from the templates"
    if pair.number is not None:
        place = f"row {pair.number:,} of {counted(pair.comparisons, 'comparison')}" + (
            f", fold {pair.fold}" if pair.fold is not None else ""
        )
    lines = [f"{mated}; {place}"]
    for letter, name, subject, roles, template in zip(
        "AB", pair.ids, pair.subjects, pair.roles, cells[0].templates, strict=True
    ):
        faces, media = len(template.faces), len({face.media for face in template.faces})
        facts = [f"subject {subject}"] if subject else []
        if roles:
            facts.append(" and ".join(roles))
        facts.append(f"{counted(faces, 'face')} in {counted(media, 'medium', 'media')}")
        lines.append(f"{letter}  {name}: {', '.join(facts)}")
    return lines


def cells_table(cells: Sequence[Scored]) -> Table:
    """Return a table with one line for each cell.

    It shows the score, what was decided on it, and how the weights are spread in each template.
    """
    targets = list(
        dict.fromkeys(d.target for cell in cells for d in cell.decisions if _is_point(d))
    )
    names = rule_first(dict.fromkeys(name for cell in cells for name in cell.factors))
    table = text_table(f"\n{' · '.join(names) or 'cell'}")
    titles = ["\nscore"] + [
        ("FMR ≤\n" if i == 0 else "\n") + number_label(target) for i, target in enumerate(targets)
    ]
    spreads = [f"{title}{letter}" for letter in "AB" for title in ("effective\n", "largest\n")]
    add_numbers(table, *titles, *spreads)
    for cell in cells:
        decided = {d.target: WORDS[d.accepted] for d in cell.decisions if _is_point(d)}
        sides = [text for template in cell.templates for text in _spread(template)]
        table.add_row(
            shortened(name_of(cell.factors)),
            fixed(cell.score),
            *(decided.get(t, "") for t in targets),
            *sides,
        )
    return table


def cells_legend(cells: Sequence[Scored], shown: int) -> list[str]:
    """Say what the columns of the cells' table are, and how to see the faces of one."""
    one = " ".join(
        f"--where {shlex.quote(f'{name}={cells[0].factors[name]}')}"
        for name in rule_first(cells[0].factors)
    )
    points = [d for cell in cells for d in cell.decisions if _is_point(d)]
    lines = []
    if len(cells) > shown:
        lines.append(f"… and {counted(len(cells) - shown, 'more cell')} (--all)")
    if points:
        lines.append(
            "yes: accepted, score ≥ threshold of the largest FMR that does not exceed the target"
        )
    lines.append(
        "effective: 1 / Σ w², the number of faces if their weights were equal · largest: the"
        " largest weight of a face"
    )
    lines.append(f"{counted(len(cells), 'cell')}; every face of one: {one}")
    return lines


def decided(cell: Scored) -> list[str]:
    """Say what was decided on a score, strictest threshold last."""
    if math.isnan(cell.score):
        lost = [
            letter
            for letter, template in zip("AB", cell.templates, strict=True)
            if template.status != "ok"
        ]
        return [
            f"no score: {' and '.join(lost)} {'has' if len(lost) == 1 else 'have'} no usable face"
        ]
    lines = [
        f"score {cell.score:.6f}".replace("-", "−")
        + ("" if cell.stored else ", computed again from the two templates")
    ]
    for accepted, words in ((True, "accepted"), (False, "rejected")):
        at = [
            f"{'EER' if d.metric == 'eer' else f'FMR ≤ {number_label(d.target)}'}"
            f" ({d.threshold:.4f})"
            for d in cell.decisions
            if d.accepted is accepted and (_is_point(d) or d.metric == "eer")
        ]
        lines += [f"{words} at {', '.join(at)}"] if at else []
    return lines


def template_line(letter: str, template: Template) -> str:
    """Say how many faces a template rests on."""
    effective, largest = _spread(template)
    spread = (
        f"; effective number {effective}, largest weight {largest}" if template.used > 1 else ""
    )
    return (
        f"{letter}  {template.template}: {template.used:,} of"
        f" {counted(len(template.faces), 'face')} used{spread}"
    )


def faces_table(template: Template, cell: Scored, every: bool) -> Table:
    """Return a table with one line for each usable face, heaviest medium first.

    It has at most MOST_FACES lines, unless `every` is true.
    """
    faces, media = _ordered(template), _media(template)
    grouped = _grouped(template)
    table = text_table(*(["medium"] if grouped else []))
    if grouped:
        add_numbers(table, "share")
    table.add_column(shortened("face"))
    weighed_by = cell.weighed_by.partition(":")[0]
    add_numbers(table, *([weighed_by] if weighed_by else []), "weight", "own", "other", "effect")
    digits, former = decimals(face.value for face in faces), ""
    for face in faces if every else faces[:MOST_FACES]:
        medium = (face.media, percent(media[face.media])) if face.media != former else ("", "")
        former = face.media
        left = (shortened(medium[0]), medium[1]) if grouped else ()
        weighed = [fixed(face.value, digits)] if weighed_by else []
        numbers = [
            percent(face.weight),
            fixed(face.own),
            fixed(face.other),
            effect_written(face.effect),
        ]
        table.add_row(
            *left, shortened(face.face), *weighed, *numbers, style="dim" if face.weight == 0 else ""
        )
    return table


def below(template: Template, every: bool) -> Iterator[str]:
    """Say what a table of faces leaves out.

    That is the rest of the usable ones, and those that failed or carry a note, with the reason.
    """
    faces = _ordered(template)
    if rest := [] if every else faces[MOST_FACES:]:
        share = sum(face.weight for face in rest)
        yield f"… and {counted(len(rest), 'more face')}, {percent(share)} of the weight (--all)"
    if template.fallback:
        yield template.fell_back
    noted = [face for face in template.faces if face.status != "ok" or face.reason]
    for face in noted if every else noted[:MOST_FACES]:
        yield f"{face.face}: {face.reason or face.status}" + (
            f" ({face.status})" if face.reason and face.status != "ok" else ""
        )
    if not every and len(noted) > MOST_FACES:
        yield f"… and {len(noted) - MOST_FACES:,} more that failed or carry a note (--all)"


def faces_legend(cell: Scored) -> list[str]:
    """Say what the columns of the tables of faces are."""
    inside = {
        "mean": ", averaged in each medium",
        "weighted": ", every medium counting the same",
    }.get(cell.media, "")
    weight = f"weight: of the face's {cell.features} embedding in its template{inside}"
    share = " · share: of its medium" if any(map(_grouped, cell.templates)) else ""
    return [
        f"{weight}{share}" if cell.rule else "each face is its own template",
        (
            "own, other: cosine with its own, with the other template · effect: score − score"
            " without this face"
        ),
        *([cell.weighed_by] if ":" in cell.weighed_by else []),
    ]


def _ordered(template: Template) -> list[Face]:
    usable, media = (
        [face for face in template.faces if not math.isnan(face.weight)],
        _media(template),
    )
    return sorted(
        usable, key=lambda face: (-media[face.media], face.media, -face.weight, -face.value)
    )


def _media(template: Template) -> dict[str, float]:
    """Return the weight of each medium that has a usable face."""
    media: dict[str, float] = {}
    for face in template.faces:
        if not math.isnan(face.weight):
            media[face.media] = media.get(face.media, 0) + face.weight
    return media


def _grouped(template: Template) -> bool:
    """Whether a medium holds several faces, so that media are worth a column."""
    return len({face.media for face in template.faces}) < len(template.faces)


def _is_point(decision: Decision) -> bool:
    return decision.metric == "tar" and decision.rule == "at_most"


def _spread(template: Template) -> tuple[str, str]:
    weights = [face.weight for face in template.faces if face.weight > 0]
    return (f"{template.effective:.1f}", percent(max(weights))) if weights else ("–", "–")


def decimals(values: Iterable[float]) -> int:
    """Return how many decimals give the largest of some values four digits."""
    largest = max((abs(value) for value in values if value and math.isfinite(value)), default=1.0)
    return min(max(3 - math.floor(math.log10(largest)), 0), 9)


def fixed(value: float, digits: int = 4) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def effect_written(value: float) -> str:
    text = "–" if math.isnan(value) else f"{value:+.4f}"
    return text.replace("-", "−") if text.strip("+-0.") else text.lstrip("+-")


def percent(value: float) -> str:
    return f"{value * 100:.1f} %"
