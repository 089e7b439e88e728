"""What is measured of photographs is the same work, and what is not here is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import photographs
from benchmarks.photographs import SHARED, SIDES, Lfw, told_of_run


@pytest.mark.parametrize("side", SIDES)
def test_both_ways_give_the_same_crops(side: int) -> None:
    row = photographs.alignment(side, count=3)
    assert callable(row.common)
    theirs, ours = row.common(), row.ours()
    assert theirs.shape == ours.shape == (3, 112, 112, 3)
    assert np.abs(theirs.astype(int) - ours).max() <= 1


def test_lines_on_photographs_that_are_not_here_say_so(tmp_path: Path) -> None:
    found = photographs.rows(tmp_path, shared=tmp_path)
    assert [bool(row.absent) for row in found] == [*(False for _ in SIDES), True]
    assert "QFUSE_SHARED" in found[-1].absent


@pytest.fixture
def lfw(tmp_path: Path) -> Lfw:
    if not (SHARED / "data" / "lfw.zip").is_file():
        pytest.skip(f"real faces are absent: no data/lfw.zip in {SHARED}; set QFUSE_SHARED")
    return Lfw(SHARED, tmp_path, most=20)


def test_the_detector_finds_the_faces(lfw: Lfw) -> None:
    row = lfw.detection()
    assert row.told(row.ours()) == "20 with a face"


def test_the_parts_align_compute_and_store_every_photograph(lfw: Lfw, tmp_path: Path) -> None:
    seconds = lfw.parts()
    assert set(seconds) == {"align", "model", "write", "processors"}
    store = tmp_path / "parts-0"
    assert {path.parts[len(store.parts)] for path in store.rglob("*.h5")} >= {
        "align.crops",
        "align.detections",
        "embed",
    }


def test_the_model_is_told_as_a_share_of_the_step() -> None:
    parts = {"align": 3.0, "model": 9.0, "write": 1.0, "processors": 20.0}
    run = {"align": 4.0, "embed": 10.0, "processors": 22.0}
    assert "embed 10.0 s, of which the model 90%" in told_of_run(parts, run)
