"""figures: curves and histograms → inline SVG.

Conventions
    Colours    are the page's CSS variables (--s0 … --s7, --ink, --line), so that a figure follows
               light and dark.
    Lines      differ in dash pattern as well as in colour; ridges carry their names.
    Size       a frame is about as wide as it is shown, so that its 12-unit letters come out as 12
               pixels or more.
    Text       is escaped here; what these functions return may be put into a page as it is.
    Points     that are not finite are left out.

Drawn by hand: a chart library's SVG carries its own fonts, colours, ids and addresses, which a page
that follows the reader's theme would have to take out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from scipy.special import ndtri

from pipeline.core.schema import Array

DASHES = ("", "7 3", "2 3", "9 3 2 3", "14 3", "5 2", "1 2", "12 3 2 3 2 3")
LINES = len(DASHES)  # more cannot be told apart
LETTER = 6.6  # mean width of a 12-unit letter


@dataclass(frozen=True)
class Series:
    """One curve; `slot` picks its colour and dash."""

    label: str
    slot: int
    x: Array
    y: Array


@dataclass(frozen=True)
class Frame:
    """The sizes of a figure; the axes leave a margin on each side."""

    width: int
    height: int
    left: int = 54
    margin: int = 14
    below: int = 46

    @property
    def right(self) -> int:
        return self.width - self.margin

    @property
    def bottom(self) -> int:
        return self.height - self.below


WIDE, NARROW = Frame(440, 290), Frame(360, 290)


@dataclass(frozen=True)
class Axis:
    """One axis: its label, its ends and its ticks.

    `scale` maps a value to a number that is drawn linearly between those of `low` and `high`.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[Any], Any] = np.asarray

    def place(self, values: Array | float, start: float, stop: float) -> Array:
        """Return the positions of values, from `start` (at low) to `stop` (at high).

        A value beyond the axis is drawn at its end.
        """
        a, b = (float(self.scale(end)) for end in (self.low, self.high))
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return np.asarray(start + (self.scale(inside) - a) / (b - a) * (stop - start))


@dataclass(frozen=True)
class _Plot:
    """A frame with two axes, and what is drawn in it."""

    title: str
    x: Axis
    y: Axis
    frame: Frame

    def across(self, values: Array | float) -> Array:
        return self.x.place(values, self.frame.left, self.frame.right)

    def up(self, values: Array | float) -> Array:
        return self.y.place(values, self.frame.bottom, self.frame.margin)

    def points(self, x: Array, y: Array) -> str:
        placed = zip(self.across(x).tolist(), self.up(y).tolist(), strict=True)
        return "L".join(f"{_number(a)} {_number(b)}" for a, b in placed)

    def curves(self, lines: Sequence[Series]) -> str:
        """Draw the lines, the first one last: others are read against it, so it lies on top."""
        drawn = []
        for line in reversed([line for line in lines if len(line.x)]):
            dash = f' stroke-dasharray="{DASHES[line.slot]}"' if DASHES[line.slot] else ""
            title = f"<title>{escape(line.label)}</title>"
            drawn.append(
                f'<path class="line s{line.slot}"{dash}'
                f' d="M{self.points(line.x, line.y)}">{title}</path>'
            )
        return "".join(drawn)

    def shade(self, below: float) -> str:
        if not below > self.x.low:
            return ""
        f, width = self.frame, float(self.across(below)) - self.frame.left
        return (
            f'<rect class="unsure" x="{f.left}" y="{f.margin}" width="{_number(width)}"'
            f' height="{f.bottom - f.margin}"/>'
        )

    def mark(self, value: float, text: str) -> str:
        """A labelled vertical line; nothing if the value is off the axis or nan."""
        if not self.x.low < value < self.x.high:
            return ""
        f, at = self.frame, float(self.across(value))
        side, anchor = (at - 5, "end") if at > (f.left + f.right) / 2 else (at + 5, "start")
        line = f'<path class="mark" d="M{_number(at)} {f.margin}V{f.bottom}"/>'
        return (
            f'{line}<text x="{_number(side)}" y="{f.margin + 11}"'
            f' text-anchor="{anchor}">{escape(text)}</text>'
        )

    def svg(self, marks: str, behind: str = "") -> str:
        f = self.frame
        return (
            f'<svg class="chart" viewBox="0 0 {f.width} {f.height}" role="img"'
            f' aria-label="{escape(self.title)}">'
            f"{behind}{''.join(self._grid())}{marks}"
            f'<path class="axis" d="M{f.left} {f.margin}V{f.bottom}H{f.right}"/>'
            f'<text class="name" x="{(f.left + f.right) / 2}" y="{f.height - 8}"'
            ' text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
            f'<text class="name" transform="translate(13 {(f.margin + f.bottom) / 2}) rotate(-90)"'
            ' text-anchor="middle">'
            f"{escape(self.y.label)}</text></svg>"
        )

    def _grid(self) -> Iterator[str]:
        # `end` is where the last number ends, so that none runs into another.
        f, end = self.frame, -math.inf
        for value, text in self.x.ticks:
            at, half = float(self.across(value)), LETTER * len(text) / 2
            if at - half < end:
                continue
            end = at + half + LETTER
            yield f'<path class="grid" d="M{_number(at)} {f.margin}V{f.bottom}"/>'
            yield (
                f'<text x="{_number(at)}" y="{f.bottom + 17}"'
                f' text-anchor="middle">{escape(text)}</text>'
            )
        end = math.inf
        for value, text in self.y.ticks:
            at = float(self.up(value))
            if at > end:
                continue
            end = at - 14
            yield f'<path class="grid" d="M{f.left} {_number(at)}H{f.right}"/>'
            yield (
                f'<text x="{f.left - 7}" y="{_number(at)}" dy="0.33em"'
                f' text-anchor="end">{escape(text)}</text>'
            )


def roc(lines: Sequence[Series], unsure_below: float = math.nan, frame: Frame = WIDE) -> str:
    """TAR against FMR, FMR logarithmic.

    Left of `unsure_below` a point rests on fewer than 30 false matches.
    """
    shown = [_finite(line, line.x > 0) for line in lines]
    x = _log_axis(
        "FMR, %",
        max(min((float(line.x.min()) for line in shown if len(line.x)), default=1e-6), 1e-6),
    )
    plot = _Plot("ROC: TAR against FMR", x, _rate_axis("TAR = 1 − FNMR, %", shown), frame)
    return plot.svg(plot.curves(shown), plot.shade(unsure_below))


def det(lines: Sequence[Series], unsure_below: float = math.nan, frame: Frame = WIDE) -> str:
    """FNMR against FMR, both on normal-deviate axes (Martin et al. 1997).

    `y` of the lines is FNMR.
    """
    shown = [_finite(line, (line.x > 0) & (line.y > 0)) for line in lines]
    x = _deviate_axis("FMR, %", [line.x for line in shown])
    y = _deviate_axis("FNMR, %", [line.y for line in shown])
    plot = _Plot("DET: FNMR against FMR", x, y, frame)
    return plot.svg(plot.curves(shown), plot.shade(unsure_below))


def cmc(lines: Sequence[Series], frame: Frame = WIDE) -> str:
    """Share of mated probes found at rank k or better."""
    shown = [_finite(line) for line in lines]
    last = max((float(line.x.max()) for line in shown if len(line.x)), default=1.0)
    # Ranks are whole numbers, and the first of them always has a tick.
    ticks = [
        (t, text) for t, text in [(1.0, "1"), *_round_ticks(0, last)] if t >= 1 and t == int(t)
    ]
    x = Axis("rank", 1.0, max(last, 2.0), list(dict.fromkeys(ticks)))
    plot = _Plot(
        "CMC: probes found, by rank", x, _rate_axis("found at this rank or better, %", shown), frame
    )
    return plot.svg(plot.curves(shown))


def discard(
    title: str,
    lines: Sequence[Series],
    of: str = "comparisons",
    rate: str = "FNMR",
    frame: Frame = WIDE,
) -> str:
    """An error rate against the share discarded of what `of` names, in steps.

    The axis of the rate goes from 0 to the largest error of any line.
    """
    shown = [_finite(line) for line in lines]
    last = max((float(line.x.max()) for line in shown if len(line.x)), default=1.0)
    top = max((float(line.y.max()) for line in shown if len(line.y)), default=0.0)
    x = _percent_axis(f"{of} discarded, %", 0.0, last)
    plot = _Plot(title, x, _percent_axis(f"{rate}, %", 0.0, top * 1.05 or 1.0), frame)
    return plot.svg(plot.curves(shown))


def histogram(
    title: str,
    label: str,
    series: Sequence[Series],
    frame: Frame = WIDE,
    like: Sequence[Series] = (),
    mark: tuple[float, str] = (math.nan, ""),
) -> str:
    """Filled outlines of the share in each bin.

    `x` holds the left edges of bins of equal width. The axes hold `like` as well.
    """
    everything = [_finite(line) for line in [*series, *like]]
    low, high, width = _span(everything)
    peak = max((float(line.y.max()) for line in everything if len(line.y)), default=0.0)
    x = Axis(label, low, high, _round_ticks(low, high))
    plot = _Plot(title, x, _percent_axis("share of each, %", 0.0, peak * 1.08 or 1.0), frame)
    drawn = [
        _area(line, plot.points(*_outline(line, low, high, width))) for line in map(_finite, series)
    ]
    return plot.svg("".join(drawn) + plot.mark(*mark))


def ridges(title: str, label: str, series: Sequence[Series], frame: Frame = NARROW) -> str:
    """Named outlines, one above the other on a common axis.

    Each is scaled to its own peak; a tick marks its median.
    """
    full = [_finite(line) for line in series]
    low, high, width = _span(full)
    f = Frame(
        frame.width,
        frame.height,
        left=16 + math.ceil(LETTER * max((len(s.label) for s in full), default=0)),
    )
    band, drawn = (f.bottom - f.margin) / max(1, len(full)), []
    plot = _Plot(title, Axis(label, low, high, _round_ticks(low, high)), Axis("", 0.0, 1.0, []), f)
    for i, line in enumerate(full):
        base = (len(full) - 1 - i) / len(full)
        across, tops = _outline(line, low, high, width)
        peak = float(tops.max()) or 1.0
        # 0.86 leaves a gap below the next outline
        drawn.append(_area(line, plot.points(across, base + tops / peak * 0.86 / len(full))))
        foot = f.bottom - base * (f.bottom - f.margin)
        name = (
            f'<text class="name" x="{f.left - 7}" y="{_number(foot - 4)}"'
            f' text-anchor="end">{escape(line.label)}</text>'
        )
        drawn.append(f'<path class="grid" d="M{f.left} {_number(foot)}H{f.right}"/>{name}')
        if len(line.x) and line.y.sum() > 0:
            middle = line.x[np.searchsorted(np.cumsum(line.y), line.y.sum() / 2)] + width / 2
            drawn.append(
                f'<path class="mark" d="M{_number(float(plot.across(middle)))}'
                f' {_number(foot)}v{-band * 0.5:.1f}"/>'
            )
    return plot.svg("".join(drawn))


def _area(line: Series, points: str) -> str:
    return (
        f'<path class="area s{line.slot}" d="M{points}Z"><title>{escape(line.label)}</title></path>'
    )


def _span(lines: Sequence[Series]) -> tuple[float, float, float]:
    """Return (low, high, bin width) of histograms: from the first filled bin of any to the last."""
    filled = [line.x[line.y > 0] for line in lines if (line.y > 0).any()]
    width = next(
        (
            float(line.x[1] - line.x[0])
            for line in lines
            if len(line.x) > 1 and line.x[1] > line.x[0]
        ),
        1.0,
    )
    low, high = (
        min((float(x.min()) for x in filled), default=0.0),
        max((float(x.max()) for x in filled), default=0.0),
    )
    return low, high + width, width


def _outline(line: Series, low: float, high: float, width: float) -> tuple[Array, Array]:
    """Return the corners (x, y) of a histogram's steps, from the axis up and back to it."""
    # Bins outside the span are empty. Half a bin of slack, as edges are rounded.
    kept = _finite(line, (line.x >= low - width / 2) & (line.x < high))
    edges = np.repeat(np.append(kept.x, kept.x[-1] + width if len(kept.x) else low), 2)
    return edges, np.concatenate([[0.0], np.repeat(kept.y, 2), [0.0]])


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _finite(line: Series, mask: Array | bool = True) -> Series:
    keep = np.isfinite(line.x) & np.isfinite(line.y) & mask
    return Series(line.label, line.slot, line.x[keep], line.y[keep])


def _rate_axis(label: str, lines: Sequence[Series]) -> Axis:
    """An axis that ends at 100 %.

    It begins at a round number somewhat below the lowest point, so that differences are seen.
    """
    least = min((float(line.y.min()) for line in lines if len(line.y)), default=0.0)
    for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        low = math.floor(least / step - 0.25) * step
        if 1 - low <= 6 * step:  # the finest step that needs no more than six to 100 %
            return _percent_axis(label, max(0.0, low), 1.0)
    return _percent_axis(label, 0.0, 1.0)


def _log_axis(label: str, low: float) -> Axis:
    first = min(math.floor(math.log10(low) + 1e-9), -1)
    ticks = [(10.0**power, f"{10.0 ** (power + 2):g}") for power in range(first, 1)]
    return Axis(label, 10.0**first, 1.0, ticks, np.log10)


def _percent_axis(label: str, low: float, high: float) -> Axis:
    return Axis(label, low, high, [(t, f"{t * 100:g}") for t, _ in _round_ticks(low, high)])


def _deviate_axis(label: str, values: Sequence[Array]) -> Axis:
    # Ticks of a deviate axis must be given: equal steps of an error rate crowd in its middle.
    usual = (
        1e-6,
        1e-5,
        1e-4,
        1e-3,
        2e-3,
        5e-3,
        1e-2,
        0.02,
        0.05,
        0.1,
        0.2,
        0.4,
        0.6,
        0.8,
        0.9,
        0.99,
    )
    ends = [(float(v[v < 1].min()), float(v[v < 1].max())) for v in values if (v < 1).any()]
    smallest, largest = (
        min((e[0] for e in ends), default=1e-3),
        min(max((e[1] for e in ends), default=0.4), 0.6),
    )
    low = max((t for t in usual[:-1] if t <= smallest), default=usual[0])
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
