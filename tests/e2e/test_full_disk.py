"""Files for others on a disk that refuses them: exit code 6, a sentence, nothing left, and the
process ends as it should.

A limit on the length of files refuses as a full disk does, and no privilege is needed for it.
"""

from __future__ import annotations

import ast
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, commands

from pipeline.errors import cannot_write
from pipeline.store import hdf5
from pipeline.system.atomic_text import replace_bytes

ROOT = Path(__file__).resolve().parents[2]
LIMIT = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, resource.RLIM_INFINITY))\n"
)


def test_what_writes_a_file_says_that_it_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    assert (
        commands(tmp_path, [("build", "c.yaml", "first.h5")])["build", "c.yaml", "first.h5"].code
        == 0
    )
    before = sorted(tmp_path.iterdir())
    lines = [
        ("build", "c.yaml", "t.h5"),
        ("build", "c.yaml", "t.h5", "--view"),
        ("synth", "tables", "t.h5", "--scale", "0.001"),
        ("synth", "ijbc", "t", "--scale", "0.001", "--layout", "package"),
        ("synth", "ijbc", "t", "--scale", "0.004", "--layout", "nist"),
        ("quality", "apply", "r.json", "c.yaml", "-o", "t.csv"),
    ]
    answers = commands(tmp_path, [("reference", "c.yaml", "r.json"), *lines], LIMIT)
    for line in lines:
        assert answers[line].code == 6, (line, answers[line])
        assert (
            " cannot be written (File too large): no file may be as large as that"
            in answers[line].err
        )
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "r.json"])


@pytest.fixture
def ten_bytes() -> Iterator[None]:
    """No file may have more than ten bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("ten_bytes")
def test_a_file_that_is_refused_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"former")
    with pytest.raises(OSError, match="File too large") as refused:
        replace_bytes(tmp_path / "file", b"more than ten bytes")
    assert refused.value.filename == str(tmp_path / "file")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]


def test_a_file_of_a_long_name_is_written(tmp_path: Path) -> None:
    name = "é" * 120 + ".h5"  # 243 bytes
    replace_bytes(tmp_path / name, b"bytes")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_memory_that_a_file_needs_and_nobody_has_is_refused_before_hdf5_begins() -> None:
    with pytest.raises(MemoryError):
        hdf5.image(lambda _: pytest.fail("HDF5 has begun"), 1 << 60)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_asks_for_space(code: int) -> None:
    assert "free some space" in str(cannot_write(Path("t.h5"), OSError(code, "full")))


def test_hdf5_writes_to_no_disk_by_itself() -> None:
    """It crashes where a disk refuses: files are made in memory (`hdf5.image`)."""
    found = []
    for path in (p for folder in ("pipeline", "stages") for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "File":
                found.append(ast.unparse(node))
    assert len(found) == 2
    assert "h5py.File(made, 'w', libver=LIBVER, track_order=False)" in found
    assert "h5py.File(source, 'r', locking=False, **options)" in found
