"""Error versus discard on LFW, as it is and degraded: LightQNet tells which faces are lost, and the
interval says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.accept.command import ROOT, Check, Place, table

RANDOM = "random, expected"
# form, limit, FMR
MAIN, STRICT, LEGACY = (("standard", 0.2, 1e-2), ("standard", 0.2, 1e-3), ("legacy", None, 1e-2))
HEAD = ["benchmark", "model", "measure"]
HEAD += ["pAUC(0.2) @ FMR ≤ 1e-2", "over random", "pAUC(0.2) @ FMR ≤ 1e-3", "ERC AUC @ FMR ≈ 1e-2"]
Line = Mapping[tuple[str, float | None, float], Mapping[str, Any]]


def discard() -> tuple[list[Check], str]:
    """Run configs/fiqa_lfw.yaml, from nothing, and again."""
    place, config = Place.fresh("discard"), str(ROOT / "configs/fiqa_lfw.yaml")
    _, wall = place.run("run", config)
    areas = json.loads(
        (place.folder / ".qfuse/runs/fiqa-lfw/study.json").read_text(encoding="utf-8")
    )["areas"]
    lines: dict[tuple[str, str, str], dict[tuple[str, float | None, float], Mapping[str, Any]]] = {}
    for area in areas:
        name = area["benchmark"], area["factor.model"], area.get("factor.method") or area["bound"]
        lines.setdefault(name, {})[area["form"], area["limit"], area["target"]] = area
    checks = []
    for (benchmark, model, measure), found in lines.items():
        if (benchmark, measure) == ("degraded", "lightqnet"):
            area, chance = found[MAIN], lines[benchmark, model, RANDOM][MAIN]
            seen = f"{_percent(area, 'over_random', True)}, of {_percent(chance)}"
            what = (
                f"degraded LFW, {model}: LightQNet's pAUC(0.2) less that of discard at random, FMR"
                " ≤ 1e-2"
            )
            checks.append(
                Check(
                    what,
                    "95 % interval below 0",
                    seen,
                    area["over_random_high"] < 0 and not area["few"],
                )
            )
    again, _ = place.run("run", config)
    steps = [step for one in again["benchmarks"].values() for step in one["ran"]]
    checks.append(
        Check("a second run of the study does nothing", "0 steps", f"{len(steps)} steps", not steps)
    )
    rows = [
        [*k, _cell(v, MAIN), _over(v[MAIN]), _cell(v, STRICT), _cell(v, LEGACY)]
        for k, v in lines.items()
    ]
    text = (
        "In percent, with 95 % intervals; FNM-EDC of ISO/IEC 29794-1, and the legacy form. From"
        f" nothing: {wall:.0f} s"
    )
    return checks, f"{text}\n\n{table([HEAD, *rows])}"


def _cell(line: Line, column: tuple[str, float | None, float]) -> str:
    return _percent(line[column]) + ("†" if line[column]["few"] else "") if column in line else "–"


def _over(area: Mapping[str, Any]) -> str:
    if area["over_random"] is None:
        return ""
    return ("▲ " if area["over_random_high"] < 0 else "") + _percent(area, "over_random", True)


def _percent(area: Mapping[str, Any], name: str = "value", signed: bool = False) -> str:
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    form = "{:+.4f}" if signed else "{:.4f}"
    value = form.format(100 * area[name])
    return (
        value
        if area[low] is None
        else f"{value} [{form.format(100 * area[low])}, {form.format(100 * area[high])}]"
    )
