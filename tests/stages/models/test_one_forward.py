"""A network that gives both an embedding and a quality score is run once for both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stages.models import one_forward
from stages.models.backends import Crops, ModelOutput
from stages.models.cards import ModelCard
from stages.models.one_forward import OneForward, quality_of

CARD = ModelCard(
    name="x", kind="quality", architecture="crfiqa50", file="x", dimension=1, licence=""
)


class Both:
    """Answers with the mean of each crop, and counts how often it is asked."""

    def __init__(self) -> None:
        self.card = CARD
        self.calls = 0

    def __call__(self, crops: Crops) -> ModelOutput:
        self.calls += 1
        mean = crops.reshape(len(crops), -1).mean(axis=1, dtype=np.float32)
        return ModelOutput(np.repeat(mean[:, None], 512, axis=1), mean)


def crops(seed: int, count: int = 3) -> Crops:
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), np.uint8)


def test_scores_of_crops_that_were_embedded_are_remembered() -> None:
    inner = Both()
    model = OneForward(inner)
    given = crops(0)
    expected = model(given).quality
    np.testing.assert_array_equal(quality_of(model, given), expected)
    assert inner.calls == 1


def test_other_crops_or_another_order_are_computed() -> None:
    inner = Both()
    model = OneForward(inner)
    given = crops(0)
    scores = model(given).quality
    assert scores is not None
    np.testing.assert_array_equal(quality_of(model, given[::-1]), scores[::-1])
    np.testing.assert_array_equal(quality_of(model, crops(1)), inner(crops(1)).quality)
    assert inner.calls == 4


def test_what_was_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_forward, "MOST_BATCHES", 2)
    inner = Both()
    model = OneForward(inner)
    for seed in range(3):
        model(crops(seed))
    quality_of(model, crops(2))
    assert inner.calls == 3
    quality_of(model, crops(0))
    assert inner.calls == 4


def test_scores_without_embeddings_are_not_kept() -> None:
    inner = Both()
    model = OneForward(inner)
    for _ in range(2):
        quality_of(model, crops(0))
    assert inner.calls == 2


def test_several_threads_get_the_scores_of_their_own_crops() -> None:
    model = OneForward(Both())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(model, [crops(seed) for seed in range(20)]))
        found = list(pool.map(model.quality, [crops(seed) for seed in range(20)]))
    for seed, scores in enumerate(found):
        np.testing.assert_array_equal(scores, Both()(crops(seed)).quality)
