"""How long a plan will take, and how much it will write, from what its steps took here before.

Speeds are kept in the store's `speeds.json`, for each machine and number of workers. Every run
notes those of the steps that read photographs or run networks, and `qfuse models tune` measures
them beforehand. They decide no number: a file that cannot be read counts as empty.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.core.numerics import ALIKE
from pipeline.core.stage import Stage
from pipeline.plan.graph import Step, computed_beside
from pipeline.plan.plan import Plan
from pipeline.store.store import Store
from pipeline.system.atomic_text import replace_text
from pipeline.system.canonical_json import key_of
from pipeline.system.instruction_sets import processor
from pipeline.system.regular_file import read_regular

LEAST_ROWS = 100  # of a run: fewer say little, as models are loaded on the way
# What of a shard's pre-image says how its rows are computed.
_HOW = ("stage", "version", "options", "identity", "numerics")


@dataclass(frozen=True)
class Speed:
    """So many rows took so many seconds, and that many bytes of the store (0: not stored)."""

    rows: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Forecast:
    """What is left to do: seconds by config step, bytes, and the steps that nothing is known of."""

    seconds: Mapping[str, float]
    bytes: float
    unknown: tuple[str, ...]


def forecast(plan: Plan, store: Store, workers: int | None = None) -> Forecast:
    """Return what the steps that read photographs or run networks will take on this machine."""
    known, seconds, unknown = _known(store), dict[str, float](), dict[str, None]()
    size = 0.0
    followers = computed_beside(plan.to_run)
    for step in _row_by_row(plan.to_run):
        if step.name in followers:
            continue
        speed = known.get(_name(step, workers_of(plan, workers)))
        if speed is None:
            unknown[step.base] = None
            continue
        rows = sum(task.stop - task.start for task in step.to_run)
        seconds[step.base] = seconds.get(step.base, 0.0) + rows * speed.seconds / speed.rows
        size += rows * speed.bytes / speed.rows
    return Forecast(seconds, size, tuple(unknown))


def note_speeds(plan: Plan, store: Store, speeds: Mapping[str, Speed], workers: int | None) -> None:
    """Keep the speeds of steps, by name, beside those known before."""
    known, former = _known(store), _known(store)
    followers = computed_beside(plan.steps.values())
    for step in _row_by_row(plan.steps.values()):
        speed = speeds.get(step.name)
        if (
            step.name not in followers
            and speed is not None
            and speed.rows >= LEAST_ROWS
            and speed.seconds > 0
        ):
            known[_name(step, workers_of(plan, workers))] = speed
    if known != former:
        content = {name: asdict(speed) for name, speed in known.items()}
        replace_text(_path(store), json.dumps(content, indent=1) + "\n")


def written(step: Step, store: Store) -> int:
    """Return the bytes in the store of the shards that a run has just computed of a step."""
    if not step.stored:
        return 0
    return sum(
        store.receipt(step.output(output), task.keys[output]).bytes
        for task in step.to_run
        for output in task.keys
        if store.has(step.output(output), task.keys[output])
    )


def workers_of(plan: Plan, workers: int | None) -> int:
    """Return how many workers a run will have: the number given, the config's, or one a core."""
    return workers or plan.config.run.workers or len(os.sched_getaffinity(0))


def in_words(found: Forecast) -> str:
    """Return the forecast as a sentence; empty if there is nothing to foretell."""
    parts = []
    if found.seconds:
        each = ", ".join(f"{base} {duration(seconds)}" for base, seconds in found.seconds.items())
        total = duration(sum(found.seconds.values()))
        parts.append(f"about {total} on this machine ({each}) and {found.bytes / 1e9:,.2f} GB")
    if found.unknown:
        steps = ", ".join(found.unknown)
        parts.append(f"not known how long {steps} will take: `qfuse models tune` measures it")
    return "; ".join(parts)


def takes_time(stage: Stage) -> bool:
    """Whether a stage reads photographs or runs a network: what a run of photographs waits for."""
    return stage.grain == "map" and not ALIKE.issuperset(stage.backends())


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits them.

    >>> [duration(s) for s in (0.4, 48, 200, 9000)]
    ['1 s', '48 s', '3 min', '2.5 h']
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _row_by_row(steps: Iterable[Step]) -> list[Step]:
    return [step for step in steps if takes_time(step.stage) and step.tasks]


def _name(step: Step, workers: int) -> str:
    how = {part: step.tasks[0].preimage[part] for part in _HOW}
    return f"{processor()}, {workers} workers: {step.stage.name} {key_of(how)[:16]}"


def _path(store: Store) -> Path:
    return store.root / "speeds.json"


def _known(store: Store) -> dict[str, Speed]:
    try:
        found: Any = json.loads(read_regular(_path(store)))
        return {str(name): Speed(**fields) for name, fields in found.items() if fields["rows"] > 0}
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return {}
