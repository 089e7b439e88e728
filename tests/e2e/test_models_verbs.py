"""The verbs that bring models: show, add and convert."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from e2e.conftest import Answer
from safetensors.torch import load_file

from stages.models import catalogue
from stages.models.cards import read_cards
from stages.networks.mobilefacenet import MobileFaceNet

Qfuse = Callable[..., Answer]


def checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    torch.save(MobileFaceNet().state_dict(), path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_add_writes_a_card_that_configs_find_by_the_folder(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    torch.save({"state_dict": MobileFaceNet().state_dict()}, tmp_path / "weights/my_net.pth")
    added = qfuse("models", "add", "weights/my_net.pth", "--json").json
    assert (added["architecture"], added["dimension"]) == ("mobilefacenet", 128)
    assert added["sha256"] == sha256((tmp_path / "weights/my_net.pth").read_bytes())
    shown = qfuse("models", "show", "my_net", "--folder", "weights").out
    assert "there, with this digest" in shown
    assert "an embedding of 128 numbers" in shown
    (tmp_path / "people/ann").mkdir(parents=True)
    crop = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    import cv2

    cv2.imwrite(str(tmp_path / "people/ann/1.png"), crop)
    config = {
        "name": "mine",
        "dataset": {"reader": "folder", "path": "people"},
        "models": {"folders": ["weights"]},
        "steps": {"align": {"options": {"detector": "none"}}, "embed": {"options": {}}},
    }
    config["steps"]["embed"]["options"] = {"model": "my_net"}  # type: ignore[index]
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert qfuse("run", "c.yaml", "--until", "embed").code == 0


def test_a_shipped_card_without_a_digest_gets_one_by_the_command_that_its_refusal_names(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    refusal = qfuse("models", "fetch", "arcface_r100")
    assert refusal.code == 3
    assert "`qfuse models add arcface_r100.pth --name arcface_r100`" in refusal.err
    checkpoint(tmp_path / "arcface_r100.pth")
    assert qfuse("models", "add", "arcface_r100.pth", "--name", "arcface_r100").code == 0
    shown = qfuse("models", "show", "arcface_r100", "--folder", ".").out
    assert "there, with this digest" in shown


def test_add_refuses_what_is_no_model_and_a_name_that_is_taken(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no graph")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "odd.pth")
    torch.save(MobileFaceNet().state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.txt").write_text("words")
    for name, words in (
        ("net.onnx", "no ONNX graph"),
        ("odd.pth", "of no architecture that is known"),
        ("net.txt", "expected an ONNX graph"),
        ("none.pth", "cannot be read"),
    ):
        answer = qfuse("models", "add", name)
        assert (answer.code, words in answer.err) == (3, True), answer.err
    assert not (tmp_path / "cards.yaml").exists()
    assert qfuse("models", "add", "net.pth").code == 0
    assert "has a card 'net' already" in qfuse("models", "add", "net.pth").err
    assert (
        "expected rgb or bgr"
        in qfuse(*("models", "add", "net.pth", "--name", "b", "--colour", "grb")).err
    )


def test_add_refuses_weights_that_are_not_finite(qfuse: Qfuse, tmp_path: Path) -> None:
    state = MobileFaceNet().state_dict()
    state["conv3.bias"][3] = float("nan")
    torch.save(state, tmp_path / "net.pth")
    answer = qfuse("models", "add", "net.pth")
    assert (answer.code, (tmp_path / "cards.yaml").exists()) == (3, False)
    assert "1 not finite: conv3.bias" in answer.err


def test_the_card_of_a_file_that_is_newer_is_replaced_if_asked(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "cards.yaml").write_text(f"# mine\n{yaml.safe_dump({'first': GRAPH_CARD})}")
    checkpoint(tmp_path / "net.pth")
    assert qfuse("models", "add", "net.pth").code == 0
    torch.save({"state_dict": MobileFaceNet().state_dict()}, tmp_path / "net.pth")
    assert "--replace" in qfuse("models", "add", "net.pth").err
    assert qfuse("models", "add", "net.pth", "--replace").code == 0
    text = (tmp_path / "cards.yaml").read_text()
    found = yaml.safe_load(text)
    assert found["net"]["sha256"] == sha256((tmp_path / "net.pth").read_bytes())
    assert (found["first"], text.startswith("# mine"), text.count("net:")) == (GRAPH_CARD, True, 1)


def test_a_card_that_is_added_says_how_its_model_is_fed_and_a_suffix_may_be_in_capitals(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    checkpoint(tmp_path / "NET.PTH")
    card = qfuse("models", "add", "NET.PTH", "--json").json
    assert (card["colour"], card["mean"]) == ("rgb", [123.675, 116.28, 103.53])


def test_a_licence_of_two_lines_is_refused(qfuse: Qfuse, tmp_path: Path) -> None:
    checkpoint(tmp_path / "net.pth")
    answer = qfuse("models", "add", "net.pth", "--licence", "MIT\nor so")
    assert answer.code == 3
    assert "licence: must be one line of printable text" in answer.err


@pytest.mark.parametrize("content", [b"", b"hello" * 99], ids=["empty", "text"])
@pytest.mark.parametrize("suffix", [".onnx", ".pth", ".safetensors"])
def test_what_is_no_model_is_said_in_our_words(
    qfuse: Qfuse, tmp_path: Path, content: bytes, suffix: str
) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    answer = qfuse("models", "add", f"x{suffix}")
    assert answer.code == 3
    assert "fetch it again" in answer.err or "ask for a plain state dict" in answer.err
    assert "weights_only" not in answer.err
    assert "Error" not in answer.err


def test_convert_writes_the_same_tensors_as_safetensors(qfuse: Qfuse, tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    answer = qfuse("models", "convert", "net.pth", "net.safetensors", "--json").json
    assert answer["sha256"] == sha256((tmp_path / "net.safetensors").read_bytes())
    found = load_file(tmp_path / "net.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }
    again = qfuse("models", "convert", "net.pth", "net.safetensors")
    assert again.code in (2, 3)
    assert "net.safetensors" in again.err


GRAPH_CARD = {
    **{"kind": "recognition", "architecture": "onnx", "file": "x.onnx", "dimension": 8},
    "licence": "MIT",
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"first": GRAPH_CARD}),
        yaml.safe_dump({"first": GRAPH_CARD}, default_flow_style=True),
        yaml.safe_dump({"first": GRAPH_CARD}) + "...\n",
        "# my models\n" + yaml.safe_dump({"first": GRAPH_CARD}),
    ],
)
def test_add_keeps_the_cards_of_a_file_in_any_style(
    qfuse: Qfuse, tmp_path: Path, text: str
) -> None:
    checkpoint(tmp_path / "mine.pt")
    (tmp_path / "cards.yaml").write_text(text)
    assert qfuse("models", "add", "mine.pt").code == 0
    found = yaml.safe_load((tmp_path / "cards.yaml").read_text())
    assert found["first"] == GRAPH_CARD
    assert found["mine"]["architecture"] == "mobilefacenet"
    assert ("# my models" in text) == ("# my models" in (tmp_path / "cards.yaml").read_text())


def test_a_file_of_comments_alone_takes_a_card_and_keeps_them(qfuse: Qfuse, tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pt")
    (tmp_path / "cards.yaml").write_text("# nothing yet\n")
    assert qfuse("models", "add", "mine.pt").code == 0
    assert (tmp_path / "cards.yaml").read_text().startswith("# nothing yet\n\nmine:")


def test_cards_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    def add(i: int) -> None:
        catalogue.add_card(tmp_path / "cards.yaml", f"m{i}", GRAPH_CARD)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(read_cards(tmp_path / "cards.yaml")) == 24


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("edgeface_xxs", 3, "a card of: give another --name"),
        ("a b", 2, "is no name for a model"),
        (".hidden", 2, "is no name for a model"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused(
    qfuse: Qfuse, tmp_path: Path, name: str, code: int, told: str
) -> None:
    checkpoint(tmp_path / "mine.pt")
    answer = qfuse("models", "add", "mine.pt", "--name", name)
    assert (answer.code, (tmp_path / "cards.yaml").exists()) == (code, False)
    assert told in answer.err


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_convert_refuses_what_is_no_graph(qfuse: Qfuse, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    answer = qfuse("models", "convert", "x.onnx", "y.onnx")
    assert (answer.code, (tmp_path / "y.onnx").exists()) == (3, False)
    assert "Traceback" not in answer.err


REPEATED = {
    "one number": {"a": torch.zeros(1).expand(10**11), "b": torch.ones(4)},
    "one tensor of many names": dict.fromkeys(map(str, range(500)), torch.zeros(10_000)),
}


@pytest.mark.parametrize("what", REPEATED)
def test_convert_refuses_tensors_that_repeat_what_the_file_holds_before_it_takes_memory(
    qfuse: Qfuse, tmp_path: Path, what: str
) -> None:
    torch.save(REPEATED[what], tmp_path / "x.pt")
    size = sum(tensor.numel() * 4 for tensor in REPEATED[what].values())
    answer = qfuse("models", "convert", "x.pt", "y.safetensors")
    assert (answer.code, (tmp_path / "y.safetensors").exists()) == (3, False)
    held = (tmp_path / "x.pt").stat().st_size
    assert f"would fill {size:,} bytes, and the file has {held:,}" in answer.err
    assert "--workers" not in answer.err


def test_convert_writes_a_tensor_of_two_names_twice(qfuse: Qfuse, tmp_path: Path) -> None:
    tensor = torch.arange(3.0)
    torch.save({"a": tensor, "b": tensor}, tmp_path / "x.pt")
    assert qfuse("models", "convert", "x.pt", "y.safetensors").code == 0
    found = load_file(tmp_path / "y.safetensors")
    assert all(torch.equal(found[name], tensor) for name in "ab")
    torch.save({}, tmp_path / "empty.pt")
    assert qfuse("models", "convert", "empty.pt", "z.safetensors").code == 3
