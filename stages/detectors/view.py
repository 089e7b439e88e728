"""view: an image as a network sees it, scaled and with a margin, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput


@dataclass(frozen=True)
class View:
    """A scaled image (h, w, 3) uint8 BGR with a margin in pixels; ratio (2,): image over view."""

    image: NDArray[np.uint8]
    margin: int
    ratio: NDArray[np.float32]

    def boxes_back(self, box: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes (n, 4), x, y, width and height in pixels of the view, in the image's."""
        corner_and_size = box.reshape(-1, 2, 2) - np.array([[self.margin], [0]], np.float32)
        return (corner_and_size * self.ratio).reshape(-1, 4)

    def points_back(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return points (…, 2) in pixels of the view in those of the image."""
        return (points - np.float32(self.margin)) * self.ratio


def need_image(image: NDArray[Any]) -> None:
    """Raise InvalidInput for anything but a BGR image (h, w, 3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InvalidInput(
            f"detect: expected uint8 (height, width, 3) BGR, found {image.dtype} {image.shape}."
        )


def view_of(
    image: NDArray[np.uint8],
    scale: float,
    border: float,
    interpolation: int = cv2.INTER_AREA,
) -> View:
    """Return the image at a scale, with a black margin of `border` times its longer side."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    seen: Any = image if scale == 1 else cv2.resize(image, size, interpolation=interpolation)
    margin = round(border * max(size))
    if margin:
        seen = cv2.copyMakeBorder(seen, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    # Each axis by its own ratio: rounding the reduced size makes them differ.
    ratio = np.array([width / size[0], height / size[1]], np.float32)
    return View(seen, margin, ratio)
