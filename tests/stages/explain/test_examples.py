"""The comparisons that a report shows face by face: they are those of the run, and nothing in them
becomes markup.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.session import Results
from stages.datasets.tables_file import write_tables
from stages.evaluation.numbers import find_number
from stages.explain.compared_pair import chosen_cells, find_pair
from stages.explain.examples import MOST_FACES, Examples, examples
from stages.explain.explain import explained
from stages.report.page import render
from stages.results import ranking
from stages.results.ranking import Ranking, rank
from stages.summary.summary import summarise
from stages.tables.tables import ProtocolLists, build_tables

Runs = Callable[..., Results]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def found(results: Results) -> Ranking:
    return rank(results, {"pairs": 6, "fmr": [1e-2]})


@pytest.fixture(scope="module")
def shown(results: Results, found: Ranking) -> Examples:
    return some(results, found)


@pytest.fixture(scope="module")
def pictured(pictures: Results) -> Examples:
    return some(pictures, rank(pictures, {"pairs": 20, "fmr": [1e-1]}))


def some(results: Results, found: Ranking) -> Examples:
    met = examples(results, found)
    assert met is not None
    return met


def section(page: str) -> str:
    return page[page.index('<section id="pairs">') : page.index('<section id="quality">')]


# -- what is shown is what was evaluated
# ------------------------------------------------------------------------------


def test_what_is_won_less_what_is_lost_makes_the_difference_of_the_two_rates(
    shown: Examples,
) -> None:
    q = shown.quantity
    tar = [find_number(row.cells[0].numbers, q.metric, q.target, q.rule) for row in shown.rows]
    (won, _), (lost, _), (false, _) = (shown.kinds[name] for name in ("won", "lost", "false"))
    assert q.metric == "tar"
    assert won > 0
    assert (won - lost) / tar[0]["trials"] == pytest.approx(tar[0]["value"] - tar[1]["value"])
    assert false == tar[0]["false_matches"] > 0


def test_it_is_the_best_row_beside_its_baseline_at_the_main_number(
    found: Ranking, shown: Examples
) -> None:
    (group,) = found.groups
    assert shown.rows == (group.others[0], group.baseline)
    assert shown.quantity == found.main
    assert shown.thresholds == tuple(
        row.entries[found.main].threshold for row in shown.rows
    )  # each is one cell


def test_where_the_main_number_is_the_eer_its_thresholds_decide(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that the lenient FMR of this small set are none to show
    monkeypatch.setattr(ranking, "targets_named", lambda *_: ())
    met = some(results, rank(results, {}))
    assert met.quantity.metric == "eer"
    assert met.thresholds == tuple(row.entries[met.quantity].threshold for row in met.rows)


def test_of_rows_that_are_means_the_first_cells_are_shown_with_their_own_thresholds(
    pictured: Examples,
) -> None:
    q, cells = (
        pictured.quantity,
        [[cell for cell in row.cells if cell.factors["seed"] == 0] for row in pictured.rows],
    )
    assert pictured.cell == {"seed": 0}
    assert [len(row.cells) for row in pictured.rows] == [2, 2]
    assert pictured.thresholds == tuple(
        find_number(cell.numbers, q.metric, q.target, q.rule)["threshold"] for (cell,) in cells
    )


def test_scores_and_decisions_are_those_of_explain(results: Results, shown: Examples) -> None:
    steps = [
        step
        for row in shown.rows
        for step in chosen_cells(results.session)
        if step.factors == row.factors
    ]
    mated = {"won": True, "lost": True, "false": False}
    decided = {"won": (True, False), "lost": (False, True)}
    assert sum(len(each) for _, each in shown.kinds.values()) > 6
    for name, (_, each) in shown.kinds.items():
        for example in each:
            pair = find_pair(
                results.session.dataset.tables, *(side.template for side in example.sides)
            )
            assert pair.mated == mated[name]
            assert [side.subject for side in example.sides] == list(pair.subjects)
            assert [
                cell.score for cell in explained(results.session, pair, steps)
            ] == pytest.approx(example.scores, abs=1e-6)
            assert example.accepted == decided.get(name, (True, example.accepted[1]))
            assert example.accepted == tuple(
                s >= t for s, t in zip(example.scores, shown.thresholds, strict=True)
            )


def test_the_heaviest_faces_are_shown_with_their_weights_under_both_rows(
    results: Results, shown: Examples
) -> None:
    steps = [
        step
        for row in shown.rows
        for step in chosen_cells(results.session)
        if step.factors == row.factors
    ]
    more = 0
    for _, each in shown.kinds.values():
        for example in each:
            pair = find_pair(
                results.session.dataset.tables, *(side.template for side in example.sides)
            )
            for letter, side in enumerate(example.sides):
                best, base = (
                    {face.face: face for face in cell.templates[letter].faces}
                    for cell in explained(results.session, pair, steps)
                )
                weights = [seen.face.weight for seen in side.faces]
                assert (
                    weights
                    == sorted((face.weight for face in best.values()), reverse=True)[:MOST_FACES]
                )
                assert all(
                    repr(seen.face) == repr(best[seen.face.face]) for seen in side.faces
                )  # some numbers are nan
                assert all(seen.former == base[seen.face.face].weight for seen in side.faces)
                assert sum(weights) + side.rest == pytest.approx(1)
                assert side.count == len(best)
                more += side.count > MOST_FACES
    assert more > 0


def test_no_subject_is_shown_twice_among_the_comparisons_won(shown: Examples) -> None:
    subjects = [example.sides[0].subject for example in shown.kinds["won"][1]]
    assert len(subjects) == len(set(subjects)) == 6


# -- pictures
# --------------------------------------------------------------------------------------------------


def test_a_picture_is_the_crop_that_was_embedded_in_the_cell_that_is_named(
    pictures: Results, pictured: Examples
) -> None:
    (step,) = (step for step in pictures.cells("degrade") if step.factors["seed"] == 0)
    read, names = pictures.read(step), pictures.session.dataset.tables["faces"]["face_id"].tolist()
    seen = [
        each
        for _, some in pictured.kinds.values()
        for example in some
        for side in example.sides
        for each in side.faces
    ]
    assert {each.kind for each in seen} > {""}
    assert sum(each.picture == "" for each in seen) == sum(
        each.face.status != "ok" for each in seen
    )
    for each in seen:
        row = names.index(each.face.face)
        assert each.kind == read["kind"][row]
        if each.picture:
            drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(each.picture)))).mean()
            assert drawn == pytest.approx(read["crop"][row].mean(), abs=2.0)


def test_the_page_shows_them_with_what_each_face_did(pictures: Results) -> None:
    page = section(render(summarise(pictures, {"fmr": [1e-1], "pairs": 20})))
    assert (
        page.count("data:image/jpeg;base64,")
        == page.count('scope="col"') - page.count("<em>unreadable</em>")
        > 4
    )
    for words in (
        "(seed = 0)",
        '<th scope="row">quality</th>',
        "in baseline",
        "effect",
        "quality: feature-norm",
    ):
        assert words in page
    assert "There are no pictures" not in page


def test_without_crops_it_shows_the_same_without_pictures_and_says_so_once(
    pictures: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    available, options = Results.available, {"fmr": [1e-1], "pairs": 20}
    before = section(render(summarise(pictures, options)))

    def without_crops(self: Results, step: Any, output: str = "") -> bool:
        return step.base not in ("align", "degrade") and available(self, step, output)

    monkeypatch.setattr(Results, "available", without_crops)
    after = section(render(summarise(pictures, options)))
    assert "<img" not in after
    assert after.count("There are no pictures") == 1
    assert re.findall(r"<td.*?</td>", after) == re.findall(r"<td.*?</td>", before) != []


def test_what_the_store_lacks_is_missed_in_a_sentence(
    pictures: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = Results.available
    monkeypatch.setattr(Results, "available", lambda self, step, output="": step.base != "embed"
                        and available(self, step, output))  # fmt: skip
    page = render(summarise(pictures, {}))
    assert (
        "Nothing can be shown: embed[seed=0], which the scores are computed from, is not kept in"
        " the store." in page
    )
    assert "<h2>Result</h2>" in page


def test_faces_that_cannot_be_explained_any_more_are_missed_in_a_sentence(
    tmp_path: Path, runs: Runs, small: Any
) -> None:
    kept = {**small["steps"], "compare": {"stored": True}}
    found = runs(
        {**small, "factors": {"method": ["given"], "rule": ["mean", "best"]}, "steps": kept},
        tmp_path,
    )
    shutil.rmtree(tmp_path / "store" / "embed")
    page = render(summarise(found, {}))
    assert re.search(
        "Nothing can be shown: embed is not kept in .*--until embed. computes and keeps it", page
    )


# -- where there is no such section
# -----------------------------------------------------------------------------------


def test_a_report_that_asks_for_no_pairs_has_no_such_section(results: Results) -> None:
    assert examples(results, rank(results, {"pairs": 0})) is None
    assert '<section id="pairs">' not in render(summarise(results, {"pairs": 0}))


def test_without_a_baseline_there_is_no_such_section(
    tmp_path: Path, runs: Runs, small: Any
) -> None:
    rules = {**small, "factors": {"method": ["given"], "rule": ["best", "norm"]}}
    found = runs(rules, tmp_path)
    assert examples(found, rank(found, {})) is None


# -- hostile names
# --------------------------------------------------------------------------------------------------


def test_names_of_templates_subjects_faces_and_media_are_text(tmp_path: Path, runs: Runs) -> None:
    rng, subjects = np.random.default_rng(2), 6
    centre = rng.standard_normal((subjects, 16))
    spoilt = np.tile([0, 1, 1], 2 * subjects)  # two of three faces of a template
    of = np.repeat(np.arange(subjects), 6)
    faces = centre[of] + np.where(spoilt, 6.0, 0.7)[:, None] * rng.standard_normal((len(of), 16))
    names = [f"{HOSTILE}face {i}" for i in range(len(of))]
    templates = [f'"{HOSTILE}template {i}' for i in range(2 * subjects)]
    tables = ProtocolLists(
        face_id=names,
        path=[""] * len(of),
        sha256=[""] * len(of),
        subject=[f"{HOSTILE}{i}" for i in of],
        template_id=templates,
        template_subject=[f"{HOSTILE}{i // 2}" for i in range(2 * subjects)],
        member_template=[templates[i // 3] for i in range(len(of))],
        member_face=names,
        member_media=[f"{HOSTILE}medium {i // 2}" for i in range(len(of))],
        role_template=templates,
        role=["reference", "probe"] * subjects,
        all_pairs=("reference", "probe"),
        columns={
            "embedding": faces.astype(np.float32),
            "quality": np.where(spoilt, 0.01, 1.0).astype(np.float32),
        },
    )
    write_tables(tmp_path / "tables.h5", build_tables(tables, "a set"))
    config = {
        "name": "hostile",
        "dataset": {"reader": "tables", "path": str(tmp_path)},
        "factors": {"rule": ["mean", "quality-linear"]},
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "quality": {"options": {"method": "given"}},
            "fuse": {"options": {"rule": "$rule"}},
            "compare": {},
            "evaluate_verification": {"options": {"fmr": [0.2, 0.05], "replicates": 20}},
        },
        "report": {},
    }
    page = render(summarise(runs(config, tmp_path), {"fmr": [0.2]}))
    for name in ("template", "face", "medium"):
        assert f"&lt;img src=x onerror=alert(1)&gt;{name} " in section(page)
    assert "<img" not in page
    assert "There are no pictures" in section(page)
