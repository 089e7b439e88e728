"""Weight rules against a plain loop over templates, and what holds for each by its definition."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import registry
from pipeline.errors import InvalidInput
from stages.fusion.rules import UsableFaces, fusion_rule_named, weight_rule

properties = settings(deadline=None, max_examples=40)
STATISTICS = ("minimum", "maximum", "mean", "deviation")

# One face: medium, norm, detector score, quality. Few distinct values make ties; the others are
# whatever float32 holds.
few = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0])
any_size = st.floats(-(2.0**100), 2.0**100, width=32)
positive = st.one_of(st.sampled_from([1e-6, 1.0, 3.0]), st.floats(2.0**-20, 2.0**20, width=32))


def face(quality: Any) -> Any:
    return st.tuples(st.integers(0, 2), positive, st.floats(0, 1, width=32), quality)


def sets(quality: Any) -> Any:
    return st.lists(st.lists(face(quality), min_size=1, max_size=6), min_size=1, max_size=5)


some_sets = st.one_of(sets(few), sets(any_size), few.flatmap(lambda value: sets(st.just(value))))


def made(templates: list[list[Any]], **statistics: float) -> UsableFaces:
    """Faces as `fuse` gives them; statistics are those of all their qualities unless given."""
    rows = [(t, *one) for t, members in enumerate(templates) for one in members]
    number = np.array([t for t, *_ in rows], np.int64)
    medium = np.array([10 * t + m for t, m, *_ in rows], np.int64)
    norm, detector, quality = (np.array([row[i] for row in rows], np.float64) for i in (2, 3, 4))
    own = dict(
        zip(STATISTICS, (quality.min(), quality.max(), quality.mean(), quality.std()), strict=True)
    )
    return UsableFaces(number, medium, norm, detector, quality, **{**own, **statistics})


def shares(label: str, faces: UsableFaces) -> np.ndarray:
    """Weights as fractions of their template's total; zeros where all vanish."""
    weight = fusion_rule_named(label).weigh(faces)
    assert weight.dtype == np.float64
    assert (weight >= 0).all()
    total = np.bincount(faces.template, weight)[faces.template]
    return np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)


def slow(name: str, members: list[Any], faces: UsableFaces, parameter: float) -> list[Any]:
    """The weights of one template, face by face, in numbers that neither overflow nor round."""
    n, q = len(members), [Fraction(quality) for *_, quality in members]
    if name == "mean":
        return [1] * n
    if name == "media-mean":
        return [Fraction(1, sum(other[0] == one[0] for other in members)) for one in members]
    if name == "norm":
        return [Fraction(one[1]) for one in members]
    if name == "detector":
        return [Fraction(one[2]) for one in members]
    if name == "quality-minmax":
        low, high = Fraction(faces.minimum), Fraction(faces.maximum)
        return [1] * n if low == high else [min(max((x - low) / (high - low), 0), 1) for x in q]
    if name == "insightface-script":
        media = [sum(other[0] == one[0] for other in members) for one in members]
        return [
            Fraction(one[1]) * Fraction(one[2]) / m for one, m in zip(members, media, strict=True)
        ]
    if name == "threshold":
        kept = [int(x >= Fraction(parameter)) for x in q]
        return (
            kept
            if any(kept)
            else [int(i == max(range(n), key=lambda i: (q[i], -i))) for i in range(n)]
        )
    if name == "top-fraction":
        kept_ones = sorted(range(n), key=lambda i: (-q[i], i))[: -(-n * 3 // 10)]
        return [int(i in kept_ones) for i in range(n)]
    if name == "quality-linear":
        return [max(x, 0) for x in q]
    if name == "quality-power":
        return [max(x, 0) ** int(parameter) for x in q]
    if name == "quality-softmax":
        scale = faces.deviation * parameter
        return (
            [1] * n
            if faces.deviation == 0
            else [Decimal((float(x) - faces.mean) / scale).exp() for x in q]
        )
    kept = sorted(range(n), key=lambda i: (-q[i], i))[: 1 if name == "best" else int(parameter)]
    return [int(i in kept) for i in range(n)]


LABELS = {
    "mean": 0,
    "media-mean": 0,
    "norm": 0,
    "detector": 0,
    "quality-minmax": 0,
    "quality-linear": 0,
    "quality-power(p=3)": 3,
    "quality-softmax(T=0.7)": 0.7,
    "top-k(k=2)": 2,
    "best": 0,
    "threshold(t=0.5)": 0.5,
    "top-fraction(f=0.3)": 0.3,
    "insightface-script": 0,
}
# Rules that look at more than one face's numbers have tests of their own below.
OTHERS = {"quality-rank", "trimmed", "medoid", "crfiqa-script", "inverse-variance"}


def test_every_built_in_rule_is_specified_here() -> None:
    assert (
        set(registry.available("fusion rule"))
        == {label.partition("(")[0] for label in LABELS} | OTHERS
    )


@pytest.mark.parametrize("label", LABELS)
@properties
@given(templates=some_sets)
def test_a_rule_equals_a_plain_loop_over_templates(label: str, templates: list[list[Any]]) -> None:
    faces = made(templates)
    expected = []
    for members in templates:
        weights = slow(label.partition("(")[0], members, faces, LABELS[label])
        total = sum(weights)
        expected += [float(w / total) if total else 0.0 for w in weights]
    np.testing.assert_allclose(shares(label, faces), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("label", LABELS)
@properties
@given(
    members=st.lists(face(any_size), min_size=2, max_size=6, unique_by=lambda one: one[3]),
    data=st.data(),
)
def test_without_ties_the_order_of_faces_in_a_template_changes_nothing(
    label: str, members: list[Any], data: Any
) -> None:
    order = data.draw(st.permutations(range(len(members))))
    statistics = dict(zip(STATISTICS, (0.0, 2.0, 1.0, 2.0), strict=True))
    straight = shares(label, made([members], **statistics))
    turned = shares(label, made([[members[i] for i in order]], **statistics))
    np.testing.assert_allclose(turned, straight[list(order)], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "label",
    [
        label
        for label in LABELS
        if "quality" in fusion_rule_named(label).needs and label[:5] != "thres"
    ],
)
@properties
@given(templates=some_sets, power=st.integers(-8, 8))
def test_the_unit_of_quality_changes_nothing(
    label: str, templates: list[list[Any]], power: int
) -> None:
    scaled = [[(m, n, d, q * 2.0**power) for m, n, d, q in members] for members in templates]
    np.testing.assert_allclose(
        shares(label, made(scaled)), shares(label, made(templates)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("label", ["quality-minmax", "quality-softmax", "top-k", "best"])
@properties
@given(templates=sets(few), offset=st.sampled_from([-8.0, 0.5, 64.0]))
def test_the_zero_of_quality_changes_nothing_where_a_rule_scales_or_ranks(
    label: str, templates: list[list[Any]], offset: float
) -> None:
    moved = [[(m, n, d, q + offset) for m, n, d, q in members] for members in templates]
    np.testing.assert_allclose(
        shares(label, made(moved)), shares(label, made(templates)), rtol=1e-9, atol=1e-12
    )


def test_of_equal_qualities_the_first_face_is_the_best() -> None:
    faces = made([[(0, 1, 1, q) for q in (1.0, 2.0, 2.0, 2.0)]])
    assert shares("best", faces).tolist() == [0, 1, 0, 0]
    assert shares("top-k(k=2)", faces).tolist() == [0, 0.5, 0.5, 0]


@properties
@given(templates=some_sets)
def test_softmax_of_a_high_temperature_is_the_mean(templates: list[list[Any]]) -> None:
    faces = made(templates)
    np.testing.assert_allclose(
        shares("quality-softmax(T=1e9)", faces), shares("mean", faces), atol=1e-6
    )


def test_softmax_of_a_low_temperature_is_shared_by_the_best_alone() -> None:
    faces = made(
        [[(0, 1, 1, q) for q in (-3.0, 1.0, 0.5)], [(0, 1, 1, q) for q in (-5.0, -4.0, -4.0)]]
    )
    assert shares("quality-softmax(T=1e-9)", faces).tolist() == [0, 1, 0, 0, 0.5, 0.5]


@properties
@given(templates=some_sets)
def test_top_k_of_no_fewer_than_there_are_is_the_mean(templates: list[list[Any]]) -> None:
    faces = made(templates)
    assert np.array_equal(shares("top-k(k=6)", faces), shares("mean", faces))


def test_minmax_keeps_to_zero_and_one_beyond_its_reference_set() -> None:
    faces = made([[(0, 1, 1, q) for q in (-1.0, 0.5, 9.0)]], minimum=0.0, maximum=2.0)
    assert fusion_rule_named("quality-minmax").weigh(faces).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("label", ["quality-minmax", "quality-softmax"])
def test_a_reference_set_without_spread_or_without_faces_weighs_equally(label: str) -> None:
    members = [(0, 1, 1, q) for q in (1.0, 2.0)]
    assert shares(
        label, made([members], minimum=1.0, maximum=1.0, mean=1.0, deviation=0.0)
    ).tolist() == [0.5, 0.5]
    assert shares(label, made([members], **dict.fromkeys(STATISTICS, np.nan))).tolist() == [
        0.5,
        0.5,
    ]


@pytest.mark.parametrize("label", LABELS)
def test_no_faces_have_no_weights(label: str) -> None:
    none = np.empty(0)
    numbers = np.empty(0, np.int64)
    assert fusion_rule_named(label).weigh(
        UsableFaces(numbers, numbers, none, none, none)
    ).shape == (0,)


def test_a_rule_asks_only_for_the_inputs_it_reads() -> None:
    needs = {label: fusion_rule_named(label).needs for label in LABELS}
    assert needs["mean"] == needs["norm"] == ()
    assert needs["detector"] == ("detections",)
    assert needs["best"] == ("quality",)
    assert needs["quality-minmax"] == ("quality", "statistics")
    assert [fusion_rule_named(f"insightface-script(detector={flag})").needs for flag in (0, 1)] == [
        (),
        ("detections",),
    ]


def test_parameters_have_defaults_and_may_be_spaced() -> None:
    faces = made([[(0, 1, 1, q) for q in (1.0, 2.0, 3.0, 4.0)]])
    assert np.array_equal(shares("quality-power", faces), shares(" quality-power( p = 2 ) ", faces))
    assert np.array_equal(shares("top-k()", faces), shares("top-k(k=3)", faces))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("quality-liner", "did you mean 'quality-linear'"),
        ("top-k(q=3)", "unknown parameter 'q'.*known are: k"),
        ("quality-softmax(t=1)", "unknown parameter 't'.*T"),
        ("mean(p=2)", "unknown parameter 'p'.*none"),
        ("quality-power(p=two)", "p takes a number, found 'two'"),
        ("quality-power(p)", "p takes a number, found ''"),
        ("quality-power(p=0)", "p must be a finite number above 0, found"),
        ("quality-power(p=-1)", "p must be a finite number above 0, found"),
        ("quality-softmax(T=nan)", "T must be a finite number above 0"),
        ("quality-softmax(T=inf)", "T must be a finite number above 0"),
        ("top-k(k=2.5)", "k must be a whole number, found 2.5"),
        ("top-fraction(f=1.5)", "f must be a finite number above 0 and up to 1, found 1.5"),
        (
            "insightface-script(norm=2)",
            "norm must be a finite number of at least 0 and up to 1, found 2",
        ),
        ("top-k(k=3", "write NAME or NAME"),
        ("", "write NAME or NAME"),
    ],
)
def test_a_label_that_names_no_rule_is_a_sentence(label: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fusion_rule_named(label)


def test_a_rule_of_ones_own_works_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = registry.available("fusion rule")
    monkeypatch.setattr(registry, "_parts", {"fusion rule": dict(parts)})
    weight_rule("above", needs=("quality",), least=0.5)(
        lambda faces, least: np.float64(faces.quality > least)
    )
    faces = made([[(0, 1, 1, q) for q in (1.0, 2.0, 0.6)]])
    assert fusion_rule_named("above(least=0.8)").weigh(faces).tolist() == [1, 1, 0]
    assert fusion_rule_named("above").weigh(faces).tolist() == [1, 1, 1]


def test_threshold_keeps_the_best_where_no_face_reaches_it() -> None:
    faces = made([[(0, 1, 1, q) for q in (0.1, 0.3, 0.3)], [(0, 1, 1, q) for q in (0.7, 0.2)]])
    assert fusion_rule_named("threshold(t=0.6)").weigh(faces).tolist() == [0, 1, 0, 1, 0]
    assert fusion_rule_named("threshold(t=-5)").weigh(faces).tolist() == [1] * 5


@properties
@given(count=st.integers(1, 60), tenths=st.integers(1, 10))
def test_a_fraction_of_the_faces_is_rounded_up_as_in_exact_arithmetic(
    count: int, tenths: int
) -> None:
    faces = made([[(0, 1, 1, float(i)) for i in range(count)]])
    assert fusion_rule_named(f"top-fraction(f={tenths / 10})").weigh(faces).sum() == -(
        -count * tenths // 10
    )


@pytest.mark.parametrize(
    ("q", "weight"), [(-1.0, 0), (0.0, 0), (0.25, 0.25), (0.505, 0.505), (1.0, 1), (9.0, 1)]
)
def test_rank_is_the_share_of_the_reference_set_below(q: float, weight: float) -> None:
    faces = made([[(0, 1, 1, q)]], percentiles=np.linspace(0, 1, 101))
    assert fusion_rule_named("quality-rank").weigh(faces)[0] == pytest.approx(weight)


def test_rank_takes_the_middle_of_equal_percentiles_and_none_without_a_reference_set() -> None:
    coarse = np.repeat([0.0, 1.0, 2.0], [21, 60, 20])
    faces = made([[(0, 1, 1, q) for q in (0.0, 1.0, 2.0)]], percentiles=coarse)
    np.testing.assert_allclose(fusion_rule_named("quality-rank").weigh(faces), [0.10, 0.505, 0.905])
    assert fusion_rule_named("quality-rank").weigh(
        made([[(0, 1, 1, 5.0)]], percentiles=np.full(101, np.nan))
    ).tolist() == [1]


def with_vectors(sizes: list[int], seed: int) -> UsableFaces:
    """Random faces with embeddings of 4 dimensions."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.standard_normal((len(number), 4)).astype(np.float32) * rng.uniform(
        0.5, 30, (len(number), 1)
    ).astype(np.float32)
    none = np.empty(0)
    return UsableFaces(
        number,
        np.arange(len(number)),
        np.linalg.norm(x, axis=1).astype(np.float64),
        none,
        none,
        embedding=x,
    )


def cosines(faces: UsableFaces, template: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cosine of each pair of faces) of one template, in float64."""
    rows = np.flatnonzero(faces.template == template)
    unit = (
        faces.embedding[rows].astype(np.float64)
        / np.linalg.norm(faces.embedding[rows].astype(np.float64), axis=1)[:, None]
    )
    return rows, unit @ unit.T


@properties
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_medoid_is_the_face_nearest_to_all_others(sizes: list[int], seed: int) -> None:
    faces = with_vectors(sizes, seed)
    weight = fusion_rule_named("medoid").weigh(faces)
    for template in range(len(sizes)):
        rows, near = cosines(faces, template)
        assert weight[rows].sum() == 1
        assert near.sum(axis=1)[weight[rows].argmax()] == pytest.approx(
            near.sum(axis=1).max(), abs=1e-5
        )


@properties
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    tenths=st.integers(1, 9),
)
def test_trimmed_leaves_out_the_faces_farthest_from_the_mean(
    sizes: list[int], seed: int, tenths: int
) -> None:
    faces = with_vectors(sizes, seed)
    weight = fusion_rule_named(f"trimmed(f={tenths / 10})").weigh(faces)
    for template, size in enumerate(sizes):
        rows, near = cosines(faces, template)
        out = rows[weight[rows] == 0]
        assert len(out) == size * tenths // 10
        if len(out):
            to_mean = dict(zip(rows.tolist(), near.sum(axis=1).tolist(), strict=True))
            kept = [to_mean[row] for row in rows.tolist() if weight[row]]
            assert max(to_mean[row] for row in out.tolist()) <= min(kept) + 1e-5


def test_the_script_of_cr_fiqa_weighs_raw_features_by_scaled_quality_inside_media() -> None:
    faces = made([[(0, 2.0, 1, 1.0), (0, 4.0, 1, 3.0), (1, 8.0, 1, 5.0)]], minimum=1.0, maximum=5.0)
    assert fusion_rule_named("crfiqa-script").weigh(faces).tolist() == [0, 4 * 0.5 / 2, 8]
    # of another reference set
    below = made([[(0, 2.0, 1, q) for q in (-9.0, 3.0)]], minimum=1.0, maximum=5.0)
    assert fusion_rule_named("crfiqa-script").weigh(below).tolist() == [0, 0.5]
    with pytest.raises(InvalidInput, match="the scores are all equal"):
        fusion_rule_named("crfiqa-script").weigh(made([[(0, 2.0, 1, 1.0)]]))


@pytest.mark.parametrize(
    ("label", "weights"),
    [
        ("insightface-script", [1.0, 0.5, 4.0]),
        ("insightface-script(norm=1, detector=0)", [2.0, 2.0, 8.0]),
        ("insightface-script(norm=0, detector=1)", [0.25, 0.125, 0.5]),
        ("insightface-script(norm=0, detector=0)", [0.5, 0.5, 1.0]),
    ],
)
def test_the_common_script_has_a_weight_for_each_of_its_switches(
    label: str, weights: list[float]
) -> None:
    faces = made([[(0, 4.0, 0.5, 1.0), (0, 4.0, 0.25, 1.0), (1, 8.0, 0.5, 1.0)]])
    assert fusion_rule_named(label).weigh(faces).tolist() == weights


@properties
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
    width=st.sampled_from([1, 4]),
)
def test_inverse_variance_equals_a_plain_loop(sizes: list[int], seed: int, width: int) -> None:
    faces = with_vectors(sizes, seed)
    variance = (
        np.random.default_rng(seed)
        .uniform(1e-6, 1, (len(faces.template), width))
        .astype(np.float32)
    )
    unit = faces.embedding / faces.norm[:, None].astype(np.float32)
    vectors, share = fusion_rule_named("inverse-variance").combine(
        replace(faces, variance=variance), unit, len(sizes)
    )
    for template, size in enumerate(sizes):
        rows = np.flatnonzero(faces.template == template)
        precision = 1 / variance[rows].astype(np.float64)
        expected = (
            (unit[rows] * precision).sum(axis=0) / precision.sum(axis=0) if size else np.zeros(4)
        )
        np.testing.assert_allclose(vectors[template], expected, atol=1e-5)
        if size:
            assert share[rows].max() <= 1
            assert np.argmax(share[rows]) == np.argmax(precision.mean(axis=1))


def test_a_rule_for_vectors_has_no_weights_and_says_what_it_reads() -> None:
    rule = fusion_rule_named("inverse-variance")
    assert rule.weigh is None
    assert rule.reads == ("variance",)


def test_trimmed_leaves_out_the_whole_share_where_the_product_rounds_down() -> None:
    assert 0.58 * 50 < 29  # in float64
    rng = np.random.default_rng(0)
    faces = replace(
        made([[(0, 1.0, 0.5, 0.5)] * 50]),
        embedding=rng.standard_normal((50, 4)).astype(np.float32),
    )
    assert np.count_nonzero(fusion_rule_named("trimmed(f=0.58)").weigh(faces) == 0) == 29
