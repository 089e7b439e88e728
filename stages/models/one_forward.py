"""one_forward: a network that gives an embedding and a quality score is run once for both.

`embed` and `quality` are steps of their own, each with its own shards. If both use the same model,
`embed` has computed the scores of the very crops that `quality` asks for later. They are small: so
they are kept, 4 bytes a crop and a digest a micro-batch, for as long as the process lives.

That `quality` asks later is the queue's doing (`pipeline/run/ready_queue.py`). On a cluster
without GPUs its shard goes to the worker that embedded it; where Dask moves it to one that idles,
it is computed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np

from stages.models.backends import (
    Crops,
    FaceModel,
    Floats32,
    ModelOutput,
    Numerics,
    open_model,
)
from stages.models.cards import ModelCard, WeightFile

MOST_BATCHES = 1 << 16  # about 2 million crops at 32 a micro-batch


class OneForward:
    """A model that remembers the quality scores of the crops it was given, by their digest.

    The same crops in the same order give the same scores bit by bit: so nobody can tell if they
    were remembered. Safe to call from several threads.
    """

    def __init__(self, model: FaceModel) -> None:
        self.card = model.card
        self._model = model
        self._scores: OrderedDict[bytes, Floats32] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, crops: Crops) -> ModelOutput:
        answer = self._model(crops)
        if answer.quality is not None:
            with self._lock:
                self._scores[_digest(crops)] = answer.quality
                while len(self._scores) > MOST_BATCHES:
                    self._scores.popitem(last=False)
        return answer

    def quality(self, crops: Crops) -> Floats32 | None:
        """Return the scores of crops, from memory if they were embedded."""
        with self._lock:
            found = self._scores.get(_digest(crops))
        return self._model(crops).quality if found is None else found


def open_for_steps(card: ModelCard, weights: WeightFile, profile: Numerics) -> FaceModel:
    """Return the model as steps of a run use it: one that gives both remembers its scores.

    Raises as `open_model` does.
    """
    model = open_model(card, weights, profile)
    both = card.has_quality and card.embedding_dimension is not None
    return OneForward(model) if both else model


def quality_of(model: FaceModel, crops: Crops) -> Floats32 | None:
    """Return the quality scores (n,) of crops; of a model that remembers them, from its memory."""
    return model.quality(crops) if isinstance(model, OneForward) else model(crops).quality


def _digest(crops: Crops) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(crops).data, digest_size=16).digest()
