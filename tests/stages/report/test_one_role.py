"""A run over every unordered pair of one role: what a run over the list of these pairs finds, from
plan to report.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.run.memory_estimate import estimate
from pipeline.session import Results, open_session
from stages.datasets.tables_file import write_tables
from stages.explain.compared_pair import chosen_cells, find_pair
from stages.explain.explain import explained
from stages.report.report import write_report
from stages.tables.tables import ProtocolLists, build_tables

Runs = Callable[..., Results]
COUNT = 40  # templates, of three faces each
ORDER = np.random.default_rng(1).permutation(COUNT).tolist()
PAIRS = list(combinations(ORDER, 2))


def run(runs: Runs, folder: Path, listed: bool) -> Results:
    rng = np.random.default_rng(7)
    subject = np.arange(COUNT) // 4
    of = np.repeat(np.arange(COUNT), 3)
    faces = rng.standard_normal((10, 16))[subject[of]] + 1.2 * rng.standard_normal((len(of), 16))
    faces[of == 5] = np.nan
    names, templates = (
        [f"face {i}" for i in range(len(of))],
        [f"template {i}" for i in range(COUNT)],
    )
    compared: dict[str, Any] = {
        "role_template": [templates[i] for i in ORDER],
        "role": ["face"] * COUNT,
    }
    if listed:
        compared |= {
            "comparison_a": [templates[a] for a, _ in PAIRS],
            "comparison_b": [templates[b] for _, b in PAIRS],
        }
        compared["mated"] = [subject[a] == subject[b] for a, b in PAIRS]
    found = ProtocolLists(
        face_id=names,
        path=[""] * len(of),
        sha256=[""] * len(of),
        subject=[f"s{subject[i]}" for i in of],
        template_id=templates,
        template_subject=[f"s{i}" for i in subject],
        member_template=[templates[i] for i in of],
        member_face=names,
        member_media=names,
        all_pairs=None if listed else ("face", "face"),
        columns={
            "embedding": faces.astype(np.float32),
            "quality": rng.random(len(of)).astype(np.float32),
        },
        **compared,
    )
    (folder / "set").mkdir()
    write_tables(folder / "set" / "tables.h5", build_tables(found, "a set"))
    config = {
        "name": "pairs",
        "dataset": {
            "reader": "tables",
            "path": str(folder / "set"),
            "shard_rows": {"comparisons": 101, "templates": 11},
        },
        "factors": {"rule": ["mean", "quality-linear"]},
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "quality": {"options": {"method": "given"}},
            "fuse": {"options": {"rule": "$rule"}},
            "compare": {"stored": True},
            "template_quality": {},
            "qmagface": {
                "options": {"alpha": 0.1, "beta": 0.2},
                "inputs": {"quality": "template_quality"},
            },
            "compare_faces": {},
            "evaluate_verification": {"options": {"fmr": [0.1, 0.01], "replicates": 20}},
            "evaluate_aware": {
                "stage": "evaluate_verification",
                "inputs": {"scores": "qmagface"},
                "options": {"fmr": [0.1], "replicates": 20},
            },
            "evaluate_faces": {
                "stage": "evaluate_verification",
                "inputs": {"scores": "compare_faces"},
                "options": {"fmr": [0.1], "replicates": 20},
            },
        },
        "report": {},
    }
    return runs(config, folder)


@pytest.fixture(scope="module")
def paired(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(runs, tmp_path_factory.mktemp("paired"), listed=False)


@pytest.fixture(scope="module")
def listed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(runs, tmp_path_factory.mktemp("listed"), listed=True)


def test_the_numbers_are_those_of_the_list_of_these_pairs(paired: Results, listed: Results) -> None:
    for step, other in zip(
        paired.plan.cells("evaluate_verification"),
        listed.plan.cells("evaluate_verification"),
        strict=True,
    ):
        mine, theirs = paired.read(step, "numbers"), listed.read(other, "numbers")
        assert mine["metric"].tolist() == theirs["metric"].tolist()
        for column in (
            "value",
            "low",
            "high",
            "trials",
            "false_matches",
            "subject_pairs",
            "replicates",
            "threshold",
        ):
            np.testing.assert_allclose(
                mine[column], theirs[column], atol=1e-6, err_msg=f"{step.name} {column}"
            )


def test_a_finished_run_has_nothing_left_to_compute_and_one_to_come_tells_its_memory(
    paired: Results, tmp_path: Path
) -> None:
    again = open_session(paired.session.config, readonly=True)
    assert not again.plan.to_run
    fresh = open_session(paired.session.config, store=tmp_path / "store", readonly=True)
    parts = {
        part.what: part.rows for need in estimate(fresh.plan, fresh.store) for part in need.parts
    }
    assert 0 < parts["scores"] <= len(PAIRS)


@pytest.mark.parametrize("place", [0, 38, 39, 500, len(PAIRS) - 1])
def test_two_templates_are_explained_with_their_score_in_either_order(
    paired: Results, place: int
) -> None:
    a, b = (f"template {i}" for i in PAIRS[place])
    for ids in ((a, b), (b, a)):
        pair = find_pair(paired.session.dataset.tables, *ids)
        assert (pair.number, pair.comparisons, pair.fold) == (place, len(PAIRS), None)
        assert pair.mated == (PAIRS[place][0] // 4 == PAIRS[place][1] // 4)
        steps = chosen_cells(paired.session)
        for step, cell in zip(steps, explained(paired.session, pair, steps), strict=True):
            scores = paired.read(step)["score"]
            assert cell.score == scores[place] or (np.isnan(cell.score) and np.isnan(scores[place]))


def test_the_report_shows_its_comparisons_face_by_face(paired: Results) -> None:
    page = write_report(paired, {"fmr": [0.1]})[0].read_text(encoding="utf-8")
    assert '<section id="pairs">' in page
    assert f"{len(PAIRS):,}" in page
