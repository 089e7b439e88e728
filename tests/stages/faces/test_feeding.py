"""Which way a model is fed: the statistics against plain loops, and what a spoilt model shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.numerics import PROFILES
from stages.faces import feeding
from stages.faces.feeding import (
    SCALES,
    Sample,
    Way,
    _of_cosines,
    _of_quality,
    compared_ways,
    contract,
    noise,
)
from stages.metrics.verification import auc
from stages.models.backends import Crops, ModelOutput
from stages.models.cards import ModelCard, WeightFile

PROFILE = PROFILES["cpu-fp32"]
PEOPLE = 60


def card(kind: str, **fields: Any) -> ModelCard:
    dimension = {"recognition": 3, "quality": 1}[kind]
    given = {"architecture": "onnx", "file": "x.onnx", "licence": "", "dimension": dimension}
    return ModelCard.model_validate({"name": "x", "kind": kind, **given, **fields})


def graph(nodes: list[onnx.NodeProto], width: int, **weights: np.ndarray) -> WeightFile:
    """A graph from `pixels` (n, 3, 112, 112) to `answer` (n, width)."""
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 112, 112])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", width])
    model = helper.make_model(
        helper.make_graph(nodes, "x", [given], [answer], constants),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    model.ir_version = 8
    return WeightFile(Path("x.onnx"), model.SerializeToString())


def means() -> onnx.NodeProto:
    return helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[2, 3], keepdims=0)


@pytest.fixture
def trained_on_rgb() -> WeightFile:
    """Its embedding is the colour of the crop, of which only the first channel tells people apart
    and only the last differs from photograph to photograph.
    """
    matrix = np.float32(np.diag([1, 0.1, 0.001]))
    multiply = helper.make_node("MatMul", ["means", "matrix"], ["answer"])
    return graph([means(), multiply], 3, matrix=matrix)


@pytest.fixture(scope="module")
def sample() -> Sample:
    rng = np.random.default_rng(0)
    colour = rng.integers(20, 236, (PEOPLE, 3))
    crops = []
    for _ in range(2):
        seen = np.stack([colour[:, 0], np.full(PEOPLE, 128), rng.integers(20, 236, PEOPLE)], axis=1)
        crops.append(np.broadcast_to(seen[:, None, None], (PEOPLE, 112, 112, 3)).astype(np.uint8))
    return Sample(*crops, PEOPLE)


def test_the_separation_of_cosines_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    first = rng.standard_normal((7, 5)).astype(np.float32)
    second = (first + rng.standard_normal((7, 5)) / 2).astype(np.float32)
    weights = rng.integers(0, 3, 7)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    mated: list[float] = []
    others: list[float] = []
    for i, times in enumerate(weights):
        mated += [cosine(first[i], second[i])] * times
        others += [cosine(first[i], second[(i + 1) % 7])] * times
    expected = (np.mean(mated) - np.mean(others)) / np.sqrt((np.var(mated) + np.var(others)) / 2)
    found = _of_cosines(first, second)(weights[None].astype(float))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_the_separation_of_quality_is_the_area_of_people_drawn_so_often() -> None:
    rng = np.random.default_rng(2)
    clean, spoilt = (rng.integers(0, 6, 9).astype(np.float32) for _ in range(2))  # with ties
    weights = rng.integers(0, 3, 9)
    found = _of_quality(clean, spoilt)(weights[None].astype(float))
    expected = auc(np.repeat(clean, weights), np.repeat(spoilt, weights))
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def ways_of(colour: str, weights: WeightFile, sample: Sample) -> dict[str, Way]:
    found = compared_ways(card("recognition", colour=colour), weights, PROFILE, sample)
    return {f"{way.colour} {way.scale}": way for way in found}


def test_the_cards_way_comes_first_and_every_other_once(
    trained_on_rgb: WeightFile, sample: Sample
) -> None:
    ways = ways_of("rgb", trained_on_rgb, sample)
    assert next(iter(ways)) == "rgb −1…1"
    assert sorted(ways) == sorted(f"{c} {s}" for c in ("rgb", "bgr") for s in SCALES)
    assert [way.is_cards for way in ways.values()] == [True] + [False] * 7


def test_the_right_colours_are_not_beaten_and_wrong_ones_are(
    trained_on_rgb: WeightFile, sample: Sample
) -> None:
    right, wrong = (ways_of(colour, trained_on_rgb, sample) for colour in ("rgb", "bgr"))
    assert not right["bgr −1…1"].clearly_better
    assert wrong["rgb −1…1"].clearly_better
    assert right["bgr −1…1"].difference[1] < 0 < wrong["rgb −1…1"].difference[0]


def test_a_scale_of_its_own_is_compared_with_the_usual_ones(
    trained_on_rgb: WeightFile, sample: Sample
) -> None:
    own = card("recognition", mean=[10, 20, 30], std=[64, 64, 64])
    ways = list(compared_ways(own, trained_on_rgb, PROFILE, sample))
    assert (ways[0].scale, len(ways)) == ("the card's", 10)


def test_a_scale_that_differs_by_half_a_pixel_value_is_no_other(
    trained_on_rgb: WeightFile, sample: Sample
) -> None:
    own = card("recognition", std=[128, 128, 128])
    ways = list(compared_ways(own, trained_on_rgb, PROFILE, sample))
    assert (ways[0].scale, len(ways)) == ("−1…1", 8)


class GivesBoth:
    """The mean colour of each crop, and of all its channels."""

    card = card("quality", architecture="crfiqa50", file="x.pth")

    def __call__(self, crops: Crops) -> ModelOutput:
        colours = crops.mean(axis=(1, 2), dtype=np.float32)
        return ModelOutput(colours, colours.mean(axis=1))


def test_of_a_model_that_gives_both_both_are_compared(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "open_model", lambda *_: GivesBoth())
    ways = list(compared_ways(GivesBoth.card, WeightFile(Path("x"), b""), PROFILE, sample))
    assert [way.kind for way in ways] == 8 * ["quality"] + 8 * ["recognition"]
    assert [i for i, way in enumerate(ways) if way.is_cards] == [0, 8]


def quality_of(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> dict[str, bool]:
    return contract(card("quality"), graph(nodes, 1, **weights), PROFILE, noise(5))


def first_mean(name: str) -> list[onnx.NodeProto]:
    return [means(), helper.make_node("Slice", ["means", "from", "to", "axes"], [name])]


CUT = {"from": np.array([0]), "to": np.array([1]), "axes": np.array([1])}


def test_a_model_that_keeps_its_promises() -> None:
    assert all(quality_of(first_mean("answer"), **CUT).values())


@pytest.mark.parametrize(
    ("promise", "nodes", "weights"),
    [
        (
            "answers a face alone as among others",
            [
                helper.make_node("ReduceMin", ["all"], ["least"], axes=[0], keepdims=1),
                helper.make_node("Sub", ["all", "least"], ["answer"]),
            ],
            {},
        ),
        (
            "tells faces apart",
            [helper.make_node("Mul", ["all", "zero"], ["answer"])],
            {"zero": np.float32([0])},
        ),
        (
            "answers every face with finite numbers",
            [helper.make_node("Div", ["all", "zero"], ["answer"])],
            {"zero": np.float32([0])},
        ),
    ],
)
def test_a_broken_promise_is_found(
    promise: str, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]
) -> None:
    found = quality_of([*first_mean("all"), *nodes], **CUT, **weights)
    assert not found[promise]
