"""Every face of a photograph becomes a row, whose crop is the one that align makes of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.schema import Batch, Status
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.tables_file import TablesOptions, TablesReader, write_tables
from stages.detectors.detected_faces import DetectedFaces, ScoreLimits
from stages.detectors.opening import detector_named
from stages.faces.align import TEMPLATE, Align, AlignOptions
from stages.faces.every_face import every_face

Make = Callable[..., Any]


class Counter:
    """A detector that finds as many faces as the first pixel's blue says, scores falling."""

    limits: ScoreLimits | None = None

    def detect(self, image: np.ndarray) -> DetectedFaces:
        count = int(image[0, 0, 0])
        corner = np.arange(count, dtype=np.float32)[:, None]
        box = np.concatenate([corner, corner, corner + 20, corner + 20], axis=1)
        landmarks = np.float32(TEMPLATE) + corner[:, None]
        return DetectedFaces(box, landmarks, np.linspace(1, 0.6, count, dtype=np.float32))


def put(path: Path, faces: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (120, 100), (90, 80, faces)).save(path)


def test_a_photograph_has_as_many_rows_as_faces(tmp_path: Path) -> None:
    put(tmp_path / "party/b.png", 3)
    put(tmp_path / "party/a.png", 1)
    put(tmp_path / "empty.png", 0)
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no photograph")
    found = every_face(open_files(tmp_path), "in/", Counter(), 10**6)
    faces = found.tables["faces"]
    ids = ["in/party/a.png#1", *(f"in/party/b.png#{i}" for i in (1, 2, 3))]
    assert faces["face_id"].tolist() == found.tables["templates"]["template_id"].tolist() == ids
    assert faces["path"].tolist() == ["in/party/a.png", *["in/party/b.png"] * 3]
    digest = hashlib.sha256((tmp_path / "party/b.png").read_bytes()).hexdigest()
    assert faces["sha256"].tolist()[1:] == [digest] * 3
    assert faces["box"][:, 0].tolist() == [0, 0, 1, 2]
    assert np.allclose(faces["score"], [1, 1, 0.8, 0.6])
    assert set(faces["subject"]) == {""}
    assert found.photographs == 4
    assert found.left_out == {
        "empty.png": "no face",
        "torn.jpg": "not an image of a known format",
    }


def test_photographs_without_any_face_are_a_sentence(tmp_path: Path) -> None:
    put(tmp_path / "empty.png", 0)
    with pytest.raises(InvalidInput, match="no face was found in 1 photograph;"):
        every_face(open_files(tmp_path), "", Counter(), 10**6)


def test_each_face_of_a_group_is_aligned_as_if_it_were_alone(
    shared: Path, photographs: Batch, tmp_path: Path, context: Make
) -> None:
    files = open_files(shared / "data" / "lfw.zip")
    scene = Image.new("RGB", (480, 200), (120, 120, 120))
    for i, path in enumerate(photographs["path"][:3]):
        face = Image.open(io.BytesIO(files.read(path))).crop((25, 25, 125, 125))
        scene.paste(face, (30 + 160 * i, 45))
        face.save(tmp_path / f"{i}.png")
    scene.save(tmp_path / "group.png")
    here = context(tmp_path, (shared / "models",))
    found = every_face(
        open_files(tmp_path), "", detector_named(here, "yunet_320"), AlignOptions().max_pixels
    )
    write_tables(tmp_path / "tables.h5", found.tables)
    rows = TablesReader(TablesOptions()).read(open_files(tmp_path))["faces"]
    made = aligned(here, rows, "none")
    names = rows["path"].tolist()
    assert [names.count(name) for name in ("0.png", "1.png", "2.png", "group.png")] == [1, 1, 1, 3]
    assert (made["crops"]["status"] == Status.OK).all()
    assert np.array_equal(made["detections"]["score"], rows["score"])
    own = aligned(here, rows.take(slice(0, 3)).select(["path", "sha256"]), "yunet_320")
    assert np.array_equal(own["crops"]["crop"], made["crops"]["crop"][:3])
    group = made["crops"]["crop"][np.argsort(rows["box"][:, 0] * (rows["path"] == "group.png"))[3:]]
    alone = made["crops"]["crop"][:3].astype(int)
    apart = np.abs(group[:, None].astype(int) - alone).mean(axis=(2, 3, 4))
    assert apart.argmin(axis=1).tolist() == [0, 1, 2]  # each is the person pasted there
    assert apart.diagonal().max() < 16 < np.sort(apart.ravel())[3]


def aligned(context: Any, rows: Batch, detector: str) -> dict[str, Batch]:
    stage = Align(AlignOptions(detector=detector), context)
    stage.open()
    return stage.run(rows, {}, stage.load(rows))
