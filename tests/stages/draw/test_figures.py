"""Figures as SVG: well formed, escaped, inside their frame."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.draw import figures
from stages.draw.bars import bar_axis, interval_bar, swatch
from stages.draw.figures import Series

HOSTILE = "<script>alert(1)</script>&\"'"
CURVES = (figures.roc, figures.det, figures.cmc)
FULL = [Series("a", 0, np.array([1e-3, 1e-2, 0.1]), np.array([0.8, 0.9, 0.99]))]


def histogram(lines: list[Series]) -> str:
    return figures.histogram("h", "score", lines)


def ridges(lines: list[Series]) -> str:
    return figures.ridges("r", "quality", lines)


EVERY = (*CURVES, histogram, ridges)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314  our own


def numbers_of(path: str) -> np.ndarray:
    return np.array([float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path)]).reshape(-1, 2)


def drawn(svg: str) -> list[np.ndarray]:
    """The points of every curve and area."""
    marks = [
        e for e in parsed(svg).iter("path") if e.get("class", "").split()[0] in ("line", "area")
    ]
    return [numbers_of(e.get("d", "")) for e in marks]


@pytest.mark.parametrize("draw", EVERY)
def test_a_label_cannot_become_markup(draw: Callable[[list[Series]], str]) -> None:
    svg = draw([Series(HOSTILE, 0, FULL[0].x, FULL[0].y)])
    assert "<script" not in svg
    assert HOSTILE in [e.text for e in parsed(svg).iter("title")]


def test_titles_axes_and_marks_are_escaped() -> None:
    svg = figures.histogram(HOSTILE, HOSTILE, FULL, mark=(0.05, HOSTILE))
    assert "<script" not in svg
    assert parsed(svg).get("aria-label") == HOSTILE
    assert [e.text for e in parsed(svg).iter("text")].count(HOSTILE) == 2


@pytest.mark.parametrize("draw", EVERY)
@pytest.mark.parametrize("points", [[], [math.nan, math.nan], [0.0, 0.0]])
def test_a_curve_without_a_usable_point_leaves_an_empty_figure(
    draw: Callable[[list[Series]], str], points: list[float]
) -> None:
    svg = draw([Series("a", 0, np.array(points), np.array(points))])
    assert parsed(svg).get("class") == "chart"
    assert "nan" not in svg
    assert "inf" not in svg


@pytest.mark.parametrize("draw", EVERY)
def test_a_figure_of_no_lines_is_a_figure(draw: Callable[[list[Series]], str]) -> None:
    assert "nan" not in draw([])
    assert parsed(draw([])).tag == "svg"


@pytest.mark.parametrize("draw", EVERY)
@given(
    st.lists(
        st.tuples(*[st.floats(0, 1, allow_subnormal=False) | st.just(math.nan)] * 2),
        max_size=12,
    )
)
@settings(max_examples=30, deadline=None)
def test_every_point_lies_inside_the_axes(
    draw: Callable[[list[Series]], str], points: list[tuple[float, float]]
) -> None:
    x, y = np.array(sorted(points, key=lambda p: (math.isnan(p[0]), p[0]))).reshape(-1, 2).T
    svg = draw([Series("a", 0, x, y)])
    _, _, width, height = map(float, parsed(svg).get("viewBox", "").split())
    for found in drawn(svg):
        assert ((found >= 0) & (found <= [width, height])).all()


@pytest.mark.parametrize("draw", EVERY)
def test_tick_labels_do_not_run_into_each_other(draw: Callable[[list[Series]], str]) -> None:
    x = np.arange(1.0, 21) if draw is figures.cmc else np.geomspace(1e-6, 1, 20)
    lines = [Series("a", 0, x, np.linspace(1e-4, 1, 20))]
    texts = [
        e
        for e in parsed(draw(lines)).iter("text")
        if e.get("text-anchor") == "middle" and e.get("class") is None
    ]
    spans = sorted((float(e.get("x", 0)), len(e.text or "") * 3.3) for e in texts)
    assert len(spans) > 2
    assert all(a + half_a < b - half_b for (a, half_a), (b, half_b) in pairwise(spans))


def test_the_roc_axis_is_logarithmic() -> None:
    (points,) = drawn(figures.roc(FULL))
    assert points[1, 0] - points[0, 0] == pytest.approx(points[2, 0] - points[1, 0], abs=0.11)


def test_the_det_of_normal_scores_is_a_straight_line() -> None:
    # Martin et al. 1997: two normal distributions of equal variance give a line of slope -1 on
    # normal-deviate axes.
    from scipy.stats import norm

    threshold = np.linspace(0, 2, 9)
    (points,) = drawn(figures.det([Series("a", 0, norm.sf(threshold), norm.cdf(threshold - 2))]))
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
    assert slopes == pytest.approx(slopes[0], rel=0.02)


def test_the_shade_ends_at_the_fmr_where_30_false_matches_begin() -> None:
    svg = parsed(figures.roc(FULL, unsure_below=1e-2))
    (shade,) = (e for e in svg.iter("rect") if e.get("class") == "unsure")
    (points,) = drawn(figures.roc(FULL))
    assert float(shade.get("x", 0)) + float(shade.get("width", 0)) == pytest.approx(
        points[1, 0], abs=0.2
    )


@pytest.mark.parametrize("unsure", [math.nan, 1e-7])
def test_nothing_is_shaded_where_every_point_is_known_or_nobody_knows(unsure: float) -> None:
    assert "unsure" not in figures.roc(FULL, unsure_below=unsure)


def test_the_first_line_is_drawn_on_top() -> None:
    svg = figures.roc([FULL[0], Series("b", 1, FULL[0].x, FULL[0].y)])
    assert [e.text for e in parsed(svg).iter("title")] == ["b", "a"]


def test_lines_differ_without_colour() -> None:
    assert len(set(figures.DASHES)) == figures.LINES
    assert (
        len({swatch(slot).replace(f"s{slot}", "") for slot in range(figures.LINES)})
        == figures.LINES
    )


def test_histograms_that_are_compared_share_their_axes() -> None:
    high, low = (
        Series("a", 0, np.array([0.0, 0.1, 0.2]) + at, np.array([0.1, 0.2, 0.7]))
        for at in (0.5, 0.0)
    )
    alone, beside = (
        drawn(figures.histogram("h", "s", [high], like=like)) for like in ([], [low, high])
    )
    assert not np.array_equal(alone[0], beside[0])
    assert np.array_equal(drawn(figures.histogram("h", "s", [low, high]))[1], beside[0])


def test_a_mark_off_the_axis_or_nan_is_left_out() -> None:
    for at in (math.nan, -5.0, 5.0):
        assert "threshold" not in figures.histogram("h", "s", FULL, mark=(at, "threshold"))
    assert "threshold" in figures.histogram("h", "s", FULL, mark=(0.05, "threshold"))


def test_each_ridge_fills_its_own_band() -> None:
    edges = np.arange(4) / 4
    tall, flat = np.array([1.0, 0, 0, 0]), np.full(4, 0.25)
    first, second = drawn(ridges([Series("tall", 0, edges, tall), Series("flat", 1, edges, flat)]))
    assert first[:, 1].max() < second[:, 1].min()
    assert np.ptp(first[:, 1]) == pytest.approx(np.ptp(second[:, 1]), abs=0.2)


def test_a_ridge_is_marked_at_its_median() -> None:
    # Half of the mass lies in the bins up to the third of five, which is [0.4, 0.6).
    svg = parsed(ridges([Series("a", 0, np.arange(5) / 5, np.array([0.1, 0.2, 0.4, 0.2, 0.1]))]))
    (mark,) = (e for e in svg.iter("path") if e.get("class") == "mark")
    (axis,) = (e for e in svg.iter("path") if e.get("class") == "axis")
    left, right = (
        numbers_of(axis.get("d", "").split("V")[0])[0, 0],
        float(axis.get("d", "").split("H")[1]),
    )
    assert numbers_of(mark.get("d", "").split("v")[0])[0, 0] == pytest.approx(
        (left + right) / 2, abs=0.2
    )


def test_a_bar_and_its_axis_put_zero_in_the_same_place() -> None:
    reach = (-0.3, 0.1)
    bars = interval_bar(0.05, 0, 0.1, reach, "level"), bar_axis(reach, str)
    zeros = [e.get("x1") for svg in bars for e in parsed(svg) if e.get("class") == "zero"]
    assert zeros == ["89.0", "89.0"]  # 2 + 116 · 0.3 / 0.4


def test_a_bar_without_an_interval_is_a_dot() -> None:
    svg = parsed(interval_bar(0.05, math.nan, math.nan, (-0.1, 0.1), "level"))
    assert [e.tag for e in svg] == ["line", "circle"]
    assert svg[0].get("class") == "zero"


def test_a_difference_that_is_not_defined_has_no_bar() -> None:
    assert interval_bar(math.nan, math.nan, math.nan, (-0.1, 0.1), "level") == ""


@pytest.mark.parametrize(("value", "edge"), [(-0.5, "M0 9"), (0.5, "M120 9")])
def test_a_difference_beyond_the_scale_is_a_triangle_at_its_end(value: float, edge: str) -> None:
    svg = parsed(interval_bar(value, value - 0.01, value + 0.01, (-0.1, 0.1), "worse"))
    assert not list(svg.iter("circle"))
    assert [e.get("d", "")[: len(edge)] for e in svg.iter("path")] == [edge]


@given(st.floats(-1, 0), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_numbers_of_a_bar_axis_do_not_overlap(low: float, high: float) -> None:
    axis = parsed(bar_axis((low, high), lambda v: f"{v * 100:+.2g}" if v else "0"))
    texts = [(float(e.get("x", 0)), len(e.text or "") * figures.LETTER) for e in axis.iter("text")]
    texts.sort()
    assert texts
    assert all(x >= 0 and x + width <= 120.1 for x, width in texts)
    assert all(x + width < after for (x, width), (after, _) in pairwise(texts))
