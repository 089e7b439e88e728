"""finding: which of the faces that a detector finds is meant, in an image turned if need be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.detectors.detected_faces import DetectedFaces, Detector

Pick = Literal["centre", "largest", "score"]
TURN_NAMES = ("", "a quarter to the left", "upside down", "a quarter to the right")


@dataclass(frozen=True)
class Finding:
    """The faces of an image, in its own pixels, and the index of the one that is meant.

    index −1: none is. `notes` says in words that there are several, that the image was turned, or
    that the face is doubtful.
    """

    faces: DetectedFaces
    index: int = -1
    notes: tuple[str, ...] = ()


# Takes faces, one at least, and the shape (height, width, …) of their image; returns the index of
# the face that is meant (−1: none), and which it is in words.
Choose = Callable[[DetectedFaces, tuple[int, ...]], tuple[int, str]]


def chooser(pick: Pick, box: Any = None) -> Choose:
    """Return what chooses a face: by the box (x, y, w, h) that the protocol gives, else by `pick`.

    In a box it is the face that overlaps it most, and none if none does. A box may be None or nan.
    """
    if box is not None and np.isfinite(box).all():
        return lambda faces, _: _in_box(faces, box)
    if pick == "largest":
        return lambda faces, _: (faces.largest(), "the largest")
    if pick == "score":
        return lambda faces, _: (0, "the one with the best score")
    return lambda faces, shape: (
        faces.nearest(shape[1] / 2, shape[0] / 2),
        "the one nearest the centre",
    )


def find(image: NDArray[np.uint8], detector: Detector, choose: Choose) -> Finding:
    """Return the faces in an image (h, w, 3) uint8 RGB, and which is meant.

    Where the detector is not sure of that face, or finds none, it also looks at the image turned,
    and takes what it finds there if that is better and beyond doubt.
    """
    limits = detector.limits
    faces, i, chosen = _look(image, detector, choose, 0)
    turned, score = "", float(faces.score[i]) if i >= 0 else 0.0
    if limits is not None and score < limits.sure:
        enough = max(limits.turned, score + limits.better_by)
        for quarters in (1, 2, 3):
            others, j, name = _look(image, detector, choose, quarters)
            if j >= 0 and others.score[j] >= enough:
                faces, i, chosen = others, j, name
                turned = f"found with the image turned {TURN_NAMES[quarters]}"
                score = enough = float(faces.score[i])
    if i < 0:
        return Finding(faces)
    several = f"{len(faces)} faces found, {chosen} taken" if len(faces) > 1 else ""
    doubt = ""
    if limits is not None and score < limits.doubtful:
        doubt = f"a doubtful face, with a detector score of {score:.2f}"
    return Finding(faces, i, tuple(filter(None, (several, turned, doubt))))


def _look(
    image: NDArray[np.uint8], detector: Detector, choose: Choose, quarters: int
) -> tuple[DetectedFaces, int, str]:
    """Return the faces found in a turned image, in the image's own pixels, and the choice."""
    seen = np.rot90(image[:, :, ::-1], quarters)
    faces = detector.detect(np.ascontiguousarray(seen)).turned_back(quarters, image.shape)
    return (faces, *choose(faces, image.shape)) if len(faces) else (faces, -1, "")


def _in_box(faces: DetectedFaces, box: NDArray[np.floating[Any]]) -> tuple[int, str]:
    overlap = faces.overlap(box)
    best = int(np.argmax(overlap))
    return (best if overlap[best] > 0 else -1), "the one in the protocol's box"
