"""The public face: on arrays it gives what a run gives, it is imported in no time, and its
documents are true.
"""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qfuse
from pipeline.errors import InvalidInput
from pipeline.session import Results

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "torch", "faiss", "pandas", "pydantic", "h5py", "cv2"}


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import qfuse, sys; print(sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("hides", ["pipeline.py", "stages.py", "pipeline/__init__.py"])
def test_a_module_of_the_users_that_hides_ours_is_named(tmp_path: Path, hides: str) -> None:
    (tmp_path / hides).parent.mkdir(exist_ok=True)
    (tmp_path / hides).write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import qfuse"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert (
        f"Python finds {tmp_path / hides}, which hides it: rename that file or folder"
        in done.stderr
    )


@pytest.mark.parametrize("name", qfuse.__all__)
def test_every_name_that_it_offers_is_there(name: str) -> None:
    assert getattr(qfuse, name) is not None
    assert name in dir(qfuse)


def test_a_name_that_it_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'qfuse' has no attribute 'fuze'"):
        qfuse.fuze  # noqa: B018


def test_its_examples_are_true() -> None:
    assert doctest.testmod(qfuse).failed == 0


@pytest.mark.parametrize("rule", ["mean", "media-mean", "quality-linear", "best"])
def test_fuse_gives_the_templates_of_a_run_to_the_last_bit(results: Results, rule: str) -> None:
    factors = (
        {"rule": rule} if rule in ("mean", "media-mean") else {"method": "given", "rule": rule}
    )
    step = next(s for s in results.plan.steps.values() if s.base == "fuse" and s.factors == factors)
    quality = next(
        s
        for s in results.plan.steps.values()
        if s.base == "quality" and s.factors == {"method": "given"}
    )
    members = results.session.dataset.tables["members"]
    embedding, scores = (
        results.read(results.plan.steps["embed"])["embedding"],
        results.read(quality)["quality"],
    )
    faces = members["face"]
    found = qfuse.fuse(
        embedding[faces], members["template"], scores[faces], rule, media=members["media"]
    )
    expected = results.read(step)
    assert found.template.tolist() == list(range(expected.rows))
    assert np.array_equal(found.embedding, expected["embedding"], equal_nan=True)
    sums = np.bincount(members["template"], np.nan_to_num(found.weight))
    assert np.allclose(sums, 1)


def test_faces_that_are_not_usable_are_left_out_and_templates_of_none_are_nan() -> None:
    found = qfuse.fuse(
        [[1, 0], [np.nan, 0], [0, 0], [0, 1]], ["a", "a", "b", "c"], [0.5, 1, 1, np.nan]
    )
    assert found.template.tolist() == ["a", "b", "c"]
    assert np.isnan(found.weight).tolist() == [False, True, True, True]
    assert np.array_equal(found.embedding, [[1, 0], [np.nan] * 2, [np.nan] * 2], equal_nan=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rule": "quality_linear", "quality": [1, 1]}, "did you mean 'quality-linear'"),
        ({"rule": "quality-linear"}, "needs quality of each face: give quality="),
        ({"rule": "detector"}, "needs detector of each face: give detector="),
        ({"rule": "inverse-variance"}, "needs variance of each face: give variance="),
        ({"quality": [1, 2, 3]}, "quality has 3 entries for 2 embeddings"),
    ],
)
def test_what_a_rule_lacks_is_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        qfuse.fuse([[1, 0], [0, 1]], ["a", "b"], **given)


def test_embeddings_that_are_no_rows_are_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"embeddings have the shape \(3,\): give one row a face"
    ):
        qfuse.fuse([1, 2, 3], ["a", "b", "c"])


def test_scores_are_the_cosines_and_symmetric_to_the_last_bit() -> None:
    a, b = (np.random.default_rng(i).normal(size=(n, 24)) for i, n in enumerate((1030, 7)))
    found = qfuse.scores(a, b)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b)]
    assert np.allclose(found, unit[0] @ unit[1].T, atol=1e-6)
    assert np.array_equal(found, qfuse.scores(b, a).T)
    assert np.array_equal(qfuse.scores(a[:7], b, paired=True), np.diag(found[:7]))
    assert np.array_equal(qfuse.scores(b), qfuse.scores(b, b))


def test_rows_that_are_not_finite_score_nan() -> None:
    found = qfuse.scores([[1, 0], [np.inf, 0]], [[1, 0], [0, np.nan]])
    assert np.array_equal(found, [[1, np.nan], [np.nan, np.nan]], equal_nan=True)
    with pytest.raises(InvalidInput, match=r"a has the shape \(1, 2\) and b \(1, 3\)"):
        qfuse.scores([[1, 0]], [[1, 0, 0]])


def test_error_rates_are_numbers_for_one_target_and_arrays_for_several() -> None:
    rng = np.random.default_rng(5)
    mated, others = rng.normal(2, 1, 300), rng.normal(0, 1, 2000)
    one, several = (
        qfuse.error_rates(mated, others, 1e-2),
        qfuse.error_rates(mated, others, [1e-1, 1e-2]),
    )
    assert (one.tar, one.threshold, one.false_matches) == (
        several.tar[1],
        several.threshold[1],
        several.false_matches[1],
    )
    assert one.fmr == (others >= one.threshold).mean() <= 1e-2
    assert one.tar == (mated >= one.threshold).mean()
    assert one.auc == pytest.approx((mated[:, None] > others).mean())


def test_intervals_hold_the_rates_and_follow_from_the_seed() -> None:
    rng = np.random.default_rng(6)
    names = np.array([f"s{i}" for i in range(30)])
    a, b = rng.integers(0, 30, (2, 3000))
    mated = a == b
    score = rng.normal(np.where(mated, 2.0, 0.0), 1.0)
    found = qfuse.intervals(score, mated, names[a], names[b], 1e-1, replicates=200)
    rates = qfuse.error_rates(score[mated], score[~mated], 1e-1)
    assert found.tar[0] <= rates.tar <= found.tar[1]
    assert found.eer[0] <= rates.eer <= found.eer[1]
    several = qfuse.intervals(score, mated, names[a], names[b], [1e-1, 1e-2], replicates=200)
    assert tuple(several.tar[0]) == found.tar
    assert several.tar.shape == (2, 2)


def test_an_edc_takes_its_threshold_in_one_of_three_ways() -> None:
    mated, quality, others = [0.9, 0.8, 0.2, 0.7], [3, 2, 1, 4], [0.1, 0.5, 0.3, 0.4]
    given = qfuse.edc(mated, quality, threshold=0.5)
    assert np.array_equal(qfuse.edc(mated, quality, fmr=0.25, non_mated=others).y, given.y)
    assert np.array_equal(qfuse.edc(mated, quality, fnmr=0.25).y, given.y)
    both = np.stack([quality, [9, 9, 9, 9]], axis=1)
    assert np.array_equal(qfuse.edc(mated, both, threshold=0.5).x, given.x)
    with pytest.raises(ValueError, match="exactly one of threshold, fnmr, and fmr with non_mated"):
        qfuse.edc(mated, quality)


def test_identify_orders_a_gallery_as_a_sort_of_every_score_does() -> None:
    rng = np.random.default_rng(7)
    gallery, probes = rng.normal(size=(300, 16)), rng.normal(size=(270, 16))
    gallery[7] = gallery[100]  # a tie goes to the first row
    found, every = qfuse.identify(gallery, probes, k=5), qfuse.scores(probes, gallery)
    order = np.argsort(-every, axis=1, kind="stable")[:, :5]
    assert np.array_equal(found.row, order)
    assert np.array_equal(found.score, np.take_along_axis(every, order, axis=1))
    few = qfuse.identify(gallery[:2], probes, k=5)
    assert (few.row[:, 2:] == -1).all()
    assert np.isnan(few.score[:, 2:]).all()


def test_identification_rates_are_those_counted_by_hand() -> None:
    gallery, who = np.eye(4), np.array(["a", "b", "c", "d"])
    probes = np.array([[1, 0.1, 0, 0], [0.9, 1, 0, 0], [1, 0.9, 0, 0], [0.5, 0.5, 0.5, 0.6]])
    found = qfuse.identification_rates(
        qfuse.identify(gallery, probes),
        who,
        np.array(["a", "b", "b", "x"]),
        fpir=[0.5],
        ranks=[1, 2],
    )
    assert found.rank == {1: pytest.approx(2 / 3), 2: 1.0}
    assert found.threshold[0] > qfuse.scores(probes[3:], gallery).max()
    assert found.tpir[0] == pytest.approx(2 / 3)


def test_a_config_is_run_and_its_results_are_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "name: c\n"
        "dataset: {reader: synthetic, options: {scale: 0.01, dimension: 16}}\n"
        "factors: {rule: [mean, best]}\n"
        "steps:\n"
        "  embed: {options: {model: given, flip: none}}\n"
        "  quality: {options: {method: given}}\n"
        "  fuse: {options: {rule: $rule}}\n"
        "  compare: {}\n"
        "  evaluate_verification: {options: {fmr: [0.1], replicates: 20}}\n"
        "report: {}\n"
    )
    assert {step.base for step in qfuse.open_session("c.yaml").plan.to_run} >= {"embed", "compare"}
    page = qfuse.run("c.yaml")[0]
    assert page.name == "report.html"
    found = qfuse.results("c.yaml")
    tar = found[(found.metric == "tar") & (found.threshold_rule == "at_most")]
    assert tar.rule.tolist() == ["mean", "best"]
    assert qfuse.load_config("c.yaml").name == "c"


def test_a_template_of_no_usable_face_is_nobodys_candidate_and_finds_nobody() -> None:
    fused = qfuse.fuse([[1.0, 0.0], [np.nan, 0.0], [-1.0, 0.1]], ["a", "b", "c"])
    found = qfuse.identify(fused.embedding, [[-1.0, -1.0]], k=3)
    assert found.row.tolist() == [[2, 0, -1]]
    assert np.isnan(found.score[0, 2])
    none = qfuse.identify([[1.0, 0.0], [0.0, 1.0]], fused.embedding, k=1)
    assert none.row.tolist() == [[0], [-1], [1]]
    rates = qfuse.identification_rates(none, ["b", "x"], fused.template, fpir=1.0, ranks=1)
    assert rates.rank == {1: 0.0}  # the one mated probe, b, has no template


def test_the_best_of_an_empty_gallery_is_nobody() -> None:
    found = qfuse.identify(np.empty((0, 2)), [[1.0, 0.0]], k=2)
    assert found.row.tolist() == [[-1, -1]]


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2"])
def test_a_number_of_candidates_that_is_none_is_refused(k: Any) -> None:
    with pytest.raises(InvalidInput, match="k: expected a whole number"):
        qfuse.identify([[1.0, 0.0]], [[1.0, 0.0]], k=k)


def test_a_rank_beyond_the_candidates_is_refused() -> None:
    found = qfuse.identify(np.eye(3), np.eye(3), k=2)
    with pytest.raises(InvalidInput, match="3 is beyond the 2 candidates"):
        qfuse.identification_rates(found, ["a", "b", "c"], ["a", "b", "c"], ranks=[1, 3])
    with pytest.raises(InvalidInput, match="give one a template"):
        qfuse.identification_rates(found, ["a", "b"], ["a", "b", "c"], ranks=[1])


@pytest.mark.parametrize("words", [{"rule": "media-mean"}, {"inside_media": "mean"}])
def test_what_weighs_media_needs_them(words: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="give media"):
        qfuse.fuse(np.eye(2), ["a", "a"], **words)


def test_a_variance_that_is_not_above_0_is_refused() -> None:
    with pytest.raises(InvalidInput, match="variance: expected numbers above 0"):
        qfuse.fuse(np.eye(2), ["a", "a"], rule="inverse-variance", variance=[1.0, -1.0])


def test_overrides_of_a_config_that_is_read_already_are_refused() -> None:
    config = qfuse.load_config(ROOT / "configs/demo.yaml")
    with pytest.raises(InvalidInput, match="give them to load_config"):
        qfuse.open_session(config, ["steps.fuse.options.rule=best"])
