"""What `stages.commands.ijb_photographs` and `ijb_write` promise: whole sets on disk that the
readers read back.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import janus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.commands.ijb_photographs import from_noise, from_photographs
from stages.datasets.ijb.protocol import manifest
from stages.datasets.ijb.write import (
    JanusSet,
    draw_comparisons,
    draw_galleries,
    draw_template_ids,
    write_set,
)
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.detectors.detected_faces import DetectedFaces
from stages.detectors.yunet import YuNet
from stages.faces.images import decode
from stages.models.cards import read_weights

OPTIONS = SynthOptions(scale=0.004, seed=3, dimension=8)
COUNTS = manifest("ijbc").counts


@pytest.fixture(scope="module")
def made() -> JanusSet:
    return from_noise(OPTIONS)


@pytest.fixture(scope="module")
def written(made: JanusSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "janus"
    write_set(folder, made, "both")
    return folder


@pytest.fixture(scope="module")
def read_back(written: Path) -> dict:
    return janus.read(
        open_files(written / "package"), embeddings="embeddings.npy", quality="quality.npy"
    )


def test_the_package_read_back_is_what_was_made(made: JanusSet, read_back: dict) -> None:
    ids = made.template_id.astype(str)
    assert read_back["templates"]["template_id"].tolist() == ids.tolist()
    assert read_back["templates"]["subject"].tolist() == made.subject.astype(str).tolist()
    np.testing.assert_array_equal(read_back["members"]["template"], made.template)
    np.testing.assert_array_equal(read_back["members"]["face"], np.arange(len(made.template)))
    assert read_back["members"]["media"].tolist() == made.medium.astype(str).tolist()
    np.testing.assert_array_equal(read_back["comparisons"]["a"], made.a)
    np.testing.assert_array_equal(read_back["comparisons"]["b"], made.b)
    np.testing.assert_array_equal(read_back["comparisons"]["mated"], made.mated)
    np.testing.assert_allclose(read_back["faces"]["landmarks"], made.landmarks, atol=1e-3)
    np.testing.assert_allclose(read_back["faces"]["score"], made.score, atol=1e-6)


def test_its_faces_are_those_of_the_reader_synthetic(read_back: dict) -> None:
    faces = synthesise(OPTIONS)["faces"]
    np.testing.assert_array_equal(read_back["faces"]["embedding"], faces["embedding"])
    np.testing.assert_array_equal(read_back["faces"]["quality"], faces["quality"])


def test_both_layouts_agree_on_templates_subjects_roles_and_comparisons(
    written: Path, read_back: dict
) -> None:
    nist = janus.read_nist(open_files(written / "nist"))
    for name in ("templates", "roles", "comparisons"):
        assert nist[name].digest() == read_back[name].digest(), name
    assert nist["faces"].rows == read_back["faces"].rows
    for name in ("template", "media"):
        assert nist["members"][name].tolist() == read_back["members"][name].tolist(), name


def test_without_1n_lists_the_comparisons_tell_the_same_subjects(
    written: Path, made: JanusSet, read_back: dict
) -> None:
    files = janus.Tree(
        {
            path.relative_to(written / "package").as_posix(): path.read_bytes()
            for path in (written / "package").rglob("*")
            if path.is_file() and path.suffix != ".csv"
        }
    )
    inferred = janus.read(files, embeddings="embeddings.npy")["templates"]["subject"]
    assert len(set(zip(inferred, read_back["templates"]["subject"], strict=True))) == len(
        set(made.subject)
    )


def test_a_zip_of_it_reads_the_same(written: Path, read_back: dict, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in (written / "package").rglob("*"):
            archive.write(path, path.relative_to(written))
    tables = janus.read(
        open_files(tmp_path / "p.zip"), embeddings="embeddings.npy", quality="quality.npy"
    )
    for name in ("templates", "members", "roles", "comparisons"):
        assert tables[name].digest() == read_back[name].digest()


def test_the_same_seed_gives_the_same_bytes_and_another_others(
    written: Path, tmp_path: Path
) -> None:
    write_set(tmp_path / "again", from_noise(OPTIONS), "both")
    write_set(tmp_path / "other", from_noise(OPTIONS.model_copy(update={"seed": 4})), "both")
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes(), name
        assert (tmp_path / "other" / name).read_bytes() != (written / name).read_bytes(), name


def test_counts_are_those_of_ijbc_times_the_scale(made: JanusSet) -> None:
    counts = made.counts()
    for what in ("faces", "templates", "gallery_1", "gallery_2", "mated"):
        assert counts[what] == pytest.approx(COUNTS[what] * OPTIONS.scale, abs=1), what
    assert counts["probe"] == counts["templates"] - counts["subjects"]


def test_template_ids_have_gaps() -> None:
    ids = draw_template_ids(1000, np.random.default_rng(0))
    assert np.diff(ids).min() == 1
    assert np.diff(ids).max() > 1


def test_galleries_are_disjoint_and_share_the_subjects_as_ijbc_does() -> None:
    assert draw_galleries(3531, np.random.default_rng(0)).sum() == 1772
    assert draw_galleries(2, np.random.default_rng(0)).sum() == 1


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 8),
    st.lists(st.integers(0, 100), max_size=20),
    st.floats(1e-6, 1e-5),
    st.integers(0, 9),
)
def test_comparisons_are_references_with_probes_without_repeats(
    subjects: int, more: list[int], scale: float, seed: int
) -> None:
    probes = sorted([*range(subjects), *(n % subjects for n in more)])
    subject = np.array([*range(subjects), *probes])
    a, b = draw_comparisons(subject, subjects, scale, np.random.default_rng(seed))
    assert (a < subjects).all()
    assert (b >= subjects).all()
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(a)
    mated = int((subject[a] == subject[b]).sum())
    assert mated == min(round(COUNTS["mated"] * scale), len(probes))
    assert len(a) - mated == min(round(COUNTS["non-mated"] * scale), (subjects - 1) * len(probes))


def test_a_folder_that_could_not_be_finished_leaves_nothing(made: JanusSet, tmp_path: Path) -> None:
    def image(_: int) -> bytes:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_set(tmp_path / "janus", made, "package", image)
    assert list(tmp_path.iterdir()) == []


# -- crops of photographs
# ----------------------------------------------------------------------------------------------


class Marks:
    """A detector of bright squares, which needs no weights: box, and landmarks in it, of the one in
    the image.
    """

    def detect(self, image: np.ndarray) -> DetectedFaces:
        y, x = np.nonzero(image.max(axis=2) > 128)
        if not len(x):
            return DetectedFaces(
                np.empty((0, 4), np.float32),
                np.empty((0, 5, 2), np.float32),
                np.empty(0, np.float32),
            )
        low, high = (
            np.array([x.min(), y.min()], np.float32),
            np.array([x.max() + 1, y.max() + 1], np.float32),
        )
        steps = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
        box = np.concatenate([low, high - low])
        return DetectedFaces(
            box[None], (low + steps * (high - low))[None], np.array([0.9], np.float32)
        )


def photograph(number: int, bright: bool = True) -> bytes:
    pixels = np.zeros((60, 80, 3), np.uint8)
    if bright:
        pixels[20:40, 30 + number : 50 + number] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def people(**photographs: int) -> janus.Tree:
    return janus.Tree(
        {f"lfw/{who}/{i}.png": photograph(i) for who, n in photographs.items() for i in range(n)}
    )


def test_crops_make_a_set_that_both_readers_read_alike(tmp_path: Path) -> None:
    made, image = from_photographs(people(Ada=4, Bob=9, Cleo=3), Marks(), 0.0006, 0)
    write_set(tmp_path / "set", made, "both", image)
    package = janus.read(open_files(tmp_path / "set/package"))
    nist = janus.read_nist(open_files(tmp_path / "set/nist"))
    for name in ("templates", "roles", "comparisons"):
        assert nist[name].digest() == package[name].digest(), name
    assert all(package["faces"]["sha256"])
    assert sorted(nist["faces"]["sha256"]) == sorted(package["faces"]["sha256"])
    assert package["faces"].rows == 13
    # Ada: two templates of two; Bob: four of two or three.
    assert sorted(np.bincount(package["members"]["template"]).tolist()) == [2, 2, 2, 2, 2, 3]


def test_landmarks_and_box_are_where_the_face_is_in_the_crop() -> None:
    made, image = from_photographs(people(Ada=4, Bob=4), Marks(), 0.0006, 0)
    for i in range(8):
        found = Marks().detect(decode(image(i), 10_000))
        np.testing.assert_allclose(found.landmarks[0], made.landmarks[i], atol=1)
        np.testing.assert_allclose(found.box[0], made.box[i], atol=1)


def test_photographs_without_a_face_are_left_out_and_counted() -> None:
    tree = people(Ada=4, Bob=4)
    tree.content |= {
        "lfw/Ada/dark.png": photograph(0, bright=False),
        "lfw/Bob/broken.png": b"no image",
    }
    said: list[str] = []
    made, _ = from_photographs(tree, Marks(), 0.0006, 0, said.append)
    assert len(made.template) == 8
    assert said == ["no face in 2 photographs, which were left out; 2 of 2 subjects remain"]


def test_more_subjects_than_there_are_is_refused_with_the_scale_that_fits() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"asks for 35 subjects, and 2 have 4 photographs or more.*lower --scale to 0\.0006",
    ):
        from_photographs(people(Ada=4, Bob=5, Cleo=3), Marks(), 0.01, 0)


def test_people_of_whom_no_face_is_found_make_no_set() -> None:
    tree = janus.Tree(
        {f"{who}/{i}.png": photograph(0, bright=False) for who in ("Ada", "Bob") for i in range(4)}
    )
    with pytest.raises(InvalidInput, match="faces were found of 0 subjects"):
        from_photographs(tree, Marks(), 0.0006, 0)


def test_real_faces_have_real_landmarks(shared: Path) -> None:
    weights = read_weights(
        shared / "models/yunet_n_320_320.onnx",
        "81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2",
    )
    made, image = from_photographs(open_files(shared / "data/lfw.zip"), YuNet(weights), 0.002, 0)
    counts = made.counts()
    assert counts["subjects"] == 7
    assert np.bincount(made.subject)[1:].min() >= 2
    landmarks = made.landmarks
    left_eye, right_eye, nose, mouth = (
        landmarks[:, 0],
        landmarks[:, 1],
        landmarks[:, 2],
        landmarks[:, 3:].mean(axis=1),
    )
    assert (left_eye[:, 0] < right_eye[:, 0]).all()
    assert ((left_eye[:, 1] < mouth[:, 1]) & (nose[:, 1] < mouth[:, 1])).all()
    for i in range(0, counts["faces"], 10):
        height, width = decode(image(i), 10_000_000).shape[:2]
        assert (landmarks[i] >= 0).all()
        assert (landmarks[i] < (width, height)).all()
