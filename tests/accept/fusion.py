"""What quality weighting is worth on degraded LFW templates: every rule × quality measure, ten
degradation seeds.
"""

from __future__ import annotations

import shutil
from typing import Any

from tests.accept.command import ROOT, SHARED, Check, Place, does_nothing, seconds, table
from tests.accept.recognition import pick


def fusion() -> tuple[list[Check], str]:
    """Run configs/lfw_templates.yaml from nothing, then ask what another weight rule would
    re-run."""
    place, config = Place.fresh("fusion"), str(ROOT / "configs/lfw_templates.yaml")
    ran, wall = place.run("run", config)
    nothing = does_nothing(place, config, "the fusion experiment")
    rows = place.numbers("lfw_templates")["table"]
    best = pick(rows, "tar", 1e-3, rule="quality-linear", method="lightqnet")
    low, high = 100 * best["difference_low"], 100 * best["difference_high"]
    gain = f"{100 * best['difference']:+.2f} points [{low:+.2f}, {high:+.2f}]"
    what = "LightQNet, quality-linear − uniform mean, TAR at FMR 1e-3, EdgeFace-XXS"
    plan, _ = place.run("plan", config, "--set", "factors.rule=[mean, quality-power(p=3)]")
    stale = {step["stage"] for step in plan["steps"] if step["to_run"]}
    after_fuse = {"fuse", "compare", "evaluate_verification", "search", "evaluate_identification"}
    moved = place.folder / "moved.zip"
    shutil.copyfile(SHARED / "data/lfw.zip", moved)
    plan, _ = place.run("plan", config, "--set", f"dataset.path={moved}", "--set", "run.workers=5")
    rerun = [step["step"] for step in plan["steps"] if step["to_run"]]
    return [
        Check(what, "paired 95 % interval above 0", gain, low > 0),
        nothing,
        Check(
            "another weight rule re-runs",
            "fuse and what follows",
            ", ".join(sorted(stale)),
            stale == after_fuse,
        ),
        Check(
            "a moved data set and other workers re-run",
            "nothing",
            ", ".join(rerun) or "nothing",
            not rerun,
        ),
    ], f"{_table(rows)}\n\nFrom nothing in {wall:.0f} s: {seconds(ran)}."


def _table(rows: list[dict[str, Any]]) -> str:
    columns = (
        ("tar", 1e-3),
        ("tar", 1e-4),
        ("rank", 1),
        ("tpir", 1e-1),
        ("tpir", 1e-2),
        ("eer", None),
    )
    named = {"tar": "TAR @ FMR ", "tpir": "TPIR @ FPIR ", "rank": "rank-"}
    head = [
        "rule",
        "quality",
        *(f"{named[metric]}{target:g}" if target else metric.upper() for metric, target in columns),
    ]
    cells = list(dict.fromkeys((row["rule"], row.get("method")) for row in rows))
    body = []
    for rule, method in cells:
        found = [pick(rows, metric, target, rule=rule, method=method) for metric, target in columns]
        body.append((found[0]["value"], [rule, method or "–", *map(cell, found)]))
    body.sort(key=lambda item: -item[0])
    return table([head, *(line for _, line in body)])


def cell(row: dict[str, Any]) -> str:
    """Return a number with its interval or, where it has one, its paired difference to the
    baseline.
    """
    few = "†" if row["few"] else ""
    if row["difference"] is None or row["baseline"]:
        bounds = "" if row["low"] is None else f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
        return f"{100 * row['value']:.2f}{few}{bounds}"
    mark = "" if not row["clear"] else " ▲" if row["difference"] > 0 else " ▼"
    if row["metric"] == "eer":
        mark = mark.translate({ord("▲"): "▼", ord("▼"): "▲"})
    # of two rows whose every replicate is the same there is none
    known = row["difference_low"] is not None
    bounds = (
        f" [{100 * row['difference_low']:+.2f}, {100 * row['difference_high']:+.2f}]"
        if known
        else ""
    )
    return f"{100 * row['value']:.2f}{few} ({100 * row['difference']:+.2f}{bounds}{mark})"
