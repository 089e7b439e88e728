"""SCRFD: its answers are decoded as plain loops decode them, in pixels of the image given."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scrfd_graph

from pipeline.errors import InvalidInput, ResourceRefused
from stages.detectors.detected_faces import USUAL, DetectorOptions
from stages.detectors.scrfd import Scrfd
from stages.models.cards import ModelCard, WeightFile


def card(side: int) -> ModelCard:
    return ModelCard(
        **{"name": "scrfd", "kind": "detector", "architecture": "scrfd", "file": "s.onnx"},
        **{"input_size": side, "std": (128.0,) * 3, "dimension": 15, "licence": ""},
    )


def opened(data: bytes, side: int, options: DetectorOptions = USUAL) -> Scrfd:
    return Scrfd(card(side), WeightFile(Path("s.onnx"), data), options)


def by_loops(
    values: list[np.ndarray], side: int, shape: tuple[int, int], score_threshold: float, nms: float
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Decode one anchor after another and compare every box with every better one."""
    levels, found = len(values) // 3, []
    ratio = max(shape) / side
    for level in range(levels):
        stride = 8 * 2**level
        cells = side // stride
        score, edges, points = (values[part * levels + level] for part in range(3))
        anchors, row = len(score) // cells**2, 0
        for y in range(cells):
            for x in range(cells):
                for _ in range(anchors):
                    at, (left, up, right, down) = (x * stride, y * stride), edges[row] * stride
                    box = [at[0] - left, at[1] - up, at[0] + right, at[1] + down]
                    marks = [at + points[row, 2 * k : 2 * k + 2] * stride for k in range(5)]
                    if score[row, 0] >= score_threshold:
                        found.append((float(score[row, 0]), np.array(box), np.array(marks)))
                    row += 1
    kept: list[tuple[float, np.ndarray, np.ndarray]] = []
    for one in sorted(found, key=lambda each: -each[0]):
        for _, box, _ in kept:
            w = min(box[2], one[1][2]) - max(box[0], one[1][0])
            h = min(box[3], one[1][3]) - max(box[1], one[1][1])
            shared = max(w, 0) * max(h, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, one[1])]
            if shared / (sum(areas) - shared) > nms:
                break
        else:
            kept.append(one)
    return [
        (score, np.array([x, y, right - x, down - y]) * ratio, marks * ratio)
        for score, (x, y, right, down), marks in kept
    ]


@pytest.mark.parametrize("shape", [(64, 128), (128, 32), (512, 256)])
@pytest.mark.parametrize(
    ("levels", "anchors", "batched"), [(3, 2, False), (3, 2, True), (5, 1, False), (5, 1, True)]
)
def test_answers_are_decoded_and_thinned_out_as_plain_loops_do(
    shape: tuple[int, int], levels: int, anchors: int, batched: bool
) -> None:
    values, side = scrfd_graph.answers(128, levels, anchors), 128
    detector = opened(scrfd_graph.graph(values, side, batched), side)
    faces = detector.detect(np.zeros((*shape, 3), np.uint8))
    expected = by_loops(values, side, shape, 0.6, 0.3)
    assert len(faces) == len(expected) > 10
    np.testing.assert_allclose(faces.score, [score for score, _, _ in expected])
    np.testing.assert_allclose(faces.box, [box for _, box, _ in expected], atol=1e-3)
    np.testing.assert_allclose(faces.landmarks, [marks for *_, marks in expected], atol=1e-3)
    assert faces.box.dtype == faces.landmarks.dtype == faces.score.dtype == np.float32


def test_the_options_are_the_score_and_the_overlap() -> None:
    values, image = scrfd_graph.answers(64, 3, 2), np.zeros((64, 64, 3), np.uint8)
    for score, nms in ((0.9, 0.3), (0.6, 0.8), (1.0, 0.3)):
        options = DetectorOptions(score_threshold=score, nms_threshold=nms)
        faces = opened(scrfd_graph.graph(values, 64), 64, options).detect(image)
        assert len(faces) == len(by_loops(values, 64, (64, 64), score, nms))


def test_the_order_of_the_outputs_does_not_matter() -> None:
    values, image = scrfd_graph.answers(64, 3, 2), np.zeros((64, 64, 3), np.uint8)
    mixed = [values[i] for i in (8, 0, 5, 3, 1, 7, 2, 6, 4)]
    one, other = (opened(scrfd_graph.graph(each, 64), 64).detect(image) for each in (values, mixed))
    assert np.array_equal(one.landmarks, other.landmarks)


@pytest.mark.parametrize("shape", [(320, 320), (100, 160), (640, 300), (37, 640)])
@pytest.mark.parametrize("options", [USUAL, DetectorOptions(border=0.3)], ids=["", "border"])
def test_a_face_is_found_where_it_is_and_blue_is_not_taken_for_red(
    shape: tuple[int, int], options: DetectorOptions
) -> None:
    detector = opened(scrfd_graph.graph_of_red(320), 320, options)
    image = np.zeros((*shape, 3), np.uint8)
    cell = 8 * max(shape) / 320 * (1 + 2 * options.border)  # in pixels of the image
    x, y = 0.6 * shape[1], 0.4 * shape[0]
    reach = int(1.5 * cell) + 1
    part = np.s_[max(0, int(y) - reach) : int(y) + reach, max(0, int(x) - reach) : int(x) + reach]
    image[part] = (255, 0, 0)
    assert len(detector.detect(image)) == 0
    image[part] = (0, 0, 255)
    faces = detector.detect(image)
    assert len(faces) >= 1
    assert np.abs(faces.landmarks[:, 2] - [x, y]).max() <= reach + cell
    np.testing.assert_allclose(faces.box[:, 2:], 4 * cell, rtol=0.1)


def test_max_side_reduces_what_the_graph_is_shown() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    image[192:448, 192:448] = (0, 0, 255)
    widths = [
        opened(scrfd_graph.graph_of_red(320), 320, DetectorOptions(max_side=side))
        .detect(image)
        .box[0, 2]
        for side in (1024, 160)
    ]
    assert widths == [64, 128]  # four cells of 8 pixels, each of 2 or of 4 pixels of the image


def test_what_is_not_finite_is_no_face() -> None:
    values = scrfd_graph.answers(64, 3, 2)
    for part in (1, 4, 7):
        values[part][:] = np.nan
    faces = opened(scrfd_graph.graph(values, 64), 64).detect(np.zeros((64, 64, 3), np.uint8))
    assert len(faces) > 0
    assert np.isfinite(faces.box).all()
    assert np.isfinite(faces.landmarks).all()


def test_threads_share_one_session() -> None:
    detector = opened(scrfd_graph.graph_of_red(320), 320)
    images = [np.zeros((320, 320, 3), np.uint8) for _ in range(8)]
    for i, image in enumerate(images):
        image[: 40 * (i + 1), :, 2] = 255
    alone = [detector.detect(image).box for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = [faces.box for faces in pool.map(detector.detect, images)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


VALUES = scrfd_graph.answers(64, 3, 2)


@pytest.mark.parametrize(
    ("data", "side", "words"),
    [
        (scrfd_graph.graph(VALUES[:6], 64), 64, "expected 9 or 15 outputs"),
        (scrfd_graph.graph(VALUES, 64), 96, r"expected an input .* \(1, 3, 96, 96\)"),
        (scrfd_graph.graph(VALUES, "s"), 72, "input_size 72 is not a multiple"),
        (b"no graph", 64, "no ONNX graph"),
    ],
)
def test_what_is_no_scrfd_is_met_when_it_is_opened(data: bytes, side: int, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        opened(data, side)


@pytest.mark.parametrize(
    "values",
    [
        [*VALUES[:8], VALUES[0]],
        scrfd_graph.answers(32, 3, 2),
        [*VALUES[:5], VALUES[5][:-1], *VALUES[6:]],
    ],
)
def test_answers_of_another_form_are_a_sentence(values: list[Any]) -> None:
    detector = opened(scrfd_graph.graph(values, 64), 64)
    with pytest.raises(InvalidInput, match="does not answer as SCRFD does"):
        detector.detect(np.zeros((64, 64, 3), np.uint8))


def test_without_onnx_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ResourceRefused, match=r"install qfuse\[onnx\]"):
        opened(scrfd_graph.graph(VALUES, 64), 64)
