"""Bad input through the real command: an exit code and one sentence (what, where, what to do),
never a traceback.

`command` in conftest fails on any traceback, so every test here asserts that too.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from e2e.conftest import Answer, command
from PIL import Image

from pipeline.core.schema import Batch
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.datasets.tables_file import write_tables
from stages.tables.tables import ProtocolLists, build_tables, singletons

Qfuse = Callable[..., Answer]
ALIGN = (
    "name: faces\ndataset: {reader: tables, path: .}\nsteps: {align: {options: {detector: none}}}\n"
)


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces width × height pixels and holds none of them."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", head), (b"IDAT", b""))
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def photograph(seed: int, path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((112, 112)).save(path, quality=90)
    return path.read_bytes()


def tables_of(folder: Path, files: dict[str, bytes | None]) -> None:
    """Write files and a tables.h5 that names them, each a face of its own; None is named and not
    there.
    """
    digests = []
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
        digests.append("" if data is None else hashlib.sha256(data).hexdigest())
    ids = [name.partition(".")[0] for name in files]
    score = {"score": np.full(len(ids), 0.9, np.float32)}  # as if a detector had been there before
    found = ProtocolLists(
        face_id=ids,
        path=list(files),
        sha256=digests,
        subject=ids,
        columns=score,
        **singletons(ids, ids),
    )
    write_tables(folder / "tables.h5", build_tables(found, "test"))


# -- bad faces: rows with a reason, and every other result stands
# ------------------------------------------------------

BAD_FACES = {
    "missing": ("missing", "named by the protocol, and not in the data set"),
    "truncated": ("unreadable", "truncated or damaged"),
    "text": ("unreadable", "not an image of a known format"),
    "empty": ("unreadable", "the file is empty"),
    "huge": ("too_large", "30000×30000 pixels are more than"),
}


@pytest.fixture(scope="module")
def bad_faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("bad-faces")
    good = {f"good{i}.jpg": photograph(i, folder / f"good{i}.jpg") for i in range(6)}
    bad = {
        "missing.jpg": None,
        "truncated.jpg": good["good0.jpg"][:700],
        "text.jpg": b"these are words\n" * 40,
        "empty.png": b"",
        "huge.png": png_header(30_000, 30_000),
    }
    tables_of(folder, {**good, **bad})
    (folder / "c.yaml").write_text(ALIGN)
    answer = command(folder, "run", "c.yaml", "--json")
    assert answer.code == 0, answer.err
    return folder, {row["id"]: row for row in answer.json["failed"]}


@pytest.mark.parametrize("face", BAD_FACES)
def test_a_bad_face_is_a_row_with_a_status_and_a_reason(
    bad_faces: tuple[Path, dict], face: str
) -> None:
    status, reason = BAD_FACES[face]
    assert bad_faces[1][face]["status"] == status
    assert bad_faces[1][face]["reason"].startswith(reason)


def test_a_header_that_announces_900_million_pixels_is_refused_with_the_limit(
    bad_faces: tuple[Path, dict],
) -> None:
    assert "more than the 110,000,000 of align.max_pixels" in bad_faces[1]["huge"]["reason"]


def test_only_the_bad_faces_failed(bad_faces: tuple[Path, dict]) -> None:
    assert set(bad_faces[1]) == set(BAD_FACES)


def test_run_and_status_name_the_faces_that_failed(bad_faces: tuple[Path, dict]) -> None:
    for verb in ("run", "status"):
        said = command(bad_faces[0], verb, "c.yaml").out
        assert "5 rows failed and were left out of every result (align: " in said
        assert "3 unreadable" in said
        assert "  text: not an image of a known format\n" in said


def test_good_faces_have_the_same_crops_beside_bad_ones(
    bad_faces: tuple[Path, dict], tmp_path: Path
) -> None:
    names = [f"good{i}.jpg" for i in range(6)]
    tables_of(tmp_path, {name: (bad_faces[0] / name).read_bytes() for name in names})
    (tmp_path / "c.yaml").write_text(ALIGN)
    assert command(tmp_path, "run", "c.yaml").code == 0
    crops = []
    for folder in (bad_faces[0], tmp_path):
        (stored,) = (folder / ".qfuse/store/align.crops").glob("??/*.h5")
        with h5py.File(stored) as file:
            crops.append(file["crop"][:6])
    np.testing.assert_array_equal(crops[0], crops[1])


def test_too_many_bad_faces_end_the_run_with_4_and_their_reasons_every_time(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    tables_of(
        tmp_path, {"a.jpg": photograph(0, tmp_path / "a.jpg"), "b.jpg": b"", "c.jpg": b"words"}
    )
    (tmp_path / "c.yaml").write_text(
        ALIGN.replace("}}}", "}}, quality: {options: {method: detector-score}}}")
    )
    for _ in range(2):  # what is stored by the first run does not make the second one pass
        answer = qfuse("run", "c.yaml")
        assert answer.code == 4
        assert (
            "align: 2 of 3 rows failed (2 unreadable), more than run.max_failures = 0.5 allows"
            in answer.err
        )
        assert "b: the file is empty" in answer.err
    assert qfuse("run", "c.yaml", "--set", "run.max_failures=1").code == 0


def test_real_faces_among_bad_photographs(shared: Path, tmp_path: Path) -> None:
    """No face, two faces and a text file beside twelve LFW photographs; the folder config with its
    detector and models.
    """
    with zipfile.ZipFile(shared / "data/lfw.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg") and "/A" in name]
        people: dict[str, list[str]] = {}
        for name in names:
            people.setdefault(name.split("/")[-2], []).append(name)
        chosen = [name for person in people.values() if len(person) >= 3 for name in person[:3]][
            :12
        ]
        for name in chosen:
            target = tmp_path / "faces" / "/".join(name.split("/")[-2:])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    odd = tmp_path / "faces/odd"
    odd.mkdir()
    Image.new("RGB", (250, 250), (90, 120, 200)).save(odd / "sky.png")
    (odd / "words.jpg").write_text("words")
    pair = [
        Image.open(tmp_path / "faces" / "/".join(name.split("/")[-2:])) for name in chosen[:4:3]
    ]
    both = Image.new("RGB", (500, 250))
    both.paste(pair[0], (0, 0))
    both.paste(pair[1], (250, 0))
    both.save(odd / "two.png")

    def ask(*words: str) -> Answer:
        return command(tmp_path, *words)

    assert ask("init", "faces.yaml").code == 0
    (tmp_path / "models").symlink_to(shared / "models")
    assert ask("check", "faces.yaml").code == 0, ask("check", "faces.yaml").err
    ran = ask("run", "faces.yaml", "--json").json
    assert {row["id"]: row["status"] for row in ran["failed"]} == {
        "odd/sky.png": "not_found",
        "odd/words.jpg": "unreadable",
    }
    rows = {row["id"]: row for row in ask("status", "faces.yaml", "--json").json["rows"]}
    assert rows["odd/sky.png"]["reason"].startswith("one colour all over")
    assert rows["odd/two.png"]["status"] == "ok"
    assert "faces found, the one nearest the centre taken" in rows["odd/two.png"]["reason"]
    numbers = json.loads((Path(ran["report"][0]).parent / "numbers.json").read_text())
    assert any(
        number["metric"] == "eer" and number["value"] is not None for number in numbers["numbers"]
    )


# -- embeddings and tables
# ---------------------------------------------------------------------------------------------


def small_tables(**changed: object) -> dict[str, Batch]:
    tables = synthesise(SynthOptions(scale=0.001, seed=0, dimension=16))
    faces = {name: column.copy() for name, column in tables["faces"].columns.items()}
    for name, change in changed.items():
        faces[name] = change(faces[name])
    return {**tables, "faces": Batch(faces)}


def given(folder: Path, tables: dict[str, Batch]) -> None:
    write_tables(folder / "tables.h5", tables)
    assert command(folder, "init", "t.yaml", "--kind", "tables").code == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_a_failed_row(
    qfuse: Qfuse, tmp_path: Path, bad: float
) -> None:
    def spoil(embedding: np.ndarray) -> np.ndarray:
        embedding[7, 3] = bad
        return embedding

    given(tmp_path, small_tables(embedding=spoil))
    (failed,) = qfuse("run", "t.yaml", "--json").json["failed"]
    assert (failed["step"], failed["row"], failed["status"]) == ("embed", 7, "not_finite")
    assert "nan or infinity" in failed["reason"]


def test_a_face_id_given_twice_is_refused_by_its_name(qfuse: Qfuse, tmp_path: Path) -> None:
    def repeat(ids: np.ndarray) -> np.ndarray:
        ids[3] = ids[2]
        return ids

    tables = small_tables(face_id=repeat)
    given(tmp_path, tables)
    answer = qfuse("run", "t.yaml")
    assert answer.code == 3
    assert (
        f"table faces, column 'face_id': {tables['faces']['face_id'][2]!r} is given twice"
        in answer.err
    )


def rename(file: h5py.File) -> None:
    file.move("faces/quality", "faces/qualitty")


def retype(file: h5py.File) -> None:
    data = file["faces/quality"][:]
    del file["faces/quality"]
    file["faces/quality"] = data.astype("float64")


def drop(file: h5py.File) -> None:
    del file["members/face"]


def point(file: h5py.File) -> None:
    file["members/face"][5] = 9999


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rename, "table faces, column 'qualitty' is none of this table's: face_id, path"),
        (
            retype,
            "table faces, column 'quality' should be float32 with rows of shape (), found float64",
        ),
        (drop, "table members, column 'face' is missing"),
        (point, "table members, column 'face', row 5: 9999 is not a row of faces (it has 469)"),
    ],
)
def test_a_wrong_column_is_named_with_what_was_expected(
    qfuse: Qfuse, tmp_path: Path, spoil: Callable[[h5py.File], None], said: str
) -> None:
    given(tmp_path, small_tables())
    with h5py.File(tmp_path / "tables.h5", "r+") as file:
        spoil(file)
    answer = qfuse("check", "t.yaml")
    assert answer.code == 3
    assert said in answer.err
    assert "tables.h5" in answer.err


def test_a_pair_that_names_an_unknown_face_is_told_with_its_line(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    for name in ("Ann", "Bob"):
        for i in (1, 2):
            photograph(i, tmp_path / f"lfw/{name}/{name}_000{i}.jpg")
    (tmp_path / "lfw/pairs.txt").write_text("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t7\n")
    (tmp_path / "c.yaml").write_text(
        "name: c\ndataset: {reader: lfw, path: lfw}\nsteps: {align: {options: {detector: none}}}\n"
    )
    answer = qfuse("run", "c.yaml")
    assert answer.code == 3
    assert (
        "pairs.txt: line 3: a pair naming an unknown face: there is no image Bob/Bob_0007"
        in answer.err
    )


# -- weights
# --------------------------------------------------------------------------------------------------


def test_weights_with_another_digest_are_refused_before_a_row_is_computed(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    tables_of(tmp_path, {"a.jpg": photograph(0, tmp_path / "a.jpg")})
    (tmp_path / "edgeface_xxs.onnx").write_bytes(b"not these weights")
    (tmp_path / "c.yaml").write_text(
        ALIGN.replace("}}}", "}}, embed: {}}") + "models: {folders: [.]}\n"
    )
    found = hashlib.sha256(b"not these weights").hexdigest()
    for verb in ("check", "run"):
        answer = qfuse(verb, "c.yaml")
        assert answer.code == 3
        assert f"found {found}, at {tmp_path / 'edgeface_xxs.onnx'}" in answer.err
        assert "fetch the declared file again" in answer.err
        assert not (tmp_path / ".qfuse/store/align.crops").exists()


def test_check_and_run_name_the_missing_weights_of_every_step_and_where_they_looked(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    for number, person in enumerate(("Ann", "Bob")):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for i in range(2):
            photograph(2 * number + i, tmp_path / f"faces/{person}/{i}.jpg")
    assert qfuse("init", "f.yaml").code == 0
    for verb in ("check", "run"):
        answer = qfuse(verb, "f.yaml", env={"QFUSE_SHARED": str(tmp_path / "nowhere")})
        assert answer.code == 3
        for file in ("yunet_n_320_320.onnx", "edgeface_xxs.onnx", "lightqnet-dm050.onnx"):
            assert f"needs the file {file}; looked in {tmp_path / 'models'}" in answer.err
