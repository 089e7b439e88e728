"""cells: one number, as pages and terminals show it."""

from __future__ import annotations

import math
from typing import Any

from pipeline.errors import counted
from stages.metrics.verification import FEW
from stages.results.choice import Chosen
from stages.results.published import PublishedNumber
from stages.results.quantities import MARKS, Quantity, interval_written, written
from stages.results.rule_table import Entry, direction_of
from stages.results.study_table import Area

TONES = {1: "better", -1: "worse", 0: "level"}


def entry_cell(entry: Entry, q: Quantity) -> dict[str, Any]:
    """Return a number of a run with its interval and its difference, as a template shows them."""
    sign, d = direction_of(entry.difference, q), entry.difference
    difference = interval = ""
    if d is not None:
        difference = written(q.metric, d.value, signed=True)
        interval = interval_written(q.metric, d.low, d.high, signed=True)
    return {
        "value": entry.value,
        "text": written(q.metric, entry.value),
        "few": entry.few,
        "why_few": _why_few(entry) if entry.few else "",
        "interval": interval_written(q.metric, entry.low, entry.high),
        "difference": difference,
        "difference_interval": interval,
        "tone": TONES[sign],
        "mark": MARKS[sign],
    }


def count_cells(entry: Entry) -> dict[str, str]:
    """Return what a number rests on: thresholds and counts, empty if they do not apply."""

    def number(count: int) -> str:
        return f"{count:,}" if count >= 0 else ""

    false_matches = number(entry.false_matches)
    return {
        "achieved": "" if math.isnan(entry.achieved) else f"{100 * entry.achieved:.3g}",
        "threshold": "" if math.isnan(entry.threshold) else f"{entry.threshold:.4f}",
        "false_matches": f"{false_matches} of {entry.nonmated:,}" if false_matches else "",
        "subject_pairs": number(entry.subject_pairs),
        "misses": number(entry.misses),
        "trials": f"{entry.trials:,}",
    }


def chosen_cell(chosen: Chosen) -> dict[str, Any]:
    """Return the number of a chosen value on the half that it was not chosen on."""
    choosing = written(chosen.quantity.metric, chosen.choosing.value)
    cell = entry_cell(chosen.reported, chosen.quantity)
    return {**cell, "choosing": choosing, "value": cell["text"]}


def chosen_difference(chosen: Chosen) -> str:
    """Write the chosen value's difference to the baseline; empty without one.

    It is that on the half that the value was not chosen on, as in '▲ +1.20 [+0.40, +2.00]'.
    """
    cell = entry_cell(chosen.reported, chosen.quantity)
    parts = cell["mark"], cell["difference"], cell["difference_interval"]
    return " ".join(filter(None, parts)) if cell["difference"] else ""


def published_texts(number: PublishedNumber) -> tuple[str, str, str]:
    """Write what was published, what was seen, and their difference in points.

    The last two come with their intervals.
    """
    metric, seen, (value, low, high) = number.quantity.metric, number.seen, number.difference
    value_seen = f"{written(metric, seen.value)}{'†' if seen.few else ''}"
    apart = written(metric, value, signed=True)
    bounds = interval_written(metric, seen.low, seen.high)
    apart_bounds = interval_written(metric, low, high, signed=True)
    return (
        written(metric, number.published),
        " ".join(filter(None, (value_seen, bounds))),
        " ".join(filter(None, (apart, apart_bounds))),
    )


def area_cell(area: Area | None) -> dict[str, Any] | None:
    """Return a number of a study; None if there is none."""
    if area is None or math.isnan(area.value):
        return None
    over = over_interval = ""
    if not math.isnan(area.over_random):
        over = written("erc_auc", area.over_random, signed=True)
        bounds = area.over_random_low, area.over_random_high
        over_interval = interval_written("erc_auc", *bounds, signed=True)
    return {
        "value": area.value,
        "text": written("erc_auc", area.value),
        "interval": interval_written("erc_auc", area.low, area.high),
        "few": area.few,
        "best": area.best,
        "tone": TONES[area.direction],
        "mark": MARKS[area.direction],
        "over": over,
        "over_interval": over_interval,
    }


def _why_few(entry: Entry) -> str:
    """Say how few errors a number rests on that is marked †."""
    rests_on = []
    if 0 <= entry.false_matches < FEW:
        matches = counted(entry.false_matches, "false match", "false matches")
        pairs = counted(entry.subject_pairs, "pair", "pairs")
        known = entry.false_matches > 0 and entry.subject_pairs >= 0
        rests_on.append(f"{matches} of {pairs} of subjects" if known else matches)
    if 0 <= entry.misses < FEW:
        rests_on.append(counted(entry.misses, "mated error"))
    where = " in the cell that has fewest" if entry.cells > 1 else ""
    what = " and ".join(rests_on) or "false matches at one of the steps"
    return f"{what}{where}: fewer than {FEW}"
