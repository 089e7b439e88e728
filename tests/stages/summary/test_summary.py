"""What a report shows of the faces themselves: quality, crops, failures, notes."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.files.file_tree import open_files
from pipeline.session import Results
from stages.report.report import write_report
from stages.results.acquisition import ReasonKind, acquired
from stages.summary import quality_scores
from stages.summary.quality_scores import QualityScores

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def scores(pictures: Results) -> QualityScores:
    (found,) = quality_scores.quality_scores(pictures)
    return found


def test_crops_stand_from_the_lowest_to_the_highest_score(
    pictures: Results, scores: QualityScores
) -> None:
    grid = quality_scores.crop_grid(pictures, scores, 100)
    values = [float(crop.score) for crop in grid]
    assert len(grid) == 22  # two of the 24 pictures were none
    assert values == sorted(values)
    assert values == pytest.approx(np.sort(scores.quality[np.isfinite(scores.quality)]), abs=0.5)


def test_a_few_crops_are_spread_evenly_over_the_ranks(
    pictures: Results, scores: QualityScores
) -> None:
    everything, few = (quality_scores.crop_grid(pictures, scores, count) for count in (100, 4))
    assert few == [everything[i] for i in (0, 7, 14, 21)]
    assert quality_scores.crop_grid(pictures, scores, 0) == []


def test_a_crop_is_the_picture_of_its_own_face(pictures: Results, scores: QualityScores) -> None:
    brightness = [np.asarray(Image.open(io.BytesIO(base64.b64decode(c.image)))).mean() for c in
                  quality_scores.crop_grid(pictures, scores, 100)]  # fmt: skip
    rows = np.argsort(scores.quality)[:22]
    read = pictures.read(pictures.cells("degrade")[0], "", ("crop",))["crop"]
    assert brightness == pytest.approx([read[row].mean() for row in rows], abs=2.0)


def test_each_crop_says_how_it_was_degraded(pictures: Results, scores: QualityScores) -> None:
    assert scores.kind is not None
    rows = np.argsort(scores.quality)[:22]
    assert [crop.kind for crop in quality_scores.crop_grid(pictures, scores, 100)] == scores.kind[
        rows
    ].tolist()


def test_quality_is_shown_apart_by_how_faces_were_degraded(scores: QualityScores) -> None:
    lines = quality_scores.quality_lines(scores)
    counts = [int(re.sub(r"\D", "", line.label)) for line in lines]
    assert lines[0].label.startswith("not degraded (")
    assert {line.label.partition(" (")[0] for line in lines[1:]} <= {
        "blur",
        "low resolution",
        "block",
        "dark noise",
    }
    assert sum(counts) == 22
    assert counts[1:] == sorted(counts[1:], reverse=True)
    assert [line.y.sum() for line in lines] == pytest.approx([1.0] * len(lines))


def test_failures_are_counted_once_where_they_arise(pictures: Results) -> None:
    found = acquired(pictures)
    assert found.lost == 2
    assert [(kind.step, kind.status, kind.count) for kind in found.failures] == [
        ("align", "unreadable", 2)
    ]
    assert {name.partition("[")[0] for name in found.looked_at} == {"align", "embed"}


def test_a_failure_names_its_first_face_and_a_hostile_name_is_text(pictures: Results) -> None:
    assert acquired(pictures).failures[0].example.partition(":")[0] == f"{HOSTILE}/0.png"
    page = write_report(pictures, {})[0].read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt;/0.png" in page
    assert "<img src=x" not in page


def test_the_page_shows_crops_outlines_by_kind_failures_and_what_was_averaged(
    pictures: Results,
) -> None:
    page = write_report(pictures, {"crops": 5, "pairs": 0})[0].read_text(encoding="utf-8")
    assert page.count('src="data:image/jpeg;base64,') == 5
    assert "5 of 22 faces, evenly spaced by rank, scored by feature-norm (seed = 0)" in page
    assert "not degraded (" in page
    assert ">unreadable</td>" in page
    assert "averaged over seed" in page
    assert "means over seed (2 values)" in page


def test_crops_that_were_collected_are_missed_in_words(
    pictures: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = Results.available
    gone = ("align", "degrade")
    monkeypatch.setattr(Results, "available", lambda self, step, output="": step.base not in gone
                        and available(self, step, output))  # fmt: skip
    page = write_report(pictures, {})[0].read_text(encoding="utf-8")
    assert "its crops are not in the store" in page
    assert "<h2>Result</h2>" in page


def test_a_choice_among_several_faces_is_a_note_and_no_failure(
    shared: Path, tmp_path: Path, runs: Any
) -> None:
    files = open_files(shared / "data" / "lfw.zip")
    names = [name for name in files.names() if name.endswith("_0001.jpg")][:5]
    faces = [Image.open(io.BytesIO(files.read(name))) for name in names]
    for person, count in (("one", 1), ("two", 2), ("three", 3)):
        (tmp_path / "faces" / person).mkdir(parents=True)
        sheet = Image.new("RGB", (250 * count, 250))
        for i in range(count):
            sheet.paste(faces[i], (250 * i, 0))
        sheet.save(tmp_path / "faces" / person / "sheet.png")
    config = {
        "name": "sheets",
        "dataset": {"reader": "folder", "path": str(tmp_path / "faces")},
        "models": {"folders": [str(shared / "models")]},
        "steps": {"align": {"options": {"detector": "yunet_320"}}},
        "report": {},
    }
    results = runs(config, tmp_path)
    found = acquired(results)
    note = "such as: 3 faces found, the one nearest the centre taken"
    assert found.failures == ()
    assert found.notes == (ReasonKind("align", "ok", note, "three/sheet.png", 2),)
    page = write_report(results, {})[0].read_text(encoding="utf-8")
    assert "<h3>Notes on faces that were acquired</h3>" in page
    assert "None: every face passed align." in page


def test_methods_are_compared_by_the_order_that_they_give_faces() -> None:
    def scored(method: str, *quality: float) -> QualityScores:
        return QualityScores(
            method, SimpleNamespace(factors={"method": method}), np.array(quality), None
        )  # type: ignore[arg-type]

    one, other, none = (
        scored("one", 1, 2, 3, np.nan),
        scored("other", 9, 5, 1, 7),
        scored("none", *[np.nan] * 4),
    )
    found = quality_scores.agreement([one, other, none])
    np.testing.assert_array_equal(
        found, [[1, -1, np.nan], [-1, 1, np.nan], [np.nan, np.nan, np.nan]]
    )
    assert quality_scores.agreement([one]) is None
