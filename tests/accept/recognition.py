"""LFW as it is meant: all photographs, 6,000 pairs, two models; and what a second run costs."""

from __future__ import annotations

from typing import Any

from tests.accept.command import ROOT, Check, Place, does_nothing, seconds, table

# Accuracy and EER in percent, with the tolerance in points: measured with the same detector,
# alignment and protocol.
REFERENCE = {"edgeface_xxs": ((99.33, 0.15), (0.72, 0.15)), "mobilefacenet": ((99.20, 0.20), None)}
SHOWN = (
    ("accuracy", None),
    ("eer", None),
    ("auc", None),
    ("tar", 1e-1),
    ("tar", 1e-2),
    ("tar", 1e-3),
    ("fta", None),
)


def lfw() -> tuple[list[Check], str]:
    """Run configs/lfw.yaml from nothing, then again."""
    place, config = Place.fresh("lfw"), str(ROOT / "configs/lfw.yaml")
    ran, wall = place.run("run", config)
    nothing = does_nothing(place, config, "LFW")
    rows = place.numbers("lfw")["table"]
    checks = []
    for model, (accuracy, eer) in REFERENCE.items():
        for metric, wanted in (("accuracy", accuracy), ("eer", eer)):
            if wanted is not None:
                seen = 100 * pick(rows, metric, model=model)["value"]
                expected = f"{wanted[0]:.2f} % ± {wanted[1]:.2f}"
                checks.append(
                    Check(
                        f"LFW, {model}, {metric}",
                        expected,
                        f"{seen:.2f} %",
                        abs(seen - wanted[0]) <= wanted[1],
                    )
                )
    head = ["model", *(f"TAR @ FMR {target:g}" if target else metric for metric, target in SHOWN)]
    body = [
        [model, *(_cell(pick(rows, metric, target, model=model)) for metric, target in SHOWN)]
        for model in REFERENCE
    ]
    text = f"{table([head, *body])}\n\nFrom nothing in {wall:.0f} s: {seconds(ran)}."
    return [*checks, nothing], text


def _cell(row: dict[str, Any]) -> str:
    bounds = "" if row["low"] is None else f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
    return f"{100 * row['value']:.2f}{'†' if row['few'] else ''}{bounds}"


def pick(
    rows: list[dict[str, Any]], metric: str, target: float | None = None, **factors: Any
) -> dict[str, Any]:
    """Return the row of numbers.json's table for a metric (largest FMR ≤ target) and factors."""
    for row in rows:
        same = row["metric"] == metric and row["threshold_rule"] in ("", "at_most")
        near = target is None or (row["target"] is not None and abs(row["target"] - target) < 1e-12)
        if same and near and all(row.get(name) == value for name, value in factors.items()):
            return row
    raise KeyError(f"no {metric} at {target} for {factors}")
