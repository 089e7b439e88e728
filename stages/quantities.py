"""What the numbers measure: their names, which direction is better, how they are written.

Conventions
    Rates are kept as fractions everywhere and written in percent; differences of rates in percentage points. The minus
    sign is U+2212, a number that is not defined is written as an en dash.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["1:1", "1:N", "1:N, pooled script"]
KINDS: dict[str, Kind] = {
    "evaluate_verification": "1:1",
    "evaluate_identification": "1:N",
    "evaluate_pooled_script": "1:N, pooled script",
}
LOWER_IS_BETTER = frozenset({"eer", "frr", "gfrr", "fta", "fte", "comparisons_lost", "accuracy_deviation"})
NO_DIRECTION = frozenset({"comparisons_unlabelled", "probes_unlabelled", "comparisons_across_halves", "fused_fallback"})
COUNTS = NO_DIRECTION | {"comparisons_lost"}


@dataclass(frozen=True)
class Quantity:
    """What a column of numbers measures. `rule` is the threshold rule: at_most, nearest or empty."""

    kind: Kind
    step: str  # the evaluating step of the config
    metric: str
    target: float | None
    rule: str

    @property
    def label(self) -> str:
        sign = "≈" if self.rule == "nearest" else "≤"
        target = number_label(self.target)
        named = {
            "tar": f"TAR @ FMR {sign} {target}",
            "frr": f"FRR @ FMR {sign} {target}",
            "gfrr": f"GFRR @ FMR {sign} {target}",
            "tpir": f"TPIR @ FPIR {sign} {target}",
            "pooled_script": f"pooled script, not TPIR, @ the ⌈{target} · probes⌉-th pooled score",
            "rank": f"rank-{target}",
            "accuracy_deviation": "accuracy, SD of folds",
            "fused_fallback": "fell back to equal weights",
        }
        plain = self.metric.upper() if self.metric in ("eer", "auc", "fta", "fte") else self.metric.replace("_", " ")
        return named.get(self.metric, plain)


def number_label(value: float | None) -> str:
    """Write 0.001 as 1e-3 and 5 as 5; nothing for what is not there or not defined."""
    if value is None or math.isnan(value):
        return ""
    if value >= 1 or value == 0:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def written(metric: str, value: float, signed: bool = False) -> str:
    """Write a value of a metric: a rate in percent to two decimals, a count as it is."""
    if math.isnan(value):
        return "–"
    scaled, digits = (value, 1) if metric in COUNTS else (value * 100, 2)
    if metric in COUNTS and scaled == int(scaled):
        digits = 0
    text = f"{scaled:+.{digits}f}" if signed else f"{scaled:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # neither +0.00 nor -0.00 is a direction
    return text.replace("-", "−")


def interval_written(metric: str, low: float, high: float, signed: bool = False) -> str:
    """Write an interval; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{written(metric, low, signed)}, {written(metric, high, signed)}]"
