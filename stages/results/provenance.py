"""provenance: where a run's numbers come from.

That is: its steps, config and data, the versions that computed it, and when.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from pipeline.core.numerics import backend_version
from pipeline.plan.graph import Step
from pipeline.plan.instruction_mix import computed, computing
from pipeline.session import Results
from pipeline.system.regular_file import read_regular

LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "onnxruntime",
    "openvino",
    "opencv",
    "pillow",
    "h5py",
    "faiss-cpu",
    "faiss-gpu",
)
T = TypeVar("T")


def step_lines(results: Results) -> list[dict[str, Any]]:
    """Return one line for each step of the config.

    It has the stage, the options, how many cells, and the seconds in the last run.
    """
    seconds = _seconds(results)
    lines: dict[str, dict[str, Any]] = {}
    for step in results.plan.steps.values():
        line = lines.setdefault(
            step.base,
            {
                "step": step.base,
                "stage": f"{step.stage.name} v{step.stage.version}",
                "options": _options(results, step),
                "numerics": step.stage.context.profile.name if step.stage.profiled else "",
                "cells": 0,
                "seconds": None,
            },
        )
        line["cells"] += 1
        if step.name in seconds:
            line["seconds"] = (line["seconds"] or 0.0) + seconds[step.name]
    return list(lines.values())


def _options(results: Results, step: Step) -> dict[str, Any]:
    """Return a step's options with defaults; those that a factor decides keep the factor's name."""
    section = results.plan.config.steps.get(step.base)
    given = {} if section is None else section.options
    resolved: dict[str, Any] = step.stage.options.model_dump(mode="json")
    return {
        name: given[name] if "$" in str(given.get(name, "")) else value
        for name, value in resolved.items()
    }


def _seconds(results: Results) -> Mapping[str, float]:
    seconds = _summary(
        results, "seconds", lambda found: {str(name): float(value) for name, value in found.items()}
    )
    return {name: value for name, value in (seconds or {}).items() if math.isfinite(value)}


def ended(results: Results) -> datetime | None:
    """Return when the last run of this config that computed anything ended.

    None if that is not known.
    """
    return _summary(results, "ended", lambda found: datetime.fromisoformat(found).astimezone(UTC))


def _summary(results: Results, name: str, read: Callable[[Any], T]) -> T | None:
    try:
        return read(json.loads(read_regular(results.folder / "summary.json"))[name])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ):
        return None  # times are a courtesy: a report is made without them


def data_path(results: Results) -> str | None:
    """Return where the data set lies; None if it is made from a seed."""
    path = results.session.dataset.path
    return None if path is None else str(path)


def config_of(results: Results) -> dict[str, Any]:
    """Return the config with everything it extends and every override in it."""
    dumped: dict[str, Any] = results.plan.config.model_dump(mode="json", exclude={"base"})
    return dumped


def versions(results: Results) -> dict[str, str]:
    """Return the versions of everything that may change the last bits of a number.

    The instruction sets that computed the networks are named as well.
    """
    try:
        own = version("qfuse")
    except PackageNotFoundError:
        own = "not installed"
    libraries = {name: backend_version(name) for name in LIBRARIES}
    plan, sets = results.plan, set[str]()
    for name in computing(plan.steps.values()):
        sets |= computed(plan.steps[name], results.session.store).keys()
    known = {"instruction set": " and ".join(sorted(sets))} if sets else {}
    return {
        "qfuse": own,
        "python": sys.version.split()[0],
        **{k: v for k, v in libraries.items() if v != "absent"},
        **known,
    }
