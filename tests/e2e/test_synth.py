"""`qfuse synth ijbc`: files in IJB-C's layouts that one line of a config runs on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, Answer

Qfuse = Callable[..., Answer]
GIVEN = "counts: any, embeddings: embeddings.npy, quality: quality.npy"


def test_a_package_runs_from_one_line_of_a_config(qfuse: Qfuse, tmp_path: Path) -> None:
    made = qfuse(
        "synth",
        "ijbc",
        "janus",
        "--scale",
        0.002,
        "--seed",
        1,
        "--dimension",
        16,
        "--layout",
        "both",
        "--json",
    ).json
    assert made["path"] == "janus"
    assert made["counts"]["faces"] == 939
    assert sorted(path.name for path in (tmp_path / "janus").iterdir()) == ["nist", "package"]
    line = f"dataset: {{reader: ijb, path: janus/package, options: {{{GIVEN}}}}}"
    (tmp_path / "p.yaml").write_text(
        CONFIG.replace("dataset: {reader: synthetic, options: {scale: 0.001}}", line)
    )
    ran = qfuse("run", "p.yaml", "--json").json
    assert ran["failed"] == []
    assert "evaluate_verification" in ran["ran"]
    again = qfuse("run", "p.yaml", "--json").json
    assert again["ran"] == []


def test_what_is_said_is_the_line_to_write(qfuse: Qfuse) -> None:
    said = qfuse(
        "synth", "ijbc", "janus", "--scale", 0.0005, "--dimension", 2, "--layout", "both"
    ).out
    assert f"dataset: {{reader: ijb, path: janus/package, options: {{{GIVEN}}}}}" in said
    assert "dataset: {reader: ijb_nist, path: janus/nist, options: {counts: any}}" in said


def test_check_says_what_a_partial_copy_lacks(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("synth", "ijbc", "janus", "--scale", 0.0005, "--dimension", 2).code == 0
    (tmp_path / "p.yaml").write_text(
        CONFIG.replace("synthetic, options: {scale: 0.001}", "ijb, path: janus/package")
    )
    answer = qfuse("check", "p.yaml")
    assert answer.code == 3
    assert "faces: expected 469,375, found 235" in answer.out + answer.err


def test_check_takes_the_nist_tree_as_the_line_said_has_it(qfuse: Qfuse, tmp_path: Path) -> None:
    said = qfuse(
        "synth", "ijbc", "janus", "--scale", 0.0005, "--dimension", 2, "--layout", "nist"
    ).out
    line = said.split("in a config, ")[1].strip()
    (tmp_path / "p.yaml").write_text(
        f"name: nist\n{line}\nsteps:\n  align: {{options: {{detector: none}}}}\n"
    )
    assert qfuse("check", "p.yaml").code == 0
    (tmp_path / "p.yaml").write_text(
        (tmp_path / "p.yaml").read_text().replace(", options: {counts: any}", "")
    )
    answer = qfuse("check", "p.yaml")
    assert answer.code == 3
    assert "images: 235 of 235 images are missing, the first " in answer.err


def test_a_folder_that_exists_is_not_replaced(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    answer = qfuse("synth", "ijbc", "janus", "--scale", 0.0005)
    assert answer.code == 3
    assert "exists already" in answer.err


@pytest.mark.parametrize("option", ["--faces", "--models"])
def test_faces_and_models_go_together(qfuse: Qfuse, option: str) -> None:
    answer = qfuse("synth", "ijbc", "janus", option, ".")
    assert answer.code == 2
    assert "--faces needs --models" in answer.err


def test_a_file_where_the_folder_would_be_made_is_told(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = qfuse("synth", "ijbc", "file/janus", "--scale", 0.0005)
    assert answer.code == 3
    assert "file/janus cannot be written: file is a file and should be a folder" in answer.err


def test_real_faces_become_crops_and_run(qfuse: Qfuse, tmp_path: Path, shared: Path) -> None:
    words = (
        "--scale",
        0.001,
        "--faces",
        shared / "data/lfw.zip",
        "--models",
        shared / "models",
        "--layout",
        "both",
    )
    counts = qfuse("synth", "ijbc", "janus", *words, "--json").json["counts"]
    assert counts["subjects"] == 4
    assert len(list((tmp_path / "janus/package/loose_crop").iterdir())) == counts["faces"]
    (tmp_path / "p.yaml").write_text(
        "name: crops\ndataset: {reader: ijb, path: janus/package, options: {counts: any}}\n"
        "steps:\n  align: {options: {detector: none}}\n"
    )
    ran = qfuse("run", "p.yaml", "--json").json
    assert ran["failed"] == []
