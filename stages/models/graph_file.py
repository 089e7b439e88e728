"""What an ONNX file holds, read from its bytes before any library opens them.

A tensor's values may lie in another file, which the digest of this one does not cover and which is
looked for in the working folder. Written as protobuf's wire format allows, that cannot be found by
searching for text, so the messages are walked. Source of the numbers: onnx.proto3.
"""

from __future__ import annotations

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile

# message → {number of a field: the message in it}, for every way that leads to a tensor
MESSAGES = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        **{5: "TensorProto", 10: "TensorProto", 6: "GraphProto", 11: "GraphProto"},
        **{22: "SparseTensorProto", 23: "SparseTensorProto"},
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
EXTERNAL_DATA = 13  # of a TensorProto


def check_graph(weights: WeightFile) -> None:
    """Raise InvalidInput if a file is no ONNX graph, or one whose weights lie in other files."""
    try:
        elsewhere = _keeps_elsewhere(weights.data)
    except (ValueError, IndexError):
        raise InvalidInput(
            f"{weights.path} is damaged, or no ONNX graph; fetch it again."
        ) from None
    if elsewhere:
        raise InvalidInput(
            f"{weights.path} keeps its weights in other files, which no digest covers: export it as"
            " one file."
        )


def _keeps_elsewhere(data: bytes) -> bool:
    """Raises ValueError or IndexError if the bytes are not as protobuf writes them."""
    todo = [("ModelProto", 0, len(data))]
    while todo:
        message, at, end = todo.pop()
        while at < end:
            tag, at = _varint(data, at)
            number, kind = (tag & 0xFFFFFFFF) >> 3, tag & 7
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 0:
                _, at = _varint(data, at)
            elif kind == 2:
                size, at = _varint(data, at)
                if message == "TensorProto" and number == EXTERNAL_DATA:
                    return True
                if number in MESSAGES[message]:
                    todo.append((MESSAGES[message][number], at, at + size))
            elif not size:
                raise ValueError(kind)  # groups, which ONNX never had
            at += size
            if at > end or number == 0:
                raise ValueError(at)
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return (the number that starts at a place, the place behind it)."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(at)
