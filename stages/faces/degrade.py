"""degrade: crops → crops of which a fraction is spoilt, to study weighting as quality varies.

Whether and how a face is degraded is drawn from (seed, face id) alone, so neither order nor shards
matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Batch, Schema, Status, text
from pipeline.core.schema import Field as Column
from pipeline.core.stage import Options, Stage
from stages.tables.schemas import CROPS

DEGRADATIONS = ("blur", "low_resolution", "block", "dark_noise")
DEGRADED = Schema("degraded_crops", (*CROPS.fields, Column("kind", "text")))


class DegradeOptions(Options):
    """How many crops are spoilt, and which."""

    fraction: float = Field(0.6, ge=0, le=1)
    """Share of the faces that is degraded, each in one way."""
    seed: int = Field(0, ge=0)
    """Draws which faces, how and how much."""


@register("stage", "degrade")
class Degrade(Stage):
    """Spoil a fraction of the crops: blur, low resolution, a block over part of it or dark noise.

    Blur σ 2-5 px; down to 10-24 px and up again; a block over a quarter to a half of the crop; dark
    and noisy.
    """

    name = "degrade"
    version = 4
    grain = "map"
    Options = DegradeOptions
    produces: ClassVar = {"": DEGRADED}
    bulk: ClassVar = ("",)
    inputs: ClassVar = {"crops": "align.crops"}
    consumes: ClassVar = {"faces": ("face_id",)}
    options: DegradeOptions

    def backends(self) -> tuple[str, ...]:
        return ("opencv", "numpy")

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        crops = inputs["crops"]
        out, kinds = crops["crop"].copy(), [""] * rows.rows
        for i in np.flatnonzero(crops["status"] == Status.OK):
            seed = hashlib.sha256(f"{self.options.seed}|{rows['face_id'][i]}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
            if rng.random() < self.options.fraction:
                kinds[i] = DEGRADATIONS[rng.integers(len(DEGRADATIONS))]
                out[i] = degrade(out[i], kinds[i], rng)
        return {"": Batch({"status": crops["status"], "crop": out, "kind": text(kinds)})}


def degrade(crop: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a spoilt copy of a crop (h, w, 3) uint8."""
    import cv2

    height, width = crop.shape[:2]
    if kind == "blur":
        return np.asarray(cv2.GaussianBlur(crop, (0, 0), float(rng.uniform(2, 5))), np.uint8)
    if kind == "low_resolution":
        side = int(rng.integers(10, 25))
        small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        return np.asarray(
            cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8
        )
    if kind == "block":
        spoilt = crop.copy()
        h, w = (int(rng.uniform(0.5, 0.72) * size) for size in (height, width))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        spoilt[y : y + h, x : x + w] = rng.integers(0, 256, 3, dtype=np.uint8)
        return spoilt
    dark = crop.astype(np.float32) * rng.uniform(0.08, 0.22) + rng.normal(
        0, rng.uniform(10, 22), crop.shape
    )
    return np.clip(dark, 0, 255).astype(np.uint8)
