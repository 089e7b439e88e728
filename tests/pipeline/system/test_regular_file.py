"""What a user names is opened when it is a regular file, and anything else is refused at once."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest
from hostile.guard import attempt, prepared
from hostile.places import ODD, PLACES, laid, put

from pipeline.system.regular_file import NotRegular, open_regular, read_regular

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("kind", ODD)
def test_only_a_regular_file_is_opened(tmp_path: Path, kind: str) -> None:
    with pytest.raises(
        OSError, match=r"is not a regular file|is a folder|No such file|Too many levels|too long"
    ):
        open_regular(put(kind, tmp_path / "x"))


def test_a_name_that_no_file_can_have_is_an_os_error(tmp_path: Path) -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="no file can have that name"):
            open_regular(tmp_path / name)


def test_a_regular_file_is_read_over_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"bytes"


def test_a_pipe_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(NotRegular) as refused:
        read_regular(put("pipe", tmp_path / "x"))
    assert refused.value.strerror == "a pipe is not a regular file"


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_met_with_a_sentence_wherever_one_is_named(
    tmp_path: Path, place: str
) -> None:
    for kind in ODD:
        beside = tmp_path / kind.replace("/", "-")
        path = laid(place, kind, prepared(beside) / "in")
        case = lambda rng, folder, path=path: lambda: PLACES[place](path)  # noqa: E731
        attempt(case, Random(0), beside, seconds=5)  # noqa: S311


# What reads a file by its path, and the modules that may: those that look with `need_regular`
# before, or know what is there.
READS = {
    "read_text",
    "read_bytes",
    "imread",
    "fromfile",
    "memmap",
    "loadtxt",
    "genfromtxt",
    "File",
    "ZipFile",
    "connect",
}
MAY = {
    "pipeline/system/regular_file.py",  # the one place
    "pipeline/store/hdf5.py",  # h5py
    "pipeline/files/digests.py",  # SQLite
    "pipeline/files/file_tree.py",  # zip archives
    "pipeline/system/available.py",  # /proc and /sys
    "pipeline/system/instruction_sets.py",  # /proc
    "pipeline/system/interruption.py",  # /proc
    "pipeline/system/processes.py",  # /proc
    "stages/report/page.py",  # templates of the package
    "stages/commands/main.py",  # configs of the package
    "stages/models/checkpoints.py",  # bytes that were read
    "stages/models/fetching.py",  # a wheel that pip has just written
}


def test_no_other_module_opens_a_file_to_read_it() -> None:
    found = set()
    for path in (p for folder in ("pipeline", "stages") for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _reads(node):
                found.add(path.relative_to(ROOT).as_posix())
    assert found - MAY == set()


def _reads(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name) and call.func.id == "open":
        return True
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "open":
        return getattr(call.func, "attr", "") in READS
    mode = ast.unparse(call.args[0]) if call.args else ""
    return mode in ("'r'", "'rb'") or (not mode and bool(call.keywords))  # `path.open(encoding=…)`
