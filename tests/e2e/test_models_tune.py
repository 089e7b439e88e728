"""The verb `models tune`, on real photographs and models, with very short timings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.conftest import Answer

Qfuse = Callable[..., Answer]


@pytest.fixture
def config(tmp_path: Path, shared: Path) -> dict[str, Any]:
    """A config that aligns and scores, written to x.yaml."""
    content: dict[str, Any] = {
        "name": "x",
        "dataset": {"reader": "lfw", "path": str(shared / "data/lfw.zip")},
        "models": {"folders": [str(shared / "models")]},
        "steps": {"align": {}, "quality": {}},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return content


def tune(qfuse: Qfuse, *words: object) -> Answer:
    return qfuse("models", "tune", "x.yaml", "--rows", 32, "--seconds", 0.1, *words)


def test_tune_measures_every_part_and_plan_then_knows_how_long_a_run_takes(
    qfuse: Qfuse, config: dict[str, Any], tmp_path: Path
) -> None:
    before = qfuse("plan", "x.yaml")
    assert "not known how long align, quality will take" in before.out
    answer = tune(qfuse, "--json").json
    parts = ["read and decode", "align", "quality", "write"]
    assert list(answer["seconds_a_face"]) == parts
    assert all(seconds > 0 for seconds in answer["seconds_a_face"].values())
    after = qfuse("plan", "x.yaml", "--json").json["forecast"]
    assert (after["unknown"], list(after["seconds"])) == ([], ["align", "quality"])
    assert after["bytes"] > 13_173 * 112 * 112 * 3  # the crops alone
    if answer["config"] is not None:
        written = tmp_path / "x-tuned.yaml"
        found = yaml.safe_load(written.read_text(encoding="utf-8"))
        assert (found["extends"], found["name"]) == ("x.yaml", "x-tuned")
        planned = qfuse("plan", written, "--json").json
        assert planned["forecast"]["unknown"] == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--out", "other/x.yaml"), 3, "mkdir -p other"),
        (("--out", "x.txt"), 2, "a config is YAML"),
        (("--out", "x.yaml"), 3, "exists already"),
    ],
)
def test_where_no_config_can_be_written_nothing_is_measured(
    qfuse: Qfuse, config: dict[str, Any], words: tuple[str, ...], code: int, told: str
) -> None:
    answer = tune(qfuse, *words)
    assert answer.code == code
    assert told in answer.err


def test_a_config_elsewhere_would_find_other_files(
    qfuse: Qfuse, config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    answer = tune(qfuse, "--out", "other/x.yaml")
    assert answer.code == 2
    assert "must lie beside x.yaml" in answer.err


def test_a_config_without_networks_has_nothing_to_tune(qfuse: Qfuse) -> None:
    assert qfuse("init", "x.yaml", "--kind", "synthetic").code == 0
    answer = tune(qfuse)
    assert answer.code == 3
    assert "runs no network" in answer.err
