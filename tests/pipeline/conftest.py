"""Fixtures for tests of the engine: the toy parts, a laboratory with the toy data set, an empty
store.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from laboratory import NUMBERS, Lab

from pipeline.store.store import Store


@pytest.fixture
def toys() -> Iterator[None]:
    """The toy parts are known to the engine for one test, and to no other folder's tests."""
    toy.install()
    yield
    toy.remove()


@pytest.fixture
def lab(tmp_path: Path, toys: None) -> Lab:
    made = Lab(tmp_path)
    (tmp_path / "files").mkdir()
    for row, number in enumerate(NUMBERS):
        made.write(row, number)
    made.configure()
    return made


@pytest.fixture
def slow(lab: Lab) -> Lab:
    """A hundred faces in twenty-five shards of four."""
    for row in range(22):
        next((lab.root / "files").glob(f"{row:02}.*")).unlink()
    for row in range(100):
        (lab.root / "files" / f"{row:03}.{row % 7}").write_text(str((row * 37) % 101 / 8))
    return lab


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
