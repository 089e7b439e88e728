"""The verb `faces`: photographs of several people, and a run on every face in them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.conftest import Answer
from PIL import Image

Qfuse = Callable[..., Answer]


@pytest.fixture
def photographs(shared: Path, tmp_path: Path) -> Path:
    """A photograph of two people, one of one, and one of nobody."""
    scene = Image.new("RGB", (320, 170))
    with zipfile.ZipFile(shared / "data/lfw.zip") as archive:
        for i, person in enumerate(("Al_Gore", "Ann_Veneman")):
            face = Image.open(io.BytesIO(archive.read(f"lfw/{person}/{person}_0001.jpg")))
            scene.paste(face, (5 + 160 * i, 10))
    folder = tmp_path / "photos"
    (folder / "party").mkdir(parents=True)
    scene.save(folder / "party/two.png")
    face.save(folder / "one.png")
    Image.new("RGB", (90, 90)).save(folder / "nobody.png")
    return folder


def test_every_face_of_photographs_of_groups_is_a_row_with_a_crop(
    qfuse: Qfuse, photographs: Path, shared: Path, tmp_path: Path
) -> None:
    answer = qfuse("faces", "photos", "faces.h5", "--folder", shared / "models", "--json").json
    assert (answer["photographs"], answer["faces"]) == (3, 3)
    assert list(answer["left_out"]) == ["nobody.png"]
    config = {
        "name": "groups",
        "dataset": {"reader": "tables", "path": ".", "options": {"file": "faces.h5"}},
        "models": {"folders": ["weights"]},
        "steps": {
            "align": {},
            "embed": {"options": {"model": "edgeface_xxs"}},
            "fuse": {"options": {"rule": "mean"}},
        },
    }
    # without the detector's file, as every face has its landmarks
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/edgeface_xxs.onnx").symlink_to(shared / "models/edgeface_xxs.onnx")
    (tmp_path / "groups.yaml").write_text(json.dumps(config))
    built = qfuse("build", "groups.yaml", "templates.h5", "--json").json["files"][0]
    assert (built["templates"], built["faces"], built["status"]) == (3, 3, {"ok": 3})


def test_a_photograph_whose_name_is_no_text_is_left_out_and_named(
    qfuse: Qfuse, photographs: Path, shared: Path, tmp_path: Path
) -> None:
    (photographs / "one.png").rename(os.fsdecode(bytes(photographs) + b"/\xff.png"))
    answer = qfuse("faces", "photos", "faces.h5", "--folder", shared / "models", "--json").json
    assert (answer["photographs"], answer["faces"]) == (3, 2)
    assert answer["left_out"]["\udcff.png"] == "its name is not UTF-8; rename the file"


def test_what_was_done_and_what_comes_next_is_said(
    qfuse: Qfuse, photographs: Path, shared: Path
) -> None:
    words = ("photos", "photos/f.h5", "--folder", shared / "models", "--score-threshold", 0.7)
    said = qfuse("faces", *words)
    assert said.code == 0, said.err
    assert "wrote photos/f.h5: 3 faces in 2 photographs, by yunet_320" in said.out
    assert "left out nobody.png: no face" in said.out
    assert "dataset: {reader: tables, path: photos, options: {file: f.h5}}" in said.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("photos", "elsewhere/f.h5"), 2, "relative to its own folder"),
        (("photos", "f.csv"), 2, "faces writes HDF5"),
        (("c.yaml", "f.h5"), 3, "expected a folder of photographs"),
        (("elsewhere", "f.h5"), 3, "no face was found in 0 photographs"),
        (("photos", "f.h5", "--detector", "yunet"), 3, "did you mean 'yunet_640'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_nothing_is_written(
    qfuse: Qfuse,
    photographs: Path,
    shared: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    answer = qfuse("faces", *words, "--folder", shared / "models")
    assert (answer.code, message in answer.err) == (code, True), answer.err
    assert not list(tmp_path.rglob("*.h5"))
