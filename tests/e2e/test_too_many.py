"""What multiplies in a config is counted before it is expanded: a sentence with the numbers, in no
time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import load_config, load_layers
from pipeline.config.layers import MAX_BENCHMARKS
from pipeline.errors import InvalidInput, ResourceRefused
from pipeline.plan import check as checking
from pipeline.plan.check import find_problems
from pipeline.plan.graph import MAX_CELLS
from pipeline.plan.plan import MAX_SHARDS
from pipeline.session import open_session
from stages.datasets import synthetic
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.evaluation.shared import MOST_TARGETS

STEPS = {
    "embed": {"options": {"model": "given", "flip": "none"}},
    "quality": {"options": {"method": "given"}},
    "fuse": {"options": {"rule": "$a"}},
    "compare": {"options": {"rule": "$b"}},
    "evaluate_verification": {"options": {"seed": "$c"}},
}
VALUES = list(range(300))


def written(folder: Path, **fields: Any) -> Path:
    path = folder / "c.yaml"
    dataset = {"reader": "synthetic", "options": {"scale": 0.001}}
    # YAML reads it
    path.write_text(json.dumps({"name": "c", "dataset": dataset, "steps": STEPS, **fields}))
    return path


@pytest.fixture
def unexpanded(monkeypatch: pytest.MonkeyPatch) -> None:
    def expanded(*_: object) -> None:
        pytest.fail("a step was expanded before its cells were counted")

    monkeypatch.setattr(checking, "expand", expanded)
    monkeypatch.setattr("pipeline.plan.plan.expand", expanded)


@pytest.mark.usefixtures("unexpanded")
def test_three_factors_of_300_values_are_refused_by_their_count(tmp_path: Path) -> None:
    path = written(tmp_path, factors={"a": VALUES, "b": VALUES, "c": VALUES})
    said = (
        "a (300) × b (300) × c (300) make 27,000,000 cells of evaluate_verification, and a config"
        f" may have {MAX_CELLS:,}"
    )
    problems, plan, _ = find_problems(load_config(path))
    assert [said in problem for problem in problems] == [True]
    assert plan is None
    with pytest.raises(InvalidInput, match="27,000,000"):
        open_session(path, store=tmp_path / "store")


@pytest.mark.usefixtures("unexpanded")
def test_factors_of_numerics_count_as_those_of_options_do(tmp_path: Path) -> None:
    steps = {"embed": {"options": {"model": "$a"}, "numerics": {"threads": "$b"}}}
    problems, *_ = find_problems(
        load_config(written(tmp_path, steps=steps, factors={"a": VALUES, "b": VALUES}))
    )
    assert ["a (300) × b (300) make 90,000 cells of embed" in problem for problem in problems] == [
        True
    ]


@pytest.mark.usefixtures("unexpanded")
def test_cells_of_all_steps_count_together(tmp_path: Path) -> None:
    steps = {
        f"e{i}": {"stage": "embed", "options": {"model": "given", "threads": "$a"}}
        for i in range(50)
    }
    problems, *_ = find_problems(
        load_config(written(tmp_path, steps=steps, factors={"a": list(range(MAX_CELLS // 50 + 1))}))
    )
    assert [f"may have {MAX_CELLS:,} cells in all" in problem for problem in problems] == [True]


def test_a_wrong_step_is_told_once_for_its_own_factors_and_not_for_those_of_others(
    tmp_path: Path,
) -> None:
    steps = {
        "embed": STEPS["embed"],
        "fuse": {"options": {"rule": "no-rule"}},
        "other": {"stage": "fuse", "options": {"rule": "mean", "x": "$a"}},
        **{
            f"w{i}": {"stage": "quality", "options": {"method": "given", "seed": f"${name}"}}
            for i, name in enumerate("bcd")
        },
    }
    # a product of 54 millions
    factors: dict[str, Any] = {"a": [1, 2], "b": VALUES, "c": VALUES, "d": VALUES}
    problems, *_ = find_problems(load_config(written(tmp_path, steps=steps, factors=factors)))
    assert len(problems) == 2
    assert "no-rule" in problems[0]
    assert "x" in problems[1]


def test_shards_of_one_row_are_refused_by_their_count(tmp_path: Path) -> None:
    dataset = {
        "reader": "synthetic",
        "options": {"scale": 0.02, "dimension": 2},
        "shard_rows": {"faces": 1},
    }
    steps = {"quality": {"options": {"method": "given", "seed": "$a"}}}
    problems, *_ = find_problems(
        load_config(written(tmp_path, dataset=dataset, steps=steps, factors={"a": list(range(30))}))
    )
    said = (
        "9,388 faces, 1 a shard, make 9,388 shards of each of 30 cells of quality, and a plan may"
        f" have {MAX_SHARDS:,}"
    )
    assert [said in problem for problem in problems] == [True]
    assert "raise dataset.shard_rows.faces, or give factors fewer values" in problems[0]


def test_more_benchmarks_than_anyone_runs_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, benchmarks={f"b{i}": {} for i in range(MAX_BENCHMARKS + 1)})
    with pytest.raises(
        InvalidInput, match=f"{MAX_BENCHMARKS + 1} benchmarks, and a file may have {MAX_BENCHMARKS}"
    ):
        load_layers(path)


@pytest.mark.parametrize(
    "stage", ["evaluate_verification", "evaluate_discard", "evaluate_identification"]
)
def test_a_list_of_targets_has_an_end(tmp_path: Path, stage: str) -> None:
    name = "ranks" if stage == "evaluate_identification" else "fmr"
    steps = {"embed": STEPS["embed"], stage: {"options": {name: [1] * (MOST_TARGETS + 1)}}}
    problems, *_ = find_problems(load_config(written(tmp_path, steps=steps)))
    assert any(f"at most {MOST_TARGETS} values" in problem for problem in problems)


def test_a_synthetic_set_that_memory_cannot_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthetic, "available_memory", lambda: 100_000)
    with pytest.raises(ResourceRefused, match="lower its scale or its dimension"):
        synthesise(SynthOptions(scale=0.001, dimension=512))
