"""A template whose weights all vanish, under `fuse.fallback: zero`, from the config to the numbers
and their explanation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.session import Results
from stages.datasets.tables_file import write_tables
from stages.evaluation.numbers import find_number
from stages.explain.compared_pair import chosen_cells, find_pair
from stages.explain.explain import explained
from stages.report import explain_text
from stages.tables.tables import ProtocolLists, build_tables, singletons

NAMES = ["a0", "a1", "b0", "b1"]
PAIRS = [("a0", "a1", True), ("b0", "b1", True), ("a0", "b0", False), ("a1", "b1", False)]


def run(runs: Callable[..., Results], folder: Path, fallback: str) -> Results:
    """Two subjects of two faces, each its own template; the quality of b0 is below 0, so it has no
    weight.
    """
    embedding = np.float32([[1, 0, 0], [1, 0, 0], [0, 1, 0], [-0.6, 0.8, 0]])
    found = ProtocolLists(
        face_id=NAMES,
        path=[""] * 4,
        sha256=[""] * 4,
        subject=["a", "a", "b", "b"],
        comparison_a=[a for a, _, _ in PAIRS],
        comparison_b=[b for _, b, _ in PAIRS],
        mated=[mated for _, _, mated in PAIRS],
        columns={"embedding": embedding, "quality": np.float32([1, 1, -1, 1])},
        **singletons(NAMES, ["a", "a", "b", "b"]),
    )
    write_tables(folder / "tables.h5", build_tables(found, "a set"))
    config: dict[str, Any] = {
        "name": "zeros",
        "dataset": {"reader": "tables", "path": str(folder)},
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "quality": {"options": {"method": "given"}},
            "fuse": {"options": {"rule": "quality-linear", "fallback": fallback}},
            "compare": {"stored": True},
            "evaluate_verification": {
                "options": {"replicates": 0, "templates": True, "fmr": [0.5]}
            },
        },
    }
    return runs(config, folder)


@pytest.fixture(scope="module")
def zeros(runs: Callable[..., Results], tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(runs, tmp_path_factory.mktemp("zeros"), "zero")


def test_it_scores_0_and_stays_in_the_list(zeros: Results) -> None:
    (compare,), (evaluation,) = zeros.cells("compare"), zeros.cells("evaluate_verification")
    scores = zeros.read(compare)
    np.testing.assert_allclose(scores["score"], [1, 0, 0, -0.6], atol=1e-6)
    assert (scores["score"][1:3] == 0).all()
    assert not scores["failed"].any()
    assert find_number(zeros.read(evaluation, "numbers"), "comparisons_lost")["value"] == 0
    assert find_number(zeros.read(evaluation, "numbers"), "fused_fallback")["value"] == 1


def test_under_none_its_comparisons_are_lost(runs: Callable[..., Results], tmp_path: Path) -> None:
    results = run(runs, tmp_path, "none")
    (evaluation,) = results.cells("evaluate_verification")
    assert find_number(results.read(evaluation, "numbers"), "comparisons_lost")["value"] == 2


def test_explain_says_what_became_of_it(zeros: Results) -> None:
    pair = find_pair(zeros.session.dataset.tables, "b0", "b1")
    (cell,) = explained(zeros.session, pair, chosen_cells(zeros.session, []))
    template = cell.templates[0]
    assert cell.score == 0
    assert (template.status, template.faces[0].weight, template.used) == ("ok", 0, 0)
    said = list(explain_text.below(template, every=True))
    assert said == [
        "every weight of this template vanished, so it is a vector of zeros and scores 0 with"
        " everyone"
    ]
