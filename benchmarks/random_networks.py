"""Networks with weights by rule in their published layouts, what to feed them, and their cost."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.schema import Array
from stages.models.backends import CROP
from stages.models.cards import ModelCard, WeightFile
from stages.networks.architectures import ARCHITECTURES

GRAPH_WIDTHS = (64, 128, 256, 512)  # channels of the graph's convolutions, each of which halves
GRAPH_DIMENSION = 512
# The last norm of each residual branch: without a small one, fifty sums in a row leave float16.
LAST_NORMS = ("bn3.weight", "res_layer.4.weight", "res_layer.5.weight")
BRANCH = 0.25  # of their scale


def card_of(architecture: str) -> ModelCard:
    """Return a card for random weights of an architecture."""
    made = ARCHITECTURES[architecture]
    return ModelCard(
        name=f"random-{architecture}",
        kind="quality" if made.quality else "recognition",
        architecture=architecture,
        file=f"{architecture}.safetensors",
        dimension=made.dimension,
        licence="none",
    )


def checkpoint(architecture: str) -> WeightFile:
    """Return a state dict of random weights, as it would lie in a file.

    They keep the size of what passes through: variance 1 / inputs for matrices and convolutions,
    batch norms and slopes near those of trained networks.
    """
    from safetensors.torch import save

    with torch.device("meta"):
        layout = ARCHITECTURES[architecture].build().state_dict()
    rng = np.random.default_rng(0)
    data = save({name: _weights(name, own, layout, rng) for name, own in layout.items()})
    return WeightFile(Path(f"{architecture}.safetensors"), data)


def _weights(name: str, own: Tensor, layout: dict[str, Tensor], rng: np.random.Generator) -> Tensor:
    if not own.is_floating_point():  # of batches that a norm has seen
        return torch.zeros(own.shape, dtype=own.dtype)
    drawn = torch.from_numpy(rng.random(own.shape, np.float32))
    if own.ndim > 1:
        return (2 * drawn - 1) * (3 / own[0].numel()) ** 0.5
    if name.endswith(("running_mean", "bias")):
        return 0.2 * drawn - 0.1
    if name.endswith("running_var") or f"{name.rpartition('.')[0]}.running_var" in layout:
        return (0.8 + 0.4 * drawn) * (BRANCH if name.endswith(LAST_NORMS) else 1)
    return 0.1 + 0.3 * drawn  # a slope of PReLU


def operations(architecture: str) -> int:
    """Return the floating-point operations for one image.

    Two for each multiplication of a convolution or a linear layer; the rest is not counted.
    """
    with torch.device("meta"):
        network = ARCHITECTURES[architecture].build().eval()
    counted: list[int] = []

    def count(layer: nn.Module, given: object, answer: Tensor) -> None:
        counted.append(2 * answer.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(torch.empty((1, 3, *CROP[:2]), device="meta"))
    return sum(counted)


def smooth_crops(count: int) -> Array:
    """Return random crops (count, 112, 112, 3) uint8 without hard edges, as faces are."""
    coarse = np.random.default_rng(1).integers(0, 256, (count, 9, 9, 3), np.uint8)
    return np.array([cv2.resize(crop, CROP[:2], interpolation=cv2.INTER_CUBIC) for crop in coarse])


def graph() -> tuple[ModelCard, WeightFile, int]:
    """Return an ONNX graph of convolutions and a matrix, its card, and operations for one image."""
    from onnx import TensorProto, helper, numpy_helper

    rng, side, inputs, last = np.random.default_rng(2), CROP[0], 3, "pixels"
    nodes, constants, cost = [], [], 0

    def constant(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    for width in GRAPH_WIDTHS:
        kernel, side = constant(f"kernel{width}", width, inputs, 3, 3), side // 2
        nodes += [
            helper.make_node("Conv", [last, kernel], [f"a{width}"], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Relu", [f"a{width}"], [f"b{width}"]),
        ]
        cost += 2 * side * side * width * inputs * 9
        inputs, last = width, f"b{width}"
    matrix = constant("matrix", GRAPH_DIMENSION, inputs * side * side)
    nodes += [
        helper.make_node("Flatten", [last], ["flat"]),
        helper.make_node("Gemm", ["flat", matrix], ["answer"], transB=1),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "random",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, *CROP[:2]])],
            [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", GRAPH_DIMENSION])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    made.ir_version = 8
    card = ModelCard(
        name="random-graph",
        kind="recognition",
        architecture="onnx",
        file="random.onnx",
        dimension=GRAPH_DIMENSION,
        licence="none",
    )
    data = made.SerializeToString()
    return card, WeightFile(Path(card.file), data), cost + 2 * GRAPH_DIMENSION * inputs * side**2
