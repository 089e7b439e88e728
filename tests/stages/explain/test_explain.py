"""explain: what is explained is what was computed: the same templates, the same scores, weights
that make them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.errors import InvalidInput, UsageError
from pipeline.session import Results, plain
from stages.datasets.tables_file import write_tables
from stages.explain.compared_pair import ComparedPair, chosen_cells, find_pair
from stages.explain.explain import Scored, explained
from stages.matching.compare import unit_rows
from stages.report import explain_text
from stages.tables.tables import ProtocolLists, build_tables, singletons

Runs = Callable[..., Results]
properties = settings(deadline=None, max_examples=15)
RULES = ["mean", "norm", "quality-minmax", "top-k(k=3)"]


@pytest.fixture(scope="module")
def kept(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run that keeps its templates and scores: every rule, with raw and unit features, and every
    way with media.
    """
    config = {
        "name": "kept",
        "dataset": {
            "reader": "synthetic",
            "options": {"scale": 0.002, "dimension": 16},
            "shard_rows": {"faces": 100, "templates": 20, "comparisons": 50},
        },
        "factors": {
            "rule": RULES,
            "features": ["unit", "raw"],
            "media": ["none", "mean", "weighted"],
        },
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "quality": {"options": {"method": "given"}},
            "statistics": {},
            "fuse": {
                "options": {"rule": "$rule", "features": "$features", "media": "$media"},
                "stored": True,
            },
            "compare": {"stored": True},
            "evaluate_verification": {"options": {"replicates": 0}},
        },
    }
    return runs(config, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def listed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Eight faces, each its own template, the last without an embedding, in a list of pairs with
    two folds.
    """
    folder, rng = tmp_path_factory.mktemp("listed"), np.random.default_rng(5)
    names = [f"face_{i}" for i in range(8)]
    subjects = [f"s{i // 2}" for i in range(8)]
    embedding = rng.standard_normal((8, 6)).astype(np.float32)
    embedding[7] = np.nan
    pairs = [(0, 1, True, 0), (2, 4, False, 0), (3, 2, True, 1), (0, 6, False, 1), (6, 7, True, 1)]
    found = ProtocolLists(
        face_id=names,
        path=[""] * 8,
        sha256=[""] * 8,
        subject=subjects,
        comparison_a=[names[a] for a, _, _, _ in pairs],
        comparison_b=[names[b] for _, b, _, _ in pairs],
        mated=[mated for _, _, mated, _ in pairs],
        fold=[fold for _, _, _, fold in pairs],
        columns={"embedding": embedding},
        **singletons(names, subjects),
    )
    write_tables(folder / "tables.h5", build_tables(found, "a set"))
    config = {
        "name": "listed",
        "dataset": {"reader": "tables", "path": str(folder)},
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "compare": {"inputs": {"templates": "embed"}},
            "evaluate_verification": {"options": {"fmr": [0.5], "replicates": 0}},
        },
    }
    return runs(config, folder)


def pair_of(results: Results, a: str, b: str) -> ComparedPair:
    return find_pair(results.session.dataset.tables, a, b)


def cells(results: Results, pair: ComparedPair, *where: str) -> list[Scored]:
    return list(explained(results.session, pair, chosen_cells(results.session, where)))


def pairs(results: Results, seed: int) -> ComparedPair:
    """A reference and a probe."""
    rng, ids = (
        np.random.default_rng(seed),
        results.session.dataset.tables["templates"]["template_id"],
    )
    roles = results.session.dataset.tables["roles"]
    a, b = (
        ids[rng.choice(roles["template"][roles["role"] == role])] for role in ("reference", "probe")
    )
    return pair_of(results, a, b)


def embeddings(results: Results, names: list[str]) -> np.ndarray:
    faces = results.session.dataset.tables["faces"]
    return faces["embedding"][
        [int(np.flatnonzero(faces["face_id"] == name)[0]) for name in names]
    ].astype(np.float64)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# -- what is explained is what was computed
# ---------------------------------------------------------------------------


@properties
@given(seed=st.integers(0, 10**6))
def test_the_explained_templates_and_scores_are_those_of_the_run_to_the_last_bit(
    kept: Results, seed: int
) -> None:
    pair = pairs(kept, seed)
    for step, cell in zip(chosen_cells(kept.session), cells(kept, pair), strict=True):
        templates = unit_rows(
            kept.read(
                kept.plan.steps[step.inputs["templates"].step], columns=("status", "embedding")
            )
        )
        for row, template in zip(pair.rows, cell.templates, strict=True):
            assert np.array_equal(template.embedding, templates[row])
        assert cell.stored
        assert cell.score == kept.read(step)["score"][pair.number]


@properties
@given(seed=st.integers(0, 10**6))
def test_the_weights_sum_to_one_and_make_the_template(kept: Results, seed: int) -> None:
    for cell in cells(kept, pairs(kept, seed)):
        for template in cell.templates:
            weight = np.array([face.weight for face in template.faces])
            x = embeddings(kept, [face.face for face in template.faces])
            assert weight.sum() == pytest.approx(1)
            made = unit(weight @ (x if cell.features == "raw" else unit(x)))
            np.testing.assert_allclose(made, template.embedding, atol=2e-6)


def test_a_score_that_is_not_kept_is_computed_from_the_two_templates(kept: Results) -> None:
    for seed in range(10):
        pair = pairs(kept, seed)
        for stored, computed in zip(
            cells(kept, pair), cells(kept, replace(pair, number=None)), strict=True
        ):
            assert not computed.stored
            assert computed.score == pytest.approx(stored.score, abs=1e-6)


def test_the_weights_are_what_the_rule_says(kept: Results) -> None:
    found = next(
        cell
        for seed in range(100)
        for cell in cells(kept, pairs(kept, seed), "rule=norm", "features=unit", "media=none")
        if len(cell.templates[1].faces) > 3
    )
    norms = np.array([face.value for face in found.templates[1].faces])
    assert [face.weight for face in found.templates[1].faces] == pytest.approx(norms / norms.sum())
    assert found.weighed_by == "norm"
    assert found.templates[1].effective == pytest.approx(norms.sum() ** 2 / (norms**2).sum())


def test_the_quality_that_a_rule_weighs_by_is_shown_and_no_other(results: Results) -> None:
    pair = pairs(results, 1)
    by_name = {cell.step: cell for cell in cells(results, pair)}
    faces = results.session.dataset.tables["faces"]
    quality = dict(zip(faces["face_id"], faces["quality"], strict=True))
    cell = by_name["compare[method=given,rule=best]"]
    assert cell.weighed_by == "quality: given"
    assert all(
        face.value == quality[face.face] for template in cell.templates for face in template.faces
    )
    assert all(
        np.isnan(face.value)
        for template in by_name["compare[rule=mean]"].templates
        for face in template.faces
    )


@properties
@given(seed=st.integers(0, 10**6))
def test_own_other_and_pull_are_cosines_of_the_template_with_and_without_the_face(
    kept: Results, seed: int
) -> None:
    for cell in cells(kept, pairs(kept, seed)):
        for mine, theirs in (cell.templates, cell.templates[::-1]):
            x = embeddings(kept, [face.face for face in mine.faces])
            part = np.array([[face.weight] for face in mine.faces]) * (
                x if cell.features == "raw" else unit(x)
            )
            for i, face in enumerate(mine.faces):
                assert face.own == pytest.approx(unit(x[i]) @ mine.embedding, abs=1e-6)
                assert face.other == pytest.approx(unit(x[i]) @ theirs.embedding, abs=1e-6)
                rest = np.delete(part, i, axis=0).sum(axis=0)
                if face.weight > 1 - 1e-6:
                    assert np.isnan(face.effect)
                else:
                    assert face.effect == pytest.approx(
                        cell.score - unit(rest) @ theirs.embedding, abs=2e-5
                    )


def test_a_face_without_weight_pulls_nothing(kept: Results) -> None:
    (cell,) = cells(kept, pairs(kept, 3), "rule=top-k(k=3)", "features=unit", "media=none")
    idle = [face for template in cell.templates for face in template.faces if face.weight == 0]
    assert [face.effect for face in idle] == pytest.approx([0] * len(idle), abs=1e-12)
    assert all(template.used <= 3 for template in cell.templates)


# -- faces that failed
# ------------------------------------------------------------------------------------------------


def test_a_failed_face_has_no_weight_and_the_reason_of_the_step_that_lost_it(
    pictures: Results,
) -> None:
    tables = pictures.session.dataset.tables
    lost = int(np.flatnonzero(tables["faces"]["face_id"] == "ann/0.png")[0])
    template = int(tables["members"]["template"][tables["members"]["face"] == lost][0])
    ids = tables["templates"]["template_id"]
    pair = pair_of(pictures, ids[template], ids[template - 1])
    for cell in cells(pictures, pair):
        faces = {face.face: face for face in cell.templates[0].faces}
        failed = faces.pop("ann/0.png")
        assert failed.status == "unreadable"
        assert failed.reason
        assert np.isnan([failed.weight, failed.own, failed.other, failed.effect]).all()
        assert sum(face.weight for face in faces.values()) == pytest.approx(1)
        assert any(
            line.startswith("ann/0.png: ")
            for line in explain_text.below(cell.templates[0], every=False)
        )


def test_a_template_without_a_usable_face_has_no_score_and_no_decision(listed: Results) -> None:
    (cell,) = cells(listed, pair_of(listed, "face_6", "face_7"))
    assert np.isnan(cell.score)
    assert [template.status for template in cell.templates] == ["ok", "not_finite"]
    assert all(decision.accepted is None for decision in cell.decisions)
    assert explain_text.decided(cell) == ["no score: B has no usable face"]


# -- the pair
# --------------------------------------------------------------------------------------------------


def test_where_each_face_is_its_own_template_the_face_is_all_of_it(listed: Results) -> None:
    pair = pair_of(listed, "face_2", "face_3")  # listed the other way round
    assert (pair.number, pair.comparisons, pair.mated, pair.fold) == (2, 5, True, 1)
    (cell,) = cells(listed, pair)
    x = unit(embeddings(listed, ["face_2", "face_3"]))
    assert cell.score == pytest.approx(x[0] @ x[1], abs=1e-6)
    for template in cell.templates:
        (face,) = template.faces
        assert (face.weight, template.used, template.effective) == (1, 1, 1)
        assert face.own == pytest.approx(1)
        assert np.isnan(face.effect)


def test_a_pair_that_is_not_compared_is_explained_all_the_same(
    results: Results, listed: Results
) -> None:
    roles = results.session.dataset.tables["roles"]
    references = np.flatnonzero(roles["role"] == "reference")[:2]
    ids = results.session.dataset.tables["templates"]["template_id"][roles["template"][references]]
    pair = pair_of(results, *ids)
    assert (pair.number, pair.mated) == (None, False)
    assert all(-1 <= cell.score <= 1 for cell in cells(results, pair))
    assert pair_of(listed, "face_0", "face_5").number is None


@properties
@given(seed=st.integers(0, 10**6))
def test_the_number_of_a_comparison_names_its_two_templates_whichever_way_round(
    results: Results, seed: int
) -> None:
    pair = pairs(results, seed)
    turned = pair_of(results, *reversed(pair.ids))
    roles = results.session.dataset.tables["roles"]
    references, probes = (
        roles["template"][roles["role"] == role].tolist() for role in ("reference", "probe")
    )
    assert (
        turned.number
        == pair.number
        == references.index(pair.rows[0]) * len(probes) + probes.index(pair.rows[1])
    )
    (one, *_), (other, *_) = cells(results, pair), cells(results, turned)
    assert other.score == pytest.approx(one.score, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("face_1", "face_1", "given twice"),
        ("face_1", "face_21", "did you mean 'face_"),
        ("face_1", "qqq", "has 8, such as 'face_0', 'face_1', 'face_2'"),
        ("s1", "face_1", "a subject, whose templates are 'face_2', 'face_3'"),
    ],
)
def test_what_is_no_pair_of_templates_is_refused_in_a_sentence(
    listed: Results, a: str, b: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        pair_of(listed, a, b)


def test_a_face_that_is_no_template_leads_to_the_template_that_holds_it(results: Results) -> None:
    with pytest.raises(
        InvalidInput, match=r"'f0000000' is not a template but a face; it is in 't000000'"
    ):
        pair_of(results, "f0000000", "t000001")


# -- cells
# --------------------------------------------------------------------------------------------------


def test_a_cell_that_lacks_a_factor_agrees_with_any_value_of_it(results: Results) -> None:
    found = [step.factors for step in chosen_cells(results.session, ["method=given"])]
    assert found == [
        {"rule": "mean"},
        {"rule": "media-mean"},
        {"method": "given", "rule": "quality-linear"},
        {"method": "given", "rule": "best"},
    ]
    assert len(chosen_cells(results.session, ["rule=mean", "method=given"])) == 1


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (["best"], "expected FACTOR=VALUE"),
        (["rul=best"], "unknown factor 'rul': did you mean 'rule'"),
        (["rule=bets"], "unknown value of rule 'bets': did you mean 'best'"),
        (["rule=best", "rule=mean"], "no cell has both"),
    ],
)
def test_what_names_no_cell_is_refused_in_a_sentence(
    results: Results, where: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        chosen_cells(results.session, where)


# -- decisions
# --------------------------------------------------------------------------------------------------


def test_decisions_are_made_at_the_thresholds_of_the_evaluation(results: Results) -> None:
    evaluations = {
        step.inputs["scores"].step: step for step in results.cells("evaluate_verification")
    }
    for cell in cells(results, pairs(results, 2)):
        numbers = results.read(evaluations[cell.step], "numbers")
        asked = np.isin(numbers["metric"], ("tar", "eer"))
        assert [decision.threshold for decision in cell.decisions] == numbers["threshold"][
            asked
        ].tolist()
        assert all(d.accepted == (cell.score >= d.threshold) for d in cell.decisions)


def test_a_score_that_is_not_stored_decides_as_the_stored_one_at_the_threshold_itself(
    kept: Results,
) -> None:
    (step,) = chosen_cells(kept.session, ["rule=mean", "features=unit", "media=none"])
    evaluation = next(
        e for e in kept.cells("evaluate_verification") if e.inputs["scores"].step == step.name
    )
    threshold = kept.read(evaluation, "numbers")["threshold"][0]
    tables, number = (
        kept.session.dataset.tables,
        int(np.flatnonzero(kept.read(step)["score"] == np.float32(threshold))[0]),
    )
    roles, ids = tables["roles"], tables["templates"]["template_id"]
    a, b = (roles["template"][roles["role"] == role] for role in ("reference", "probe"))
    pair = pair_of(kept, ids[a[number // len(b)]], ids[b[number % len(b)]])
    assert pair.number == number
    (stored,), (computed,) = (
        list(explained(kept.session, p, [step])) for p in (pair, replace(pair, number=None))
    )
    assert [d.accepted for d in stored.decisions if d.threshold == threshold] == [True] * 2
    assert (computed.stored, computed.score) == (False, stored.score)
    assert [d.accepted for d in computed.decisions] == [d.accepted for d in stored.decisions]


# -- the store
# --------------------------------------------------------------------------------------------------


def test_only_the_shards_of_the_two_templates_are_read(
    runs: Runs, small: dict[str, Any], tmp_path: Path
) -> None:
    dataset = {
        "reader": "synthetic",
        "options": {"scale": 0.002, "dimension": 8},
        "shard_rows": {"faces": 50},
    }
    found = runs({**small, "dataset": dataset}, tmp_path)
    pair = pairs(found, 0)
    before = [cell.score for cell in cells(found, pair)]
    members, needed = found.session.dataset.tables["members"], 0
    faces = members["face"][np.isin(members["template"], pair.rows)]
    for step in (*found.cells("embed"), *found.cells("quality")):
        for task in step.tasks:
            if ((faces < task.start) | (faces >= task.stop)).all():
                found.session.store.path(step.output(""), task.keys[""]).unlink()
            else:
                needed += 1
    assert (
        0
        < needed
        < sum(len(step.tasks) for step in (*found.cells("embed"), *found.cells("quality")))
    )
    assert [cell.score for cell in cells(found, pair)] == before


def test_what_is_not_kept_any_more_is_said_with_the_command_that_makes_it(
    runs: Runs, small: dict[str, Any], tmp_path: Path
) -> None:
    config = {
        **small,
        "dataset": {"reader": "synthetic", "options": {"scale": 0.001, "dimension": 8}},
    }
    config["steps"] = {**small["steps"], "embed": {**small["steps"]["embed"], "stored": False}}
    found = runs(config, tmp_path)
    with pytest.raises(InvalidInput, match=r"embed is not kept .* --until embed"):
        cells(found, pairs(found, 0))


def test_a_config_that_compares_nothing_is_told_so(results: Results) -> None:
    session = results.session
    bare = replace(
        session.plan,
        steps={k: v for k, v in session.plan.steps.items() if v.stage.name != "compare"},
    )
    with pytest.raises(InvalidInput, match="has no `compare` step"):
        chosen_cells(replace(session, plan=bare))


# -- text and JSON
# --------------------------------------------------------------------------------------------------


def printed(renderable: Any, width: int) -> str:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_json_holds_every_face_of_every_cell(results: Results, pictures: Results) -> None:
    for found in (results, pictures):
        pair = pairs(found, 4)
        record = json.loads(
            json.dumps(plain(explain_text.to_json(pair, cells(found, pair))), allow_nan=False)
        )
        assert len(record["cells"]) == len(found.cells("compare"))
        members = found.session.dataset.tables["members"]["template"]
        for cell in record["cells"]:
            assert [len(template["faces"]) for template in cell["templates"]] == [
                int((members == row).sum()) for row in pair.rows
            ]


@pytest.mark.parametrize("width", [100, 120])
def test_where_it_gets_narrow_names_give_way_and_no_number(results: Results, width: int) -> None:
    found = cells(results, pairs(results, 4))
    lines = printed(explain_text.cells_table(found), width).splitlines()
    for cell, line in zip(found, lines[2:], strict=True):
        assert f"{cell.score:.4f}".replace("-", "−") in line
        assert "…" not in line.split("  ", 1)[1]
    lines = printed(
        explain_text.faces_table(found[3].templates[1], found[3], every=True), width
    ).splitlines()
    assert len(lines) == 1 + len(found[3].templates[1].faces)


def test_a_long_template_shows_its_first_faces_and_says_what_is_left(results: Results) -> None:
    members = results.session.dataset.tables["members"]["template"]
    ids = results.session.dataset.tables["templates"]["template_id"]
    large = ids[np.bincount(members).argmax()]
    pair = pair_of(results, large, ids[0] if large != ids[0] else ids[1])
    template = cells(results, pair)[0].templates[0]
    shown = printed(
        explain_text.faces_table(template, cells(results, pair)[0], every=False), 120
    ).splitlines()
    assert len(shown) == 1 + explain_text.MOST_FACES
    assert f"… and {len(template.faces) - explain_text.MOST_FACES} more faces" in next(
        explain_text.below(template, False)
    )
    assert list(explain_text.below(template, True)) == []


def test_the_command_for_one_cell_names_it(results: Results) -> None:
    found = cells(results, pairs(results, 4), "method=feature-norm", "rule=best")
    words = (
        explain_text.cells_legend(found, len(found))[-1].partition("--where ")[2].split(" --where ")
    )
    assert [step.name for step in chosen_cells(results.session, words)] == [found[0].step]
