"""The shipped IJB-C configs over sets in IJB-C's own layout: rules from given embeddings, and from
photographs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.conftest import Answer

ROOT = Path(__file__).resolve().parents[2]
Qfuse = Callable[..., Answer]
GIVEN = """
extends: {root}/configs/ijbc.yaml
name: given
dataset:
  path: {folder}/janus/package
  options: {{name: ijbc, counts: any, embeddings: embeddings.npy, quality: quality.npy}}
factors:
  method: [given]
  rule: [mean, insightface-script, crfiqa-script, quality-power(p=1), quality-power(p=2)]
  half: [choose, report]
steps:
  align: null
  detector_scores: {{}}
  embed: {{options: {{model: given, flip: none}}}}
  fuse: {{inputs: {{detections: detector_scores}}}}
  evaluate_verification: {{options: {{half: $half, templates: true, replicates: 50}}}}
  evaluate_identification: {{options: {{replicates: 50}}}}
  search_merged: {{stage: search, options: {{gallery: gallery, k: 53}}}}
  evaluate_pooled_script: {{inputs: {{candidates: search_merged}}}}
report: {{options: {{choose: {{among: rule, metric: tar, target: 1.0e-3}}}}}}
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of GIVEN over a synthetic set of 53 subjects says, as numbers.json."""
    from .conftest import command

    folder = tmp_path_factory.mktemp("given")
    assert command(folder, "synth", "ijbc", "janus", "--scale", "0.015").code == 0
    (folder / "given.yaml").write_text(GIVEN.format(root=ROOT, folder=folder))
    ran = command(folder, "run", "given.yaml")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads((folder / ".qfuse/runs/given/numbers.json").read_text())
    return found


def values(found: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return [
        row
        for row in found["numbers"]
        if all(row.get(name) == value for name, value in wanted.items())
    ]


def test_each_gallery_is_evaluated_by_itself_and_the_table_has_their_mean(
    given: dict[str, Any],
) -> None:
    each = [
        values(given, metric="rank", target=1, rule="mean", gallery=f"gallery_{n}")[0]["value"]
        for n in (1, 2)
    ]
    (row,) = [
        r for r in given["table"] if (r["rule"], r["metric"], r["target"]) == ("mean", "rank", 1)
    ]
    assert row["value"] == pytest.approx(np.mean(each))
    assert row["low"] <= row["value"] <= row["high"]


def test_open_set_rates_are_over_probes_of_the_other_gallery_and_few_are_marked(
    given: dict[str, Any],
) -> None:
    rows = values(given, metric="tpir", rule="mean", gallery="gallery_1")
    assert [row["target"] for row in rows] == [0.1, 0.01, 0.001]
    other = values(given, metric="rank", target=1, rule="mean", gallery="gallery_2")[0]["trials"]
    assert {row["nonmated"] for row in rows} == {other}
    assert rows[-1]["few"]


def test_the_pooled_script_has_a_name_of_its_own(given: dict[str, Any]) -> None:
    rows = values(given, metric="pooled_script", rule="mean")
    assert len(rows) >= 2
    assert all(0 <= row["value"] <= 1 for row in rows)


def test_a_parameter_is_chosen_on_one_half_and_reported_on_the_other(given: dict[str, Any]) -> None:
    (choice,) = [one for one in given["chosen"] if "quality-power" in json.dumps(one)]
    assert "quality-power(p=" in json.dumps(choice)
    counted = {
        half: values(given, metric="tar", half=half, rule="mean", target=0.001)[0]["trials"]
        for half in ("choose", "report")
    }
    left_out = values(given, metric="comparisons_across_halves", rule="mean")
    assert all(count > 0 for count in counted.values())
    assert left_out[0]["value"] > 0


def test_an_evaluation_down_to_one_in_a_million_marks_what_it_cannot_know(
    given: dict[str, Any],
) -> None:
    rows = values(given, metric="tar", half="report", rule="mean", threshold_rule="at_most")
    assert [row["target"] for row in rows] == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert rows[0]["few"]
    assert rows[0]["false_matches"] == 0
    assert all(0 <= row["subject_pairs"] <= row["false_matches"] for row in rows)


def test_the_eight_rows_of_the_common_table_come_from_photographs_by_one_config(
    shared: Path, tmp_path: Path, qfuse: Qfuse
) -> None:
    faces, models = shared / "data/lfw.zip", shared / "models"
    made = qfuse("synth", "ijbc", "janus", "--scale", "0.004", "--faces", faces, "--models", models)
    assert made.code == 0, made.err
    env = {**os.environ, "QFUSE_SHARED": str(shared), "QFUSE_IJBC": str(tmp_path / "janus/package")}
    config = ROOT / "configs/ijbc_baseline.yaml"
    refused = qfuse("check", config, env=env)
    assert refused.code == 3
    assert "faces: expected 469,375, found " in refused.err
    less = (
        "--set",
        "dataset.options.counts=any",
        "--set",
        "steps.evaluate_verification.options.replicates=20",
    )
    ran = qfuse("run", config, *less, env=env)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / ".qfuse/runs/ijbc-baseline/numbers.json").read_text())
    cells = {(row["flip"], row["rule"]) for row in found["table"]}
    assert len(cells) == 8
    for flip, rule in cells:
        rows = [
            r for r in found["table"] if (r["flip"], r["rule"], r["metric"]) == (flip, rule, "tar")
        ]
        assert {row["threshold_rule"] for row in rows} == {"at_most", "nearest", "script"}
        assert max(row["value"] for row in rows if row["target"] == 0.1) > 0.95
