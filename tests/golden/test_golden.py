"""A stage's outputs on tiny inputs are those recorded for its `version`: results that change raise
the version.

Stages that are NumPy and SciPy alone are recorded as digests; their inputs are small multiples of
powers of two, so that no order of summation rounds. Where OpenCV or a network computes, values are
recorded, and compared within 0.2 % of the largest. After a change that was meant, raise the stage's
`version` and record anew: `PYTHONPATH=tests python -m golden.test_golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.cases import CASES, EXACT, REAL, SHARED

from pipeline.core.numerics import backend_version
from pipeline.core.registry import available
from pipeline.core.schema import Batch

RECORD = Path(__file__).with_name("golden.json")
COMMAND = "PYTHONPATH=tests python -m golden.test_golden"


def recorded(name: str) -> dict[str, Any]:
    """Compute a case and return what is recorded of it."""
    stage, outputs = CASES[name]()
    for output, batch in outputs.items():
        stage.produces[output].check(batch)
    kept = {
        output: batch.digest() if name in EXACT else _summary(batch)
        for output, batch in outputs.items()
    }
    return {"stage": stage.name, "version": stage.version, "outputs": kept}


def _summary(batch: Batch) -> dict[str, Any]:
    """Columns as lists: of images 4 × 4 pixels, of long rows the first eight values."""
    kept: dict[str, Any] = {}
    for name, array in batch.items():
        if array.dtype == object:
            kept[name] = array.tolist()
        elif array.ndim == 4:
            kept[name] = array[:, 14::28, 14::28].reshape(len(array), -1).tolist()
        else:
            kept[name] = [
                [float(f"{x:.5g}") for x in row[:8]]
                for row in array.reshape(len(array), -1).astype(float).tolist()
            ]
    return kept


def problem(name: str, old: dict[str, Any] | None, new: dict[str, Any]) -> str:
    """Return the sentence that says what to do about a case, empty where nothing is."""
    if old is None:
        return f"{name}: not recorded yet; run `{COMMAND}`."
    where = f"the stage {new['stage']!r}"
    if old["version"] != new["version"]:
        return (
            f"{name}: recorded for version {old['version']} of {where}, which is now"
            f" {new['version']}; run `{COMMAND}`."
        )
    if _same(old["outputs"], new["outputs"]):
        return ""
    return (
        f"{name}: the outputs of {where} changed and its version is still {new['version']}. If they"
        " were meant to, raise `version` in its class, so that no store mixes old results with new"
        f" ones, and run `{COMMAND}`."
    )


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, str) or not old or isinstance(old[0], str):
        return bool(old == new)
    a, b = np.array(old), np.array(new)
    largest = np.nanmax(np.abs(a), initial=0)
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=0.002 * largest, equal_nan=True)


def _read() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))["cases"] if RECORD.exists() else {}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_recorded_for_the_stages_version(name: str) -> None:
    if name in REAL and not (SHARED / "data" / "lfw.zip").is_file():
        pytest.skip(
            f"real faces are absent: no data/lfw.zip in {SHARED}; set QFUSE_SHARED to where"
            " they are"
        )
    sentence = problem(name, _read().get(name), recorded(name))
    assert not sentence, sentence


def test_every_registered_stage_is_recorded_and_every_record_has_a_case() -> None:
    record = _read()
    assert {entry["stage"] for entry in record.values()} == set(available("stage"))
    assert set(record) == set(CASES)


@pytest.mark.parametrize("name", ["fuse mean", "degrade"])
def test_changed_outputs_and_versions_are_sentences(name: str) -> None:
    new = recorded(name)
    assert problem(name, new, new) == ""
    assert f"run `{COMMAND}`" in problem(name, None, new)
    assert "recorded for version 0" in problem(name, {**new, "version": 0}, new)
    digest = "0" * 64 if name in EXACT else {**new["outputs"][""], "crop": [[0.0] * 48] * 12}
    said = problem(name, {**new, "outputs": {"": digest}}, new)
    assert f"version is still {new['version']}" in said
    assert f"run `{COMMAND}`" in said


def _record() -> None:
    """Write golden.json; cases that need absent files keep what they have."""
    cases = _read()
    for name in CASES:
        if name in REAL and not (SHARED / "data" / "lfw.zip").is_file():
            print(f"kept as it was, for want of real faces in {SHARED}: {name}")
            continue
        cases[name] = recorded(name)
    libraries = {
        name: backend_version(name)
        for name in ("numpy", "scipy", "opencv", "pillow", "torch", "onnxruntime")
    }
    content = {
        "origin": f"written by `{COMMAND}`",
        "libraries": libraries,
        "cases": {name: cases[name] for name in CASES},
    }
    RECORD.write_text(_compact(content) + "\n", encoding="utf-8")


def _compact(value: Any, depth: int = 0) -> str:
    """JSON with one line a list, so that a change can be read."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    inside = " " * (depth + 1)
    items = [
        f"{inside}{json.dumps(key)}: {_compact(item, depth + 1)}" for key, item in value.items()
    ]
    return "{\n" + ",\n".join(items) + f"\n{' ' * depth}}}"


if __name__ == "__main__":
    _record()
