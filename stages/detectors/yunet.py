"""YuNet (Wu et al., 2023), by OpenCV's FaceDetectorYN."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput
from stages.detectors.detected_faces import USUAL, DetectedFaces, DetectorOptions, ScoreLimits
from stages.detectors.view import need_image, view_of
from stages.models.cards import WeightFile
from stages.models.graph_file import check_graph

COARSEST = 320  # pixels: the longer side of an image in which one scale finds all
OVERSIZE = 0.1  # of a detector score: what a face of more pixels than TRAINED is worth less
TRAINED = 300  # pixels: the largest faces that the network was trained on
MARGIN = 0.02  # of a detector score: what twice the size is worth

_quiet = threading.Lock()


class YuNet:
    """YuNet (Wu et al., 2023) by OpenCV's FaceDetectorYN; one instance for each calling thread.

    The network was trained on faces of 10 to 300 pixels, and within larger ones it finds false
    faces; so an image is also looked at in half the size, and again, as long as its longer side
    exceeds 320. Sets OpenCV's thread count of this process to 1: callers parallelise over images.
    Raises InvalidInput if the file is not a detector OpenCV can read.
    """

    # Of LFW's 13,173 faces 1 % score less than `sure`, and none less than `doubtful`. Upside down
    # 98.6 % of them score less than `sure`, on their sides all do. Each face scores best as it is:
    # better than upside down by more than `better_by` for all but 0.1 %. What YuNet finds within a
    # close-up is doubtful, and so is most of what it finds in blur: that alone is no reason to turn
    # an image.
    limits: ClassVar = ScoreLimits(sure=0.91, turned=0.85, better_by=0.01, doubtful=0.8)

    def __init__(self, weights: WeightFile, options: DetectorOptions = USUAL) -> None:
        self.weights, self.options = weights, options
        self._local = threading.local()
        check_graph(weights)
        cv2.setNumThreads(1)
        self._instance()  # a bad file is met here, once, not on the first image

    def detect(self, image: NDArray[np.uint8]) -> DetectedFaces:
        """Return the faces in a BGR image (h, w, 3) uint8. Raises as `Detector.detect`."""
        need_image(image)
        longer = max(image.shape[:2])
        sides = [min(longer, self.options.max_side)]
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
        return best_of_scales(
            DetectedFaces(*joined), np.repeat(scales, [len(each) for each in found])
        )

    def _at(self, image: NDArray[np.uint8], scale: float) -> DetectedFaces:
        """Return the faces found in the image at a scale, in pixels of the image, best first."""
        seen = view_of(image, scale, self.options.border)
        detector = self._instance()
        detector.setInputSize((seen.image.shape[1], seen.image.shape[0]))
        _, rows = detector.detect(seen.image)
        found = np.empty((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)
        found = found[np.isfinite(found).all(1)]
        found = found[np.argsort(-found[:, 14], kind="stable")]
        # YuNet names eyes from the subject's side; its order is already that of the template, as
        # seen.
        return DetectedFaces(
            seen.boxes_back(found[:, :4]),
            seen.points_back(found[:, 4:14].reshape(-1, 5, 2)),
            np.ascontiguousarray(found[:, 14]),
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
                    self.options.score_threshold,
                    self.options.nms_threshold,
                    5000,
                )
            except cv2.error as error:
                raise InvalidInput(
                    f"detector {self.weights.path} cannot be read by OpenCV ({error.err})."
                ) from error
            finally:
                logging.setLogLevel(level)


def best_of_scales(found: DetectedFaces, seen: NDArray[np.floating[Any]]) -> DetectedFaces:
    """Return the faces without duplicates found at other scales, keeping the better one.

    Two are duplicates if they share half the area of either.

    seen (n,): the scale at which each was found. A face at its largest is the better one, for
    its landmarks are more exact, but for one that is larger than those that the network was
    trained on.
    """
    low = found.box[:, :2]
    high = found.box[:, :2] + found.box[:, 2:]
    area = np.prod(found.box[:, 2:], axis=1)
    worth = (
        found.score
        + MARGIN * np.log2(seen)
        - OVERSIZE * (found.box[:, 2:].max(axis=1) * seen > TRAINED)
    )
    kept: list[int] = []
    for i in range(len(found)):
        better = np.flatnonzero((worth > worth[i]) & (seen != seen[i]))
        shared = np.prod(
            np.maximum(np.minimum(high[i], high[better]) - np.maximum(low[i], low[better]), 0),
            axis=1,
        )
        if not (shared > np.minimum(area[i], area[better]) / 2).any():
            kept.append(i)
    kept.sort(key=lambda i: -found.score[i])
    return DetectedFaces(found.box[kept], found.landmarks[kept], found.score[kept])
