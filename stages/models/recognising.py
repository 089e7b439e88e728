"""recognising: a weight file → what its card says: architecture, input, output, dimension, digest.

What no file tells is the colour order and scale that it wants: a card gets the usual ones of its
architecture, and `qfuse models check` finds out whether they are right.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidInput, unknown
from stages.models.cards import WeightFile, read_weights

LEAST_EMBEDDING = 32  # numbers; what is shorter is no embedding
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors", ".tar")
UNIT = {"mean": [0.0, 0.0, 0.0], "std": [255.0, 255.0, 255.0]}  # pixels in 0…1
# What the projects' own scripts feed, where it is not RGB in −1…1.
FED: dict[str, dict[str, Any]] = {
    "adaface": {"colour": "bgr"},
    "magface": {"colour": "bgr", **UNIT},
    "mobilefacenet": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
    "mtcnn": {"std": [128.0, 128.0, 128.0]},
    "scrfd": {"std": [128.0, 128.0, 128.0]},
}
DETECTOR_ROW = 15  # numbers of a face: box, five landmarks, score
# The lengths of what SCRFD's graphs give at three or five strides: scores, boxes and landmarks.
SCRFD_ENDS = [sorted([1, 4, 10] * strides) for strides in (3, 5)]
SCRFD_SIDE = 640  # pixels: of graphs that take any size, what they are used with


def recognised(path: Path, architecture: str | None = None) -> dict[str, Any]:
    """Return the fields of a card for a file, its digest among them.

    `architecture` is that of a checkpoint, if it is known; several may have the same names and
    shapes, and the first of them is taken otherwise. Raises InvalidInput if the file is neither an
    ONNX graph nor a checkpoint of an architecture that is known.
    """
    weights = read_weights(path, None)
    if path.suffix.lower() == ".onnx":
        found = _of_graph(weights)
    elif path.suffix.lower() in CHECKPOINTS:
        found = _of_checkpoint(weights, architecture)
    else:
        raise InvalidInput(
            f"{path}: expected an ONNX graph (.onnx) or a checkpoint ({', '.join(CHECKPOINTS)})."
        )
    digest = hashlib.sha256(weights.data).hexdigest()
    return {**found, "file": path.name, "sha256": digest, "bytes": len(weights.data)}


def _of_graph(weights: WeightFile) -> dict[str, Any]:
    from stages.models.graph_file import check_graph
    from stages.models.graph_mending import parsed

    check_graph(weights)
    graph = parsed(weights.data, str(weights.path)).graph
    held = {weight.name for weight in graph.initializer}
    inputs = [each for each in graph.input if each.name not in held]
    if not inputs or not graph.node or not graph.output:
        raise InvalidInput(
            f"{weights.path} computes nothing: it is empty, or no ONNX graph; fetch it again."
        )
    if len(inputs) != 1:
        raise InvalidInput(
            f"{weights.path} wants {len(inputs)} inputs: {', '.join(i.name for i in inputs):.200}."
            " If all but the first are weights, mend it with `qfuse models convert`; a model of"
            " faces wants one image."
        )
    size, lengths = _shape(inputs[0]), {each.name: _shape(each) for each in graph.output}
    if len(size) != 4 or size[1] not in (0, 3):
        raise InvalidInput(
            f"{weights.path}: expected one image, (n, 3, height, width), found {size}."
        )
    # (n,) is one number a face, (n, d) are d; what has more axes is no answer for a face.
    named = {
        name: shape[-1] if len(shape) > 1 else 1
        for name, shape in lengths.items()
        if len(shape) in (1, 2)
    }
    if sorted(shape[-1] for shape in lengths.values() if shape) in SCRFD_ENDS:
        return {
            "kind": "detector",
            "architecture": "scrfd",
            "input_size": size[2] or SCRFD_SIDE,
            **FED["scrfd"],
            "dimension": DETECTOR_ROW,
        }
    scores = [name for name, length in named.items() if length == 1]
    embeddings = [name for name, length in named.items() if length >= LEAST_EMBEDDING]
    if len(embeddings) + len(scores) != 1:
        raise InvalidInput(
            f"{weights.path}: expected one output, an embedding of {LEAST_EMBEDDING} numbers or"
            f" more or a quality score, found {', '.join(f'{n} {s}' for n, s in lengths.items())}:"
            " write the card by hand, with output_name (docs/extending.md)."
        )
    output = (embeddings or scores)[0]
    scale = {"mean": [0.0] * 3, "std": [1.0] * 3} if _scales_itself(graph, inputs[0].name) else {}
    return {
        "kind": "recognition" if embeddings else "quality",
        "architecture": "onnx",
        "input_size": size[2] or 112,
        "input_name": inputs[0].name,
        "output_name": output,
        "dimension": named[output],
        **scale,
    }


def _scales_itself(graph: Any, image: str) -> bool:
    """Whether a graph begins by (x − a number) · a number: it wants pixels as they are."""
    constant = {weight.name for weight in graph.initializer}
    constant |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    name = image
    for kinds in (("Sub",), ("Mul", "Div")):
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type not in kinds:
            return False
        if not constant.intersection(readers[0].input):
            return False
        name = readers[0].output[0]
    return True


def _shape(value: Any) -> list[int]:
    """Return the lengths of a graph's input or output, 0 for one that is not fixed."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _family(architecture: str) -> str:
    return architecture.rstrip("0123456789")


def _of_checkpoint(weights: WeightFile, architecture: str | None) -> dict[str, Any]:
    from stages.models.checkpoints import fitting_architectures, need_finite
    from stages.networks.architectures import ARCHITECTURES, DETECTORS

    if architecture is not None and architecture not in ARCHITECTURES:
        raise InvalidInput(unknown("architecture", architecture, ARCHITECTURES))
    fitting = fitting_architectures(weights)
    if architecture is not None:
        fitting = [name for name in fitting if name == architecture]
    if not fitting:
        asked = f"not of {architecture}" if architecture else "of no architecture that is known"
        raise InvalidInput(
            f"{weights.path}: its names and shapes are {asked}"
            f" ({', '.join([*ARCHITECTURES, *DETECTORS])}). Export it as an ONNX graph, which needs"
            " none."
        )
    by_name = [name for name in fitting if _family(name) in weights.path.name.lower()]
    need_finite(weights)
    # The last: iresnet, which all of these are, is in the names of other projects' files, too.
    chosen = (by_name or fitting[:1])[-1]
    if chosen in DETECTORS:
        fed = FED.get(chosen, {})
        return {"kind": "detector", "architecture": chosen, "dimension": DETECTOR_ROW, **fed}
    made = ARCHITECTURES[chosen]
    return {
        "kind": "quality" if made.quality else "recognition",
        "architecture": chosen,
        "dimension": made.dimension,
        **FED.get(_family(chosen), {}),
        **({"notes": f"Fits {' and '.join(fitting)} alike."} if len(fitting) > 1 else {}),
    }
