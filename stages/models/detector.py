"""Face detectors: image → boxes, five landmarks and scores.

Conventions: images are uint8 BGR, as OpenCV decodes them; coordinates are pixels of the image
given, x to the right, y down; landmarks are ordered as the alignment template wants them, left and
right as *seen in the image*: left eye, right eye, nose, left mouth corner, right mouth corner.
Faces come best score first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile
from stages.models.graph_file import check_graph

COARSEST = 320  # pixels: the longer side of an image in which one scale finds all
OVERSIZE = 0.1  # of a detector score: what a face of more pixels than TRAINED is worth less
TRAINED = 300  # pixels: the largest faces that the network was trained on
MARGIN = 0.02  # of a detector score: what twice the size is worth

_quiet = threading.Lock()


@dataclass(frozen=True)
class DetectedFaces:
    """The n faces of one image, best score first.

    box (n, 4) float32: x, y, width, height; landmarks (n, 5, 2) float32; score (n,) float32 in 0…1.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)

    def nearest(self, x: float, y: float) -> int:
        """Return the index of the face whose box centre is nearest (x, y), in pixels.

        Needs at least one face.
        """
        centre = self.box[:, :2] + self.box[:, 2:] / 2
        return int(np.argmin(((centre - np.array([x, y], np.float32)) ** 2).sum(1)))

    def best_of_scales(self, seen: NDArray[np.floating[Any]]) -> DetectedFaces:
        """Return the faces without duplicates found at other scales, keeping the better one.

        Two are duplicates if they share half the area of either.

        seen (n,): the scale at which each was found. A face at its largest is the better one, for
        its landmarks are more exact, but for one that is larger than those that the network was
        trained on.
        """
        low = self.box[:, :2]
        high = self.box[:, :2] + self.box[:, 2:]
        area = np.prod(self.box[:, 2:], axis=1)
        worth = (
            self.score
            + MARGIN * np.log2(seen)
            - OVERSIZE * (self.box[:, 2:].max(axis=1) * seen > TRAINED)
        )
        kept: list[int] = []
        for i in range(len(self)):
            better = np.flatnonzero((worth > worth[i]) & (seen != seen[i]))
            shared = np.prod(
                np.maximum(np.minimum(high[i], high[better]) - np.maximum(low[i], low[better]), 0),
                axis=1,
            )
            if not (shared > np.minimum(area[i], area[better]) / 2).any():
                kept.append(i)
        kept.sort(key=lambda i: -self.score[i])
        return DetectedFaces(self.box[kept], self.landmarks[kept], self.score[kept])

    def overlap(self, box: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return (n,) intersection over union, 0…1, of each face's box with `box` (x, y, w, h)."""
        low = np.maximum(self.box[:, :2], box[:2])
        high = np.minimum(self.box[:, :2] + self.box[:, 2:], box[:2] + box[2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union = np.prod(self.box[:, 2:], axis=1) + np.prod(box[2:]) - shared
        return np.asarray(shared / np.maximum(union, 1e-9), np.float32)

    def turned_back(self, quarters: int, shape: tuple[int, ...]) -> DetectedFaces:
        """Return the faces, found in `np.rot90(image, quarters)`, in pixels of the image.

        quarters: 0…3; shape: (height, width, …) of the image. Each landmark stays the eye or the
        corner of the mouth that it is of an upright face.
        """
        box, landmarks, (height, width) = self.box, self.landmarks, shape[:2]
        for wide in (width, height, width)[3 - quarters :]:  # of what each quarter leads back to
            box = np.stack([wide - box[:, 1] - box[:, 3], box[:, 0], box[:, 3], box[:, 2]], axis=1)
            # pixels count from 0
            landmarks = np.stack([wide - 1 - landmarks[:, :, 1], landmarks[:, :, 0]], axis=2)
        return DetectedFaces(box, landmarks, self.score)

    def largest(self) -> int:
        """Return the index of the face with the largest box. Needs at least one face."""
        return int(np.argmax(self.box[:, 2] * self.box[:, 3]))


class Detector(Protocol):
    """What finds faces. Safe to call from several threads at once."""

    def detect(self, image: NDArray[np.uint8]) -> DetectedFaces:
        """Return the faces in a BGR image (h, w, 3) uint8; `DetectedFaces` of length 0 if none."""


class YuNet:
    """YuNet (Wu et al., 2023) by OpenCV's FaceDetectorYN; one instance for each calling thread.

    `score_threshold` and `nms_threshold` are in 0…1. An image whose longer side exceeds `max_side`
    pixels is reduced to it for detection. The network was trained on faces of 10 to 300 pixels, and
    within larger ones it finds false faces; so an image is also looked at in half the size, and
    again, as long as its longer side exceeds 320. `border` is a black margin on every side, as a
    fraction of the longer side, for close-ups whose faces reach the edge. Coordinates are always
    those of the image as given. Sets OpenCV's thread count of this process to 1: callers
    parallelise over images. Raises InvalidInput if the file is not a detector OpenCV can read.
    """

    def __init__(
        self,
        weights: WeightFile,
        score_threshold: float = 0.6,
        nms_threshold: float = 0.3,
        max_side: int = 1024,
        border: float = 0.0,
    ) -> None:
        self.weights = weights
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_side, self.border = max_side, border
        self._local = threading.local()
        check_graph(weights)
        cv2.setNumThreads(1)
        self._instance()  # a bad file is met here, once, not on the first image

    def detect(self, image: NDArray[np.uint8]) -> DetectedFaces:
        """Return the faces in a BGR image (h, w, 3) uint8.

        Raises InvalidInput for any other array.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InvalidInput(
                f"detect: expected uint8 (height, width, 3) BGR, found {image.dtype} {image.shape}."
            )
        longer = max(image.shape[:2])
        sides = [min(longer, self.max_side)]
        while sides[-1] > COARSEST:
            sides.append(sides[-1] // 2)
        scales = [side / longer for side in sides]
        found = [self._at(image, scale) for scale in scales]
        if len(found) == 1:
            return found[0]
        joined = (
            np.concatenate([getattr(each, name) for each in found])
            for name in ("box", "landmarks", "score")
        )
        return DetectedFaces(*joined).best_of_scales(
            np.repeat(scales, [len(each) for each in found])
        )

    def _at(self, image: NDArray[np.uint8], scale: float) -> DetectedFaces:
        """Return the faces found in the image at a scale, in pixels of the image, best first."""
        height, width = image.shape[:2]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        seen: Any = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        margin = round(self.border * max(size))
        if margin:
            seen = cv2.copyMakeBorder(seen, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
        detector = self._instance()
        detector.setInputSize((seen.shape[1], seen.shape[0]))
        _, rows = detector.detect(seen)
        found = np.empty((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)
        found = found[np.isfinite(found).all(1)]
        found = found[np.argsort(-found[:, 14], kind="stable")]
        # Each axis by its own ratio: rounding the reduced size makes them differ.
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        box = found[:, :4].reshape(-1, 2, 2) - np.array([[margin], [0]], np.float32)
        # YuNet names eyes from the subject's side; its order is already that of the template, as
        # seen.
        landmarks = found[:, 4:14].reshape(-1, 5, 2) - np.float32(margin)
        return DetectedFaces(
            (box * ratio).reshape(-1, 4), landmarks * ratio, np.ascontiguousarray(found[:, 14])
        )

    def _instance(self) -> cv2.FaceDetectorYN:
        detector: cv2.FaceDetectorYN | None = getattr(self._local, "detector", None)
        if detector is None:
            detector = self._local.detector = self._create()
        return detector

    def _create(self) -> cv2.FaceDetectorYN:
        # OpenCV 5 warns at every creation that its new graph engine has no targets; only that
        # moment is silenced.
        logging: Any = cv2.utils.logging
        with _quiet:
            level = logging.getLogLevel()
            logging.setLogLevel(logging.LOG_LEVEL_ERROR)
            try:
                graph, nothing = np.frombuffer(self.weights.data, np.uint8), np.empty(0, np.uint8)
                return cv2.FaceDetectorYN.create(
                    "onnx",
                    graph,
                    nothing,
                    (320, 320),
                    self.score_threshold,
                    self.nms_threshold,
                    5000,
                )
            except cv2.error as error:
                raise InvalidInput(
                    f"detector {self.weights.path} cannot be read by OpenCV ({error.err})."
                ) from error
            finally:
                logging.setLogLevel(level)
