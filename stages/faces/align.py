"""align: image → box, landmarks, detector score → 112×112 RGB crop. One decode, two artifacts.

Landmarks that come with the protocol are used unchanged, with its detector score or none, if they
can belong to a face in the image. Otherwise the face that overlaps the protocol's box most is
taken or, without a box, the one that `pick` says: the one nearest the image centre, the largest, or
the one with the best score. If its score is below that of upright faces, the image is also searched
turned. `reason` says if there were several faces, if the image was turned, if the detector is not
sure, or if an image is no square crop, although the row is OK. A row gives one face: rows for every
face of a photograph are made by `qfuse faces`. The crop is the least-squares similarity (no
reflection) from five landmarks to the ArcFace template, bilinear, border 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from pipeline.core.registry import register
from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Options, Stage
from pipeline.errors import InvalidInput, counted
from pipeline.files.digests import UNREADABLE
from stages.detectors.detected_faces import DetectorOptions
from stages.faces.finding import Pick, chooser, find
from stages.faces.images import Unusable, decode
from stages.models import catalogue
from stages.models.cards import ModelCard
from stages.tables.schemas import CROPS, DETECTIONS

SIZE = 112
# Where ArcFace-style models expect the five landmarks, in pixels of a 112×112 crop (Deng et al.,
# CVPR 2019).
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float64,
)

# What `unlike_a_face` allows. Behind each limit stands what LFW's 13,173 faces reach, then what
# 20,000 simulated ones do that are turned by up to 90° to the side and 60° up or down.
NARROWEST = 2.0  # pixels: five landmarks of a face spread further
# how far landmarks spread across their line, as a share of along it: 0.36 and more; 0.20 and more
FLATTEST = 0.15
# of their spread, between the line of the eyes and that of the mouth: up to 0.10; up to 0.39
MOST_APART = 0.5
# of their spread, what no turn, scale and shift to TEMPLATE leaves over: up to 0.66; one in 2,000
# over 0.79
SHAPELESS = 0.8
# of the crop within the image: 0.99 and more, and 0.28 for a face in the background, cut by the
# edge
LEAST_INSIDE = 1 / 3
EYE_DISTANCE, MOUTH_WIDTH = (float(np.hypot(*(TEMPLATE[i + 1] - TEMPLATE[i]))) for i in (0, 3))
LANDMARK_ORDER = (
    "expected left eye, right eye, nose, left and right corner of the mouth, as seen in the image"
)

UNREADABLE_REASON = (
    "cannot be read: damaged in its archive or packed by another method than store or deflate, a"
    " link out of the data set, without permission, or larger than a photograph"
)
ONE_COLOUR = (
    "one colour all over, so nothing to recognise; if it should not be, its values may have fewer"
    " bits than the file's type (8 stored as 16 come out black)"
)


class AlignOptions(Options):
    """How the face of an image is found, and what is refused."""

    detector: str = "yunet_320"
    """A detector's card, or `none` if images are aligned crops already."""
    pick: Pick = "centre"
    """Which face is meant where an image has several and the data set gives no box."""
    score_threshold: float = Field(0.6, ge=0, le=1)
    """Detections of a lower score are no faces."""
    nms_threshold: float = Field(0.3, ge=0, le=1)
    """Of two detections that overlap by more than this, the one of the lower score is dropped."""
    border: float = Field(0.0, ge=0, le=1)
    """Width of the black margin that is put around an image, a share of its longer side."""
    max_side: int = Field(1024, ge=32, le=16_384)
    """Pixels: detection is on a copy of at most this size; crops are cut from the image."""
    max_pixels: int = Field(110_000_000, ge=1)
    """An image of more is refused by its header, before memory is spent on it."""

    @property
    def of_detector(self) -> DetectorOptions:
        """The options that are the detector's."""
        return DetectorOptions(self.score_threshold, self.nms_threshold, self.max_side, self.border)

    @field_validator("pick", mode="before")
    @classmethod
    def _one_face(cls, value: Any) -> Any:
        if value == "all":
            raise ValueError(
                "a row gives one face, by centre, largest or score: `qfuse faces` writes a row for"
                " every face of a folder of photographs"
            )
        return value


@dataclass(frozen=True)
class _Found:
    status: Status
    reason: str = ""
    box: Any = (np.nan,) * 4
    landmarks: Any = ((np.nan, np.nan),) * 5
    score: float = np.nan
    count: int = 0
    crop: NDArray[np.uint8] | None = None


@register("stage", "align")
class Align(Stage):
    """Find the face of each image, or take its landmarks, and warp it to a 112×112 crop."""

    name = "align"
    version = 6
    grain = "map"
    Options = AlignOptions
    produces: ClassVar = {"detections": DETECTIONS, "crops": CROPS}
    consumes: ClassVar = {"faces": ("sha256", "box", "landmarks", "score")}
    bulk: ClassVar = ("crops",)
    locates: ClassVar = {"faces": ("path",)}
    options: AlignOptions
    _looks = True  # whether some row may be without landmarks

    def identity(self) -> Any:
        card = self._card()
        return None if card is None else catalogue.identity(card)

    def backends(self) -> tuple[str, ...]:
        card = self._card()
        engines = () if card is None else catalogue.backends(card, self.context.profile)
        return tuple(dict.fromkeys((*engines, "opencv", "pillow", "pillow-heif")))

    @property
    def gpu(self) -> bool:
        """Never: detectors compute on the CPU, whatever the profile says."""
        return False

    def _card(self) -> ModelCard | None:
        if self.options.detector == "none":
            return None
        return catalogue.card(self.context, self.options.detector, ("detector",))

    def open(self) -> None:
        if self.context.files is None:
            raise InvalidInput(
                "align needs images: set dataset.path to the folder or archive that holds them."
            )
        self._files = self.context.files()
        if self._looks:
            _ = self._detector  # whose file may be missing: that is said before the first row

    @cached_property
    def _detector(self) -> Any:
        """The detector, opened where a row first needs it: none does if all have landmarks."""
        if self.options.detector == "none":
            return None
        from stages.detectors.opening import detector_named

        return detector_named(self.context, self.options.detector, self.options.of_detector)

    def fits(self, tables: Mapping[str, Batch]) -> None:
        faces = tables["faces"]
        self._looks = "landmarks" not in faces or bool(
            np.isnan(faces["landmarks"]).all(axis=(1, 2)).any()
        )

    def doubts(self, tables: Mapping[str, Batch]) -> list[str]:
        faces = tables["faces"]
        missing = np.flatnonzero(faces["sha256"] == "")
        if not len(missing):
            return []
        are, first = "is" if len(missing) == 1 else "are", faces["path"][missing[0]]
        return [f"{len(missing):,} of {counted(faces.rows, 'image')} {are} not there (as {first})."]

    def load(self, rows: Batch) -> list[_Found]:
        """Decode, detect and warp each row here, in the pool.

        OpenCV and Pillow release the interpreter's lock, so the pool works in parallel.
        """
        given = [
            rows[name] if name in rows else [None] * rows.rows for name in ("landmarks", "box")
        ]
        score = rows["score"] if "score" in rows else [np.nan] * rows.rows
        return [
            self._one(*row) for row in zip(rows["path"], rows["sha256"], *given, score, strict=True)
        ]

    def run(
        self, rows: Batch, inputs: Mapping[str, Batch], loaded: list[_Found]
    ) -> dict[str, Batch]:
        status = np.array([found.status for found in loaded], np.uint8)
        crops = np.zeros((rows.rows, SIZE, SIZE, 3), np.uint8)
        for i, found in enumerate(loaded):
            if found.crop is not None:
                crops[i] = found.crop
        detections = {
            "status": status,
            "reason": text(found.reason for found in loaded),
            "box": np.array([found.box for found in loaded], np.float32).reshape(-1, 4),
            "landmarks": (
                np.array([found.landmarks for found in loaded], np.float32).reshape(-1, 5, 2)
            ),
            "score": np.array([found.score for found in loaded], np.float32),
            "faces_found": np.array([found.count for found in loaded], np.int32),
        }
        return {"detections": Batch(detections), "crops": Batch({"status": status, "crop": crops})}

    def _one(self, path: str, sha256: str, given: Any, box: Any, score: float) -> _Found:
        if not sha256:
            return _Found(Status.MISSING, "named by the protocol, and not in the data set")
        if sha256 == UNREADABLE:
            return _Found(Status.UNREADABLE, UNREADABLE_REASON)
        try:
            data = self._files.read(path)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise InvalidInput(
                    f"{path} changed while the run was going on; run again to take it as it is now."
                )
            image = decode(data, self.options.max_pixels)
        except FileNotFoundError:
            raise InvalidInput(
                f"{path} was there when the data set was read and is gone; put it back and run"
                " again."
            ) from None
        except Unusable as problem:
            return _Found(problem.status, problem.reason)
        if given is not None and not np.isnan(given).all():
            found = _at_given_landmarks(image, given, score)
        elif self._detector is None:
            found = _given_crop(image, score)
        else:
            found = self._detected(image, box)
        if found.crop is not None and _is_one_colour(found.crop):
            return _Found(Status.NOT_FOUND, ONE_COLOUR)
        return found

    def _detected(self, image: NDArray[np.uint8], box: Any) -> _Found:
        found = find(image, self._detector, chooser(self.options.pick, box))
        faces, i = found.faces, found.index
        if len(faces) == 0:
            return _Found(
                Status.NOT_FOUND, ONE_COLOUR if _is_one_colour(image) else "no face found"
            )
        if i < 0:
            return _Found(Status.NOT_FOUND, "no face found in the box that the protocol gives")
        return _Found(
            Status.OK,
            "; ".join(found.notes),
            faces.box[i],
            faces.landmarks[i],
            float(faces.score[i]),
            len(faces),
            warp(image, faces.landmarks[i]),
        )


def _at_given_landmarks(image: NDArray[np.uint8], given: NDArray[Any], score: float) -> _Found:
    if why := unlike_a_face(given, image.shape):
        return _Found(Status.NOT_FOUND, f"the landmarks that came with the data {why}")
    extent = np.concatenate([given.min(axis=0), np.ptp(given, axis=0)])
    return _Found(Status.OK, "", extent, given, score, 1, warp(image, given))


def _given_crop(image: NDArray[np.uint8], score: float) -> _Found:
    import cv2

    height, width = image.shape[:2]
    crop: Any = image
    if (height, width) != (SIZE, SIZE):
        crop = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    note = ""
    if height != width:
        note = f"{width}×{height} is no square crop: squeezed, as align.detector is none"
    return _Found(
        Status.OK, note, (0, 0, width, height), TEMPLATE, score, 1, np.asarray(crop, np.uint8)
    )


def _is_one_colour(image: NDArray[np.uint8]) -> bool:
    return bool((image == image[0, 0]).all())


def unlike_a_face(landmarks: NDArray[Any], shape: tuple[int, ...]) -> str:
    """Say why landmarks cannot be those of a face in an image of this shape; "" if they can.

    landmarks (5, 2) in pixels; shape (height, width, …). 99 of 100 sets of random points are
    refused, and all mirrored faces.
    """
    if not np.isfinite(landmarks).all():
        return "are not all numbers"
    landmarks = landmarks.astype(np.float64)
    if np.ptp(landmarks, axis=0).max() < NARROWEST:
        return "are all in one place"
    if not ((landmarks >= 0) & (landmarks <= [shape[1], shape[0]])).all(axis=1).any():
        return f"lie outside the image of {shape[1]}×{shape[0]} pixels"
    for nowhere in (0, -1):
        if (landmarks == nowhere).all(axis=1).any():
            return f"have a point at ({nowhere}, {nowhere}), as if it had not been found"
    # The singular values of the centred points: how far they spread along their line and across.
    along, across = np.linalg.svd(landmarks - landmarks.mean(axis=0), compute_uv=False)
    if across < FLATTEST * along:
        return "lie nearly on one line"
    left, mirrored = _misfit(landmarks), _misfit(landmarks * [-1, 1])
    if mirrored < left / 2:
        return f"are mirrored: {LANDMARK_ORDER}"
    # An eye's or a corner's turn away from the camera is that of the other, too.
    between = (landmarks[1] - landmarks[0]) / EYE_DISTANCE - (
        landmarks[4] - landmarks[3]
    ) / MOUTH_WIDTH
    if np.hypot(*between) * EYE_DISTANCE > MOST_APART * np.hypot(along, across):
        return (
            "have eyes and a mouth that do not fit together, as if two points were swapped or one"
            f" wrong: {LANDMARK_ORDER}"
        )
    if left > SHAPELESS:
        return "have no face's shape"
    inside = _share_inside(landmarks, shape)
    return (
        f"would put {1 - inside:.0%} of the crop outside the image" if inside < LEAST_INSIDE else ""
    )


def _share_inside(landmarks: NDArray[Any], shape: tuple[int, ...]) -> float:
    """Return which share of the crop, by a grid of 28×28 points, lies inside the image.

    shape: (height, width, …) of the image.
    """
    matrix = similarity(landmarks)
    # Points of the crop are taken back to the image by the inverse of the similarity.
    across = np.arange(2, SIZE, 4) - 0.5
    grid = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
    back = np.linalg.solve(matrix[:, :2], (grid - matrix[:, 2]).T).T
    return float(((back >= -0.5) & (back <= [shape[1] - 0.5, shape[0] - 0.5])).all(axis=1).mean())


def _misfit(landmarks: NDArray[Any]) -> float:
    """Return the residual of the fit to TEMPLATE as a share of TEMPLATE's spread, 0…1."""
    matrix = similarity(landmarks)
    moved = (landmarks[:, None] * matrix[:, :2]).sum(axis=2) + matrix[:, 2]
    left, spread = (((points - TEMPLATE) ** 2).sum() for points in (moved, TEMPLATE.mean(axis=0)))
    return float(np.sqrt(left / spread))


def _complex(points: NDArray[Any]) -> NDArray[np.complex128]:
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]


_MIDDLE = _complex(TEMPLATE).mean()
_CENTRED = _complex(TEMPLATE) - _MIDDLE


def similarity(landmarks: NDArray[Any]) -> NDArray[np.float64]:
    """Return the 2×3 matrix that maps landmarks (5, 2) to TEMPLATE with least squared error.

    It does not reflect. As complex numbers a similarity is z → a·z + b, and the optimum is linear
    (it equals Umeyama, TPAMI 1991, eq. 40-42).
    """
    z = _complex(landmarks)
    middle = z.mean()
    # Least squares in complex numbers: a = Σ conj(z − z̄) (w − w̄) / Σ |z − z̄|², b = w̄ − a z̄.
    centred = z - middle
    spread = (np.abs(centred) ** 2).sum()
    a = (centred.conj() * _CENTRED).sum() / spread if spread > 0 else 0j
    b = _MIDDLE - a * middle
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def warp(image: NDArray[np.uint8], landmarks: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the aligned crop (112, 112, 3) uint8."""
    import cv2

    crop = cv2.warpAffine(
        image, similarity(landmarks), (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderValue=0
    )
    return np.asarray(crop, np.uint8)
