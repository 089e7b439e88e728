"""MTCNN (Zhang et al., 2016): three networks, each of which looks closer at what the last one left.

The image is shrunk step by step, and the first network looks at windows of 12 × 12 pixels all over
each step. The second sees what is left at 24 × 24 pixels, the third at 48 × 48, and gives the
landmarks. Both are given all windows of an image in batches.

Conventions: within the cascade a box is left, top, right, bottom, with pixels that count from 1 and
a right and lower edge that belongs to it, as in the published cascade; windows are cut off at the
edge of the image, and resampled by areas, as in the PyTorch port whose weights these are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.detectors.detected_faces import USUAL, DetectedFaces, DetectorOptions, ScoreLimits
from stages.detectors.suppression import best_apart
from stages.detectors.view import need_image, view_of
from stages.models.cards import ModelCard, WeightFile

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

WINDOW, STEP = 12, 2  # pixels of the first network
SMALLEST = 20  # pixels: faces smaller than that are not looked for
SHRINK = 0.709  # about half the area at each step
PROPOSED, REFINED, GIVEN = 0.6, 0.7, 0.7  # the least probabilities of the three networks
MOST_WINDOWS = 5_000  # of one step and after the first network: the most probable ones
AT_ONCE = 128  # windows of one forward, which bounds the memory


class Mtcnn:
    """MTCNN in PyTorch, on one thread for each caller.

    A face scores at least GIVEN, also if `score_threshold` is lower. An image of 1024 × 1024 pixels
    takes up to 200 MB. Raises InvalidInput if the file is not the three networks joined.
    """

    # Of LFW's 13,173 faces 2.3 % score less than `sure`, and two less than `doubtful`. Of 1,000 of
    # them, upside down or on their sides, half or more are not found, and 1 % score `sure` or more.
    # But for one, none scores better turned than upright by more than `better_by`.
    limits: ClassVar = ScoreLimits(sure=0.998, turned=0.996, better_by=0.001, doubtful=0.95)

    def __init__(
        self, card: ModelCard, weights: WeightFile, options: DetectorOptions = USUAL
    ) -> None:
        import torch

        from stages.models.checkpoints import load_checkpoint
        from stages.networks.mtcnn import MtcnnNetworks

        with torch.device("meta"):
            networks = MtcnnNetworks()
        load_checkpoint(networks, weights)
        placed: Any = networks.eval().requires_grad_(False)  # PyTorch's types lack memory_format
        self._networks = placed.to(memory_format=torch.channels_last)
        self.card, self.options = card, options

    def detect(self, image: NDArray[np.uint8]) -> DetectedFaces:
        """Return the faces in a BGR image (h, w, 3) uint8. Raises as `Detector.detect`."""
        need_image(image)
        scale = min(1.0, self.options.max_side / max(image.shape[:2]))
        seen = view_of(image, scale, self.options.border)
        corners, points, score = self._cascade(seen.image)
        # From here on pixels count from 0, and a box ends where the next pixel begins.
        corners = corners - np.array([1, 1, 0, 0])
        kept = best_apart(corners, score, self.options.nms_threshold)
        kept = kept[score[kept] >= self.options.score_threshold]
        box = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return DetectedFaces(
            seen.boxes_back(box[kept].astype(np.float32)),
            seen.points_back(points[kept].astype(np.float32)),
            score[kept].astype(np.float32),
        )

    def _cascade(self, image: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """Return corners (n, 4), landmarks (n, 5, 2) whose pixels count from 0, and scores (n,)."""
        if self.card.colour == "rgb":
            image = np.ascontiguousarray(image[:, :, ::-1])
        # Sums over whatever lies left of and above a pixel: exact, so far below 2⁵³.
        sums = np.asarray(cv2.integral(image, sdepth=cv2.CV_64F), np.float64)
        box, score = self._proposed(sums)
        box = square(box)
        box, score, (by,) = self._looked_at(sums, box, 24, REFINED, self._networks.rnet)
        kept = best_apart(box, score, 0.7)
        box = square(corrected(box[kept], by[kept]))
        box, score, (by, points) = self._looked_at(sums, box, 48, GIVEN, self._networks.onet)
        size = box[:, 2:] - box[:, :2] + 1
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * size[:, None]
        landmarks += box[:, None, :2] - 1
        box = corrected(box, by)
        kept = best_apart(box + np.array([0, 0, 1, 1]), score, 0.7, of_smaller=True)
        return box[kept], landmarks[kept], score[kept]

    def _proposed(self, sums: Floats) -> tuple[Floats, Floats]:
        """Return the corrected windows (n, 4) of the first network, and their probabilities."""
        whole = np.array([sums.shape[1] - 1, sums.shape[0] - 1])
        scale = WINDOW / SMALLEST
        found = [(np.empty((0, 4)), np.empty(0), np.empty((0, 4)))]
        while whole.min() * scale >= WINDOW:
            width, height = (whole * scale + 1).astype(int)
            pixels = area_means(sums, np.zeros((1, 2), int), whole[None], (height, width))
            probability, by = self._forward(self._networks.pnet, pixels)
            y, x = np.nonzero(probability[0] >= PROPOSED)
            score, place = probability[0, y, x], STEP * np.stack([x, y], axis=1)
            best = np.argsort(-score, kind="stable")[:MOST_WINDOWS]
            corners = np.floor(
                np.concatenate([place[best] + 1, place[best] + WINDOW], axis=1) / scale
            )
            kept = best_apart(corners, score[best], 0.5)
            found.append((corners[kept], score[best][kept], by[0, :, y, x][best][kept]))
            scale *= SHRINK
        corners, score, by = (np.concatenate(each) for each in zip(*found, strict=True))
        kept = best_apart(corners, score, 0.7)[:MOST_WINDOWS]
        corners, by = corners[kept], by[kept]
        size = corners[:, 2:] - corners[:, :2]
        return corners + by * np.tile(size, 2), score[kept]

    def _looked_at(
        self, sums: Floats, box: Floats, side: int, least: float, network: Any
    ) -> tuple[Floats, Floats, list[Floats]]:
        """Return the boxes that a network takes for faces, and what else it says of them."""
        # cut off at the edge of the image; left and upper pixels from 0
        low = np.maximum(np.trunc(box[:, :2]).astype(int) - 1, 0)
        high = np.minimum(np.trunc(box[:, 2:]).astype(int), [sums.shape[1] - 1, sums.shape[0] - 1])
        inside = np.flatnonzero((high > low).all(axis=1))
        answers = [
            self._forward(network, area_means(sums, low[some], high[some], (side, side)))
            for some in np.array_split(inside, max(1, -(-len(inside) // AT_ONCE)))
        ]
        score, *rest = (np.concatenate(each) for each in zip(*answers, strict=True))
        kept = np.flatnonzero(score > least)
        return box[inside[kept]], score[kept], [each[kept] for each in rest]

    def _forward(self, network: Callable[[Tensor], Any], pixels: Floats) -> list[Floats]:
        import torch

        # PyTorch keeps a number of threads for each calling thread.
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        mean, std = (np.asarray(each, np.float32) for each in (self.card.mean, self.card.std))
        # Channels stay last in memory: so PyTorch pools ten times as fast.
        fed = torch.from_numpy(((pixels - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return [part.double().numpy() for part in network(fed)]


def area_means(
    sums: Floats, low: NDArray[Any], high: NDArray[Any], size: tuple[int, int]
) -> Floats:
    """Return windows resampled by areas: (n, rows, columns, 3), means of the pixels of each cell.

    sums (h + 1, w + 1, 3) are those of `cv2.integral`; low, high (n, 2) are whole x and y of each
    window, the first inside and the first outside; size: rows and columns. A cell begins at the
    pixel that its left upper corner falls into and ends behind that of the right lower one, so
    cells may share pixels, and a window of fewer pixels than cells repeats them.
    """
    (left, right), (top, bottom) = (
        _edges(low[:, axis], high[:, axis], cells) for axis, cells in ((0, size[1]), (1, size[0]))
    )
    total = (
        sums[bottom[:, :, None], right[:, None]]
        - sums[top[:, :, None], right[:, None]]
        - sums[bottom[:, :, None], left[:, None]]
        + sums[top[:, :, None], left[:, None]]
    )
    area = (bottom - top)[:, :, None] * (right - left)[:, None]
    return np.asarray(total / area[..., None])


def _edges(low: NDArray[Any], high: NDArray[Any], cells: int) -> tuple[Any, Any]:
    """Return where the cells of each window begin and end along an axis, two of (n, cells)."""
    length, place = (high - low)[:, None], np.arange(cells)
    return low[:, None] + place * length // cells, low[:, None] - -(place + 1) * length // cells


def square(box: Floats) -> Floats:
    """Return boxes (n, 4) as squares of their longer side about the same centre."""
    size = box[:, 2:] - box[:, :2]
    side = size.max(axis=1, keepdims=True)
    low = box[:, :2] + (size - side) / 2
    return np.concatenate([low, low + side], axis=1)


def corrected(box: Floats, by: Floats) -> Floats:
    """Return boxes (n, 4) moved by corrections (n, 4), shares of their sizes."""
    return box + by * np.tile(box[:, 2:] - box[:, :2] + 1, 2)
