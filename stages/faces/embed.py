"""embed: crop → embedding and its norm.

`flip: add` adds the feature of the mirrored crop before anything is normalised (the IJB scripts);
`flip: concat` puts the two unit vectors side by side, so that the cosine is the mean of two cosines
(CR-FIQA's extraction), at the length that is the mean of the two features' own. So the norm that is
kept is a face's, whatever the flip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage
from pipeline.errors import InvalidInput
from stages.exact import vectors
from stages.models import catalogue
from stages.models.cards import ModelCard, WeightFile
from stages.tables.schemas import EMBEDDINGS

GIVEN = "given"


class EmbedOptions(Options):
    """Where embeddings come from."""

    model: str = "edgeface_xxs"
    """A recognition card, or `given` if the data set brings its embeddings."""
    flip: Literal["none", "add", "concat"] = "add"
    """The mirrored crop's embedding: not used, added before normalising, or put behind."""


@register("stage", "embed")
class Embed(Stage):
    """Run a face-recognition model over crops, or take embeddings that came with the data set."""

    name = "embed"
    version = 4
    grain = "map"
    Options = EmbedOptions
    produces: ClassVar = {"": EMBEDDINGS}
    inputs: ClassVar = {"crops": "align.crops"}
    options: EmbedOptions

    def uses(self) -> tuple[str, ...]:
        return () if self.options.model == GIVEN else ("crops",)

    def consumed(self) -> Mapping[str, tuple[str, ...]]:
        return {"faces": ("embedding", "variance")} if self.options.model == GIVEN else {}

    def fits(self, tables: Mapping[str, Batch]) -> None:
        if self.options.model == GIVEN and "embedding" not in tables["faces"]:
            raise InvalidInput(
                "embed.model is 'given' but the data set brings no embeddings; name a model"
                " instead."
            )

    def identity(self) -> Any:
        return None if self.options.model == GIVEN else catalogue.identity(self._card())

    def backends(self) -> tuple[str, ...]:
        return (
            ()
            if self.options.model == GIVEN
            else catalogue.backends(self._card(), self.context.profile)
        )

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        if self.options.model == GIVEN:
            return {}
        width = int(self._card().embedding_dimension or 0) * (
            2 if self.options.flip == "concat" else 1
        )
        return {"embedding": rows[""] * width * 4}

    def open(self) -> None:
        if self.options.model != GIVEN:
            self._model = catalogue.open_once(self.context, self._card(), self._open)

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        if self.options.model == GIVEN:
            given = as_embeddings(rows["embedding"], np.zeros(rows.rows, np.uint8))
            return {
                "": Batch(
                    {
                        **given.columns,
                        **{name: rows[name] for name in ("variance",) if name in rows},
                    }
                )
            }
        status, crops = inputs["crops"]["status"], inputs["crops"]["crop"]
        usable = status == Status.OK
        card = self._card()
        width = int(card.embedding_dimension or 0) * (2 if self.options.flip == "concat" else 1)
        embedding = np.full((rows.rows, width), np.nan, np.float32)
        if usable.any():
            embedding[usable] = self._features(crops[usable])
        return {"": as_embeddings(embedding, status)}

    def _features(self, crops: Array) -> Array:
        feature: Array = self._model(crops).embedding
        if self.options.flip == "none":
            return feature
        mirrored: Array = self._model(np.ascontiguousarray(crops[:, :, ::-1])).embedding
        if self.options.flip == "add":
            return feature + mirrored
        lengths = [vectors.lengths(x)[:, None] for x in (feature, mirrored)]
        side_by_side = np.concatenate([feature / lengths[0], mirrored / lengths[1]], axis=1)
        return np.asarray(side_by_side * ((lengths[0] + lengths[1]) / 2**1.5), np.float32)

    def _card(self) -> ModelCard:
        found = catalogue.card(self.context, self.options.model, ("recognition", "quality"))
        if found.embedding_dimension is None:
            raise InvalidInput(
                f"model {found.name!r} gives no embedding; see `qfuse models list` for those"
                " that do."
            )
        return found

    def _open(self, weights: WeightFile) -> Any:
        from stages.models.one_forward import open_for_steps

        return open_for_steps(self._card(), weights, self.context.profile)


def as_embeddings(embedding: Array, status: Array) -> Batch:
    """Return an embeddings batch with the norm of each row; failed rows keep nan.

    A row of length 0 has no direction, and fails as well.
    """
    reason = np.full(len(status), "", dtype=object)
    norm = vectors.lengths(embedding).astype(np.float32)
    nowhere = (norm == 0) & (status == Status.OK)
    if nowhere.any():
        status = np.where(nowhere, Status.FAILED, status)
        embedding = np.where(nowhere[:, None], np.float32(np.nan), embedding)
        reason[nowhere], norm[nowhere] = "the embedding has length 0, and so no direction", np.nan
    return Batch(
        {"status": status.astype(np.uint8), "reason": reason, "embedding": embedding, "norm": norm}
    )
