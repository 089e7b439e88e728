"""figures: curves and histograms → inline SVG.

Conventions
    Colours    are the page's CSS variables (--s0 … --s7, --ink, --line), so that a figure follows light and dark.
    Lines      differ in dash pattern as well as in colour.
    Size       drawn 460 units wide, so that its 12-unit letters are still legible on a telephone.
    Text       is escaped here; what these functions return may be put into a page as it is.

Drawn by hand: a chart library's SVG carries its own fonts, colours, ids and addresses, which a page that follows the
reader's theme would have to take out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from scipy.special import ndtri

from pipeline.schema import Array

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 46
DASHES = ("", "7 3", "2 3", "9 3 2 3", "", "5 2", "1 2", "12 4")
LINES = len(DASHES)  # more cannot be told apart


@dataclass(frozen=True)
class Line:
    """One curve; `slot` picks its colour and dash."""

    label: str
    slot: int
    x: Array
    y: Array


@dataclass(frozen=True)
class Axis:
    """One axis: `scale` maps a value to a number that is drawn linearly between those of `low` and `high`."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[Any], Any] = np.asarray

    def place(self, values: Array | float, start: float, stop: float) -> Array:
        """Return where values lie, from `start` (at low) to `stop` (at high); beyond the axis is clipped to it."""
        a, b = (float(self.scale(end)) for end in (self.low, self.high))
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return np.asarray(start + (self.scale(inside) - a) / (b - a) * (stop - start))


def roc(lines: Sequence[Line], unsure_below: float = math.nan) -> str:
    """TAR against FMR, FMR logarithmic. Left of `unsure_below` fewer than 30 false matches lie behind a point."""
    shown = [_where(line, (line.x > 0)) for line in lines]
    x = _log_axis("FMR", _smallest([line.x for line in shown], 1e-6))
    low = _floor(min((float(line.y.min()) for line in shown if len(line.y)), default=0.0))
    y = _linear_axis("TAR = 1 − FNMR, %", low, 1.0)
    return _chart("ROC: TAR against FMR", x, y, _paths(shown, x, y), _shade(x, unsure_below))


def det(lines: Sequence[Line], unsure_below: float = math.nan) -> str:
    """FNMR against FMR, both on normal-deviate axes (Martin et al. 1997); `y` of the lines is FNMR."""
    shown = [_where(line, (line.x > 0) & (line.y > 0)) for line in lines]
    x = _deviate_axis("FMR, %", [line.x for line in shown])
    y = _deviate_axis("FNMR, %", [line.y for line in shown])
    return _chart("DET: FNMR against FMR", x, y, _paths(shown, x, y), _shade(x, unsure_below))


def cmc(lines: Sequence[Line]) -> str:
    """Share of mated probes found at rank k or better."""
    last = max((float(line.x.max()) for line in lines if len(line.x)), default=1.0)
    step = max(1, math.ceil(last / 10))
    ticks = [(float(k), str(k)) for k in range(1, int(last) + 1) if k == 1 or k % step == 0]
    x = Axis("rank", 1.0, max(last, 2.0), ticks)
    low = _floor(min((float(line.y.min()) for line in lines if len(line.y)), default=0.0))
    y = _linear_axis("found at this rank or better, %", low, 1.0)
    return _chart("CMC: probes found, by rank", x, y, _paths(lines, x, y))


def histogram(title: str, label: str, series: Sequence[Line]) -> str:
    """Filled outlines of shares a bin: `x` holds the left edges of bins of equal width."""
    full = [_where(line, line.y > 0) for line in series]
    lows, highs = ([float(f(line.x)) for line in full if len(line.x)] for f in (np.min, np.max))
    width = next((float(line.x[1] - line.x[0]) for line in series if len(line.x) > 1), 1.0)
    low, high = min(lows, default=0.0), max(highs, default=1.0) + width
    x = Axis(label, low, high, _round_ticks(low, high))
    peak = max((float(line.y.max()) for line in series if len(line.y)), default=1.0)
    y = _linear_axis("share of each, %", 0.0, peak * 1.05 or 1.0)
    bars = []
    for line in series:
        kept = _where(line, (line.x >= low - width / 2) & (line.x < high))
        edges = np.repeat(np.append(kept.x, kept.x[-1] + width if len(kept.x) else low), 2)
        tops = np.concatenate([[0.0], np.repeat(kept.y, 2), [0.0]])
        points = _points(x, y, edges, tops)
        bars.append(f'<path class="area s{line.slot}" d="M{points}Z"><title>{escape(line.label)}</title></path>')
    return _chart(title, x, y, "".join(bars))


def interval_bar(value: float, low: float, high: float, reach: tuple[float, float], tone: str) -> str:
    """A dot with its interval on a scale shared by all rows of a table; a hairline marks 0."""
    span = reach[1] - reach[0] or 1.0
    at = [round((v - reach[0]) / span * 116 + 2, 1) for v in (value, low, high, 0.0)]
    bar = "" if math.isnan(low) else f'<line class="bar" x1="{at[1]}" y1="9" x2="{at[2]}" y2="9"/>'
    return (
        f'<svg class="forest {tone}" viewBox="0 0 120 18" width="120" height="18" aria-hidden="true">'
        f'<line class="zero" x1="{at[3]}" y1="0" x2="{at[3]}" y2="18"/>{bar}<circle cx="{at[0]}" cy="9" r="3.5"/></svg>'
    )


def swatch(slot: int) -> str:
    """The key of one line."""
    return (
        '<svg class="swatch" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<path class="line s{slot}" stroke-dasharray="{DASHES[slot]}" d="M1 5H33"/></svg>'
    )


def _chart(title: str, x: Axis, y: Axis, marks: str, behind: str = "") -> str:
    grid, bottom, right = [], HEIGHT - BOTTOM, WIDTH - RIGHT
    for value, text in x.ticks:
        at = _number(float(x.place(value, LEFT, right)))
        grid.append(f'<path class="grid" d="M{at} {TOP}V{bottom}"/>')
        grid.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>')
    for value, text in y.ticks:
        at = _number(float(y.place(value, bottom, TOP)))
        grid.append(f'<path class="grid" d="M{LEFT} {at}H{right}"/>')
        grid.append(f'<text x="{LEFT - 7}" y="{at}" dy="0.33em" text-anchor="end">{escape(text)}</text>')
    middle = (TOP + bottom) / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{behind}'
        f"{''.join(grid)}{marks}"
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
        f'<text class="name" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>'
        f'<text class="name" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{escape(y.label)}'
        "</text></svg>"
    )


def _paths(lines: Sequence[Line], x: Axis, y: Axis) -> str:
    # The first line is the one that others are read against: it is drawn last, on top.
    drawn = []
    for line in reversed(lines):
        if len(line.x):
            points = _points(x, y, line.x, line.y)
            dash = f' stroke-dasharray="{DASHES[line.slot]}"' if DASHES[line.slot] else ""
            title = f"<title>{escape(line.label)}</title>"
            drawn.append(f'<path class="line s{line.slot}"{dash} d="M{points}">{title}</path>')
    return "".join(drawn)


def _points(x: Axis, y: Axis, xs: Array, ys: Array) -> str:
    across, up = x.place(xs, LEFT, WIDTH - RIGHT), y.place(ys, HEIGHT - BOTTOM, TOP)
    return "L".join(f"{_number(a)} {_number(b)}" for a, b in zip(across.tolist(), up.tolist(), strict=True))


def _shade(x: Axis, below: float) -> str:
    if not below > x.low:
        return ""
    width = float(x.place(below, LEFT, WIDTH - RIGHT)) - LEFT
    return f'<rect class="unsure" x="{LEFT}" y="{TOP}" width="{_number(width)}" height="{HEIGHT - BOTTOM - TOP}"/>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _where(line: Line, mask: Array) -> Line:
    return Line(line.label, line.slot, line.x[mask], line.y[mask])


def _smallest(values: Sequence[Array], least: float) -> float:
    return max(min((float(v.min()) for v in values if len(v)), default=least), least)


def _floor(value: float) -> float:
    """The low end of a rate's axis: a round number somewhat below the lowest point, so that differences are seen."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        low = math.floor(value / step - 0.25) * step
        if 1 - low <= 6 * step:
            return max(0.0, low)
    return 0.0


def _log_axis(label: str, low: float) -> Axis:
    first = math.floor(math.log10(low) + 1e-9)
    ticks = [(10.0**power, "1" if power == 0 else f"1e{power}") for power in range(first, 1)]
    return Axis(label, 10.0**first, 1.0, ticks, np.log10)


def _linear_axis(label: str, low: float, high: float) -> Axis:
    return Axis(label, low, high, [(t, f"{t * 100:g}") for t, _ in _round_ticks(low, high)])


def _deviate_axis(label: str, values: Sequence[Array]) -> Axis:
    usual = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)
    ends = [(float(v[v < 1].min()), float(v[v < 1].max())) for v in values if (v < 1).any()]
    smallest, largest = min((e[0] for e in ends), default=1e-3), min(max((e[1] for e in ends), default=0.4), 0.6)
    low = max((t for t in usual if t <= smallest), default=usual[0])
    high = min((t for t in usual if t >= largest and t > low), default=0.99)
    return Axis(label, low, high, [(t, f"{t * 100:g}") for t in usual if low <= t <= high], ndtri)


def _round_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """About five ticks at 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [(low, f"{low:g}")]
    base = 10.0 ** math.floor(math.log10(span / 5))
    step = next(base * m for m in (1, 2, 5, 10) if span / (base * m) <= 6)
    first = math.ceil(low / step - 1e-9)
    values = [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:g}".replace("-", "−")) for value in values]
