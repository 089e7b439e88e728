"""charts: the curves and histograms of a summary, drawn, with a sentence below each.

Every chart is a mapping for the templates: `name`, `svg`, `lines` (its key) and `said` (the
sentence).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from stages.draw import bars, figures
from stages.draw.figures import Series
from stages.summary.curves import Curve, Curves, Histogram
from stages.summary.discard_curves import DiscardCurves, DiscardDetails, Form
from stages.summary.quality_scores import Histograms

Chart = dict[str, Any]

# Of a form of error versus discard: its title, what is discarded, the rate, and how it is made.
FORMS: dict[Form, tuple[str, str, str, str]] = {
    "standard": (
        *("FNM-EDC", "comparisons", "FNMR"),
        "Threshold chosen once, on all comparisons.",
    ),
    "legacy": (
        *("ERC, legacy form", "comparisons", "FNMR"),
        "Threshold chosen anew at each of twenty steps; mated and non-mated are discarded"
        " together.",
    ),
    "1:N": ("FNIR-EDC", "mated probes", "FNIR", "Threshold chosen once, on all probes."),
}


def curves(found: Curves) -> dict[str, Any]:
    """Return what the template's sections on curves and comparison scores show."""
    frame = figures.NARROW if len(found.curves) > 2 else figures.WIDE
    chosen = ""
    if len(found.rows) < found.drawable:
        chosen = (
            f"{len(found.rows)} of {found.drawable} rows are drawn: each baseline, and the best row"
            " of every quality method (and of the rules that use none) by the main number."
        )
    return {
        "charts": [_curve(each, frame) for each in found.curves],
        "narrow": frame is figures.NARROW,
        "keys_of_curves": [
            {"label": name, "svg": safe(bars.swatch(slot))} for name, slot in found.rows
        ],
        "chosen": chosen,
        "averaged": ", ".join(found.averaged),
        "histograms": [_histogram(each) for each in found.histograms],
    }


def _curve(found: Curve, frame: figures.Frame) -> Chart:
    if found.kind == "CMC":
        svg = figures.cmc(found.lines, frame)
        said = "Closed set: over probes that have a mate in the gallery."
    elif found.kind == "DET":
        svg = figures.det(found.lines, found.unsure, frame)
        said = "Both axes are normal deviates; a line ends where no error of one kind is left."
    else:
        svg, said = figures.roc(found.lines, found.unsure, frame), _shaded(found.unsure)
    return {"name": found.name, "svg": safe(svg), "said": said}


def _shaded(unsure: float) -> str:
    if math.isnan(unsure):
        return ""
    if unsure < 1:
        return f"Shaded: below FMR {100 * unsure:.2g} % fewer than 30 false matches decide."
    return "Shaded: with fewer than 30 non-mated comparisons no point rests on 30 false matches."


def _histogram(found: Histogram) -> Chart:
    svg = figures.histogram(
        f"scores, {found.name}",
        found.label,
        found.lines,
        like=found.alike,
        mark=(found.threshold, found.mark),
    )
    name = f"{found.name}{' (baseline)' if found.is_baseline else ''}"
    return {"name": name, "svg": safe(svg), "lines": _keys(found.lines, area=True)}


def discards(found: Sequence[DiscardCurves]) -> list[Chart]:
    """Return the charts of error versus discard."""
    return [_discard(each) for each in found]


def _discard(found: DiscardCurves) -> Chart:
    form, of, rate, made = FORMS[found.form]
    at = f"{form} @ {found.quantity.label.partition(' @ ')[2]}"
    title = " · ".join(filter(None, (at, found.step, found.scores)))
    said = [f"Not the form itself: {', '.join(found.but)}." if found.but else made]
    if any(line.label == "pair oracle" for line in found.lines):
        said.append("No quality of samples reaches the pair oracle.")
    if found.drawn < found.rows:
        said.append(f"The first {found.drawn} of {found.rows} rows of the table are drawn.")
    svg = safe(figures.discard(title, found.lines, of, rate))
    return {"name": title, "svg": svg, "lines": _keys(found.lines), "said": " ".join(said)}


def discard_details(found: Sequence[DiscardDetails]) -> list[Chart]:
    """Return the DETs after discard, and the quality of comparisons."""
    return [chart for each in found for chart in _details(each)]


def _details(found: DiscardDetails) -> Iterator[Chart]:
    if found.dets:
        yield {
            "name": f"DET · {found.name}",
            "svg": safe(figures.det(found.dets)),
            "lines": _keys(found.dets),
            "said": "The DET of what remains after each discard, of the row with the least area"
            " among those on these scores.",
        }
    if found.qualities:
        title = f"quality of comparisons, {found.name}"
        yield {
            "name": f"Quality of comparisons · {found.name}",
            "svg": safe(figures.histogram(title, "quality of a comparison", found.qualities)),
            "lines": _keys(found.qualities, area=True),
            "said": "Each kind adds up to 100 %.",
        }


def quality(found: Histograms) -> Chart:
    """Return how the scores of one quality method are spread; `apart`: by kinds of degradation."""
    title, label = f"quality scores, {found.name}", "quality score (higher = more useful)"
    apart = len(found.lines) > 1
    if apart:
        svg = figures.ridges(title, label, found.lines)
    else:
        svg = figures.histogram(title, label, found.lines, figures.NARROW)
    return {"name": found.name, "apart": apart, "svg": safe(svg)}


def _keys(lines: Sequence[Series], area: bool = False) -> list[dict[str, Any]]:
    return [{"label": line.label, "svg": safe(bars.swatch(line.slot, area=area))} for line in lines]


def safe(svg: str) -> Any:
    """Mark what `figures` or `bars` drew as fit for a page: they escape what they are given."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704
