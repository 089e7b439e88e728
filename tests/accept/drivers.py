"""Where a run computes, what Dask costs, two drivers on one store, and a large plan that has
nothing to do.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import time
from typing import Any

from pipeline.store import maintenance
from tests.accept.command import Check, Place, table
from tests.accept.stress import Claims, DaskCluster, configure, drive, end, receipts

REPEATS, PAIRS = 3, 5
IDLE = """
name: idle
dataset:
  reader: synthetic
  options: {scale: 0.2, dimension: 8}
  shard_rows: {faces: 184, templates: 10}
factors: {method: [given, feature-norm], rule: [mean, quality-linear]}
steps:
  embed: {options: {model: given, flip: none}}
  quality: {options: {method: $method}}
  fuse: {options: {rule: $rule}}
report: null
"""


def dask() -> tuple[list[Check], str]:
    """Run everywhere and compare digests; then alternate between serial and one Dask worker and
    compare times.
    """
    place = Place.fresh("dask")
    config = configure(place, 281, 192)
    place.run("run", config, "--store", "serial")
    expected, same = place.digests("serial"), []
    place.run("run", config, "--store", "local", "--dask", "local:2")
    same.append(place.digests("local") == expected)
    cluster = DaskCluster(place)
    try:
        address = json.loads(cluster.file.read_text())["address"]
        place.run("run", config, "--store", "address", "--dask", address)
    finally:
        cluster.close()
    same.append(place.digests("address") == expected)
    checks = [
        Check(
            "serial, --dask local:2, an address with two workers",
            "the same column digests",
            _both(same),
            all(same),
        )
    ]
    rows, same = (
        [
            [
                "workers",
                "serial",
                "--dask local:1",
                "ratio",
                "serial, inside",
                "local:1, inside",
                "ratio",
            ]
        ],
        [],
    )
    for workers in ("1", "2"):
        walls: dict[str, list[float]] = {"serial": [], "local:1": []}
        inner: dict[str, list[float]] = {"serial": [], "local:1": []}
        for _ in range(REPEATS):
            for where in walls:
                wall, inside = _timed(place, config, workers, where)
                walls[where].append(wall)
                inner[where].append(inside)
                same.append(place.digests("timed") == expected)
        whole, alone = _ratio(walls), _ratio(inner)
        rows.append(
            [
                workers,
                *map(_list, walls.values()),
                f"{whole:.3f}",
                *map(_list, inner.values()),
                f"{alone:.3f}",
            ]
        )
        what = f"--dask local:1 beside serial, --workers {workers}, whole command (within the run)"
        checks.append(Check(what, "≤ 1.10", f"{whole:.3f} ({alone:.3f})", whole <= 1.10))
    checks.append(
        Check("the digests of those runs", "the same column digests", _both(same), all(same))
    )
    text = (
        "Wall seconds of 3,004 faces, in the order in which they were measured, serial and Dask by"
        " turns; ratios are of medians. Inside: from the first shard handed out to the last one"
        " done, without imports, planning and the start of the cluster."
    )
    return checks, f"{text}\n\n{table(rows)}"


def _timed(place: Place, config: str, workers: str, where: str) -> tuple[float, float]:
    shutil.rmtree(place.folder / "timed", ignore_errors=True)
    shutil.rmtree(place.folder / "runs", ignore_errors=True)
    elsewhere = ["--dask", where] if where != "serial" else []
    _, wall = place.run("run", config, "--store", "timed", "--workers", workers, *elsewhere)
    lines = (place.folder / "runs/events.jsonl").read_text(encoding="utf-8").splitlines()
    times: dict[str, Any] = {event["event"]: event["time"] for event in map(json.loads, lines)}
    return wall, times["run_finished"] - times["run_started"]


def _ratio(seconds: dict[str, list[float]]) -> float:
    return statistics.median(seconds["local:1"]) / statistics.median(seconds["serial"])


def _list(seconds: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in seconds)


def _both(same: list[bool]) -> str:
    return f"{sum(same)} of {len(same)} stores"


def drivers() -> tuple[list[Check], str]:
    """Start two runs at the same moment on one store: both serial, and one of them with a Dask
    worker.
    """
    place = Place.fresh("drivers")
    config = configure(place, 281, 192)
    _, wall = place.run("run", config, "--store", "one")
    expected, checks = place.digests("one"), list[Check]()
    rows = [
        ["drivers", "seconds", "shards begun", "begun twice"],
        ["serial", f"{wall:.0f}", "", ""],
    ]
    for name, second in {
        "serial + serial": [],
        "serial + --dask local:1": ["--dask", "local:1"],
    }.items():
        store = f"two-{len(rows)}"
        claims = Claims(place.folder / store)
        codes, seconds = _two(place, config, store, second)
        again = claims.begun_again()
        rows.append([name, f"{seconds:.0f}", str(claims.begun.total()), str(again)])
        sound = codes == [0, 0] and place.digests(store) == expected and not _damaged(place, store)
        what = f"{name}: both end with 0, nothing damaged or set aside, the digests of one driver"
        checks.append(Check(what, "yes", "yes" if sound else f"no: exit codes {codes}", sound))
        checks.append(
            Check(f"{name}: shards computed twice", "≤ 1 for each driver", str(again), again <= 2)
        )
    small = configure(place, 8, 16)
    place.run("run", small, "--store", "small")
    expected, pairs = place.digests("small"), 0
    for number in range(PAIRS):
        codes, _ = _two(place, small, f"pair-{number}", [])
        pairs += (
            codes == [0, 0]
            and place.digests(f"pair-{number}") == expected
            and not _damaged(place, f"pair-{number}")
        )
    what = f"{PAIRS} pairs on small stores that are not there yet"
    checks.append(Check(what, "the same", f"{pairs} of {PAIRS}", pairs == PAIRS))
    log = (place.folder / "driver.log").read_text()
    checks.append(
        Check(
            "tracebacks in what they said", "0", str(log.count("Traceback")), "Traceback" not in log
        )
    )
    return checks, f"3,004 faces, two processor cores for all.\n\n{table(rows)}"


def _two(place: Place, config: str, store: str, second: list[str]) -> tuple[list[int], float]:
    begin = time.perf_counter()
    both = [drive(place, config, "--store", store), drive(place, config, "--store", store, *second)]
    try:
        return [process.wait(1200) for process in both], time.perf_counter() - begin
    finally:
        for process in both:
            end(process)


def _damaged(place: Place, store: str) -> bool:
    problems = maintenance.verify(receipts(place.folder / store), 2, lambda size: None)
    return bool(problems) or (place.folder / store / "quarantine").exists()


def idle() -> tuple[list[Check], str]:
    """Finish a plan of 600 shards × 6 steps, then run it again and again."""
    place = Place.fresh("idle")
    config = place.folder / "idle.yaml"
    config.write_text(IDLE, encoding="utf-8")
    plan, _ = place.run("plan", str(config))
    shards = [step["shards"] for step in plan["steps"]]
    _, first = place.run("run", str(config))
    ran, walls, users = list[str](), list[float](), list[float]()
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        again, wall = place.run("run", str(config))
        ran += again["ran"]
        walls.append(wall)
        users.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    wall, user = statistics.median(walls), statistics.median(users)
    enough = len(shards) == 6 and min(shards) >= 600
    return (
        [
            Check(
                "the plan", "6 steps of 600 shards or more", " + ".join(map(str, shards)), enough
            ),
            Check(
                "nothing to do",
                "≤ 2 s, 0 steps ran",
                f"{wall:.2f} s, {len(ran)} steps ran",
                wall <= 2 and not ran,
            ),
        ],
        (
            f"Median of five; {user:.2f} s of processor time. The first run, which computes them"
            f" all, takes {first:.0f} s."
        ),
    )
