"""quality: crop → quality score, higher = more useful.

The option `method` names a quality method: a quality model's card, or one of `feature-norm` (the
embedding's norm), `detector-score`, `given` (scores that came with the data set) and `random` (no
information: what any method has to beat). Scores are raw: each method has its own scale.

Random    the first three bytes of the SHA-256 of "random quality|SEED|FACE_ID", over 2²⁴: even in
          [0, 1), exact in float32, the same in every run, shard and data set, and with no face
          without a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage
from pipeline.errors import InvalidInput, unknown
from stages.models import catalogue
from stages.models.cards import ModelCard, WeightFile
from stages.tables.schemas import QUALITIES

# Methods that need no model, and what they read.
PLAIN = {
    "feature-norm": ("embeddings",),
    "detector-score": ("detections",),
    "given": (),
    "random": (),
}


class QualityOptions(Options):
    """Where quality scores come from."""

    method: str = "lightqnet"
    """A quality card, or feature-norm, detector-score, given (by the data set) or random."""
    seed: int = Field(0, ge=0)
    """Of the method `random`; it has no effect on others."""

    def result_options(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in super().result_options().items()
            if k != "seed" or self.method == "random"
        }


@register("stage", "quality")
class Quality(Stage):
    """Score every face by one quality method."""

    name = "quality"
    grain = "map"
    follows = "embed"
    Options = QualityOptions
    produces: ClassVar = {"": QUALITIES}
    inputs: ClassVar = {
        "crops": "align.crops",
        "embeddings": "embed",
        "detections": "align.detections",
    }
    options: QualityOptions

    def uses(self) -> tuple[str, ...]:
        return PLAIN.get(self.options.method, ("crops",))

    def consumed(self) -> Mapping[str, tuple[str, ...]]:
        columns = {"given": ("quality",), "random": ("face_id",)}.get(self.options.method)
        return {"faces": columns} if columns else {}

    def fits(self, tables: Mapping[str, Batch]) -> None:
        if self.options.method == "given" and "quality" not in tables["faces"]:
            raise InvalidInput(
                "quality.method is 'given' but the data set brings no quality; name a method"
                " instead."
            )

    def identity(self) -> Any:
        return None if self.options.method in PLAIN else catalogue.identity(self._card())

    @property
    def measure(self) -> dict[str, Any]:
        """How the scores were computed, as JSON: only scores of equal measure share a scale."""
        inputs = {"feature-norm": "embeddings", "detector-score": "detections"}
        above = self.above.get(inputs.get(self.options.method, ""))
        given = {}
        if above:
            given["from"] = {
                "stage": above.name,
                "version": above.version,
                "options": above.options.result_options(),
                "identity": above.identity(),
            }
        return {
            **self.options.result_options(),
            "version": self.version,
            "identity": self.identity(),
            **given,
        }

    def backends(self) -> tuple[str, ...]:
        return (
            ()
            if self.options.method in PLAIN
            else catalogue.backends(self._card(), self.context.profile)
        )

    def open(self) -> None:
        if self.options.method not in PLAIN:
            self._model = catalogue.open_once(self.context, self._card(), self._open)

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        method = self.options.method
        if method == "given":
            return {"": _quality_rows(rows["quality"], np.zeros(rows.rows, np.uint8))}
        if method == "random":
            return {
                "": _quality_rows(
                    random_numbers(rows["face_id"], self.options.seed),
                    np.zeros(rows.rows, np.uint8),
                )
            }
        if method in PLAIN:
            (name,) = PLAIN[method]
            values = inputs[name][{"embeddings": "norm", "detections": "score"}[name]]
            status = inputs[name]["status"]
            if method == "detector-score" and np.isnan(values[status == Status.OK]).any():
                raise InvalidInput(
                    "quality.method is 'detector-score', and some faces have none: their landmarks"
                    " or crops came with the data set. Name another method, or let the data set"
                    " bring a score for each face."
                )
            return {"": _quality_rows(values, status)}
        status, crops = inputs["crops"]["status"], inputs["crops"]["crop"]
        usable = status == Status.OK
        quality = np.full(rows.rows, np.nan, np.float32)
        if usable.any():
            from stages.models.one_forward import quality_of

            quality[usable] = quality_of(self._model, crops[usable])
        return {"": _quality_rows(quality, status)}

    def _card(self) -> ModelCard:
        cards = {k: v for k, v in catalogue.all_cards(self.context).items() if v.has_quality}
        if self.options.method not in cards:
            raise InvalidInput(unknown("quality method", self.options.method, {**cards, **PLAIN}))
        return cards[self.options.method]

    def _open(self, weights: WeightFile) -> Any:
        from stages.models.one_forward import open_for_steps

        return open_for_steps(self._card(), weights, self.context.profile)


def random_numbers(face_ids: Iterable[str], seed: int) -> Array:
    """Return one number in [0, 1) for each face id: (n,) float32.

    It depends on the id and the seed alone.

    >>> random_numbers(["a.jpg", "b.jpg"], seed=0).round(3)
    array([0.505, 0.705], dtype=float32)
    """
    hashes = (
        sha256(f"random quality|{seed}|{name}".encode("utf-8", "surrogatepass")).digest()
        for name in face_ids
    )
    return np.array(
        [int.from_bytes(found[:3], "big") for found in hashes], np.float32
    ) / np.float32(1 << 24)


def _quality_rows(quality: Array, status: Array) -> Batch:
    reason = np.full(len(status), "", dtype=object)
    return Batch(
        {"status": status.astype(np.uint8), "reason": reason, "quality": quality.astype(np.float32)}
    )
