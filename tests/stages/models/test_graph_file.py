"""Where an ONNX file keeps its weights is read off its bytes, however they are written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile
from stages.models.graph_file import EXTERNAL_DATA, MESSAGES, check_graph


def tensor(elsewhere: bool) -> TensorProto:
    found = numpy_helper.from_array(np.ones(3, np.float32), "t")
    if elsewhere:
        found.ClearField("raw_data")
        found.data_location = TensorProto.EXTERNAL
        found.external_data.add(key="location", value="raw")
    return found


def graph(elsewhere: bool, place: str) -> Any:
    """A model with one tensor, in one of the places where a tensor may be."""
    node, found = helper.make_node("Constant", [], ["x"]), helper.make_graph([], "g", [], [])
    model = helper.make_model(found)
    if place == "initializer":
        model.graph.initializer.append(tensor(elsewhere))
    elif place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor(elsewhere))
    elif place == "attribute":
        node.attribute.append(helper.make_attribute("value", tensor(elsewhere)))
        model.graph.node.append(node)
    elif place == "branch":
        node.attribute.append(helper.make_attribute("body", graph(elsewhere, "attribute").graph))
        model.graph.node.append(node)
    else:
        node.attribute.append(helper.make_attribute("value", tensor(elsewhere)))
        model.functions.add().node.append(node)
    return model


def check(data: bytes) -> None:
    check_graph(WeightFile(Path("m.onnx"), data))


@pytest.mark.parametrize("place", ["initializer", "sparse", "attribute", "branch", "function"])
def test_a_tensor_that_lies_elsewhere_is_found_wherever_it_is_named(place: str) -> None:
    check(graph(False, place).SerializeToString())
    with pytest.raises(
        InvalidInput, match=r"m\.onnx keeps its weights in other files, .*: export it as one file"
    ):
        check(graph(True, place).SerializeToString())


def varint(value: int, least: int = 1) -> bytes:
    """A number as protobuf writes it, in at least so many bytes, which its readers take as well."""
    digits = [value >> 7 * i & 0x7F for i in range(max(least, -(-value.bit_length() // 7)))]
    return bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])


@pytest.mark.parametrize("least", [1, 2, 5])
@pytest.mark.parametrize("turned", [False, True])
def test_it_is_found_however_its_bytes_are_written(least: int, turned: bool) -> None:
    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2, least) + varint(len(content), least) + content

    entry = [field(1, b"location"), field(2, b"raw")]
    data = field(7, field(5, field(13, b"".join(entry[::-1] if turned else entry))))
    assert onnx.load_from_string(data).graph.initializer[0].external_data[0].value == "raw"
    with pytest.raises(InvalidInput, match="in other files"):
        check(data)


def test_the_table_names_every_way_that_leads_to_a_tensor() -> None:
    messages = {name: getattr(onnx, name).DESCRIPTOR for name in MESSAGES}
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == EXTERNAL_DATA
    for name, descriptor in messages.items():
        fields = {
            f.number: f.message_type.name for f in descriptor.fields if f.message_type is not None
        }
        assert {number: kind for number, kind in fields.items() if kind in MESSAGES} == MESSAGES[
            name
        ], name


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x00", b"\x0b\x0c", b"\x3a\x7f", b"\xff" * 12, b"\x18\0\0\0ORTM" + bytes(20)],
)
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"m\.onnx is damaged, or no ONNX graph"):
        check(data)


@given(st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_arbitrary_bytes_are_a_graph_or_a_sentence(data: bytes) -> None:
    with suppress(InvalidInput):
        check(data)
