"""Hostile weights: pickles that would run code, torn archives, headers and graphs that lie."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import subprocess
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from torch import nn

from pipeline.core.numerics import profile_of
from stages.models.backends import open_model
from stages.models.cards import ModelCard, read_weights
from stages.models.checkpoints import load_checkpoint

from .guard import SECRET, Breach
from .mutate import NUMBERS, changed, damaged

DIMENSION = 4
_CARD = {
    "name": "m",
    "kind": "recognition",
    "architecture": "onnx",
    "file": "m.onnx",
    "dimension": DIMENSION,
    "licence": "",
}
CARD = ModelCard.model_validate(_CARD)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@cache
def _state() -> dict[str, torch.Tensor]:
    found = _network().state_dict()
    return {
        name: torch.arange(value.numel()).reshape(value.shape).to(value.dtype) / 8
        for name, value in found.items()
    }


class _Runs:
    """What pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _code(rng: Random, marker: str) -> Any:
    source = f"open({marker!r}, 'w').close()"
    return rng.choice(
        (
            _Runs(os.system, f"touch {marker}"),
            _Runs(exec, source),
            _Runs(eval, source),
            _Runs(Path.touch, Path(marker)),
            _Runs(subprocess.Popen, ["touch", marker]),
            _Runs(open, marker, "w"),
            _Runs(torch.load, marker),
            _Runs(getattr, torch.Tensor, "numpy"),
            _Runs(os.mkdir, marker),
        )
    )


def _tensor(rng: Random) -> Any:
    """A tensor of a kind that no checkpoint here holds, or that claims more than is there."""
    return rng.choice(
        (
            lambda: torch.zeros(1).expand(10**6, 10**6, 10**5),
            lambda: torch.zeros(1).expand(2, 3),
            lambda: torch.zeros(2, 3, dtype=torch.complex64),
            lambda: torch.zeros(2, 3, dtype=torch.bfloat16),
            lambda: torch.zeros(2, 3, dtype=torch.bool),
            lambda: torch.full((2, 3), float("nan")),
            lambda: torch.zeros(2, 3).to_sparse(),
            lambda: torch.zeros(2, 3, device="meta"),
            lambda: torch.quantize_per_tensor(torch.zeros(2, 3), 1.0, 0, torch.qint8),
            lambda: torch.empty(0),
            lambda: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]),
            lambda: torch.zeros(2, 3, dtype=torch.float8_e4m3fn),
            lambda: nn.Parameter(torch.zeros(2, 3)),
            lambda: 3,
            lambda: "text",
        )
    )()


def _saved(content: Any, writer: int) -> bytes:
    buffer = io.BytesIO()
    if writer == 2:
        return pickle.dumps(content, protocol=2)
    torch.save(content, buffer, _use_new_zipfile_serialization=writer == 0)
    if writer == 0:
        return buffer.getvalue()
    # The old format names tensors by where they were in memory.
    names: dict[bytes, int] = {}
    places = rb"X[\x0d-\x11]\0\0\0(\d{13,17})"
    return re.sub(
        places,
        lambda m: b"X\3\0\0\0%d" % names.setdefault(m[1], 100 + len(names)),
        buffer.getvalue(),
    )


@cache
def _honest(writer: int) -> bytes:
    return _saved(dict(_state()), writer)


def _zip_changed(rng: Random, data: bytes) -> bytes:
    """The archive of a checkpoint with one member changed, packed, claimed larger, or named to lie
    elsewhere.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        names = source.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = source.read(name)
            if name == chosen:
                kind = rng.randrange(5)
                if kind == 0:
                    continue
                if kind == 1:
                    content = damaged(rng, content, most=3)
                if kind == 2:
                    name = rng.choice(
                        (
                            "../beside/made",
                            "/etc/made",
                            "archive/data/../x",
                            "archive/code/x.py",
                            "archive/constants.pkl",
                        )
                    )
                if kind == 3:
                    target.writestr(name, bytes(1 << 22), zipfile.ZIP_DEFLATED)
                    continue
            target.writestr(name, content)
    return buffer.getvalue()


def _checkpoint(rng: Random, marker: str) -> tuple[str, bytes]:
    writer, kind = rng.randrange(3), rng.randrange(5)
    if kind == 0:
        content: Any = rng.choice(
            (
                {"0.weight": _code(rng, marker)},
                _code(rng, marker),
                {"state_dict": [_code(rng, marker)]},
            )
        )
        data = _saved(content, writer)
        return "m.pth", data if rng.random() < 0.7 else damaged(rng, data, most=2)
    if kind == 1:
        state: dict[Any, Any] = dict(_state())
        for _ in range(rng.randint(1, 2)):
            state[rng.choice((*state, "x", 3, "module.0.weight"))] = _tensor(rng)
        try:
            return "m.pth", _saved(
                rng.choice((state, {"state_dict": state}, list(state.values()))), writer
            )
        except Exception:  # not every tensor can be written in every way
            return "m.pth", b""
    if kind == 2 and writer == 0:
        return "m.pth", _zip_changed(rng, _honest(0))
    return "m.pth", damaged(rng, _honest(writer), most=4, head=rng.choice((0, 200)))


def _safetensors(rng: Random) -> tuple[str, bytes]:
    data = save(dict(_state()))
    size = struct.unpack("<Q", data[:8])[0]
    kind = rng.randrange(3)
    if kind == 0:
        return "m.safetensors", damaged(rng, data, most=4, head=8 + size)
    header = changed(rng, json.loads(data[8 : 8 + size]), 0.2)
    if kind == 1 and isinstance(header, dict) and header:
        name = rng.choice(list(header))
        if isinstance(header[name], dict):
            header[name]["shape"] = [
                rng.choice([n for n in NUMBERS if isinstance(n, int)])
                for _ in range(rng.randint(0, 3))
            ]
    raw = json.dumps(header).encode()
    claimed = (
        len(raw) if rng.random() < 0.8 else rng.choice((0, 2**31, 2**63, 2**64 - 1, len(raw) + 5))
    )
    return "m.safetensors", struct.pack("<Q", claimed) + raw + data[8 + size :]


def graph(
    rows: Any = "n", out: Any = None, location: str = "", elements: int = 1
) -> onnx.ModelProto:
    """(n, 3, 112, 112) → (n, 4): a mean over pixels and a matrix."""
    matrix = numpy_helper.from_array(np.ones((3, DIMENSION), np.float32), "matrix")
    if location:
        matrix.ClearField("raw_data")
        matrix.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("length", "48")):
            matrix.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["a"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["a", "matrix"], ["answer"]),
    ]
    given = [helper.make_tensor_value_info("pixels", elements, [rows, 3, 112, 112])]
    answers = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, out or ["n", DIMENSION])]
    model = helper.make_model(
        helper.make_graph(nodes, "m", given, answers, [matrix]),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    model.ir_version = 8
    return model


def elsewhere(rng: Random, location: str) -> bytes:
    """A graph whose weights lie in another file, written so that a search for the usual bytes does
    not find it.
    """
    model = graph(location=location)
    usual = b"\x0a\x08location\x12" + bytes([len(location)]) + location.encode()
    turned = b"\x12" + bytes([len(location)]) + location.encode() + b"\x0a\x08location"
    data: bytes = model.SerializeToString()
    assert usual in data
    return data.replace(usual, turned) if rng.random() < 0.5 else data


def one_row() -> onnx.ModelProto:
    """A graph that answers every batch with one row."""
    model = graph(out=["m", DIMENSION])
    model.graph.node[0].attribute[0].ints[:] = [0, 2, 3]
    del model.graph.node[0].attribute[1:]
    model.graph.node[0].attribute.append(helper.make_attribute("keepdims", 0))
    model.graph.node.insert(1, helper.make_node("Reshape", ["a", "shape"], ["b"]))
    model.graph.node[2].input[0] = "b"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "shape"))
    return model


def _onnx(rng: Random, folder: Path) -> tuple[str, bytes]:
    kind = rng.randrange(8)
    if kind == 0:
        np.full(12, SECRET, np.float32).tofile(folder / "raw")
        where = rng.choice(("raw", "./raw", "../given/raw"))
        return rng.choice(("m.onnx", "m.bin")), elsewhere(rng, where)
    if kind == 1:
        return "m.onnx", one_row().SerializeToString()
    if kind == 2:
        made = graph(
            rows=rng.choice((1, 0, 7, "n", 2**40)),
            out=rng.choice(([1, 4], ["n"], [], ["n", 5], ["n", "d", 4], None)),
        )
        return "m.onnx", made.SerializeToString()
    if kind == 3:
        made = graph(elements=rng.choice((1, 2, 7, 8, 10, 11, 16)))
        node = made.graph.node[rng.randrange(2)]
        node.op_type = rng.choice(
            (
                "Loop",
                "MatMul",
                "ReduceMean",
                "Tile",
                "ConstantOfShape",
                "Sum",
                "NoSuchThing",
                "Identity",
            )
        )
        if rng.random() < 0.3:
            made.graph.input[0].type.Clear()
        return "m.onnx", made.SerializeToString()
    return "m.onnx", damaged(rng, _graph_bytes(), most=3)


@cache
def _graph_bytes() -> bytes:
    made: bytes = graph().SerializeToString()
    return made


def weights(rng: Random, folder: Path) -> Callable[[], object]:
    """A checkpoint, safetensors or an ONNX graph. No code runs, and what loads is finite and of the
    right shapes.
    """
    marker = "ran"
    kind = rng.randrange(3)
    if kind == 0:
        name, data = _checkpoint(rng, marker)
    elif kind == 1:
        name, data = _safetensors(rng)
    else:
        name, data = _onnx(rng, folder)
    (folder / name).write_bytes(data)
    here = Path.cwd()

    def call() -> object:
        found = read_weights(folder / name, None)
        try:
            os.chdir(folder)  # where a graph would look for files that it names
            if kind < 2:
                network = _network()
                load_checkpoint(network, found)
                if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
                    raise Breach("weights that are not finite were loaded")
            else:
                _forward(
                    open_model(CARD, found, profile_of({"profile": "cpu-fp32", "compute_batch": 2}))
                )
        finally:
            os.chdir(here)
            if (folder / marker).exists():
                raise Breach("loading the weights ran code")
        return None

    return call


def _forward(model: Any) -> None:
    crops = np.zeros((3, 112, 112, 3), np.uint8)
    crops[1] = 255
    answer = model(crops).embedding
    if answer.shape != (3, DIMENSION) or answer.dtype != np.float32:
        raise Breach(f"an answer of {answer.dtype} {answer.shape}")
    if np.any(np.isclose(np.abs(answer), 3 * SECRET)):
        raise Breach("weights that lie in another file were read")
