"""MTCNN: its cascade against one that looks at one window after another, and the published
networks' own answers.
"""

from __future__ import annotations

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.errors import InvalidInput
from stages.detectors.detected_faces import DetectedFaces, DetectorOptions
from stages.detectors.mtcnn import Mtcnn, area_means, square
from stages.models.cards import WeightFile, card_named, read_cards, read_weights
from stages.networks.mtcnn import MtcnnNetworks

ROOT = Path(__file__).parents[3]
CARD = card_named(read_cards(ROOT / "data_manifests" / "models.yaml"), "mtcnn")
APART = 0.7  # as in the published cascade, so that nothing is thinned out a second time


def networks(seed: int) -> MtcnnNetworks:
    """Networks of random weights: probabilities spread over 0…1, corrections are small."""
    torch.manual_seed(seed)
    made = MtcnnNetworks()
    for name, weight in made.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight)
            weight.data *= 0.1 if name.endswith(("4_2.weight", "5_2.weight", "6_2.weight")) else 1
    return made.eval()


def opened(made: MtcnnNetworks, options: DetectorOptions) -> Mtcnn:
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    return Mtcnn(CARD, WeightFile(Path("mtcnn.safetensors"), save(state)), options)


def fed(pixels: np.ndarray, rows: int, columns: int) -> Tensor:
    """RGB pixels (h, w, 3), resampled by areas and scaled: (1, 3, rows, columns)."""
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    return (adaptive_avg_pool2d(planes, (rows, columns)) - 127.5) / 128


def thinned(rows: list[list[float]], most: float, smaller: bool = False) -> list[list[float]]:
    """Rows left, top, right, bottom, score, …: what shares too much with a better one goes."""
    kept: list[list[float]] = []
    for row in sorted(rows, key=lambda row: -row[4]):
        more = 1 if smaller else 0  # the last step counts pixels
        for other in kept:
            w = min(row[2], other[2]) - max(row[0], other[0]) + more
            h = min(row[3], other[3]) - max(row[1], other[1]) + more
            areas = [(r[2] - r[0] + more) * (r[3] - r[1] + more) for r in (row, other)]
            shared = max(w, 0) * max(h, 0)
            if shared > most * (min(areas) if smaller else sum(areas) - shared):
                break
        else:
            kept.append(row)
    return kept


def squared(row: list[float]) -> list[float]:
    left, top, right, bottom, *rest = row
    side = max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2, *rest]


def by_loops(made: MtcnnNetworks, rgb: np.ndarray) -> list[list[float]]:
    """Rows left, top, right, bottom (pixels from 1), score, ten coordinates of landmarks."""
    height, width = rgb.shape[:2]
    proposed, scale = [], 12 / 20
    while min(height, width) * scale >= 12:
        at_scale = []
        probability, by = made.pnet(fed(rgb, int(height * scale + 1), int(width * scale + 1)))
        for y in range(probability.shape[1]):
            for x in range(probability.shape[2]):
                if probability[0, y, x] >= 0.6:
                    corner = [(2 * x + 1) / scale, (2 * y + 1) / scale]
                    corner += [(2 * x + 12) / scale, (2 * y + 12) / scale]
                    moves = by[0, :, y, x].tolist()
                    at_scale.append([*np.floor(corner), float(probability[0, y, x]), *moves])
        proposed += thinned(at_scale, 0.5)
        scale *= 0.709
    boxes = []
    for left, top, right, bottom, score, *by in thinned(proposed, 0.7):
        w, h = right - left, bottom - top
        moved = [left + by[0] * w, top + by[1] * h, right + by[2] * w, bottom + by[3] * h]
        boxes.append(squared([*moved, score]))
    refined = []
    for box in boxes:
        for probability, by in looked(made.rnet, rgb, box, 24):
            if probability > 0.7:
                refined.append([*box[:4], float(probability), *by.ravel().tolist()])
    boxes = [squared(moved_by(row, row[5:])) for row in thinned(refined, 0.7)]
    found = []
    for box in boxes:
        for probability, by, points in looked(made.onet, rgb, box, 48):
            if probability > 0.7:
                w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
                marks = points.ravel().tolist()
                placed = [
                    value
                    for k in range(5)
                    for value in (marks[k] * w + box[0] - 1, marks[5 + k] * h + box[1] - 1)
                ]
                moved = moved_by([*box[:4], float(probability)], by.ravel().tolist())
                found.append([*moved, *placed])
    return thinned(found, 0.7, smaller=True)


def moved_by(row: list[float], by: list[float]) -> list[float]:
    w, h = row[2] - row[0] + 1, row[3] - row[1] + 1
    moves = (by[0] * w, by[1] * h, by[2] * w, by[3] * h)
    return [*(value + move for value, move in zip(row[:4], moves, strict=True)), row[4]]


def looked(network: Any, rgb: np.ndarray, box: list[float], side: int) -> list[tuple[Tensor, ...]]:
    """What a network says of a window, cut off at the edge; nothing if it lies outside."""
    left, top = max(int(box[0]), 1) - 1, max(int(box[1]), 1) - 1
    right, bottom = min(int(box[2]), rgb.shape[1]), min(int(box[3]), rgb.shape[0])
    if right <= left or bottom <= top:
        return []
    return [network(fed(rgb[top:bottom, left:right], side, side))]


@pytest.mark.parametrize("seed", [5, 15, 32])  # in which many windows pass all three networks
def test_the_cascade_in_batches_finds_what_it_finds_window_by_window(seed: int) -> None:
    made, rng = networks(seed), np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 11, 3), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(small).resize((110, 80), Image.Resampling.BICUBIC))
    options = DetectorOptions(nms_threshold=APART)
    faces = opened(made, options).detect(np.ascontiguousarray(rgb[:, :, ::-1]))
    with torch.inference_mode():
        expected = np.array(by_loops(made, rgb))
    assert len(faces) == len(expected) > 10
    boxes = np.concatenate([expected[:, :2] - 1, expected[:, 2:4] - expected[:, :2] + 1], axis=1)
    np.testing.assert_allclose(faces.score, expected[:, 4], atol=1e-5)
    np.testing.assert_allclose(faces.box, boxes, atol=1e-2)
    np.testing.assert_allclose(faces.landmarks.reshape(-1, 10), expected[:, 5:], atol=1e-2)


def test_windows_are_resampled_as_torch_pools_them() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    sums = np.zeros((38, 54, 3))
    sums[1:, 1:] = image.astype(float).cumsum(0).cumsum(1)
    low = rng.integers(0, 20, (30, 2))
    high = low + rng.integers(1, 18, (30, 2))  # fewer pixels than cells, and more
    found = area_means(sums, low, high, (7, 9))
    for i, ((x, y), (right, bottom)) in enumerate(zip(low, high, strict=True)):
        planes = torch.from_numpy(image[y:bottom, x:right].astype(float)).permute(2, 0, 1)[None]
        pooled = adaptive_avg_pool2d(planes, (7, 9))[0].permute(1, 2, 0)
        np.testing.assert_allclose(found[i], pooled.numpy())


def test_a_square_has_the_centre_and_the_longer_side_of_its_box() -> None:
    assert square(np.array([[10.0, 20, 30, 60]])).tolist() == [[0, 20, 40, 60]]


@pytest.mark.parametrize("shape", [(1, 1), (19, 300), (20, 20)])
def test_images_too_small_for_a_face_have_none(shape: tuple[int, int]) -> None:
    detector = opened(networks(0), DetectorOptions(score_threshold=1.0))
    faces = detector.detect(np.zeros((*shape, 3), np.uint8))
    assert faces.box.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


def test_the_networks_have_the_published_names_and_shapes() -> None:
    shapes = {name: tuple(value.shape) for name, value in MtcnnNetworks().state_dict().items()}
    assert len(shapes) == 13 + 16 + 21
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 495_850
    assert shapes["pnet.conv4_2.weight"] == (4, 32, 1, 1)
    assert shapes["rnet.dense4.weight"] == (128, 576)
    assert shapes["onet.dense6_3.weight"] == (10, 256)


def test_a_file_of_other_networks_is_refused() -> None:
    weights = WeightFile(Path("mtcnn.safetensors"), save({"pnet.conv1.weight": torch.zeros(1)}))
    with pytest.raises(InvalidInput, match="does not fit MtcnnNetworks"):
        Mtcnn(CARD, weights)


# The published weights


@pytest.fixture(scope="session")
def published() -> WeightFile:
    places = [
        Path(os.environ.get("QFUSE_MODELS", "models")),
        Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared")) / "models",
    ]
    for place in places:
        if (place / CARD.file).is_file():
            return read_weights(place / CARD.file, CARD.sha256)
    pytest.skip(f"no {CARD.file}: `qfuse models fetch mtcnn`, and set QFUSE_MODELS to its folder")


def photograph(shared: Path, name: str) -> Image.Image:
    with zipfile.ZipFile(shared / "data" / "lfw.zip") as archive:
        data = archive.read(f"lfw/{name}/{name}_0001.jpg")
    return Image.open(io.BytesIO(data)).convert("RGB")


def detected(weights: WeightFile, image: Image.Image, **options: Any) -> DetectedFaces:
    bgr = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
    return Mtcnn(CARD, weights, DetectorOptions(nms_threshold=APART, **options)).detect(bgr)


# Box and best score, then landmarks, of the face that scores best in the first photograph of a
# person of LFW: by MTCNN of facenet-pytorch 2.6.0 (whose pixels count from 1), with minsize 20,
# thresholds 0.6, 0.7, 0.7 and factor 0.709. One photograph in fifty is left out here: where single
# precision puts the first network's windows beside those of exact arithmetic, results differ by a
# few pixels.
GOLDEN = {
    "AJ_Cook": (
        *(51.4939, 34.7718, 56.2283, 77.5173, 0.9999),
        *(62.1410, 69.2564, 87.5447, 65.8145, 70.1863, 82.4306, 66.0615, 94.9810, 89.6234, 92.5613),
    ),
    "Donald_Regan": (
        *(42.4793, 38.0961, 56.8229, 76.2633, 0.9998),
        *(63.6253, 66.6739, 89.3246, 69.5365, 76.2239, 81.1711, 61.7544, 96.0094, 82.2474, 98.6358),
    ),
    "Jonathan_Arden": (  # cut off at the left
        *(-26.5930, -2.8182, 65.3351, 77.3133, 1.0000),
        *(-5.7496, 28.7475, 25.8911, 29.7089, 11.3338, 43.7172, -5.8243, 56.2126, 23.2649, 57.7831),
    ),
    "Bridget_Fonda": (
        *(54.2798, 32.4819, 55.4301, 79.8178, 0.9996),
        *(64.6508, 66.3631, 89.1679, 67.6954, 68.9582, 83.2953, 63.2680, 93.2626, 87.6624, 94.6793),
    ),
    "Will_Ferrell": (
        *(52.0705, 36.7386, 56.3563, 82.1410, 0.9994),
        *(62.5937, 67.3453, 86.0229, 66.4720, 68.4191, 79.1419, 62.8072, 95.7138, 88.6110, 93.7738),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_published_weights_find_what_the_published_cascade_finds(
    shared: Path, published: WeightFile, name: str
) -> None:
    faces = detected(published, photograph(shared, name))
    found = np.concatenate([faces.box[0], faces.score[:1], faces.landmarks[0].ravel()])
    assert np.abs(found - GOLDEN[name]).max() < 0.05


@pytest.mark.parametrize("border", [0.0, 0.2])
def test_coordinates_are_those_of_the_image_given(
    shared: Path, published: WeightFile, border: float
) -> None:
    large = photograph(shared, "AJ_Cook").resize((1200, 900))
    faces = detected(published, large, max_side=240, border=border)
    expected = np.reshape(GOLDEN["AJ_Cook"][5:], (5, 2)) * [8, 6]
    assert np.abs(faces.landmarks[0] - expected).max() < 20


def test_threads_share_one_detector(shared: Path, published: WeightFile) -> None:
    detector = Mtcnn(CARD, published)
    images = [np.asarray(photograph(shared, name))[:, :, ::-1].copy() for name in GOLDEN]
    alone = [detector.detect(image).landmarks for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = [faces.landmarks for faces in pool.map(detector.detect, images)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_higher_score_threshold_leaves_out_doubtful_faces(
    shared: Path, published: WeightFile
) -> None:
    photo = photograph(shared, "Jonathan_Arden")
    many, few = (detected(published, photo, score_threshold=each) for each in (0.6, 0.9999))
    assert len(many) > len(few) > 0
    assert (few.score >= np.float32(0.9999)).all()
