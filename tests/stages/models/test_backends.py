"""Back ends: the card decides what a network is fed, and a face's numbers do not depend on its
company.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.numerics import PROFILES
from pipeline.errors import InvalidInput, ResourceRefused
from stages.models import catalogue
from stages.models.backends import open_model, preprocess
from stages.models.cards import ModelCard, WeightFile, read_cards, read_weights
from stages.models.onnx_session import need_device
from stages.networks.iresnet import IResNet

Make = Callable[..., Any]
DIMENSION = 5


def _card(**fields: Any) -> ModelCard:
    defaults = {
        "name": "tiny",
        "kind": "recognition",
        "architecture": "onnx",
        "file": "tiny.onnx",
        "dimension": DIMENSION,
        "licence": "",
    }
    return ModelCard(**{**defaults, **fields})


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of one strided convolution, a mean over pixels and a matrix: (n, 3, 112, 112) → (n,
    5).
    """
    rng = np.random.default_rng(1)
    weights = {
        "kernel": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "matrix": rng.standard_normal((8, DIMENSION)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["c"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["c", "matrix"], ["answer"]),
    ]
    given = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 112, 112])]
    answers = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", DIMENSION])]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", given, answers, constants),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    model.ir_version = 8
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(model, path)
    return path


def test_preprocess_follows_colour_order_and_scale_of_the_card(crops: np.ndarray) -> None:
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    for colour, order in (("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])):
        planes = preprocess(_card(colour=colour, mean=mean, std=std), crops[:3], rows=4)
        assert planes.shape == (4, 3, 112, 112)
        assert planes.dtype == np.float32
        for channel, source in enumerate(order):
            expected = (crops[:3, :, :, source].astype(np.float64) - mean[channel]) / std[channel]
            np.testing.assert_allclose(planes[:3, channel], expected, rtol=1e-6)
        assert not planes[3].any()


def test_preprocess_resizes_to_the_cards_input_size() -> None:
    crops = np.full((2, 112, 112, 3), (10, 20, 30), np.uint8)
    planes = preprocess(_card(input_size=96, mean=(0, 0, 0), std=(1, 1, 1)), crops, rows=2)
    assert planes.shape == (2, 3, 96, 96)
    assert [float(p) for p in planes[1, :, 50, 50]] == [10, 20, 30]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 9), max_size=4))
def test_answers_do_not_depend_on_how_rows_are_grouped(
    graph: Path, profile: Make, crops: np.ndarray, cuts: list[int]
) -> None:
    model = open_model(_card(), read_weights(graph, None), profile())
    whole = model(crops).embedding
    parts = [model(part).embedding for part in np.split(crops, sorted(cuts))]
    assert whole is not None
    assert np.array_equal(whole, np.concatenate(parts))


def test_two_threads_give_the_same_bits(graph: Path, profile: Make, crops: np.ndarray) -> None:
    model = open_model(_card(), read_weights(graph, None), profile())
    with ThreadPoolExecutor(2) as pool:
        answers = [output.embedding for output in pool.map(model, [crops] * 8)]
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_no_crops_give_no_rows(graph: Path, profile: Make, crops: np.ndarray) -> None:
    output = open_model(_card(), read_weights(graph, None), profile())(crops[:0])
    assert output.embedding is not None
    assert output.embedding.shape == (0, DIMENSION)
    assert output.quality is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimension": 7}, "dimension 7"),
        ({"output_name": "other"}, "output 'other'.*'answer'"),
        ({"input_name": "other"}, "input 'other'.*'pixels'"),
        ({"input_size": 96}, "input of shape"),
        ({"architecture": "mobilfacenet"}, "mobilefacenet"),
        ({"architecture": "iresnet50"}, "dimension 512"),
        ({"kind": "detector"}, "detector"),
    ],
)
def test_card_that_does_not_fit_is_a_sentence(
    graph: Path, profile: Make, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        open_model(_card(**fields), read_weights(graph, None), profile())


def test_profile_that_does_not_fit_is_a_sentence(graph: Path, profile: Make) -> None:
    weights = read_weights(graph, None)
    for engine, precision, said in (
        ("onnxruntime", "bf16", "float32"),
        ("openvino", "fp16", "OpenVINO computes in fp32 or bf16"),
    ):
        with pytest.raises(InvalidInput, match=said):
            open_model(_card(), weights, profile(engine=engine, precision=precision))
    with pytest.raises(InvalidInput, match="fp16"):
        open_model(
            _card(architecture="crfiqa50", dimension=1),
            read_weights(graph, None),
            profile(precision="fp16"),
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_absent_device_is_refused(graph: Path, profile: Make) -> None:
    with pytest.raises(ResourceRefused, match="CUDA"):
        open_model(
            _card(architecture="crfiqa50", dimension=1),
            read_weights(graph, None),
            profile(device="cuda"),
        )


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has a CUDA provider",
)
def test_a_graph_is_refused_where_onnx_runtime_has_no_cuda_provider(graph: Path) -> None:
    with pytest.raises(ResourceRefused, match="install onnxruntime-gpu"):
        open_model(_card(), read_weights(graph, None), PROFILES["cuda-fp32"])


def test_a_session_that_went_to_the_cpu_instead_of_the_gpu_is_refused(graph: Path) -> None:
    # What ONNX Runtime does without a word if it cannot load CUDA's libraries.
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with pytest.raises(ResourceRefused, match="could not load its CUDA provider"):
        need_device(_card(), session, "cuda")
    need_device(_card(), session, "cpu")


def test_damaged_graph_and_wrong_crops_are_sentences(
    tmp_path: Path, graph: Path, profile: Make, crops: np.ndarray
) -> None:
    (tmp_path / "torn.onnx").write_bytes(graph.read_bytes()[:200])
    with pytest.raises(InvalidInput, match=r"torn\.onnx"):
        open_model(_card(), read_weights(tmp_path / "torn.onnx", None), profile())
    with pytest.raises(InvalidInput, match="uint8"):
        open_model(_card(), read_weights(graph, None), profile())(crops.astype(np.float32))  # type: ignore[arg-type]


def test_a_model_is_made_of_the_bytes_that_were_checked(
    graph: Path, profile: Make, crops: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(graph.read_bytes())
    checked = read_weights(path, hashlib.sha256(graph.read_bytes()).hexdigest())
    path.write_bytes(b"something else")
    assert open_model(_card(), checked, profile())(crops).embedding is not None


def test_a_graph_whose_weights_lie_in_other_files_is_refused(
    graph: Path, profile: Make, tmp_path: Path
) -> None:
    # ONNX Runtime would take them from the working folder, whatever they are, and no digest would
    # tell.
    path = tmp_path / "split.bin"
    onnx.save(
        onnx.load(graph), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(
        InvalidInput, match=r"split\.bin keeps its weights in other files.*: export it as one file"
    ):
        open_model(_card(), read_weights(path, None), profile())


def changed(graph: Path, path: Path, change: Callable[[Any], None]) -> Any:
    model = onnx.load(graph)
    change(model.graph)
    onnx.save(model, path)
    return read_weights(path, None)


def test_a_graph_that_answers_many_faces_with_one_row_is_refused(
    graph: Path, profile: Make, crops: np.ndarray, tmp_path: Path
) -> None:
    def change(found: Any) -> None:
        found.node[2].attribute[0].ints[:] = [0, 2, 3]
        found.node[2].attribute[1].i = 0
        found.node.insert(3, helper.make_node("Reshape", ["c", "shape"], ["d"]))
        found.node[4].input[0] = "d"
        found.initializer.append(numpy_helper.from_array(np.array([1, 8], np.int64), "shape"))
        found.output[0].type.tensor_type.shape.dim[0].dim_param = "m"

    model = open_model(_card(), changed(graph, tmp_path / "one.onnx", change), profile())
    with pytest.raises(InvalidInput, match=r"one\.onnx answers 4 faces with 1 rows"):
        model(crops)


def test_a_graph_that_cannot_be_computed_is_a_sentence(
    graph: Path, profile: Make, crops: np.ndarray, tmp_path: Path
) -> None:
    def change(found: Any) -> None:
        found.input[0].type.tensor_type.shape.dim[0].dim_value = 0

    model = open_model(_card(), changed(graph, tmp_path / "none.onnx", change), profile())
    with pytest.raises(InvalidInput, match=r"none\.onnx cannot be computed"):
        model(crops)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("output", [], "output has shape"),
        ("input", [], "expected an input of shape"),
        ("input", [2**40, 3, 112, 112], "at once"),
    ],
)
def test_a_graph_of_a_shape_that_no_model_has_is_refused(
    graph: Path, profile: Make, tmp_path: Path, name: str, shape: list[int], said: str
) -> None:
    def change(found: Any) -> None:
        # Behind a node that says nothing of shapes: what the graph declares is what is known.
        node = "answer" if name == "output" else "pixels"
        getattr(found, name)[0].CopyFrom(
            helper.make_tensor_value_info(node, TensorProto.FLOAT, shape)
        )
        if name == "output":
            found.node.append(helper.make_node("ReduceSum", ["wide"], ["answer"], keepdims=0))
            found.node[3].output[0] = "wide"
        elif not shape:
            found.node[0].input[0] = "many"
            found.node.insert(0, helper.make_node("Expand", ["pixels", "shape"], ["many"]))
            found.initializer.append(
                numpy_helper.from_array(np.array([2, 3, 112, 112], np.int64), "shape")
            )

    with pytest.raises(InvalidInput, match=said):
        open_model(_card(), changed(graph, tmp_path / "odd.onnx", change), profile())


def typed(graph: Path, path: Path, given: int, answered: int) -> Any:
    """The graph with an input and an output of other types, cast to and from float32 inside."""

    def change(found: Any) -> None:
        found.input[0].type.tensor_type.elem_type = given
        found.output[0].type.tensor_type.elem_type = answered
        found.node[0].input[0], found.node[3].output[0] = "cast", "plain"
        found.node.insert(0, helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT))
        found.node.append(helper.make_node("Cast", ["plain"], ["answer"], to=answered))

    return changed(graph, path, change)


@pytest.mark.parametrize(
    ("kind", "least"), [(TensorProto.FLOAT16, 0.9999), (TensorProto.DOUBLE, 0.999999)]
)
def test_a_graph_of_halves_or_doubles_is_fed_what_it_asks_for(
    graph: Path, profile: Make, crops: np.ndarray, tmp_path: Path, kind: int, least: float
) -> None:
    plain = open_model(_card(), read_weights(graph, None), profile())(crops).embedding
    found = open_model(_card(), typed(graph, tmp_path / "typed.onnx", kind, kind), profile())(
        crops
    ).embedding
    assert plain is not None
    assert found is not None
    assert found.dtype == np.float32
    assert _cosine(plain, found).min() > least


@pytest.mark.parametrize(
    ("given", "answered", "said"),
    [
        (
            TensorProto.UINT8,
            TensorProto.FLOAT,
            r"the input of .*typed\.onnx is of type tensor\(uint8\); export it with",
        ),
        (
            TensorProto.FLOAT,
            TensorProto.BOOL,
            r"the output of .*typed\.onnx is of type tensor\(bool\); export it with",
        ),
    ],
)
def test_a_graph_of_another_type_is_refused_when_it_is_opened(
    graph: Path, profile: Make, tmp_path: Path, given: int, answered: int, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_model(_card(), typed(graph, tmp_path / "typed.onnx", given, answered), profile())


def test_a_graph_that_wants_something_beside_the_faces_is_refused_when_it_is_opened(
    graph: Path, profile: Make, tmp_path: Path
) -> None:
    def change(found: Any) -> None:
        found.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [DIMENSION]))
        found.node[3].output[0] = "plain"
        found.node.append(helper.make_node("Add", ["plain", "bias"], ["answer"]))

    with pytest.raises(
        InvalidInput, match=r"two\.onnx wants 'bias' beside the faces: export it with one input"
    ):
        open_model(
            _card(input_name="pixels"), changed(graph, tmp_path / "two.onnx", change), profile()
        )


def test_a_damaged_graph_is_a_sentence_and_nothing_is_printed(
    graph: Path, profile: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = graph.read_bytes()
    (tmp_path / "torn.onnx").write_bytes(data[:-40])
    (tmp_path / "name.onnx").write_bytes(data.replace(b"MatMul", b"\xff\xfeMul\xff"))
    for name in ("torn.onnx", "name.onnx"):
        with pytest.raises(InvalidInput, match=name):
            open_model(_card(), read_weights(tmp_path / name, None), profile())
    assert capfd.readouterr().out == ""


def test_quality_where_lower_is_better_is_turned_round(
    graph: Path, profile: Make, crops: np.ndarray, tmp_path: Path
) -> None:
    model = onnx.load(graph)
    for constant in model.graph.initializer:
        if constant.name == "matrix":
            constant.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(constant)[:, :1].copy(), "matrix")
            )
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, tmp_path / "q.onnx")
    card = _card(kind="quality", dimension=1)
    scores = open_model(card, read_weights(tmp_path / "q.onnx", None), profile())(crops).quality
    turned = open_model(
        card.model_copy(update={"higher_is_better": False}),
        read_weights(tmp_path / "q.onnx", None),
        profile(),
    )(crops).quality
    assert scores is not None
    assert turned is not None
    assert scores.shape == (9,)
    assert np.array_equal(scores, -turned)


def test_crfiqa_checkpoint_in_the_published_layout_scores(crops: np.ndarray) -> None:
    torch.manual_seed(0)
    network = IResNet(50, quality=True).eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    weights = WeightFile(Path("crfiqa.pth"), file.getvalue())
    plain = PROFILES["cpu-fp32"]
    card = _card(kind="quality", architecture="crfiqa50", dimension=1)
    pixels = torch.from_numpy(crops[:2].transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
    with torch.inference_mode():
        embedding, quality = network(pixels)
    exact = open_model(card, weights, plain)(crops[:2])
    np.testing.assert_allclose(exact.embedding, embedding.numpy(), atol=2e-5)
    np.testing.assert_allclose(exact.quality, quality.numpy(), atol=2e-5)
    rough = open_model(card, weights, plain.model_copy(update={"precision": "bf16"}))(crops[:2])
    assert rough.embedding is not None
    assert rough.embedding.dtype == np.float32
    assert _cosine(rough.embedding, embedding.numpy()).min() > 0.999


@pytest.mark.parametrize("name", ["edgeface_xxs", "mobilefacenet", "lightqnet"])
def test_real_models_answer_alike_in_every_grouping(
    name: str, cards_file: Path, weights: Path, profile: Make, crops: np.ndarray
) -> None:
    card = read_cards(cards_file)[name]
    assert card.sha256 is not None
    model = open_model(card, read_weights(weights / card.file, card.sha256), profile())
    whole, alone = model(crops), model(crops[5:6])
    for all_rows, one in ((whole.embedding, alone.embedding), (whole.quality, alone.quality)):
        assert (all_rows is None) == (one is None)
        if all_rows is not None and one is not None:
            assert all_rows.dtype == np.float32
            assert np.isfinite(all_rows).all()
            assert np.array_equal(all_rows[5:6], one)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("module", ["stages.models.backends", "pipeline.run.dask_worker"])
def test_onnx_runtime_collects_nothing_about_its_user(module: str, tmp_path: Path) -> None:
    # Where it does, importing it is enough: it names the machine in a file below the home folder,
    # and opens a queue there.
    # as no CI would have it
    known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    code = f"import {module}, onnxruntime"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**known, "HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    assert list(tmp_path.iterdir()) == []


def test_openvino_answers_as_onnx_runtime_does(
    graph: Path, profile: Make, crops: np.ndarray
) -> None:
    one, other = (
        open_model(_card(), read_weights(graph, None), profile(engine=engine))(crops).embedding
        for engine in ("onnxruntime", "openvino")
    )
    assert one is not None
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_without_openvino_its_extra_is_named(
    graph: Path, profile: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ResourceRefused, match=r"install qfuse\[openvino\], or use engine"):
        open_model(_card(), read_weights(graph, None), profile(engine="openvino"))


def test_the_engine_is_in_the_key_of_what_it_computes_and_of_nothing_else(cards_file: Path) -> None:
    cards = read_cards(cards_file)
    usual, other = (
        PROFILES["cpu-fp32"],
        PROFILES["cpu-fp32"].model_copy(update={"engine": "openvino"}),
    )
    assert catalogue.backends(cards["edgeface_xxs"], other) == ("openvino", "opencv")
    assert catalogue.backends(cards["edgeface_xxs"], usual) == ("onnxruntime", "opencv")
    for name in ("mobilefacenet", "yunet_320"):
        found = {catalogue.backends(cards[name], profile) for profile in (usual, other)}
        assert len(found) == 1


def test_openvino_is_refused_for_a_gpu(graph: Path, profile: Make) -> None:
    with pytest.raises(InvalidInput, match="use a cpu numerics profile"):
        open_model(_card(), read_weights(graph, None), profile(device="cuda", engine="openvino"))
