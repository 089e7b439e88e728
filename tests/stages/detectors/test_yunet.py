"""YuNet: coordinates are those of the image given, in the order the alignment template wants."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import InvalidInput
from stages.detectors.detected_faces import DetectedFaces, DetectorOptions
from stages.detectors.yunet import YuNet, best_of_scales
from stages.models.cards import WeightFile, read_weights

FACES = DetectedFaces(
    np.array([[0, 0, 40, 40], [45, 45, 10, 10]], np.float32),
    np.zeros((2, 5, 2), np.float32),
    np.array([0.9, 0.8], np.float32),
)


def _drawn_face(size: int = 240) -> np.ndarray:
    """A face drawn with ellipses, which YuNet takes for one."""
    image = np.full((size, size, 3), 210, np.uint8)
    c, u = size // 2, size / 240

    def at(x: float, y: float) -> tuple[int, int]:
        return int(c + x * u), int(c + y * u)

    cv2.ellipse(image, at(0, 0), (int(62 * u), int(82 * u)), 0, 0, 360, (150, 180, 225), -1)
    cv2.ellipse(image, at(0, -50), (int(64 * u), int(42 * u)), 0, 180, 360, (30, 40, 60), -1)
    for side in (-1, 1):
        cv2.ellipse(
            image, at(26 * side, -15), (int(13 * u), int(7 * u)), 0, 0, 360, (245, 245, 245), -1
        )
        cv2.circle(image, at(26 * side, -15), int(6 * u), (40, 30, 20), -1)
        cv2.ellipse(
            image, at(26 * side, -30), (int(16 * u), int(4 * u)), 0, 180, 360, (30, 40, 60), -1
        )
    cv2.line(image, at(0, -10), at(-4, 20), (110, 140, 190), max(1, int(3 * u)))
    cv2.ellipse(image, at(0, 22), (int(10 * u), int(5 * u)), 0, 0, 180, (100, 130, 180), -1)
    cv2.ellipse(image, at(0, 45), (int(24 * u), int(9 * u)), 0, 0, 360, (80, 80, 180), -1)
    return cv2.GaussianBlur(image, (0, 0), 1.5 * u)


def test_nearest_and_largest_pick_different_faces() -> None:
    assert FACES.nearest(50, 50) == 1
    assert FACES.largest() == 0
    assert len(FACES) == 2


@pytest.mark.parametrize("quarters", range(4))
def test_faces_of_a_turned_image_are_turned_back(quarters: int) -> None:
    image = np.zeros((40, 70), np.uint8)
    image[10:14, 50:59] = 1
    image[12, 57] = 2
    seen = np.rot90(image, quarters)
    y, x = np.nonzero(seen)
    box = np.float32([[x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]])
    landmarks = np.argwhere(seen == 2)[:, ::-1].astype(np.float32)
    faces = DetectedFaces(box, np.tile(landmarks, (1, 5, 1)), np.float32([0.9])).turned_back(
        quarters, image.shape
    )
    assert faces.box.tolist() == [[50, 10, 9, 4]]
    assert faces.landmarks.tolist() == [[[57, 12]] * 5]
    assert faces.box.dtype == faces.landmarks.dtype == np.float32


def test_landmarks_are_ordered_as_seen_in_the_image(weights: Path) -> None:
    faces = YuNet(read_weights(weights / "yunet_n_320_320.onnx", None)).detect(_drawn_face())
    assert len(faces) >= 1
    left_eye, right_eye, nose, left_mouth, right_mouth = faces.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert faces.box.dtype == faces.landmarks.dtype == faces.score.dtype == np.float32


class _MarkerFinder:
    """Stands in for the network: reports the extent of the bright pixels of whatever it
    is shown."""

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 (OpenCV's name)
        self.size = size

    def detect(self, seen: np.ndarray) -> tuple[int, np.ndarray]:
        assert self.size == (seen.shape[1], seen.shape[0])
        y, x = np.nonzero(seen[:, :, 0] > 127)
        low, high = np.array([x.min(), y.min()]), np.array([x.max() + 1, y.max() + 1])
        row = np.concatenate([low, high - low, np.tile((low + high) / 2, 5), [0.9]])
        return 1, row[None].astype(np.float32)


@pytest.mark.parametrize("max_side", [1000, 300, 251])
@pytest.mark.parametrize("border", [0.0, 0.3])
def test_coordinates_are_those_of_the_image_given(
    monkeypatch: pytest.MonkeyPatch, max_side: int, border: float
) -> None:
    monkeypatch.setattr(YuNet, "_create", lambda self: _MarkerFinder())
    image = np.zeros((400, 601, 3), np.uint8)
    image[100:160, 420:540] = 255
    options = DetectorOptions(max_side=max_side, border=border)
    faces = YuNet(WeightFile(Path("any"), b""), options).detect(image)
    # One pixel of the reduced image is the best a position found in it can be.
    tolerance = 0.01 if max_side == 1000 else 601 / max_side
    np.testing.assert_allclose(faces.box[0], [420, 100, 120, 60], atol=2 * tolerance)
    np.testing.assert_allclose(faces.landmarks[0], [[480, 130]] * 5, atol=tolerance)


def test_threads_share_one_detector(weights: Path) -> None:
    detector = YuNet(read_weights(weights / "yunet_n_320_320.onnx", None))
    images = [_drawn_face(240), _drawn_face(300)] * 6
    alone = [detector.detect(image).landmarks for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = [faces.landmarks for faces in pool.map(detector.detect, images)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_no_face_is_an_empty_answer(weights: Path) -> None:
    detector = YuNet(read_weights(weights / "yunet_n_320_320.onnx", None))
    for shape in ((60, 90, 3), (1, 1, 3)):
        faces = detector.detect(np.zeros(shape, np.uint8))
        assert len(faces) == 0
        assert faces.box.shape == (0, 4)
        assert faces.landmarks.shape == (0, 5, 2)


def test_creation_is_silent_and_leaves_the_log_level(
    weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = cv2.utils.logging.getLogLevel()
    YuNet(read_weights(weights / "yunet_n_640_640.onnx", None))
    assert capfd.readouterr() == ("", "")
    assert cv2.utils.logging.getLogLevel() == level


def test_wrong_image_and_wrong_file_are_sentences(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="uint8"):
        YuNet(read_weights(weights / "yunet_n_320_320.onnx", None)).detect(
            np.zeros((10, 10), np.uint8)
        )
    (tmp_path / "torn.onnx").write_bytes(b"no graph")
    with pytest.raises(InvalidInput, match=r"torn\.onnx"):
        YuNet(read_weights(tmp_path / "torn.onnx", None))


def test_a_graph_from_memory_finds_what_the_same_graph_from_its_file_finds(weights: Path) -> None:
    path = weights / "yunet_n_320_320.onnx"
    for size in (240, 331):
        image = _drawn_face(size)
        other = cv2.FaceDetectorYN.create(str(path), "", (size, size), 0.6, 0.3, 5000)
        _, rows = other.detect(image)
        faces = YuNet(read_weights(path, None)).detect(image)
        assert len(faces) == len(rows) >= 1
        assert np.array_equal(faces.landmarks[0].ravel(), rows[0, 4:14])
        assert np.array_equal(faces.box[0], rows[0, :4])


def test_threads_open_the_bytes_that_were_checked_whatever_becomes_of_the_file(
    weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "yunet.onnx"
    path.write_bytes((weights / "yunet_n_320_320.onnx").read_bytes())
    detector = YuNet(read_weights(path, None))
    path.write_bytes(b"something else")
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(detector.detect, _drawn_face()).result()) >= 1


@pytest.mark.parametrize("side", [700, 1600])
def test_a_face_that_fills_the_frame_is_found_once_and_where_it_is(
    weights: Path, side: int
) -> None:
    small, found = YuNet(read_weights(weights / "yunet_n_320_320.onnx", None)), _drawn_face()
    x, y, w, h = small.detect(found).box[0]
    scale = side / (max(w, h) * 1.2)
    move = np.array(
        [[scale, 0, side / 2 - (x + w / 2) * scale], [0, scale, side / 2 - (y + h / 2) * scale]]
    )
    large = cv2.warpAffine(
        found, move, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    faces = small.detect(large)
    expected = small.detect(found).landmarks[0] @ move[:, :2].T + move[:, 2]
    assert len(faces) == 1
    assert np.abs(faces.landmarks[0] - expected).max() < 0.05 * side


def test_of_one_face_at_several_scales_the_best_is_kept_and_of_two_faces_both() -> None:
    box = np.float32(
        [[0, 0, 100, 100], [5, 5, 95, 95], [30, 30, 20, 20], [300, 0, 100, 100], [400, 0, 90, 90]]
    )
    found = DetectedFaces(
        box, np.zeros((5, 2), np.float32), np.float32([0.92, 0.91, 0.7, 0.8, 0.9])
    )
    kept = best_of_scales(found, np.array([0.5, 1, 1, 1, 1]))
    assert kept.box[:, 0].tolist() == [
        5,
        400,
        300,
    ]  # of the first three the one seen larger, though its score is a little lower
    assert (
        best_of_scales(found, np.array([0.5, 4, 4, 1, 1])).box[0, 0] == 0
    )  # of more pixels than the network knows


def test_a_small_image_is_looked_at_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, sizes = YuNet(read_weights(weights / "yunet_n_320_320.onnx", None)), []
    look = detector._at
    monkeypatch.setattr(
        detector, "_at", lambda image, scale: sizes.append(scale) or look(image, scale)
    )
    detector.detect(np.zeros((320, 200, 3), np.uint8))
    detector.detect(np.zeros((2048, 100, 3), np.uint8))
    assert sizes == [1, 0.5, 0.25, 0.125]
