"""feeding: is a model fed as it wants to be? Its card's colours and scale against the other ways.

No weight file says which colour order and scale it wants, and a model that is fed wrongly still
answers, only worse. So crops whose truth is known are given to the model in every usual way:

    recognition  separation: d′ = (m₁ − m₀) / √((v₁ + v₀) / 2) of the means and variances of mated
                 (₁) and non-mated (₀) cosines
    quality      separation: P(clean > degraded) + P(clean = degraded) / 2, of crops and degraded
                 copies of the same ones

Intervals: paired percentile bootstrap over people, 500 replicates, 95 %. A way is clearly better
than the card's if the interval of the difference lies above 0 and the difference is one that
matters (MORE, LEFT, LEFT_ELSEWHERE): a quality model fed at another scale may part the grossly
degraded better, although it was not trained so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.exact import products, vectors
from stages.faces.degrade import DEGRADATIONS, degrade
from stages.metrics.bootstrap import interval, subject_weights
from stages.models.backends import Crops, FaceModel, ModelOutput, Numerics, open_model
from stages.models.cards import ModelCard, WeightFile

Floats = NDArray[np.float64]

# What scripts feed: name → mean and standard deviation of the pixels, as of a card.
SCALES = {
    "−1…1": ((127.5,) * 3, (127.5,) * 3),
    "0…1": ((0.0,) * 3, (255.0,) * 3),
    "0…255": ((0.0,) * 3, (1.0,) * 3),
    "ImageNet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
NEAR = 1.0  # pixel values: scales that differ by less are one (127.5/128, 128/128)
REPLICATES = 500
AT_ONCE = 64  # crops of one call
# Of the five models at hand with 300 people of LFW, the right order was better than the wrong one
# by 4 % (edgeface_xs) to 8 % of d′. Of LightQNet 0.53 % of the clean-degraded pairs are in the
# wrong order, 1.44 % with the wrong colours, and 0.24 % at a scale that it was not trained with.
MORE, LEFT, LEFT_ELSEWHERE = 1.03, 0.6, 0.25


@dataclass(frozen=True)
class Sample:
    """Two crops each of n people: first, second (n, 112, 112, 3) uint8 RGB.

    In both of their photographs a face was found; `drawn` people were looked at.
    """

    first: Crops
    second: Crops
    drawn: int

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Way:
    """A way to feed a model: its separation, and the interval of its difference to the card's.

    `kind` says what was parted: recognition, or quality.
    """

    kind: str
    colour: str
    scale: str
    separation: float
    difference: tuple[float, float]
    is_cards: bool
    clearly_better: bool


def compared_ways(
    card: ModelCard, weights: WeightFile, profile: Numerics, sample: Sample
) -> Iterator[Way]:
    """Yield the card's way of feeding, then all others, each as soon as it is computed.

    Of a model that gives a quality score and an embedding, once for each. Raises InvalidInput as
    `backends.open_model` does.
    """
    for kind in ("quality", "recognition"):
        if kind == card.kind or (kind == "recognition" and card.embedding_dimension is not None):
            yield from _compared(kind, card, weights, profile, sample)


def _compared(
    kind: str, card: ModelCard, weights: WeightFile, profile: Numerics, sample: Sample
) -> Iterator[Way]:
    drawn = subject_weights(len(sample), REPLICATES, 0).astype(np.float64)
    everyone, measured = np.ones((1, len(sample))), _measure(kind, sample)
    own_scale = next((name for name, scale in SCALES.items() if _alike(card, scale)), "the card's")
    scales = {**SCALES, own_scale: (card.mean, card.std)}
    others = [
        (colour, scale)
        for scale in sorted(scales, key=lambda name: name != own_scale)
        for colour in (card.colour, "bgr" if card.colour == "rgb" else "rgb")
    ]
    own: tuple[float, Floats] | None = None
    for colour, scale in others:
        mean, std = scales[scale]
        fed = card.model_copy(update={"colour": colour, "mean": mean, "std": std})
        separation = measured(open_model(fed, weights, profile))
        value, replicates = float(separation(everyone)[0]), separation(drawn)
        is_cards = own is None
        if own is None:
            own = value, replicates
        low, high = (float(limit) for limit in interval(replicates - own[1]))
        matters = value >= MORE * own[0]
        if kind == "quality":
            left = LEFT if scale == own_scale else LEFT_ELSEWHERE
            matters = 1 - value <= left * (1 - own[0])
        yield Way(kind, colour, scale, value, (low, high), is_cards, low > 0 and matters)


def contract(
    card: ModelCard, weights: WeightFile, profile: Numerics, crops: Crops
) -> dict[str, bool]:
    """Say of each promise of a model if these crops find it kept. `crops` (n, 112, 112, 3), n ≥ 2.

    Raises InvalidInput as `backends.open_model` and the model do: also for a wrong length.
    """
    model = open_model(card, weights, profile)
    whole, again = _rows(model(crops)), _rows(model(crops))
    alone = np.concatenate([_rows(model(crops[i : i + 1])) for i in range(len(crops))])
    backwards = _rows(model(np.ascontiguousarray(crops[::-1])))[::-1]
    return {
        "answers every face with finite numbers": bool(np.isfinite(whole).all()),
        "answers the same again": np.array_equal(whole, again, equal_nan=True),
        "answers a face alone as among others": np.array_equal(whole, alone, equal_nan=True)
        and np.array_equal(whole, backwards, equal_nan=True),
        "tells faces apart": bool((whole != whole[0]).any()),
    }


def noise(count: int) -> Crops:
    """Return crops of no face, (count, 112, 112, 3) uint8: for what needs no face to be tested."""
    return np.random.default_rng(0).integers(0, 256, (count, 112, 112, 3), np.uint8)


def _rows(answer: ModelOutput) -> NDArray[np.float32]:
    parts = [part for part in (answer.embedding, answer.quality) if part is not None]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _alike(card: ModelCard, scale: tuple[tuple[float, ...], tuple[float, ...]]) -> bool:
    return bool(np.abs(np.array([card.mean, card.std]) - np.array(scale)).max() <= NEAR)


Separation = Callable[[Floats], Floats]


def _measure(kind: str, sample: Sample) -> Callable[[FaceModel], Separation]:
    """Return what computes of an opened model its separation as a function of people's weights.

    Weights (R, n): how often each person counts; separation (R,).
    """
    if kind == "quality":
        spoilt = np.stack(
            [
                degrade(crop, DEGRADATIONS[i % len(DEGRADATIONS)], np.random.default_rng(i))
                for i, crop in enumerate(sample.first)
            ]
        )
        return lambda model: _of_quality(*_on_all_cores(model, "quality", sample.first, spoilt))
    both = sample.first, sample.second
    return lambda model: _of_cosines(*_on_all_cores(model, "embedding", *both))


def _on_all_cores(model: FaceModel, answer: str, *sets: Crops) -> list[Any]:
    """Return a model's answers to sets of crops, computed by as many callers as there are cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = [
            pool.map(model, [crops[i : i + AT_ONCE] for i in range(0, len(crops), AT_ONCE)])
            for crops in sets
        ]
        return [np.concatenate([getattr(said, answer) for said in each]) for each in found]


def _of_quality(clean: Any, spoilt: Any) -> Separation:
    wins = (clean[:, None] > spoilt) + (clean[:, None] == spoilt) / 2
    return lambda weights: (weights @ wins * weights).sum(1) / weights.sum(1) ** 2


def _of_cosines(first: Any, second: Any) -> Separation:
    one, two = vectors.units(first), vectors.units(second)
    mated, nonmated = products.paired(one, two), products.paired(one, np.roll(two, -1, axis=0))

    def separation(weights: Floats) -> Floats:
        total = weights.sum(1)
        (m1, v1), (m0, v0) = (
            (mean := weights @ score / total, weights @ score**2 / total - mean**2)
            for score in (mated, nonmated)
        )
        return np.asarray((m1 - m0) / np.sqrt(np.maximum((v1 + v0) / 2, 1e-12)))

    return separation
