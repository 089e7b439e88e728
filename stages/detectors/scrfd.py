"""SCRFD (Guo et al., 2022): one ONNX graph that answers from anchors on a grid at several strides.

Conventions: the image is scaled, or enlarged, until its longer side is that of the graph's square
input, and lies in its left upper corner; the rest is black. Of each stride the graph gives scores
(n, 1), distances from the anchor to the left, upper, right and lower edge (n, 4), and to the five
landmarks (n, 10), in strides; with a first axis of one image or without. Anchors stand at the left
upper corner of each cell, row by row, the anchors of one cell after each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput
from stages.detectors.detected_faces import USUAL, DetectedFaces, DetectorOptions, ScoreLimits
from stages.detectors.suppression import best_apart
from stages.detectors.view import need_image, view_of
from stages.models.cards import ModelCard, WeightFile
from stages.models.onnx_session import open_graph

Floats32 = NDArray[np.float32]

FINEST = 8  # pixels: the first stride; each further one is twice as long
PARTS = {1: "scores", 4: "boxes", 10: "landmarks"}  # by the length of a row
LEVELS = (3, 5)  # strides of the published graphs


class Scrfd:
    """SCRFD in ONNX Runtime: one session on one thread for each caller.

    `input_size` of the card is the side of what the graph is shown. Raises InvalidInput if the
    graph is not of that form, ResourceRefused if ONNX Runtime is not installed.
    """

    limits: ClassVar[ScoreLimits | None] = None  # no weights were at hand to measure them

    def __init__(
        self, card: ModelCard, weights: WeightFile, options: DetectorOptions = USUAL
    ) -> None:
        self.card, self.options, self._path = card, options, weights.path
        self._session = open_graph(card, weights, threads=1)
        inputs, answers = self._session.get_inputs(), self._session.get_outputs()
        side = card.input_size
        shape = list(inputs[0].shape or ()) if len(inputs) == 1 else []
        fits = len(shape) == 4 and all(
            not isinstance(found, int) or found == wanted
            for found, wanted in zip(shape, (1, 3, side, side), strict=True)
        )
        if not fits or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{each.type} {each.shape}" for each in inputs)
            raise InvalidInput(
                f"model {card.name!r}: expected an input tensor(float) (1, 3, {side}, {side}),"
                f" {weights.path} has {found}; input_size on its card must be the graph's."
            )
        if len(answers) not in (3 * levels for levels in LEVELS):
            raise InvalidInput(
                f"model {card.name!r}: expected 9 or 15 outputs, scores, boxes and landmarks of"
                f" each stride, {weights.path} has {len(answers)}; export SCRFD with its landmarks."
            )
        if side % (FINEST << (len(answers) // 3 - 1)):
            raise InvalidInput(
                f"model {card.name!r}: input_size {side} is not a multiple of the longest stride,"
                f" {FINEST << (len(answers) // 3 - 1)}."
            )
        self._input = inputs[0].name

    def detect(self, image: NDArray[np.uint8]) -> DetectedFaces:
        """Return the faces in a BGR image (h, w, 3) uint8. Raises as `Detector.detect`."""
        need_image(image)
        side, border = self.card.input_size, self.options.border
        # The margins lie within what the graph is shown, and rounding may add a pixel to each.
        room = min(side, self.options.max_side)
        longer = int((room - 2) / (1 + 2 * border)) if border else room
        # Bilinear, as in its own scripts.
        scale = max(1, longer) / max(image.shape[:2])
        seen = view_of(image, scale, border, cv2.INTER_LINEAR)
        canvas = np.zeros((side, side, 3), np.uint8)
        canvas[: seen.image.shape[0], : seen.image.shape[1]] = seen.image
        corners, landmarks, score = self._decoded(self._answers(canvas))
        kept = best_apart(corners, score, self.options.nms_threshold)
        box = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)[kept]
        return DetectedFaces(seen.boxes_back(box), seen.points_back(landmarks[kept]), score[kept])

    def _answers(self, canvas: NDArray[np.uint8]) -> list[Floats32]:
        card = self.card
        if card.colour == "rgb":
            canvas = canvas[:, :, ::-1]
        mean, std = (np.asarray(each, np.float32) for each in (card.mean, card.std))
        planes = ((canvas - mean) / std).transpose(2, 0, 1)[None]
        try:
            found = self._session.run(None, {self._input: np.ascontiguousarray(planes)})
            return [np.asarray(each, np.float32) for each in found]
        except Exception as error:
            if "alloc" in str(error):  # the machine's fault
                raise
            raise InvalidInput(
                f"model {card.name!r}: {self._path} cannot be computed by ONNX Runtime ({error})."
            ) from error

    def _decoded(self, answers: Sequence[Floats32]) -> tuple[Floats32, Floats32, Floats32]:
        """Return corners (n, 4), landmarks (n, 5, 2) and scores (n,) at or above the threshold.

        Coordinates are pixels of what the graph was shown.
        """
        by_part: dict[int, list[Floats32]] = {length: [] for length in PARTS}
        for answer in answers:
            length = answer.shape[-1] if answer.ndim in (2, 3) else 0
            by_part.setdefault(length, []).append(answer.reshape(-1, max(1, length)))
        levels = len(answers) // 3
        # Whichever their order: a finer stride has more rows.
        ordered = [sorted(part, key=len, reverse=True) for part in by_part.values()]
        found = [
            self._of_stride(FINEST << level, *(part[level] for part in ordered))
            for level in range(levels if [len(part) for part in ordered] == [levels] * 3 else 0)
        ]
        if not found:
            raise self._unlike(answers)
        corners, landmarks, score = (np.concatenate(each) for each in zip(*found, strict=True))
        finite = np.isfinite(corners).all(axis=1) & np.isfinite(landmarks).all(axis=(1, 2))
        return corners[finite], landmarks[finite], score[finite]

    def _of_stride(
        self, stride: int, score: Floats32, edges: Floats32, points: Floats32
    ) -> tuple[Floats32, Floats32, Floats32]:
        across = self.card.input_size // stride
        anchors = len(score) // across**2
        if not anchors or {len(score), len(edges), len(points)} != {anchors * across**2}:
            raise self._unlike((score, edges, points))
        rows = np.flatnonzero(score[:, 0] >= self.options.score_threshold)
        cell = rows // anchors
        place = np.stack([cell % across, cell // across], axis=1).astype(np.float32) * stride
        away = edges[rows] * stride
        corners = np.concatenate([place - away[:, :2], place + away[:, 2:]], axis=1)
        landmarks = place[:, None] + points[rows].reshape(-1, 5, 2) * stride
        return corners, landmarks, score[rows, 0]

    def _unlike(self, answers: Sequence[Any]) -> InvalidInput:
        shapes = ", ".join(str(each.shape) for each in answers)
        return InvalidInput(
            f"model {self.card.name!r}: {self._path} does not answer as SCRFD does, with scores,"
            f" boxes and landmarks (n, 1), (n, 4) and (n, 10) for each stride: found {shapes}."
        )
