"""bars: the small drawings inside tables and keys → inline SVG.

Conventions
    Scale      all bars of one table share `reach`, whose ends lie 2 units inside a width of 120;
               its axis stands above them.
    Direction  the tone of a bar is a class: `better` and `worse` are filled and stand beside a
               mark, `level` is hollow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from stages.draw.figures import DASHES, LETTER

WIDTH, INSET = 120, 2


def interval_bar(
    value: float, low: float, high: float, reach: tuple[float, float], tone: str
) -> str:
    """A dot with its interval; a hairline marks 0.

    No interval is drawn if a bound is nan, and nothing at all if the value is. A value beyond the
    scale is a triangle that points there.
    """
    if math.isnan(value):
        return ""
    at, start, stop, zero = (_place(v, reach) for v in (value, low, high, 0.0))
    known = not (math.isnan(low) or math.isnan(high))
    bar = f'<line class="bar" x1="{start}" y1="9" x2="{stop}" y2="9"/>' if known else ""
    hairline = f'<line class="zero" x1="{zero}" y1="0" x2="{zero}" y2="18"/>'
    dot = f'<circle cx="{at}" cy="9" r="3.5"/>'
    if value < reach[0]:
        dot = '<path class="beyond" d="M0 9L8 4.5V13.5Z"/>'
    elif value > reach[1]:
        dot = f'<path class="beyond" d="M{WIDTH} 9L{WIDTH - 8} 4.5V13.5Z"/>'
    return _svg(f"forest {tone}", f"{hairline}{bar}{dot}")


def bar_axis(reach: tuple[float, float], written: Callable[[float], str]) -> str:
    """The scale of the bars: its ends and 0, as `written` writes them.

    An end whose text would run into that of 0 is left out.
    """
    zero, texts = _place(0.0, reach), []
    taken: list[tuple[float, float]] = []
    for value in (0.0, *(end for end in reach if end)):
        text, at = written(value), _place(value, reach)
        width = LETTER * len(text)
        start = min(max(at - width / 2, 0.0), WIDTH - width)
        if any(start < stop + 3 and begin < start + width + 3 for begin, stop in taken):
            continue
        taken.append((start, start + width))
        texts.append(f'<text x="{start:.1f}" y="9">{escape(text)}</text>')
    axis = f'<line class="bar" x1="{INSET}" y1="14" x2="{WIDTH - INSET}" y2="14"/>'
    return _svg(
        "forest scale",
        f'{"".join(texts)}{axis}<line class="zero" x1="{zero}" y1="11" x2="{zero}" y2="18"/>',
    )


def swatch(slot: int, area: bool = False) -> str:
    """The key of one line, or of one filled outline."""
    if area:
        drawn = f'<path class="area s{slot}" d="M10 .8H33V9.2H10Z"/>'
    else:
        drawn = f'<path class="line s{slot}" stroke-dasharray="{DASHES[slot]}" d="M1 5H33"/>'
    return (
        '<svg class="swatch" viewBox="0 0 34 10" width="34" height="10"'
        f' aria-hidden="true">{drawn}</svg>'
    )


def _place(value: float, reach: tuple[float, float]) -> float:
    if math.isnan(value):
        return value
    inside = min(max(value, reach[0]), reach[1]) - reach[0]
    return round(INSET + inside / (reach[1] - reach[0] or 1.0) * (WIDTH - 2 * INSET), 1)


def _svg(name: str, drawn: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {WIDTH} 18" width="{WIDTH}" height="18"'
        f' aria-hidden="true">{drawn}</svg>'
    )
