"""Fixtures for stage tests: inputs of a stage without a plan, real faces and weights, a tiny
network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.numerics import profile_of
from pipeline.core.schema import Batch, text
from pipeline.core.stage import Context, Source
from pipeline.files.file_tree import open_files
from stages.faces.align import Align, AlignOptions

ROOT = Path(__file__).resolve().parents[2]


def as_source(batch: Batch, *cuts: int) -> Source:
    """All rows of a batch, in shards that end at `cuts`."""
    bounds = [0, *cuts, batch.rows]

    def read(i: int, columns: Any) -> Batch:
        part = batch.take(slice(bounds[i], bounds[i + 1]))
        return part if columns is None else part.select(columns)

    return Source(tuple(bounds[:-1]), tuple(bounds[1:]), read)


def as_context(
    files: Path | None = None, folders: Any = (), cards: Any = (), **numerics: Any
) -> Context:
    """Files, weights and cards of a stage, under cpu-fp32 with `numerics` overridden."""
    opener = None if files is None else lambda: open_files(files)
    return Context(profile_of(numerics), opener, folders, cards)


@pytest.fixture(scope="session")
def source() -> Callable[..., Source]:
    return as_source


@pytest.fixture(scope="session")
def context() -> Callable[..., Context]:
    return as_context


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real faces and weights, kept beside the project."""
    folder = Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "lfw.zip").is_file():
        pytest.skip(
            f"real faces are absent: no data/lfw.zip in {folder}; set QFUSE_SHARED to where"
            " they are"
        )
    return folder


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of real weight files, kept beside the project."""
    folder = Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared")) / "models"
    if not folder.is_dir():
        pytest.skip(
            f"real weight files are absent: no folder {folder}; set QFUSE_SHARED to where they are"
        )
    return folder


@pytest.fixture(scope="session")
def photographs(shared: Path) -> Batch:
    """The rows of 32 LFW photographs, one of each of 32 people: path and sha256."""
    files = open_files(shared / "data" / "lfw.zip")
    paths = [name for name in files.names() if name.endswith("_0001.jpg")][::170][:32]
    return Batch(
        {
            "path": text(paths),
            "sha256": text(sha256(files.read(path)).hexdigest() for path in paths),
        }
    )


@pytest.fixture(scope="session")
def faces(shared: Path, photographs: Batch) -> Batch:
    """The aligned crops of `photographs`."""
    stage = Align(AlignOptions(), as_context(shared / "data" / "lfw.zip", (shared / "models",)))
    stage.open()
    return stage.run(photographs, {}, stage.load(photographs))["crops"]


@pytest.fixture(scope="session")
def noise() -> Batch:
    """Nine crops of noise, the fourth of which failed."""
    crop = np.random.default_rng(7).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8)
    status = np.zeros(9, np.uint8)
    status[3], crop[3] = 4, 0
    return Batch({"status": status, "crop": crop})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Numerics with forwards of 4 rows, and two networks of a few random weights: `tiny` (5-D) and
    `tiny_quality`.
    """
    folder = tmp_path_factory.mktemp("tiny")
    cards = {}
    for name, kind, width in (("tiny", "recognition", 5), ("tiny_quality", "quality", 1)):
        data = _network(width).SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
        card = {
            "kind": kind,
            "architecture": "onnx",
            "file": f"{name}.onnx",
            "dimension": width,
            "licence": "none",
        }
        cards[name] = {**card, "sha256": sha256(data).hexdigest()}
    (folder / "cards.yaml").write_text(yaml.safe_dump(cards))
    return as_context(folders=(folder,), cards=(folder / "cards.yaml",), compute_batch=4)


def _network(width: int) -> onnx.ModelProto:
    """One strided convolution, halves of a mean over rows, a matrix: (n, 3, 112, 112) → (n,
    width)."""
    rng = np.random.default_rng(1)
    weights = {
        "kernel": rng.standard_normal((8, 3, 5, 5)).astype(np.float32),
        "matrix": rng.standard_normal((8 * 36, width)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["a"], strides=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "ReduceMean", ["b"], ["c"], axes=[2], keepdims=0
        ),  # mirrored crops differ: columns are kept
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "matrix"], ["answer"]),
    ]
    given = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 112, 112])]
    answers = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", width])]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", given, answers, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model
