"""Template quality, score-level fusion and quality-aware scores against plain loops, whatever the
shards.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from helped import compute
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import registry
from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Stage, Work
from pipeline.errors import InvalidInput
from pipeline.plan.dataset import Dataset
from pipeline.plan.shard_tables import tables_of_shard
from stages.matching.compare_faces import CompareFaces, CompareFacesOptions
from stages.matching.qmagface import QMagFace, QMagFaceOptions
from stages.matching.score_rules import score_rule, score_rule_named
from stages.quality.template_quality import TemplateQuality, TemplateQualityOptions
from stages.tables.schemas import QUALITIES, SCORES
from stages.tables.tables import LAYOUT, ProtocolLists, build_tables

Make = Callable[..., Any]
properties = settings(deadline=None, max_examples=25)
FORMS = ["list", "product", "triangle"]
OF = {"min": min, "max": max, "mean": np.mean, "median": np.median}
SCORE = {
    "max": np.max,
    "mean": np.mean,
    "softmax(beta=4)": lambda s: (s * np.exp(4 * s)).sum() / np.exp(4 * s).sum(),
}


class Set:
    """Templates of 0 to 4 faces, some of which failed; a list of comparisons, all pairs of two
    roles, or of one.
    """

    def __init__(
        self,
        seed: int,
        form: str = "list",
        templates: int = 9,
        faces: int = 16,
        listed: int = 30,
        members: Any = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.templates, self.status = (
            templates,
            (rng.random(faces) < 0.2).astype(np.uint8) * Status.FAILED,
        )
        self.x = (rng.standard_normal((faces, 5)) * rng.uniform(0.5, 20, (faces, 1))).astype(
            np.float32
        )
        self.quality = rng.normal(0.5, 1, faces).astype(np.float32)
        drawn = [
            (t, int(f))
            for t in range(templates)
            for f in rng.integers(0, faces, rng.integers(0, 5))
        ]
        self.members = drawn if members is None else members
        self.pairs = rng.integers(0, templates, (listed if form == "list" else 0, 2)).tolist()
        half, order = templates // 2, np.arange(templates)
        role = {
            "list": [],
            "product": ["reference"] * half + ["probe"] * (templates - half),
            "triangle": ["face"] * templates,
        }
        if form == "product":
            self.pairs = [(a, b) for a in range(half) for b in range(half, templates)]
        if form == "triangle":
            order = rng.permutation(templates)
            self.pairs = list(combinations(order.tolist(), 2))
        names, face_names = [f"t{i}" for i in range(templates)], [f"f{i}" for i in range(faces)]
        found = ProtocolLists(
            face_id=face_names,
            path=[""] * faces,
            sha256=[""] * faces,
            subject=[""] * faces,
            template_id=names,
            template_subject=[""] * templates,
            member_template=[names[t] for t, _ in self.members],
            member_face=[face_names[f] for _, f in self.members],
            member_media=["m"] * len(self.members),
            comparison_a=[names[a] for a, _ in self.pairs] if form == "list" else [],
            comparison_b=[names[b] for _, b in self.pairs] if form == "list" else [],
            mated=[False] * len(self.pairs) if form == "list" else [],
            role_template=[] if form == "list" else [names[i] for i in order],
            role=role[form],
            all_pairs={
                "list": None,
                "product": ("reference", "probe"),
                "triangle": ("face", "face"),
            }[form],
        )
        self.tables = build_tables(found, "a set")

    def run(self, stage: Stage, inputs: dict[str, Any], schema: Any, shard: int = 10**9) -> Batch:
        dataset = Dataset(
            "", self.tables, LAYOUT.axes(self.tables, {stage.axis: shard}), LAYOUT, None
        )
        parts = []
        for start, stop in dataset.axes[stage.axis].shards:
            work = Work(start, stop, tables_of_shard(stage, dataset, start, stop), inputs)
            parts.append(schema.check(compute(stage, work)[""]))
        return Batch({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def usable(self, template: int) -> list[int]:
        return [f for t, f in self.members if t == template and not self.status[f]]

    def embeddings(self) -> Batch:
        x = np.where(self.status[:, None] > 0, np.nan, self.x).astype(np.float32)
        return Batch(
            {
                "status": self.status,
                "embedding": x,
                "norm": np.linalg.norm(x, axis=1).astype(np.float32),
            }
        )

    def qualities(self) -> Batch:
        return Batch(
            {
                "status": self.status,
                "quality": np.where(self.status > 0, np.nan, self.quality).astype(np.float32),
            }
        )


@pytest.mark.parametrize("faces", ["embedded", "scored"])
@pytest.mark.parametrize("of", OF)
@properties
@given(seed=st.integers(0, 10**6), shard=st.integers(1, 9))
def test_the_quality_of_a_template_is_taken_from_its_usable_faces(
    source: Make, context: Make, of: Any, faces: Any, seed: int, shard: int
) -> None:
    made = Set(seed)
    # without an embedding, though some have a quality
    lost = np.random.default_rng(seed + 1).random(len(made.status)) < 0.3
    embeddings = Batch({**made.embeddings(), "status": (lost * Status.FAILED).astype(np.uint8)})
    stage = TemplateQuality(TemplateQualityOptions(of=of, faces=faces), context())
    given = {"quality": source(made.qualities(), 3, 9), "embeddings": source(embeddings, 5)}
    found = made.run(stage, {name: given[name] for name in stage.uses()}, QUALITIES, shard)
    for t in range(made.templates):
        values = [
            float(made.quality[f]) for f in made.usable(t) if faces == "scored" or not lost[f]
        ]
        assert found["status"][t] == (Status.OK if values else Status.EMPTY)
        np.testing.assert_allclose(
            found["quality"][t], OF[of](values) if values else np.nan, rtol=1e-6
        )


def test_a_face_that_is_not_in_the_template_does_not_speak_for_it(
    source: Make, context: Make
) -> None:
    """The worst face of the first template has no embedding, and the only one of the second has
    none either.
    """
    quality = Batch({"status": np.zeros(3, np.uint8), "quality": np.float32([0.1, 0.8, 0.5])})
    embedded = Batch({"status": np.array([Status.FAILED, Status.OK, Status.FAILED], np.uint8)})
    members = Batch({"template": np.array([0, 0, 1]), "face": np.array([0, 1, 2])})
    stage = TemplateQuality(TemplateQualityOptions(), context())
    work = Work(
        0, 2, {"members": members}, {"quality": source(quality), "embeddings": source(embedded)}
    )
    found = stage.compute(work)[""]
    assert found["status"].tolist() == [Status.OK, Status.EMPTY]
    np.testing.assert_array_equal(found["quality"], np.float32([0.8, np.nan]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", SCORE)
@properties
@given(seed=st.integers(0, 10**6))
def test_a_score_is_made_of_the_cosines_of_all_faces_with_all_faces(
    source: Make, context: Make, rule: str, form: str, seed: int
) -> None:
    made = Set(seed, form=form)
    stage = CompareFaces(CompareFacesOptions(rule=rule), context())
    found = made.run(stage, {"embeddings": source(made.embeddings(), 5)}, SCORES)
    unit = made.x.astype(np.float64) / np.linalg.norm(
        made.x.astype(np.float64), axis=1, keepdims=True
    )
    for i, (a, b) in enumerate(made.pairs):
        one, other = made.usable(a), made.usable(b)
        assert found["failed"][i] == (not one) + 2 * (not other)
        expected = SCORE[rule](unit[one] @ unit[other].T) if one and other else np.nan
        np.testing.assert_allclose(found["score"][i], expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@properties
@given(seed=st.integers(0, 10**6), shard=st.integers(1, 40))
def test_shards_change_no_bit_of_a_score_of_faces(
    source: Make, context: Make, form: str, seed: int, shard: int
) -> None:
    made = Set(seed, form=form)
    stage = CompareFaces(CompareFacesOptions(rule="softmax"), context())
    inputs = {"embeddings": source(made.embeddings(), 5)}
    with patch("stages.matching.compare_faces.FACES_AT_ONCE", 5):
        assert (
            made.run(stage, inputs, SCORES, shard).digest()
            == made.run(stage, inputs, SCORES).digest()
        )


def test_softmax_goes_from_the_mean_to_the_largest() -> None:
    cosines, starts = np.float32([[0.1, 0.9], [0.3, -0.5], [0.2, 0.2]]), np.array([0, 2])
    low, high = (
        score_rule_named(f"softmax(beta={beta})").score(cosines, starts) for beta in (1e-6, 300)
    )
    np.testing.assert_allclose(low, score_rule_named("mean").score(cosines, starts), atol=1e-5)
    np.testing.assert_allclose(high, score_rule_named("max").score(cosines, starts), atol=1e-5)


def test_an_unknown_score_rule_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInput, match="unknown score rule 'softmaks': did you mean 'softmax'"):
        CompareFacesOptions(rule="softmaks")
    with pytest.raises(InvalidInput, match="beta must be a finite number above 0 and up to 300"):
        CompareFacesOptions(rule="softmax(beta=400)")


def test_a_score_rule_of_ones_own_works_once_it_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = registry.available("score rule")
    monkeypatch.setattr(registry, "_parts", {"score rule": dict(parts)})
    score_rule("first", times=2.0)(
        lambda cosines, starts, times: times * cosines[starts, 0].astype(np.float64)
    )
    assert score_rule_named("first(times=4)").score(
        np.float32([[1, 0], [0, 1], [0.5, 0]]), np.array([0, 2])
    ).tolist() == [
        4,
        2,
    ]


@pytest.mark.parametrize("form", FORMS)
@properties
@given(seed=st.integers(0, 10**6), shard=st.integers(1, 40))
def test_qmagface_equals_its_formula_in_whatever_shard(
    source: Make, context: Make, form: str, seed: int, shard: int
) -> None:
    made, rng = Set(seed, form=form), np.random.default_rng(seed)
    n = len(made.pairs)
    failed = (rng.random(n) < 0.1).astype(np.uint8)
    cosine = np.where(failed > 0, np.nan, rng.uniform(-1, 1, n)).astype(np.float32)
    lost = rng.random(made.templates) < 0.2
    quality = np.where(lost, np.nan, rng.uniform(0, 30, made.templates)).astype(np.float32)
    inputs = {
        "scores": source(Batch({"score": cosine, "failed": failed})),
        "quality": source(Batch({"status": lost * np.uint8(Status.EMPTY), "quality": quality})),
    }
    stage = QMagFace(QMagFaceOptions(alpha=0.08, beta=0.12), context())
    found = made.run(stage, inputs, SCORES, shard)
    for i, (a, b) in enumerate(made.pairs):
        assert found["failed"][i] == failed[i] | lost[a] | 2 * lost[b]
        s, q = float(cosine[i]), min(float(quality[a]), float(quality[b]))
        expected = np.nan if found["failed"][i] else s + min(0, 0.12 * s - 0.08) * q
        np.testing.assert_allclose(found["score"][i], expected, atol=1e-6)


def test_qmagface_has_no_numbers_that_would_fit_every_model() -> None:
    with pytest.raises(ValueError, match="alpha"):
        QMagFaceOptions()  # type: ignore[call-arg]


@pytest.mark.parametrize("rule", SCORE)
def test_a_score_depends_on_the_faces_alone_not_on_their_order_or_side(
    source: Make, context: Make, rule: str
) -> None:
    rng = np.random.default_rng(5)
    members = [(t, 30 * t + i) for t in range(4) for i in range(30)]
    members += [(t + 4, 120 + 30 * t + i) for t in range(4) for i in rng.permutation(30).tolist()]
    made = Set(5, "triangle", templates=8, faces=240, members=members)  # of templates in no order
    made.status[:], made.x = 0, rng.standard_normal((240, 64)).astype(np.float32)
    made.x[120:] = made.x[:120]  # templates 4 … 7 hold the faces of 0 … 3 once more
    found = made.run(
        CompareFaces(CompareFacesOptions(rule=rule), context()),
        {"embeddings": source(made.embeddings())},
        SCORES,
    )
    scores: dict[tuple[int, int], set[float]] = {}
    for (a, b), score in zip(made.pairs, found["score"].tolist(), strict=True):
        scores.setdefault((min(a % 4, b % 4), max(a % 4, b % 4)), set()).add(score)
    assert [len(values) for values in scores.values()] == [1] * 10
