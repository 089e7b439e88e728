"""What a weight file says of itself: the architecture by names and shapes, a graph's ends."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import scrfd_graph
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load, save
from torch import Tensor

from pipeline.core.numerics import PROFILES
from pipeline.errors import InvalidInput
from stages.models.backends import open_model
from stages.models.cards import ModelCard, WeightFile, read_cards, read_weights
from stages.models.checkpoints import fitting_architectures
from stages.models.graph_mending import mended
from stages.models.joining import joined
from stages.models.recognising import recognised
from stages.networks.architectures import ARCHITECTURES
from stages.networks.mtcnn import MtcnnNetworks

SAME = {  # published modules that differ in nothing that a file holds
    **{f"iresnet{depth}": f"magface{depth}" for depth in (18, 50, 100)},
}


def shipped_card(name: str) -> ModelCard:
    return read_cards(Path(__file__).parents[3] / "data_manifests" / "models.yaml")[name]


def empty_state(architecture: str) -> dict[str, Tensor]:
    """A state dict whose tensors have one number each in memory and in a file."""
    with torch.device("meta"):
        own = ARCHITECTURES[architecture].build().state_dict()
    return {
        name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in own.items()
    }


def written(content: object) -> WeightFile:
    file = io.BytesIO()
    torch.save(content, file)
    return WeightFile(Path("net.pth"), file.getvalue())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_is_found_by_its_names_and_shapes(architecture: str) -> None:
    found = fitting_architectures(written({"state_dict": empty_state(architecture)}))
    assert architecture in found
    pairs = [{one, other} for one, other in SAME.items()]
    assert set(found) == next((pair for pair in pairs if architecture in pair), {architecture})


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "features.module."])
def test_a_prefix_and_a_training_head_do_not_hide_an_architecture(prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in empty_state("adaface18").items()}
    state |= {"head.weight": torch.zeros(3)}
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    for name in counts:  # old files lack them
        del state[name]
    assert fitting_architectures(written(state)) == ["adaface18"]


def test_a_tensor_more_or_of_another_shape_is_no_fit() -> None:
    state = empty_state("mobilefacenet")
    assert fitting_architectures(written({**state, "other.weight": torch.zeros(2)})) == []
    name = next(iter(state))
    assert fitting_architectures(written({**state, name: torch.zeros(2)})) == []


def test_of_two_that_are_alike_the_files_name_decides(tmp_path: Path) -> None:
    path = tmp_path / "MagFace_iresnet18.pth"
    path.write_bytes(written(empty_state("magface18")).data)
    found = recognised(path)
    assert (found["architecture"], found["colour"]) == ("magface18", "bgr")
    assert "iresnet18 and magface18" in found["notes"]
    assert recognised(path, "iresnet18")["architecture"] == "iresnet18"
    with pytest.raises(InvalidInput, match="not of adaface18"):
        recognised(path, "adaface18")


def graph(outputs: dict[str, int], spoilt: bool = False) -> bytes:
    """An image → its mean a channel → as many numbers as each output has."""
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0)]
    weights, ends = [], []
    for name, length in outputs.items():
        matrix = np.arange(3.0 * length, dtype=np.float32).reshape(3, length)
        weights.append(numpy_helper.from_array(matrix, f"{name}_matrix"))
        nodes.append(helper.make_node("MatMul", ["mean", f"{name}_matrix"], [name]))
        ends.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", length]))
    starts = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 96, 96])]
    if spoilt:  # as old exporters do: weights are inputs too, also such that nothing reads
        starts += [
            helper.make_tensor_value_info(w.name, TensorProto.FLOAT, list(w.dims)) for w in weights
        ]
        starts.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, [3]))
        weights.append(numpy_helper.from_array(np.zeros(4, np.float32), "unread"))
    made = helper.make_graph(nodes, "g", starts, ends, weights)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, ir_version=8, opset_imports=opset).SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("length", "kind"), [(64, "recognition"), (1, "quality")])
def test_a_graph_says_its_ends_and_what_it_is(tmp_path: Path, length: int, kind: str) -> None:
    (tmp_path / "net.onnx").write_bytes(graph({"answer": length}))
    found = recognised(tmp_path / "net.onnx")
    assert (found["kind"], found["dimension"], found["input_size"]) == (kind, length, 96)
    assert (found["input_name"], found["output_name"]) == ("image", "answer")


def test_a_graph_of_two_answers_is_left_to_its_user(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(graph({"a": 64, "b": 1}))
    with pytest.raises(InvalidInput, match="expected one output"):
        recognised(tmp_path / "net.onnx")


def test_a_mended_graph_computes_the_same_and_has_its_image_for_input_alone() -> None:
    image = np.random.default_rng(0).random((2, 3, 96, 96), np.float32)
    once = mended(graph({"answer": 64}, spoilt=True), "g")
    session = ort.InferenceSession(once)
    assert [each.name for each in session.get_inputs()] == ["image"]
    plain = ort.InferenceSession(graph({"answer": 64}))
    assert np.array_equal(*(each.run(None, {"image": image})[0] for each in (session, plain)))
    assert mended(once, "g") == once == mended(graph({"answer": 64}, spoilt=True), "g")


@pytest.mark.parametrize("block", [0, 2])
def test_mending_stores_a_weight_of_8_bits_as_the_numbers_that_it_stands_for(block: int) -> None:
    stored = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    scale = np.float32([[0.5, 1, 2]]) if not block else np.float32([[0.5, 1, 2], [3, 4, 5]])
    weights = [
        numpy_helper.from_array(stored, "stored"),
        numpy_helper.from_array(scale if block else scale[0], "scale"),
    ]
    nodes = [
        helper.make_node(
            "DequantizeLinear",
            ["stored", "scale"],
            ["wide"],
            axis=0 if block else 1,
            **({"block_size": block} if block else {}),
        ),
        helper.make_node("MatMul", ["image", "wide"], ["answer"]),
    ]
    starts = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4])]
    ends = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 3])]
    made = helper.make_model(
        helper.make_graph(nodes, "g", starts, ends, weights),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 21)],
    )
    done = mended(made.SerializeToString(), "g")
    kinds = [node.op_type for node in onnx.load_model_from_string(done).graph.node]
    assert kinds == ["MatMul"]
    wide = stored * np.repeat(scale, 4 // len(scale), axis=0)
    found = ort.InferenceSession(done).run(None, {"image": np.eye(4, dtype=np.float32)})[0]
    assert np.array_equal(found, wide.astype(np.float32))


# InsightFace's packs: a detector and a recognition model, as their graphs lay them out.


@pytest.mark.parametrize(("levels", "anchors"), [(3, 2), (5, 1)])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("side", "size"), [(128, 128), ("height", 640)])
def test_a_graph_of_scrfd_is_a_detector(
    tmp_path: Path, levels: int, anchors: int, batched: bool, side: int | str, size: int
) -> None:
    values = scrfd_graph.answers(128, levels, anchors)
    (tmp_path / "det_10g.onnx").write_bytes(scrfd_graph.graph(values, side, batched))
    found = recognised(tmp_path / "det_10g.onnx")
    assert (found["kind"], found["architecture"]) == ("detector", "scrfd")
    assert found["input_size"] == size
    card, shipped = ModelCard(name="d", licence="", **found), shipped_card("scrfd_10g")
    assert (card.colour, card.mean, card.std, card.dimension) == (
        *(shipped.colour, shipped.mean, shipped.std),
        shipped.dimension,
    )


def pack_recognition(first: list[onnx.NodeProto]) -> bytes:
    """A graph with w600k_r50.onnx's ends: input.1 (None, 3, 112, 112) → 683 (1, 512)."""
    weight = np.random.default_rng(0).normal(0, 0.1, (512, 3)).astype(np.float32)
    image = first[-1].output[0] if first else "input.1"
    nodes = [
        *first,
        helper.make_node("GlobalAveragePool", [image], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["683"], transB=1),
    ]
    start = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])
    end = helper.make_tensor_value_info("683", TensorProto.FLOAT, [1, 512])
    constants = [numpy_helper.from_array(weight, "w")]
    constants += [numpy_helper.from_array(np.float32(127.5), "c")]
    made = helper.make_graph(nodes, "g", [start], [end], constants)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(made, ir_version=8, opset_imports=opset).SerializeToString()  # type: ignore[no-any-return]


def test_a_packs_recognition_graph_is_read_as_its_card_says_and_computes(tmp_path: Path) -> None:
    path = tmp_path / "w600k_r50.onnx"
    path.write_bytes(pack_recognition([]))
    found = recognised(path)
    card, shipped = ModelCard(name="buffalo_l", licence="", **found), shipped_card("buffalo_l")
    for field in ("kind", "architecture", "file", "colour", "input_size", "mean", "std"):
        assert getattr(card, field) == getattr(shipped, field)
    assert (card.input_name, card.output_name, card.dimension) == ("input.1", "683", 512)
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    answer = open_model(card, read_weights(path, card.sha256), PROFILES["cpu-fp32"])(crops)
    weight = np.random.default_rng(0).normal(0, 0.1, (512, 3)).astype(np.float32)
    expected = ((crops - 127.5) / 127.5).mean(axis=(1, 2)) @ weight.T
    np.testing.assert_allclose(answer.embedding, expected, atol=1e-4)


def test_a_graph_that_scales_pixels_itself_is_fed_them_as_they_are(tmp_path: Path) -> None:
    first = [
        helper.make_node("Sub", ["input.1", "c"], ["less"]),
        helper.make_node("Div", ["less", "c"], ["scaled"]),
    ]
    (tmp_path / "net.onnx").write_bytes(pack_recognition(first))
    found = recognised(tmp_path / "net.onnx")
    assert (found["mean"], found["std"]) == ([0.0] * 3, [1.0] * 3)
    (tmp_path / "net.onnx").write_bytes(pack_recognition(first[:1]))
    assert "mean" not in recognised(tmp_path / "net.onnx")


def test_the_three_networks_of_mtcnn_in_one_file_are_a_detector(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(save(MtcnnNetworks().state_dict()))
    found = recognised(tmp_path / "m.safetensors")
    card, shipped = ModelCard(name="m", licence="", **found), shipped_card("mtcnn")
    for field in ("kind", "architecture", "colour", "mean", "std", "dimension"):
        assert getattr(card, field) == getattr(shipped, field)


def test_joined_parts_are_the_same_bytes_whatever_their_order(tmp_path: Path) -> None:
    states = {"b.": {"w": torch.arange(6.0).reshape(2, 3)}, "a.": {"w": torch.ones(2)}}
    parts = {prefix: written(state) for prefix, state in states.items()}
    data = joined(parts)
    assert data == joined(dict(reversed(parts.items())))
    assert load(data)["b.w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    # A card has this digest of a joined file: no version of safetensors may write another one.
    assert hashlib.sha256(data).hexdigest() == (
        "9fb1cf3cea13ff7814d11830166bf1162e8ea72d447c0e8394a5037475049c73"
    )
