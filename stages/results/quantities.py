"""quantities: the names of the numbers, which direction is better, how they are written.

Conventions
    Rates are kept as fractions everywhere and written in percent; differences of rates in
    percentage points. The minus sign is U+2212, a number that is not defined is written as an en
    dash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["1:1", "1:N", "1:N, pooled script", "discard", "discard, 1:N"]
KINDS: dict[str, Kind] = {
    "evaluate_verification": "1:1",
    "evaluate_identification": "1:N",
    "evaluate_pooled_script": "1:N, pooled script",
    "evaluate_discard": "discard",
    "evaluate_discard_identification": "discard, 1:N",
}
NO_DIRECTION = frozenset(
    {"comparisons_unlabelled", "probes_unlabelled", "comparisons_across_halves", "fused_fallback"}
)
COUNTS = NO_DIRECTION | {
    "comparisons_lost",
    "comparisons_without_quality",
    "probes_without_quality",
}
_LOWER = frozenset(
    {
        "eer",
        "frr",
        "gfrr",
        "fta",
        "fte",
        "accuracy_deviation",
        "fnmr",
        "fmr",
        "fnir",
        "fpir",
        "erc_auc",
    }
)
MARKS = {1: "▲", -1: "▼", 0: ""}  # a direction (better, worse, neither) that needs no colour
# Kind of error, limit, which line if not the method's own.
AREA = re.compile(r"(fnm|fm|fnir|fpir)_pauc\(([^)]+)\)(?:_(\w+))?")


@dataclass(frozen=True)
class Quantity:
    """What a column of numbers holds.

    `rule` is the threshold rule: at_most, nearest, script, starting, interpolated or empty.
    """

    kind: Kind
    step: str  # the evaluating step of the config
    metric: str
    target: float | None
    rule: str

    @property
    def label(self) -> str:
        sign = "≤" if self.rule not in ("nearest", "script") else "≈"
        target = number_label(self.target) + (
            ", as scripts have it" if self.rule == "script" else ""
        )
        named = {
            "tar": f"TAR @ FMR {sign} {target}",
            "frr": f"FRR @ FMR {sign} {target}",
            "gfrr": f"GFRR @ FMR {sign} {target}",
            "tpir": f"TPIR @ FPIR {sign} {target}",
            "pooled_script": f"pooled script, not TPIR, @ the ⌈{target} · probes⌉-th pooled score",
            "rank": f"rank-{target}",
            "accuracy_deviation": "accuracy, SD of folds",
            "fused_fallback": "all weights vanished",
        }
        of = "FPIR" if self.kind == "discard, 1:N" else "FMR"
        of, sign = ("FNMR", "≤") if self.rule == "starting" else (of, sign)
        at = f" @ {of} {sign} {target}" + (", interpolated" if self.rule == "interpolated" else "")
        if area := AREA.fullmatch(self.metric):
            line = f", {area[3].replace('_', ' ')}" if area[3] else ""
            return f"{area[1].upper()}-EDC pAUC({area[2]}){line}{at}"
        named |= {"erc_auc": f"ERC AUC, legacy{at}"} | {
            name: name.upper() + at for name in ("fnmr", "fmr", "fnir", "fpir")
        }
        if self.metric in ("eer", "auc", "fta", "fte"):
            return self.metric.upper()
        return named.get(self.metric, self.metric.replace("_", " "))


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric in _LOWER or metric in COUNTS - NO_DIRECTION or AREA.fullmatch(metric) is not None


def flawless(metric: str, value: float) -> bool:
    """Whether a value is that of no error at all, so that none can be better."""
    return metric not in NO_DIRECTION and value == (0.0 if lower_is_better(metric) else 1.0)


def is_area(metric: str) -> bool:
    """Whether a metric is an area under a curve against the share discarded.

    Such an area is a rate times a share.
    """
    return metric == "erc_auc" or AREA.fullmatch(metric) is not None


def number_label(value: float | None) -> str:
    """Write 0.001 as 1e-3 and 5 as 5; nothing for None and nan."""
    if value is None or math.isnan(value):
        return ""
    if value >= 1 or value == 0:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def written(metric: str, value: float, signed: bool = False) -> str:
    """Write a value of a metric.

    A rate is written in percent to two decimals, an area in percent to four, a count as it is.
    """
    if math.isnan(value):
        return "–"
    scaled, digits = (value, 1) if metric in COUNTS else (value * 100, 4 if is_area(metric) else 2)
    if metric in COUNTS and scaled == int(scaled):
        digits = 0
    text = f"{scaled:+.{digits}f}" if signed else f"{scaled:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # neither +0.00 nor -0.00 is a direction
    return text.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """Write a plain number with its sign; an en dash if it is not defined."""
    return "–" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def interval_written(metric: str, low: float, high: float, signed: bool = False) -> str:
    """Write an interval; empty if there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{written(metric, low, signed)}, {written(metric, high, signed)}]"


def rule_first(names: Iterable[str]) -> list[str]:
    """Put the weight rule, which a row is about, before every other factor."""
    return sorted(names, key=lambda name: name != "rule")


def name_of(factors: Mapping[str, Any], without: Sequence[str] = (), empty: str = "all") -> str:
    """Write factors in words, as in 'best · lightqnet'."""
    return (
        " · ".join(str(factors[name]) for name in rule_first(factors) if name not in without)
        or empty
    )
