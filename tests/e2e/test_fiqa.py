"""Error versus discard through the real command: a study of two benchmarks, and the shipped config
on a small part of LFW.
"""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Answer, command

CONFIG = """\
name: judged
dataset: {reader: synthetic, options: {scale: 0.004}}
benchmarks: {one: {}, two: {dataset: {options: {seed: 1}}}}
factors: {method: [given, feature-norm]}
steps:
  embed: {options: {model: given, flip: none}}
  quality: {options: {method: $method}}
  template_quality: {}
  fuse: {options: {rule: mean}}
  compare: {}
  evaluate_discard: {inputs: {quality: template_quality}, options: {fmr: [0.1], replicates: 20}}
  search: {}
  evaluate_discard_identification: {options: {replicates: 20}}
report: {options: {title: Judged, crops: 0}}
"""
OUT = ".qfuse/runs/judged"
ROOT = Path(__file__).parents[2]
PAIRS = 30  # of each kind


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("fiqa")
    (folder / "c.yaml").write_text(CONFIG)
    return folder, command(folder, "run", "c.yaml", "--json")


def areas(folder: Path) -> list[dict[str, str]]:
    with (folder / "study.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_of_error_versus_discard_writes_its_table_beside_the_reports(
    ran: tuple[Path, Answer],
) -> None:
    folder, answer = ran
    names = [Path(path).relative_to(folder / OUT).as_posix() for path in answer.json["report"]]
    assert names == ["study.html", "study.csv", "study.tex", "study.json"]
    for name in ("one", "two"):
        assert f'href="{name}/report.html"' in (folder / OUT / "study.html").read_text(
            encoding="utf-8"
        )
        assert (folder / OUT / name / "report.html").is_file()
    assert {
        (row["benchmark"], row["factor.method"]) for row in areas(folder / OUT) if not row["bound"]
    } == {
        (benchmark, method) for benchmark in ("one", "two") for method in ("given", "feature-norm")
    }


def test_a_second_run_does_nothing(ran: tuple[Path, Answer]) -> None:
    before = (ran[0] / OUT / "study.html").stat().st_mtime_ns
    again = command(ran[0], "run", "c.yaml", "--json").json
    assert not any(one["ran"] for one in again["benchmarks"].values())
    assert (ran[0] / OUT / "study.html").stat().st_mtime_ns == before


def test_explain_takes_a_run_of_error_versus_discard(ran: tuple[Path, Answer]) -> None:
    lines = json.loads((ran[0] / OUT / "one/numbers.json").read_text(encoding="utf-8"))["numbers"]
    assert {line["kind"] for line in lines} == {"discard", "discard, 1:N"}
    from pipeline.config.config import load_config
    from pipeline.session import open_session

    session = open_session(
        load_config(ran[0] / "c.yaml", ["benchmark=one"]),
        store=ran[0] / ".qfuse/store",
        readonly=True,
    )
    a, b = session.dataset.tables["templates"]["template_id"][:2]
    answer = command(ran[0], "explain", "c.yaml", a, b, "--set", "benchmark=one", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["cells"]) == 1


def test_diff_takes_runs_of_error_versus_discard(ran: tuple[Path, Answer]) -> None:
    words = ("diff", f"{OUT}/one", f"{OUT}/two")
    found = command(ran[0], *words, "--json").json
    assert "fnm_pauc(0.2)" in json.dumps(found)
    said = command(ran[0], *words)
    assert said.code == 0, said.err
    assert "pAUC(0.2)" in said.out


def test_the_shipped_config_judges_faces_as_they_are_and_degraded(
    shared: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(shared / "data/lfw.zip") as archive:
        lines = archive.read("lfw/pairs.txt").decode().splitlines()[1:]
        chosen = [*lines[:PAIRS], *lines[300 : 300 + PAIRS]]
        parts = [line.split("\t") for line in chosen]
        faces = {(p[0], p[1]) for p in parts} | {
            (p[-2] if len(p) == 4 else p[0], p[-1]) for p in parts
        }
        for name, number in faces:
            archive.extract(f"lfw/{name}/{name}_{int(number):04d}.jpg", tmp_path)
    shutil.move(tmp_path / "lfw", tmp_path / "faces")
    (tmp_path / "faces/pairs.txt").write_text("\n".join([f"1\t{PAIRS}", *chosen]) + "\n")
    overrides = [
        f"dataset.path={tmp_path / 'faces'}",
        f"run.folder={tmp_path / 'out'}",
        f"run.store={tmp_path / 'store'}",
        "factors.model=[edgeface_xxs]",
        "steps.evaluate_discard.options.fmr=[0.1]",
        "steps.evaluate_discard.options.replicates=20",
        "report.options.fmr=[0.1]",
        # of so few faces, some mated pair has to be lost
        "benchmarks.degraded.steps.degrade.options.fraction=0.9",
    ]
    words = [word for override in overrides for word in ("--set", override)]
    answer = command(
        tmp_path,
        "run",
        ROOT / "configs/fiqa_lfw.yaml",
        *words,
        "--json",
        env={"QFUSE_SHARED": str(shared)},
    )
    assert Path(answer.json["report"][0]).name == "study.html"
    rows = [
        row
        for row in areas(Path(answer.json["report"][0]).parent)
        if row["form"] == "standard" and row["limit"] == "0.2"
    ]
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["benchmark"], {})[row["factor.method"] or row["bound"]] = float(
            row["value"]
        )
    methods, bounds = (
        {"lightqnet", "feature-norm", "detector-score"},
        {"pair oracle", "sample oracle", "random, expected"},
    )
    assert set(found) == {"clean", "degraded"}
    for values in found.values():
        assert set(values) == methods | bounds
        assert all(values["pair oracle"] <= values[name] + 1e-12 for name in values)
    # Degraded faces are rejected more often, and a quality that looks at the crop tells which:
    # lower than at random.
    assert found["degraded"]["random, expected"] > found["clean"]["random, expected"]
    assert found["degraded"]["lightqnet"] < found["degraded"]["random, expected"]


def test_the_numbers_of_a_report_are_those_of_its_study(ran: tuple[Path, Answer]) -> None:
    numbers: list[dict[str, Any]] = json.loads(
        (ran[0] / OUT / "two/numbers.json").read_text(encoding="utf-8")
    )["table"]
    mine = {
        (row["factor.method"], row["form"], row["limit"]): row
        for row in areas(ran[0] / OUT)
        if row["benchmark"] == "two"
    }
    for method in ("given", "feature-norm"):
        for limit in ("0.2", "0.3"):
            metric = f"fnm_pauc({limit})"
            (row,) = [n for n in numbers if n["method"] == method and n["metric"] == metric]
            assert float(mine[method, "standard", limit]["value"]) == pytest.approx(row["value"])
