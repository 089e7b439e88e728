"""examples_page: the section of a report that shows comparisons face by face.

It makes what the section's template is given.
"""

from __future__ import annotations

import math
import re
from typing import Any

from stages.explain.examples import Example, Examples, ShownFace, ShownTemplate
from stages.report.explain_text import decimals, effect_written, fixed
from stages.results.quantities import name_of
from stages.results.ranking import Ranking

ENDING = 12  # letters shown of the name of a face or a medium


def pairs(met: Examples | None, ranking: Ranking) -> dict[str, Any]:
    """Return what the template's section on comparisons shows.

    `pairs` is None if there is no such section.
    """
    if met is None:
        return {"pairs": None}
    best, base = (name_of(row.factors) for row in met.rows)
    firsts = [group.others[0] for group in ranking.groups if group.others]
    titles = {
        "won": (f"Mated, accepted by {best} and rejected by {base}", "better"),
        "lost": (f"Mated, rejected by {best} and accepted by {base}", "worse"),
        "false": (f"False matches: non-mated, accepted by {best}", "worse"),
    }
    kinds = [
        {
            "title": titles[name][0],
            "tone": titles[name][1],
            "of": f"{count:,}",
            "count": count,
            "examples": [_example(each, met, name != "false") for each in shown],
        }
        for name, (count, shown) in met.kinds.items()
    ]
    return {
        "pairs": {
            "best": best,
            "baseline": base,
            "first": any(best is met.rows[0] for best in firsts),
            "at": met.quantity.label,
            "cell": ", ".join(f"{name} = {value}" for name, value in met.cell.items()),
            "kinds": kinds,
            "weighed_by": met.weighed_by,
            "pictures": met.pictures,
            "missing": met.missing,
        }
    }


def _example(example: Example, met: Examples, mated: bool) -> dict[str, Any]:
    values = [seen.face.value for side in example.sides for seen in side.faces]
    digits = decimals(values)
    names = [name_of(row.factors) for row in met.rows]
    return {
        "scores": [
            {
                "row": name,
                "score": fixed(score),
                "sign": "≥" if accepted else "<",
                "threshold": fixed(at),
                "accepted": accepted,
                "tone": "better" if accepted == mated else "worse",
            }
            for name, score, at, accepted in zip(
                names, example.scores, met.thresholds, example.accepted, strict=True
            )
        ],
        "weighed": any(not math.isnan(value) for value in values),
        "sides": [_side(side, digits) for side in example.sides],
    }


def _side(side: ShownTemplate, digits: int) -> dict[str, Any]:
    left = side.count - len(side.faces)
    rest = ""
    if left:
        faces = "face" if left == 1 else "faces"
        rest = f"and {left:,} more {faces}, {side.rest * 100:.1f} % of the weight"
    return {
        "template": side.template,
        "subject": side.subject,
        "count": f"{side.count:,} {'face' if side.count == 1 else 'faces'}",
        "faces": [_face(seen, digits) for seen in side.faces],
        "grouped": side.grouped,
        "rest": rest,
        "fallback": side.fallback,
    }


def _face(seen: ShownFace, digits: int) -> dict[str, Any]:
    face = seen.face
    return {
        "face": face.face,
        "name": _ending(face.face),
        "media": face.media,
        "medium": _ending(face.media),
        "picture": seen.picture,
        "kind": seen.kind.replace("_", " "),
        "failed": "" if face.status == "ok" else face.status.replace("_", " "),
        "value": fixed(face.value, digits),
        "weight": _percent(face.weight),
        "former": _percent(seen.former),
        "tone": _tone(face.weight, seen.former),
        "effect": effect_written(face.effect),
    }


def _ending(name: str) -> list[str]:
    """Return the end of a name, in pieces between which a line may break.

    It is the end in which the names of one template differ.
    """
    return re.split(
        r"(?<=\D)(?=\d)", name if len(name) <= ENDING else f"…\u2060{name[1 - ENDING :]}"
    )


def _percent(weight: float) -> str:
    return fixed(weight * 100, 1)


def _tone(weight: float, former: float) -> str:
    """Whether a face counts for more than in the baseline, or for less, as far as is written."""
    if math.isnan(weight) or math.isnan(former) or _percent(weight) == _percent(former):
        return ""
    return "more" if weight > former else "less"
