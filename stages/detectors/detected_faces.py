"""What every detector gives, and how it is asked: image → boxes, five landmarks and scores.

Conventions: images are uint8 BGR, as OpenCV decodes them; coordinates are pixels of the image
given, x to the right, y down; landmarks are ordered as the alignment template wants them, left and
right as *seen in the image*: left eye, right eye, nose, left mouth corner, right mouth corner.
Faces come best score first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


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

    def largest(self) -> int:
        """Return the index of the face with the largest box. Needs at least one face."""
        return int(np.argmax(self.box[:, 2] * self.box[:, 3]))

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


@dataclass(frozen=True)
class DetectorOptions:
    """How a detector is asked; every detector knows all of these.

    score_threshold: the least score of a face, 0…1, each detector's own. nms_threshold: of two
    faces whose boxes share more than this, as intersection over union, the better one is given.
    max_side: pixels; an image whose longer side exceeds it is reduced to it for detection. border:
    a black margin on every side, as a fraction of the longer side, for close-ups whose faces reach
    the edge.
    """

    score_threshold: float = 0.6
    nms_threshold: float = 0.3
    max_side: int = 1024
    border: float = 0.0


USUAL = DetectorOptions()


@dataclass(frozen=True)
class ScoreLimits:
    """What a detector's scores mean, as measured on faces.

    Below `sure` an image may lie or stand on its head. What is found in it turned is taken from
    `turned` on, if it scores better by `better_by`. Below `doubtful` a face may be none.
    """

    sure: float
    turned: float
    better_by: float
    doubtful: float


class Detector(Protocol):
    """What finds faces. Safe to call from several threads at once."""

    @property
    def limits(self) -> ScoreLimits | None:
        """What its scores mean; None: not measured, so no image is turned and no face doubted."""

    def detect(self, image: NDArray[np.uint8]) -> DetectedFaces:
        """Return the faces in a BGR image (h, w, 3) uint8; `DetectedFaces` of length 0 if none.

        Raises InvalidInput for any other array.
        """
