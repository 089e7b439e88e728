"""openvino_session: OpenVINO as the engine of an ONNX graph, of the extra `openvino`.

It answers as an InferenceSession of ONNX Runtime does, so that nothing else knows of it. Streams
compute beside each other, as many as there are cores for them, each with the threads of the
numerics profile: so several workers may call one session at once. Unlike ONNX Runtime it computes
in bf16.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput, ResourceRefused
from stages.models.cards import ModelCard, WeightFile
from stages.models.graph_file import check_graph

MOST = 4096  # images of a graph, or pixels of a side
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
# OpenVINO's names of types → ONNX Runtime's
TYPES = {
    "boolean": "tensor(bool)",
    **{"f16": "tensor(float16)", "f32": "tensor(float)", "f64": "tensor(double)"},
    **{f"i{bits}": f"tensor(int{bits})" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"tensor(uint{bits})" for bits in (8, 16, 32, 64)},
}


class Node(NamedTuple):
    """An input or output: its name, type and shape, "n" for a length that is not fixed."""

    name: str
    type: str
    shape: list[int | str]


class OpenVinoSession:
    """An ONNX graph in OpenVINO, compiled for so many `rows` where it does not fix their number.

    Raises ResourceRefused if OpenVINO is not installed, InvalidInput if it cannot read the graph or
    compute in that precision.
    """

    def __init__(
        self, card: ModelCard, weights: WeightFile, threads: int, precision: str, rows: int
    ) -> None:
        try:
            openvino = import_module("openvino")
        except ImportError as error:
            raise ResourceRefused(
                f"the numerics profile names the engine openvino ({error}): install"
                " qfuse[openvino], or use engine: onnxruntime."
            ) from None
        if precision not in PRECISIONS:
            raise InvalidInput(
                f"model {card.name!r}: OpenVINO computes in {' or '.join(PRECISIONS)}; the numerics"
                f" profile says {precision}."
            )
        check_graph(weights)
        core = openvino.Core()
        try:
            graph = core.read_model(weights.data, b"")
            self._inputs = [_node(port) for port in graph.inputs]
            self._outputs = [_node(port) for port in graph.outputs]
            # A graph of anything but a few images is not compiled: whoever opens it refuses it.
            if all(len(node.shape) == 4 and _is_small(node.shape) for node in self._inputs):
                fixed = [rows, 3, card.input_size, card.input_size]
                graph.reshape({node.name: _closed(node.shape, fixed) for node in self._inputs})
                self._compiled = core.compile_model(graph, "CPU", _settings(threads, precision))
        # OpenVINO raises RuntimeError for each way in which a graph can be wrong.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InvalidInput(
                f"model {card.name!r}: {weights.path} cannot be opened by OpenVINO"
                f" ({reason:.300}); use engine: onnxruntime."
            ) from error
        self._local = threading.local()

    def get_inputs(self) -> list[Node]:
        """Return the graph's inputs."""
        return self._inputs

    def get_outputs(self) -> list[Node]:
        """Return the graph's outputs."""
        return self._outputs

    def run(self, names: list[str], given: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the named outputs, copies of their own, of the given inputs."""
        request = getattr(self._local, "request", None)
        if request is None:  # a request serves one thread at a time
            request = self._local.request = self._compiled.create_infer_request()
        request.infer(given, share_inputs=True)
        return [np.array(request.get_tensor(name).data) for name in names]


def _node(port: Any) -> Node:
    shape = [int(str(d)) if d.is_static else "n" for d in port.partial_shape]
    return Node(port.any_name, TYPES.get(port.element_type.get_type_name(), "unknown"), shape)


def _is_small(shape: list[int | str]) -> bool:
    return all(length == "n" or int(length) <= MOST for length in shape)


def _closed(shape: list[int | str], fixed: list[int]) -> list[int]:
    """Return a shape whose open lengths are those of `fixed`."""
    return [want if a == "n" else int(a) for a, want in zip(shape, fixed, strict=True)]


def _settings(threads: int, precision: str) -> dict[str, Any]:
    streams = max(1, len(os.sched_getaffinity(0)) // threads)
    return {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams * threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        # Workers move between cores; a thread that is tied to one waits for whatever runs there.
        "ENABLE_CPU_PINNING": False,
    }
