"""graph_mending: ONNX graphs that a runtime refuses, written as it wants them.

Old exporters list every weight as an input of the graph as well, also some that no node reads. ONNX
Runtime then refuses the graph, or folds nothing. Weights that are stored in 8 bits and widened in
the graph are widened at each forward, and OpenVINO refuses those of a block each: they are stored
as the numbers that they stand for. What the graph computes is not changed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.errors import InvalidInput, ResourceRefused


def mended(data: bytes, what: str) -> bytes:
    """Return the graph with its weights as float32, and without anything that no node reads.

    Weights are no inputs of it.

    The bytes are the same for the same graph. Raises InvalidInput if they are no ONNX graph,
    ResourceRefused if the library `onnx` is not installed.
    """
    model = parsed(data, what)
    graph = model.graph
    _widen(graph)
    weights = {weight.name for weight in graph.initializer}
    if not graph.node or not graph.output:
        raise InvalidInput(f"{what} computes nothing: it is empty, or no ONNX graph.")
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    inputs = [each for each in graph.input if each.name in read - weights]
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.input[:], graph.initializer[:]
    graph.input.extend(inputs)
    graph.initializer.extend(kept)
    found: bytes = model.SerializeToString(deterministic=True)
    return found


def _widen(graph: Any) -> None:
    """Replace nodes that widen a stored weight by the weight that they give."""
    helper, reference = import_module("onnx.numpy_helper"), import_module("onnx.reference")
    stored = {weight.name: weight for weight in graph.initializer}
    widening = [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input)
    ]
    for node in widening:
        given = {name: helper.to_array(stored[name]) for name in node.input}
        (wide,) = reference.ReferenceEvaluator(node).run(None, given)
        graph.initializer.append(helper.from_array(wide, node.output[0]))
        graph.node.remove(node)


def parsed(data: bytes, what: str) -> Any:
    """Return an ONNX model. Raises as `mended` does."""
    try:
        onnx = import_module("onnx")  # it ships no types
    except ImportError:
        raise ResourceRefused(
            f"{what} is an ONNX graph: to read or mend it, install qfuse[onnx]."
        ) from None
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own type, and onnx's
        raise InvalidInput(f"{what} is damaged, or no ONNX graph ({error!s:.100}).") from None
