"""Real photographs through the whole pipeline: a small part of LFW, real models, the real
command."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.run.runner import Runner
from pipeline.session import Session, open_session
from pipeline.store import hdf5
from pipeline.system.instruction_sets import instruction_set

CONFIG = """
name: small
dataset: {reader: lfw, path: faces, options: {faces: pairs}, shard_rows: {faces: 64}}
models: {folders: ["${QFUSE_SHARED}/models"]}
factors: {model: [edgeface_xxs, mobilefacenet]}
steps:
  align: {}
  embed: {options: {model: $model, flip: add}}
  compare: {inputs: {templates: embed}, stored: true}
  evaluate_verification: {options: {fmr: [0.1, 0.01], replicates: 50}}
report: {options: {baseline: {model: edgeface_xxs}}}
"""
FOLDS, EACH = 2, 30


@dataclass(frozen=True)
class Run:
    folder: Path
    qfuse: Callable[..., Any]
    printed: Any

    @property
    def session(self) -> Session:
        return open_session(
            self.folder / "c.yaml", store=self.folder / ".qfuse/store", readonly=True
        )

    def scores(self, model: str) -> tuple[np.ndarray, np.ndarray]:
        session = self.session
        step = next(s for s in session.plan.cells("compare") if s.factors["model"] == model)
        score = Runner(session.plan, session.store).results(step)["score"]
        return score, session.dataset.tables["comparisons"]["mated"]

    def numbers(self, model: str, metric: str) -> list[dict[str, Any]]:
        read = json.loads((self.folder / ".qfuse/runs/small/numbers.json").read_text())
        return [row for row in read["numbers"] if row["model"] == model and row["metric"] == metric]


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The first 60 mated and 60 non-mated pairs of LFW's list, compared with two models."""
    from .conftest import command

    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(shared / "data/lfw.zip") as archive:
        lines = archive.read("lfw/pairs.txt").decode().splitlines()[1:]
        chosen = [
            line
            for fold in range(FOLDS)
            for kind in (0, 300)
            for line in lines[600 * fold + kind :][:EACH]
        ]
        parts = [line.split("\t") for line in chosen]
        faces = {(part[0], part[1]) for part in parts} | {
            (part[-2] if len(part) == 4 else part[0], part[-1]) for part in parts
        }
        for name, number in faces:
            archive.extract(f"lfw/{name}/{name}_{int(number):04d}.jpg", folder)
    shutil.move(folder / "lfw", folder / "faces")
    (folder / "faces/pairs.txt").write_text("\n".join([f"{FOLDS}\t{EACH}", *chosen]) + "\n")
    (folder / "c.yaml").write_text(CONFIG)

    def qfuse(*arguments: object) -> Any:
        return command(folder, *arguments, "--json", env={"QFUSE_SHARED": str(shared)}).json

    return Run(folder, qfuse, qfuse("run", "c.yaml"))


@pytest.fixture(autouse=True)
def _shared_in_the_environment(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QFUSE_SHARED", str(shared))


@pytest.mark.parametrize("model", ["edgeface_xxs", "mobilefacenet"])
def test_mated_faces_score_higher_than_non_mated_ones(run: Run, model: str) -> None:
    score, mated = run.scores(model)
    assert len(score) == 2 * FOLDS * EACH
    # On all 6,000 pairs the EER is below 1 %, so that on 120 hardly a pair is out of order.
    assert roc_auc_score(mated, score) > 0.99
    assert np.median(score[mated]) > 0.5 > 0.2 > np.median(score[~mated])


@pytest.mark.parametrize("model", ["edgeface_xxs", "mobilefacenet"])
def test_the_report_s_numbers_are_those_of_scikit_learn_on_the_stored_scores(
    run: Run, model: str
) -> None:
    score, mated = run.scores(model)
    (auc,) = run.numbers(model, "auc")
    assert auc["value"] == pytest.approx(roc_auc_score(mated, score), abs=1e-12)
    fmr, tar, _ = roc_curve(mated, score, drop_intermediate=False)
    for row in run.numbers(model, "tar"):
        if row["threshold_rule"] == "at_most":
            assert row["value"] == pytest.approx(tar[fmr <= row["target"]].max(), abs=1e-12)


def test_a_score_is_the_cosine_of_the_two_stored_embeddings(run: Run) -> None:
    session = run.session
    step = next(s for s in session.plan.cells("embed") if s.factors["model"] == "edgeface_xxs")
    embedding = Runner(session.plan, session.store).results(step)["embedding"].astype(np.float64)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    pairs = session.dataset.tables["comparisons"]
    expected = (unit[pairs["a"]] * unit[pairs["b"]]).sum(axis=1)
    np.testing.assert_allclose(run.scores("edgeface_xxs")[0], expected, atol=1e-6)


def test_a_second_run_has_nothing_to_do(run: Run) -> None:
    assert run.printed["ran"]
    assert run.qfuse("run", "c.yaml")["ran"] == []


def test_moving_the_photographs_or_changing_workers_re_runs_nothing(
    run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.folder / "faces", tmp_path / "elsewhere")
    plan = run.qfuse(
        "plan",
        "c.yaml",
        "--set",
        f"dataset.path={tmp_path / 'elsewhere'}",
        "--set",
        "run.workers=3",
    )
    assert [step["step"] for step in plan["steps"] if step["to_run"]] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_columns(
    run: Run, tmp_path: Path, workers: int
) -> None:
    run.qfuse(
        "run",
        "c.yaml",
        "--store",
        tmp_path / "store",
        "--workers",
        workers,
        "--until",
        "embed",
        "--set",
        "factors.model=[edgeface_xxs]",
    )
    again = {
        path.name: hdf5.read(path).digest() for path in (tmp_path / "store").glob("embed/??/*.h5")
    }
    first = {
        path.name: hdf5.read(path).digest()
        for path in (run.folder / ".qfuse/store").glob("embed/??/*.h5")
    }
    assert len(again) >= 3  # shards of 64 faces
    assert again.items() <= first.items()


def test_the_report_names_the_instruction_set_that_computed_its_models(run: Run) -> None:
    folder = run.folder / ".qfuse/runs/small"
    named = {
        instruction_set(backends)
        for backends in (("opencv",), ("torch", "opencv"), ("onnxruntime", "opencv"))
    }
    versions = json.loads((folder / "numbers.json").read_text())["versions"]
    assert versions["instruction set"] == " and ".join(sorted(named))
    assert f"instruction set {versions['instruction set']}" in (folder / "report.html").read_text()
