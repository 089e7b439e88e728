"""align: the similarity against Umeyama's solution, the choice of a face, and a status for every
file that gives none.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scrfd_graph
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from pipeline.core.schema import Batch, Status, text
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.folder import digest_images
from stages.detectors.detected_faces import DetectedFaces, ScoreLimits
from stages.detectors.yunet import YuNet
from stages.faces.align import SIZE, TEMPLATE, Align, AlignOptions, similarity, unlike_a_face, warp
from stages.faces.finding import Pick, chooser, find
from stages.faces.images import decode
from stages.tables.schemas import CROPS, DETECTIONS

Make = Callable[..., Any]
properties = settings(deadline=None, max_examples=50)
coordinate = st.floats(-500, 500, width=32)
five_points = st.lists(st.tuples(coordinate, coordinate), min_size=5, max_size=5).map(
    lambda p: np.array(p, np.float64)
)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity without reflection of least squared error, by singular values (Umeyama, TPAMI
    1991, eq. 40-42).
    """
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    sign = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / (x**2).sum(axis=1).mean()
    shift = target.mean(axis=0) - scale * rotation @ source.mean(axis=0)
    return np.concatenate([scale * rotation, shift[:, None]], axis=1)


@properties
@given(points=five_points.filter(lambda p: np.ptp(p, axis=0).min() > 1))
def test_the_similarity_is_umeyamas(points: np.ndarray) -> None:
    found, expected = (
        points @ m[:, :2].T + m[:, 2] for m in (similarity(points), umeyama(points, TEMPLATE))
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


@properties
@given(angle=st.floats(-np.pi, np.pi), scale=st.floats(0.05, 20), x=coordinate, y=coordinate)
def test_a_turned_scaled_and_moved_template_is_brought_back(
    angle: float, scale: float, x: float, y: float
) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(TEMPLATE @ turn.T + [x, y])
    np.testing.assert_allclose(matrix[:, :2] @ turn, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(
        (TEMPLATE @ turn.T + [x, y]) @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-6
    )


@properties
@given(points=five_points.filter(lambda p: np.ptp(p, axis=0).min() > 1))
def test_a_mirrored_face_is_never_mirrored_back(points: np.ndarray) -> None:
    assert np.linalg.det(similarity(points)[:, :2]) >= 0


def test_five_equal_points_give_a_matrix_that_is_finite() -> None:
    assert np.isfinite(similarity(np.full((5, 2), 7.0))).all()


def test_a_face_that_is_in_place_already_is_copied() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert np.abs(warp(image, TEMPLATE).astype(int) - image).max() <= 1


def test_what_lies_beyond_the_image_is_black() -> None:
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    # the face is at the right: the crop reaches past the right edge
    crop = warp(image, TEMPLATE + np.array([60, 0]))
    assert (crop[:, :50] == 255).all()
    assert not crop[:, 54:].any()


# nothing that a detector would find
NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


# Crops that come with the data set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of noise: a crop, a larger square, a wide one; and files that are none."""
    rng = np.random.default_rng(0)
    for name, shape in (("crop", (SIZE, SIZE)), ("large", (224, 224)), ("wide", (40, 90))):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "torn.png").write_bytes((tmp_path / "large.png").read_bytes()[:5000])
    return tmp_path


def rows(root: Path, names: list[str], **columns: Any) -> Batch:
    return Batch(
        {"path": text(names), "sha256": text(digest_images(open_files(root), names)), **columns}
    )


def align(table: Batch, context: Any, **options: Any) -> dict[str, Batch]:
    stage = Align(AlignOptions(**options), context)
    stage.open()
    made = stage.run(table, {}, stage.load(table))
    return {"detections": DETECTIONS.check(made["detections"]), "crops": CROPS.check(made["crops"])}


def test_without_a_detector_images_are_crops_already(folder: Path, context: Make) -> None:
    made = align(
        rows(folder, ["crop.png", "large.png", "wide.png"]), context(folder), detector="none"
    )
    crops = made["crops"]["crop"]
    assert (made["crops"]["status"] == Status.OK).all()
    assert np.array_equal(crops[0], np.asarray(Image.open(folder / "crop.png")))
    large = np.asarray(Image.open(folder / "large.png")).astype(np.float64)
    np.testing.assert_allclose(
        crops[1], large.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3)), atol=0.51
    )
    assert made["detections"]["box"].tolist() == [
        [0, 0, 112, 112],
        [0, 0, 224, 224],
        [0, 0, 90, 40],
    ]
    np.testing.assert_allclose(made["detections"]["landmarks"][0], TEMPLATE, atol=1e-4)


def test_an_image_that_is_no_square_crop_says_so(folder: Path, context: Make) -> None:
    found = align(
        rows(folder, ["crop.png", "large.png", "wide.png"]), context(folder), detector="none"
    )["detections"]
    assert found["reason"].tolist() == [
        "",
        "",
        "90×40 is no square crop: squeezed, as align.detector is none",
    ]


def test_a_file_that_gives_no_pixels_is_a_row_with_a_status_and_a_reason(
    folder: Path, context: Make
) -> None:
    names = ["crop.png", "empty.jpg", "text.jpg", "torn.png", "gone.png", "large.png"]
    made = align(rows(folder, names), context(folder), detector="none", max_pixels=20_000)
    bad = [Status.UNREADABLE, Status.UNREADABLE, Status.TOO_LARGE, Status.MISSING, Status.TOO_LARGE]
    for batch in made.values():
        assert batch["status"].tolist() == [Status.OK, *bad]
    assert made["detections"]["reason"][0] == ""
    assert made["detections"]["reason"][1:].tolist() == [
        "the file is empty",
        "not an image of a known format",
        "224×224 pixels are more than the 20,000 of align.max_pixels",
        "named by the protocol, and not in the data set",
        "224×224 pixels are more than the 20,000 of align.max_pixels",
    ]
    assert not made["crops"]["crop"][1:].any()
    assert np.isnan(made["detections"]["box"][1:]).all()
    assert np.isnan(made["detections"]["score"][1:]).all()


def test_a_truncated_file_is_unreadable(folder: Path, context: Make) -> None:
    made = align(rows(folder, ["torn.png", "crop.png"]), context(folder), detector="none")
    assert made["detections"]["status"].tolist() == [Status.UNREADABLE, Status.OK]
    assert "truncated" in made["detections"]["reason"][0]


def test_a_member_that_its_archive_holds_and_cannot_give_is_unreadable(
    folder: Path, tmp_path: Path, context: Make
) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.write(folder / "crop.png", "good.png")
        made.write(folder / "large.png", "bad.png")
        start = made.getinfo("bad.png").header_offset
    data = bytearray(archive.read_bytes())
    data[start + 5000] ^= 1
    archive.write_bytes(data)
    found = align(rows(archive, ["bad.png", "good.png"]), context(archive), detector="none")[
        "detections"
    ]
    assert found["status"].tolist() == [Status.UNREADABLE, Status.OK]
    assert found["reason"][0].startswith("cannot be read: damaged in its archive")


def test_a_member_packed_by_another_method_is_unreadable_and_the_reason_names_that(
    folder: Path, tmp_path: Path, context: Make
) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as made:
        made.write(folder / "large.png", "lzma.png")
    found = align(rows(archive, ["lzma.png"]), context(archive), detector="none")["detections"]
    assert found["status"].tolist() == [Status.UNREADABLE]
    assert "packed by another method than store or deflate" in found["reason"][0]


def test_a_file_that_changed_or_went_while_the_run_was_going_on_ends_it(
    folder: Path, context: Make
) -> None:
    table = rows(folder, ["crop.png"])
    (folder / "crop.png").write_bytes((folder / "large.png").read_bytes())
    with pytest.raises(InvalidInput, match=r"crop\.png changed while the run was going on"):
        align(table, context(folder), detector="none")
    (folder / "crop.png").unlink()
    with pytest.raises(InvalidInput, match=r"crop\.png was there .* and is gone"):
        align(table, context(folder), detector="none")


def test_a_data_set_without_files_cannot_be_aligned(context: Make) -> None:
    with pytest.raises(InvalidInput, match=r"align needs images: set dataset\.path"):
        Align(AlignOptions(detector="none"), context()).open()


def test_an_unknown_detector_is_named_with_the_nearest_one(folder: Path, context: Make) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'yunet_320'"):
        Align(AlignOptions(detector="yunet_32"), context(folder)).open()


# Real faces


@pytest.fixture(scope="module")
def lfw(shared: Path, context: Make) -> Any:
    return context(shared / "data" / "lfw.zip", (shared / "models",))


def test_a_face_is_found_in_every_photograph(photographs: Batch, lfw: Any) -> None:
    made = align(photographs, lfw)
    found = made["detections"]
    assert (found["status"] == Status.OK).all()
    assert (found["score"] > 0.6).all()
    assert (found["faces_found"] >= 1).all()
    # The person that one of these photographs is of is in the middle, 150 pixels wide and high.
    centre = found["box"][:, :2] + found["box"][:, 2:] / 2
    assert np.abs(centre - 75).max() < 20
    eyes = found["landmarks"][:, :2]
    assert (eyes[:, 0, 0] < eyes[:, 1, 0]).all()
    assert (found["landmarks"][:, 3:, 1].min(axis=1) > eyes[:, :, 1].max(axis=1)).all()


def test_rows_do_not_depend_on_their_neighbours_nor_on_when_they_are_made(
    photographs: Batch, lfw: Any
) -> None:
    whole = align(photographs, lfw)
    order = np.array([9, 3, 3, 30])
    for name, batch in align(photographs.take(order), lfw).items():
        assert batch.digest() == whole[name].take(order).digest()


def test_of_several_faces_one_is_taken_and_the_row_says_so(
    shared: Path, photographs: Batch, tmp_path: Path, context: Make
) -> None:
    files = open_files(shared / "data" / "lfw.zip")
    one, two = (
        Image.open(io.BytesIO(files.read(path))).crop((30, 30, 120, 120))
        for path in photographs["path"][:2]
    )
    scene = Image.new("RGB", (400, 300))
    scene.paste(one, (190, 105))  # nearer the centre
    scene.paste(two.resize((180, 180)), (0, 0))  # larger
    scene.save(tmp_path / "two.png")
    scene.crop((180, 0, 400, 300)).save(tmp_path / "one.png")
    table, there = rows(tmp_path, ["two.png", "one.png"]), context(tmp_path, (shared / "models",))
    for pick, x, taken in (
        ("centre", 235, "the one nearest the centre"),
        ("largest", 90, "the largest"),
    ):
        found = align(table, there, pick=pick)["detections"]
        assert found["status"].tolist() == [Status.OK, Status.OK]
        several, alone = found["faces_found"].tolist()
        assert several > 1 == alone
        assert found["reason"].tolist() == [f"{several} faces found, {taken} taken", ""]
        assert abs(found["box"][0, 0] + found["box"][0, 2] / 2 - x) < 30


def test_the_face_in_the_box_that_the_protocol_gives_is_taken(
    shared: Path, photographs: Batch, tmp_path: Path, context: Make
) -> None:
    files = open_files(shared / "data" / "lfw.zip")
    faces = [
        Image.open(io.BytesIO(files.read(path))).crop((30, 30, 120, 120))
        for path in photographs["path"][:2]
    ]
    scene = Image.new("RGB", (400, 300))
    for face, place in zip(faces, ((30, 105), (290, 105)), strict=True):
        scene.paste(face, place)
    scene.save(tmp_path / "two.png")
    boxes = np.float32([[30, 105, 90, 90], [290, 105, 90, 90], [150, 10, 60, 60], [np.nan] * 4])
    found = align(
        rows(tmp_path, ["two.png"] * 4, box=boxes), context(tmp_path, (shared / "models",))
    )["detections"]
    assert found["status"].tolist() == [Status.OK, Status.OK, Status.NOT_FOUND, Status.OK]
    assert (found["box"][:2, 0] + found["box"][:2, 2] / 2 > 200).tolist() == [False, True]
    assert found["reason"][1].endswith("the one in the protocol's box taken")
    assert found["reason"][2] == "no face found in the box that the protocol gives"


@pytest.mark.parametrize(
    ("pick", "taken", "which"),
    [("centre", 1, "nearest the centre"), ("largest", 2, "largest"), ("score", 0, "best score")],
)
def test_a_policy_picks_one_of_several_faces_whatever_found_them(
    pick: Pick, taken: int, which: str
) -> None:
    boxes = np.float32([[0, 0, 20, 20], [80, 80, 30, 30], [120, 10, 70, 70]])
    faces = DetectedFaces(boxes, np.float32([TEMPLATE] * 3), np.float32([0.9, 0.8, 0.7]))
    found = find(NOISE, Finder([faces], None), chooser(pick))
    assert found.index == taken
    assert which in found.notes[0]


def test_a_detector_whose_scores_are_not_measured_turns_no_image_and_doubts_no_face() -> None:
    faces = DetectedFaces(np.float32([[0, 0, 20, 20]]), np.float32([TEMPLATE]), np.float32([0.1]))
    finder = Finder([faces], None)
    assert find(NOISE, finder, chooser("centre")).notes == ()
    assert finder.looks == 1


def test_every_face_of_a_photograph_is_not_a_row_of_align() -> None:
    with pytest.raises(ValidationError, match="`qfuse faces` writes a row for every face"):
        AlignOptions(pick="all")  # type: ignore[arg-type]


def test_a_detector_of_another_kind_is_named_by_its_card_alone(
    tmp_path: Path, context: Make
) -> None:
    data = scrfd_graph.graph_of_red(320)
    (tmp_path / "red.onnx").write_bytes(data)
    card = {"kind": "detector", "architecture": "scrfd", "file": "red.onnx", "input_size": 320}
    card |= {"std": [128, 128, 128], "dimension": 15, "licence": "none"}
    card["sha256"] = sha256(data).hexdigest()
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"red": card}))
    image = np.zeros((320, 320, 3), np.uint8)
    image[96:128, 160:192, 0] = 255  # RGB, as files hold it
    Image.fromarray(image).save(tmp_path / "red.png")
    surroundings = context(tmp_path, (tmp_path,))
    found = align(rows(tmp_path, ["red.png"]), surroundings, detector="red", nms_threshold=1.0)
    assert found["detections"]["status"].tolist() == [Status.OK]
    assert found["detections"]["faces_found"].tolist() == [16]  # four by four cells of 8 pixels
    stage = Align(AlignOptions(detector="red"), surroundings)
    assert stage.backends() == ("onnxruntime", "opencv", "pillow", "pillow-heif")
    assert stage.identity()["sha256"] == card["sha256"]
    on_gpu = Align(AlignOptions(detector="red"), context(tmp_path, (tmp_path,), device="cuda"))
    assert not on_gpu.gpu


def test_an_image_without_a_face_is_not_found(shared: Path, tmp_path: Path, context: Make) -> None:
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    made = align(rows(tmp_path, ["noise.png"]), context(tmp_path, (shared / "models",)))
    assert made["detections"]["status"].tolist() == [Status.NOT_FOUND]
    assert made["detections"]["reason"].tolist() == ["no face found"]
    assert not made["crops"]["crop"].any()


def test_landmarks_that_come_with_the_protocol_are_used_as_given(
    shared: Path, tmp_path: Path, context: Make
) -> None:
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    landmarks = np.float32([TEMPLATE * 1.25 + [20, 30], np.full((5, 2), np.nan)])
    table = rows(tmp_path, ["noise.png", "noise.png"], landmarks=landmarks)
    made = align(table, context(tmp_path, (shared / "models",)))
    found = made["detections"]
    assert found["status"].tolist() == [
        Status.OK,
        Status.NOT_FOUND,
    ]  # a row that came without landmarks is detected in
    assert np.array_equal(found["landmarks"][0], landmarks[0])
    assert np.array_equal(found["box"][0, :2], landmarks[0].min(axis=0))
    assert np.array_equal(made["crops"]["crop"][0], warp(NOISE, landmarks[0]))


def test_given_landmarks_need_no_detector(tmp_path: Path, context: Make) -> None:
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    landmarks = np.float32([TEMPLATE * 1.25 + [20, 30]])
    made = align(
        rows(tmp_path, ["noise.png"], landmarks=landmarks), context(tmp_path), detector="none"
    )
    assert np.array_equal(made["crops"]["crop"][0], warp(NOISE, landmarks[0]))


@pytest.mark.parametrize(
    ("landmarks", "reason"),
    [
        (np.zeros((5, 2)), "are all in one place"),
        (np.full((5, 2), 70.0), "are all in one place"),
        (TEMPLATE + np.array([300, 0]), "lie outside the image of 200×200 pixels"),
        (-TEMPLATE, "lie outside the image of 200×200 pixels"),
        (
            TEMPLATE[[1, 0, 2, 4, 3]],
            "are mirrored: expected left eye, right eye, nose, left and right corner of the mouth",
        ),
        (
            TEMPLATE[[1, 0, 2, 3, 4]],
            "have eyes and a mouth that do not fit together, as if two points were swapped",
        ),
        (
            TEMPLATE[[0, 1, 2, 4, 3]],
            "have eyes and a mouth that do not fit together, as if two points were swapped",
        ),
        (
            TEMPLATE[[2, 0, 1, 3, 4]],
            "have eyes and a mouth that do not fit together, as if two points were swapped",
        ),
        (
            TEMPLATE[[0, 0, 2, 3, 4]],
            "have eyes and a mouth that do not fit together, as if two points were swapped",
        ),
        (np.where(np.arange(5)[:, None] == 2, 1.0, TEMPLATE), "have no face's shape"),
        ([[10, 50], [30, 50], [50, 50], [70, 50], [90, 50]], "lie nearly on one line"),
        ([[50, 10], [50, 10], [50, 50], [50, 80], [50, 80]], "lie nearly on one line"),
        ([[60, 60], [60, 60], [60, 60], [60, 98], [60, 98]], "lie nearly on one line"),
        ([[10, 10], [30, 30], [50, 50], [70, 70], [90, 90]], "lie nearly on one line"),
        (
            [[0, 0], [0, 0], [75, 80], [62, 98], [88, 98]],
            "have a point at (0, 0), as if it had not been found",
        ),
        (
            [[0, 0], [90, 60], [75, 80], [62, 98], [88, 98]],
            "have a point at (0, 0), as if it had not been found",
        ),
        (
            [[-1, -1], [90, 60], [75, 80], [62, 98], [88, 98]],
            "have a point at (-1, -1), as if it had not been found",
        ),
        (TEMPLATE - np.array([70, 50]), "would put 78% of the crop outside the image"),
        (TEMPLATE + np.array([160, 148]), "would put 83% of the crop outside the image"),
        (
            [[160, 160], [240, 160], [200, 212], [166, 262], [234, 262]],
            "would put 70% of the crop outside the image",
        ),
        (np.where(np.arange(5)[:, None] == 2, np.inf, TEMPLATE), "are not all numbers"),
        (np.where(np.arange(5)[:, None] == 2, np.nan, TEMPLATE), "are not all numbers"),
    ],
)
def test_given_landmarks_that_cannot_be_a_faces_fail_with_their_reason(
    tmp_path: Path, context: Make, landmarks: Any, reason: str
) -> None:
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    table = rows(tmp_path, ["noise.png"] * 2, landmarks=np.float32([landmarks, TEMPLATE]))
    found = align(table, context(tmp_path), detector="none")["detections"]
    assert found["status"].tolist() == [Status.NOT_FOUND, Status.OK]
    assert found["reason"][0].startswith(f"the landmarks that came with the data {reason}")


@properties
@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.1, 3),
    squeeze=st.floats(0.4, 1),
    x=st.floats(0, 400),
    y=st.floats(0, 400),
)
def test_a_face_turned_in_any_way_has_a_faces_shape(
    angle: float, scale: float, squeeze: float, x: float, y: float
) -> None:
    turn = np.exp(1j * np.radians(angle)) * scale  # in the image, after a turn away from the camera
    middle = TEMPLATE.mean(axis=0)
    z = (
        ((TEMPLATE[:, 0] - middle[0]) * squeeze + 1j * (TEMPLATE[:, 1] - middle[1])) * turn
        + x
        + 1j * y
    )
    assert unlike_a_face(np.stack([z.real, z.imag], axis=1) + 300, (1000, 1000)) == ""


@properties
@given(
    yaw=st.floats(-90, 90),
    pitch=st.floats(-45, 45),
    roll=st.floats(-180, 180),
    noise=st.integers(0, 10**6),
    flat=st.floats(0.8, 1.2),
)
def test_a_face_turned_away_from_the_camera_has_a_faces_shape(
    yaw: float, pitch: float, roll: float, noise: int, flat: float
) -> None:
    # Millimetres of an adult's face from the tip of the nose: to the right, down, towards the
    # camera.
    face = np.array(
        [[-31.5, -38, -30], [31.5, -38, -30], [0, 0, 0], [-25, 33, -28], [25, 33, -28]]
    ) * [1, 1, flat]
    for angle, (i, j) in ((yaw, (0, 2)), (pitch, (1, 2)), (roll, (0, 1))):
        turn = np.eye(3)
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turn[[i, i, j, j], [i, j, i, j]] = cosine, sine, -sine, cosine
        face = face @ turn
    seen = face[:, :2] + np.random.default_rng(noise).normal(0, 1, (5, 2)) + 200
    assert unlike_a_face(seen, (400, 400)) == ""


def test_few_points_drawn_at_random_pass_for_a_faces() -> None:
    drawn = np.random.default_rng(0).uniform(0, 1000, (1000, 5, 2))
    assert sum(unlike_a_face(points, (1000, 1000)) == "" for points in drawn) < 20


def reason_and_looks(tmp_path: Path, context: Make, *scores: float) -> tuple[str, int]:
    """What align says of an image, and how often it looks, where a face has these scores at each
    quarter turn.
    """
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    stage = Align(AlignOptions(detector="none"), context(tmp_path))
    stage.open()
    stage._detector = finder = Finder([one_face(score) for score in scores])
    found = stage.run(table := rows(tmp_path, ["noise.png"]), {}, stage.load(table))["detections"]
    return found["reason"][0], finder.looks


class Finder:
    """A detector that gives the next of its answers, and whose scores mean what `limits` say."""

    def __init__(
        self, answers: Sequence[DetectedFaces], limits: ScoreLimits | None = YuNet.limits
    ) -> None:
        self.answers, self.limits, self.looks = answers, limits, 0

    def detect(self, image: np.ndarray) -> DetectedFaces:
        self.looks += 1
        return self.answers[self.looks - 1]


def one_face(score: float) -> DetectedFaces:
    """A face with this score; none if it is 0."""
    count = int(score > 0)
    box, landmarks = np.float32([[40, 40, 112, 112]]), np.float32([TEMPLATE + 40])
    return DetectedFaces(box[:count], landmarks[:count], np.float32([score][:count]))


def test_a_face_of_which_the_detector_is_not_sure_says_so(tmp_path: Path, context: Make) -> None:
    doubt = "a doubtful face, with a detector score of 0.79"
    assert reason_and_looks(tmp_path, context, 0.79, 0, 0, 0) == (doubt, 4)
    assert reason_and_looks(tmp_path, context, 0.81, 0, 0, 0) == ("", 4)


def test_a_face_of_which_the_detector_is_sure_is_looked_at_once(
    tmp_path: Path, context: Make
) -> None:
    assert reason_and_looks(tmp_path, context, 0.92) == ("", 1)


def test_an_image_is_turned_only_where_that_is_better_and_beyond_doubt(
    tmp_path: Path, context: Make
) -> None:
    for scores, turn in {
        (0.9, 0, 0.92, 0): "upside down",
        (0.9, 0, 0.905, 0): "",  # hardly better
        (0.7, 0.84, 0, 0): "",  # what it finds in blur
        (0.7, 0, 0.86, 0.88): "a quarter to the right",
        (0, 0.9, 0.89, 0): "a quarter to the left",
    }.items():
        said = f"found with the image turned {turn}" if turn else ""
        assert reason_and_looks(tmp_path, context, *scores)[0].partition("a doubtful")[0] == said


def test_a_photograph_that_lies_or_stands_on_its_head_gives_the_crop_of_the_upright_one(
    shared: Path, photographs: Batch, tmp_path: Path, context: Make
) -> None:
    files, names = open_files(shared / "data" / "lfw.zip"), []
    for person, path in enumerate(photographs["path"][:4]):
        image = decode(files.read(path), 10**6)[:140]  # higher than wide or wider than high
        for quarters in range(4):
            names.append(f"{person}-{quarters}.png")
            Image.fromarray(np.ascontiguousarray(np.rot90(image, -quarters))).save(
                tmp_path / names[-1]
            )
    made = align(rows(tmp_path, names), context(tmp_path, (shared / "models",)))
    reasons = [reason.partition("turned ")[2] for reason in made["detections"]["reason"]]
    assert reasons == ["", "a quarter to the left", "upside down", "a quarter to the right"] * 4
    crops = made["crops"]["crop"].reshape(4, 4, SIZE, SIZE, 3).astype(int)
    assert np.abs(crops[:, 1:] - crops[:, :1]).mean() < 0.5
    # In pixels of the image as it is: the box holds its landmarks.
    box, landmarks = made["detections"]["box"][:, None], made["detections"]["landmarks"]
    assert ((landmarks > box[..., :2]) & (landmarks < box[..., :2] + box[..., 2:])).all()


def test_a_crop_of_one_colour_fails_and_the_reason_tells_of_bits(
    shared: Path, tmp_path: Path, context: Make
) -> None:
    # 8 bits in a file of 16
    low = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint16)
    Image.fromarray(low).save(tmp_path / "low.png")
    Image.new("RGB", (200, 200), (120, 130, 140)).save(tmp_path / "flat.png")
    names = ["low.png", "flat.png"]
    nowhere, there = np.full((2, 5, 2), np.nan), np.array([TEMPLATE + 40] * 2)
    for detector, landmarks in (("none", nowhere), ("none", there), ("yunet_320", nowhere)):
        table = rows(tmp_path, names, landmarks=np.float32(landmarks))
        made = align(table, context(tmp_path, (shared / "models",)), detector=detector)
        assert made["crops"]["status"].tolist() == [Status.NOT_FOUND] * 2
        for reason in made["detections"]["reason"]:
            assert reason.startswith(
                "one colour all over, so nothing to recognise; if it should not be, its values may"
                " have fewer"
            )


def test_aligned_landmarks_lie_on_the_template(photographs: Batch, lfw: Any) -> None:
    found = align(photographs, lfw)["detections"]
    for landmarks in found["landmarks"].astype(np.float64):
        matrix = similarity(landmarks)
        assert np.abs(landmarks @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE).max() < 12
