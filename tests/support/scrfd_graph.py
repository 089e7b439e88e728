"""ONNX graphs in SCRFD's layout, whose answers are known: given as numbers, or by the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

AROUND = (-1, -1, 1, -1, 0, 0, -1, 1, 1, 1)  # landmarks: the nose stands at the anchor
LENGTHS = (1, 4, 10)  # of a row of scores, boxes and landmarks


def answers(side: int, levels: int, anchors: int, seed: int = 0) -> list[np.ndarray]:
    """Random answers in the order of the published graphs: all scores, all boxes, all landmarks."""
    rng = np.random.default_rng(seed)
    rows = [anchors * (side // (8 << level)) ** 2 for level in range(levels)]
    return [
        rng.uniform(0, 1 if length == 1 else 4, (n, length)).astype(np.float32)
        for length in LENGTHS
        for n in rows
    ]


def graph(values: Sequence[np.ndarray], side: int | str, batched: bool = False) -> bytes:
    """A graph that answers any image (1, 3, side, side) with these arrays."""
    values = [value[None] if batched else value for value in values]
    nodes = [
        helper.make_node("Constant", [], [f"o{i}"], value=numpy_helper.from_array(value))
        for i, value in enumerate(values)
    ]
    return _model(nodes, side, [value.shape for value in values])


def graph_of_red(side: int) -> bytes:
    """A graph that finds a face where the image is red, at the left upper corner of that cell.

    It is fed (x − 127.5) / 128. Cells are of 8 pixels; boxes reach two cells each way, landmarks
    one.
    """
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, 0] = 1  # red minus green: 0…1.99
    weight[0, 1] = -1
    count = (side // 8) ** 2
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("Conv", ["image", "w"], ["red"]),
        helper.make_node("AveragePool", ["red"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32([2]))),
        helper.make_node("Div", ["cells", "half"], ["share"]),
        helper.make_node(
            "Constant", [], ["shape"], value=numpy_helper.from_array(np.int64([count, 1]))
        ),
        helper.make_node("Reshape", ["share", "shape"], ["o0"]),
    ]
    rest = answers(side, 3, 1)[1:]
    for i, value in enumerate(rest, 1):
        fixed = np.zeros_like(value)
        if value.shape[1] > 1:
            fixed[:] = 2 if value.shape[1] == 4 else AROUND
        nodes.append(
            helper.make_node("Constant", [], [f"o{i}"], value=numpy_helper.from_array(fixed))
        )
    return _model(nodes, side, [(count, 1), *(value.shape for value in rest)])


def _model(nodes: list[Any], side: int | str, shapes: Sequence[tuple[int, ...]]) -> bytes:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])
    ends = [
        helper.make_tensor_value_info(f"o{i}", TensorProto.FLOAT, shape)
        for i, shape in enumerate(shapes)
    ]
    made = helper.make_graph(nodes, "scrfd", [image], ends)
    opset = [helper.make_opsetid("", 13)]
    data: bytes = helper.make_model(made, ir_version=8, opset_imports=opset).SerializeToString()
    return data
