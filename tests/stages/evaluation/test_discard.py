"""Error versus discard, scores and qualities in and numbers out, against sums by hand and plain
loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Work
from pipeline.errors import InvalidInput
from stages.evaluation.discard import DiscardOptions, EvaluateDiscard
from stages.evaluation.discard_identification import (
    DiscardIdentificationOptions,
    EvaluateDiscardIdentification,
)
from stages.evaluation.numbers import find_number
from stages.metrics import discard
from stages.metrics.bootstrap import subject_weights
from stages.metrics.subjects import in_second_half
from stages.tables.schemas import CURVES, NUMBERS
from stages.tables.tables import ProtocolLists, build_tables, singletons

Make = Callable[..., Any]
Found = dict[str, Batch]
properties = settings(deadline=None, max_examples=25)
eighths = st.integers(-6, 6).map(lambda i: i / 8)
few_comparisons = st.lists(
    st.tuples(eighths, st.integers(0, 4).map(float)), min_size=1, max_size=14
)
LINES = ("random", "perfect", "attainable", "pair_oracle", "sample_oracle")


def tables(
    subjects: Any, pairs: Any = (), mated: Any = None, roles: Any = (), product: bool = False
) -> Any:
    names = [f"t{i}" for i in range(len(subjects))]
    found = ProtocolLists(
        face_id=names,
        path=[""] * len(names),
        sha256=[""] * len(names),
        subject=list(subjects),
        comparison_a=[names[a] for a, _ in pairs],
        comparison_b=[names[b] for _, b in pairs],
        mated=[subjects[a] == subjects[b] for a, b in pairs] if mated is None else mated,
        role_template=[names[i] for i, _ in roles],
        role=[role for _, role in roles],
        all_pairs=("reference", "probe") if product else None,
        **singletons(names, subjects),
    )
    return build_tables(found, "a set")


def checked(outputs: Found) -> Found:
    NUMBERS.check(outputs["numbers"])
    CURVES.check(outputs["curves"])
    return outputs


def qualities(quality: Any) -> Batch:
    """Qualities of templates; one that is None failed."""
    failed = np.array([q is None for q in quality], bool)
    # of what failed nothing may be read
    values = np.array([9.0 if q is None else q for q in quality], np.float32)
    return Batch(
        {"status": np.where(failed, Status.FAILED, Status.OK).astype(np.uint8), "quality": values}
    )


@pytest.fixture(scope="session")
def judge(source: Make, context: Make) -> Callable[..., Found]:
    def run(made: Any, score: Any, quality: Any, **options: Any) -> Found:
        given = {"replicates": 0, "fmr": (0.25,), "limits": (0.5,), **options}
        stage = EvaluateDiscard(DiscardOptions(**given), context())
        values = np.array(score, np.float32)
        failed = np.where(np.isnan(values), 2, 0).astype(np.uint8)
        inputs = {
            "scores": source(Batch({"score": values, "failed": failed}), len(values) // 2),
            "quality": source(qualities(quality)),
        }
        return checked(stage.compute(Work(0, len(values), made, inputs)))

    return run


def listed(mated: Any, nonmated: Any) -> tuple[Any, list[float], list[float]]:
    """A list of comparisons (score, quality): template 0, of the highest quality, with others of
    its subject or of others.
    """
    both = [*mated, *nonmated]
    subjects = ["a"] * (1 + len(mated)) + [f"s{i}" for i in range(len(nonmated))]
    made = tables(subjects, [(0, 1 + i) for i in range(len(both))])
    return made, [s for s, _ in both], [100.0, *(q for _, q in both)]


MATED = [(0.875, 4.0), (0.75, 1.0), (0.5, 3.0), (0.125, 2.0)]
NONMATED = [(0.625, 1.0), (0.5, 2.0), (0.25, 3.0), (0.0, 4.0)]


def curve(found: Found, name: str) -> list[tuple[float, float]]:
    mine = found["curves"]["curve"] == name
    return list(
        zip(found["curves"]["x"][mine].tolist(), found["curves"]["y"][mine].tolist(), strict=True)
    )


def same(points: list[tuple[float, float]], expected: Any) -> None:
    np.testing.assert_allclose(points, list(expected), atol=1e-9)


# 1:1, by hand


def test_numbers_of_a_small_list_by_hand(judge: Make) -> None:
    found = judge(*listed(MATED, NONMATED))
    numbers = found["numbers"]
    row = find_number(numbers, "fnmr", 0.25)
    # At .625 one of four non-mated is accepted, and .5 and .125 of the mated are rejected.
    assert (row["threshold"], row["achieved"], row["false_matches"], row["nonmated"]) == (
        0.625,
        0.25,
        1,
        4,
    )
    assert (row["value"], row["trials"], row["rule"], row["few"]) == (0.5, 4, "at_most", True)
    # Poorest first: .75 (right), .125, .5 (both wrong), .875.
    assert curve(found, "fnm-edc 0.25") == [
        (0, 1 / 2),
        (0.25, 2 / 3),
        (0.5, 1 / 2),
        (0.75, 0),
        (1, 0),
    ]
    assert find_number(numbers, "fnm_pauc(0.5)")["value"] == pytest.approx(
        1 / 4 * 1 / 2 + 1 / 4 * 2 / 3
    )
    assert find_number(numbers, "fnm_pauc(0.5)_over_random")["value"] == pytest.approx(
        1 / 4 * 1 / 6
    )
    assert find_number(numbers, "fnm_pauc(0.5)_random")["value"] == pytest.approx(1 / 2 * 1 / 2)
    assert find_number(numbers, "fnm_pauc(0.5)_pair_oracle")["value"] == pytest.approx(
        1 / 4 * 1 / 2 + 1 / 4 * 1 / 3
    )
    # The templates of the two errors are the worst; the one that all have in common is no better
    # than half right.
    assert find_number(numbers, "fnm_pauc(0.5)_sample_oracle")["value"] == pytest.approx(
        1 / 4 * 1 / 2 + 1 / 4 * 1 / 3
    )
    assert find_number(numbers, "fnm_pauc(0.5)_perfect")["value"] == pytest.approx(1 / 8)
    assert find_number(numbers, "fnm_pauc(0.5)_attainable")["value"] == pytest.approx(
        1 / 2 - math.log(2) / 2
    )
    # The one false match has the poorest quality of the non-mated.
    assert curve(found, "fm-edc 0.25") == [(0, 1 / 4), (0.25, 0), (0.5, 0), (0.75, 0), (1, 0)]
    assert find_number(numbers, "fm_pauc(0.5)")["value"] == pytest.approx(1 / 4 * 1 / 4)
    assert find_number(numbers, "fmr")["value"] == 0.25
    assert (
        find_number(numbers, "comparisons_lost")["value"]
        == find_number(numbers, "comparisons_without_quality")["value"]
        == 0
    )


def area_by_hand(wrong: list[bool], quality: list[float], limit: float) -> float:
    """The sum of steps, in small pieces none of which holds an end of a step: 0 … limit in 840ths
    of the comparisons.
    """
    pieces, total = 840 * len(wrong), 0.0
    for piece in range(round(limit * pieces)):
        # so many whole comparisons are discarded: the runs of equals that have begun before
        gone = piece // 840
        last = sorted(quality)[gone]
        kept = [w for w, q in zip(wrong, quality, strict=True) if q >= last]
        total += sum(kept) / len(kept) / pieces
    return total


@properties
@given(
    mated=few_comparisons,
    nonmated=few_comparisons,
    target=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]),
)
def test_areas_equal_a_plain_sum_over_what_remains(
    judge: Make, mated: Any, nonmated: Any, target: float
) -> None:
    numbers = judge(*listed(mated, nonmated), fmr=(target,))["numbers"]
    candidates = sorted({s for s, _ in [*mated, *nonmated]} | {math.inf})
    threshold = next(
        t for t in candidates if sum(s >= t for s, _ in nonmated) <= target * len(nonmated)
    )
    kinds = {
        "fnm": [(s < threshold, q) for s, q in mated],
        "fm": [(s >= threshold, q) for s, q in nonmated],
    }
    for name, found in kinds.items():
        wrong, quality = [w for w, _ in found], [q for _, q in found]
        start = sum(wrong) / len(wrong)
        expected = area_by_hand(wrong, quality, 0.5)
        assert find_number(numbers, f"{name}r")["value"] == pytest.approx(start)
        assert find_number(numbers, f"{name}_pauc(0.5)")["value"] == pytest.approx(expected)
        assert find_number(numbers, f"{name}_pauc(0.5)_over_random")["value"] == pytest.approx(
            expected - start / 2
        )
    assert (
        find_number(numbers, "fnm_pauc(0.5)_pair_oracle")["value"]
        <= find_number(numbers, "fnm_pauc(0.5)")["value"] + 1e-12
    )


def test_a_product_of_roles_gives_the_numbers_of_its_list(judge: Make) -> None:
    subjects, rng = ["a", "b", "c", "a", "b", "c", "a"], np.random.default_rng(1)
    pairs = [(i, j) for i in range(3) for j in range(3, 7)]
    roles = [(i, "reference" if i < 3 else "probe") for i in range(7)]
    score, quality = rng.integers(0, 8, 12) / 8, (rng.permutation(7) / 8).tolist()
    options = {"fmr": (0.25, 0.125), "fnmr": (0.5,), "replicates": 20}
    made = [tables(subjects, roles=roles, product=True), tables(subjects, pairs)]
    product, plain = (judge(each, score, quality, **options) for each in made)
    assert product["numbers"].digest() == plain["numbers"].digest()
    assert product["curves"].digest() == plain["curves"].digest()
    assert find_number(plain["numbers"], "fnmr")["trials"] == 4


def test_comparisons_without_a_quality_are_counted_and_discarded_before_all_others(
    judge: Make,
) -> None:
    bare, low = (listed([*MATED, (0.0, q), (0.9, q)], [*NONMATED, (1.0, q)]) for q in (None, -7.0))
    found, expected = judge(*bare), judge(*low)
    assert find_number(found["numbers"], "comparisons_without_quality")["value"] == 3
    assert find_number(found["numbers"], "comparisons_without_quality")["trials"] == 11
    for metric in (
        "fnmr",
        "fnm_pauc(0.5)",
        "fm_pauc(0.5)",
        "fnm_pauc(0.5)_sample_oracle",
        "erc_auc",
    ):
        mine, theirs = (
            find_number(found["numbers"], metric),
            find_number(expected["numbers"], metric),
        )
        for field in ("value", "threshold", "trials"):
            np.testing.assert_equal(mine[field], theirs[field])
    assert curve(found, "fnm-edc 0.25") == curve(expected, "fnm-edc 0.25")


def test_where_all_have_one_quality_all_are_discarded_together_and_without_any_it_is_refused(
    judge: Make,
) -> None:
    one, none = (
        listed([(s, q) for s, _ in MATED], [(s, q) for s, _ in NONMATED]) for q in (1.0, None)
    )
    assert curve(judge(*one), "fnm-edc 0.25") == [(0, 0.5), (1, 0)]
    with pytest.raises(
        InvalidInput, match="of 8 comparisons none has a quality score, so nothing can be discarded"
    ):
        judge(*none)


@pytest.mark.parametrize("options", [DiscardOptions, DiscardIdentificationOptions])
def test_an_area_up_to_a_share_of_0_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="limits"):
        options(limits=(0.0,))


def test_comparisons_without_a_score_or_a_quality_can_be_left_out(judge: Make) -> None:
    made, score, quality = listed(
        [*MATED, (0.0, None), (np.nan, 2.0), (np.nan, None)], [*NONMATED, (1.0, np.nan)]
    )
    numbers = judge(made, score, quality, unscored="left_out")["numbers"]
    alone = judge(*listed(MATED, NONMATED))["numbers"]
    assert (
        find_number(numbers, "comparisons_lost")["value"],
        find_number(numbers, "comparisons_lost")["trials"],
    ) == (2, 12)
    without = find_number(numbers, "comparisons_without_quality")
    assert (without["value"], without["trials"]) == (2, 12)
    for metric in ("fnmr", "fnm_pauc(0.5)", "fm_pauc(0.5)", "fnm_pauc(0.5)_sample_oracle"):
        mine, theirs = find_number(numbers, metric), find_number(alone, metric)
        assert (mine["value"], mine["threshold"], mine["trials"]) == (
            theirs["value"],
            theirs["threshold"],
            theirs["trials"],
        )


def test_a_half_holds_the_comparisons_of_its_subjects(judge: Make) -> None:
    names = [f"n{i}" for i in range(40)]
    second = in_second_half(names)
    (a, b), (x, y) = (
        [n for n, at in zip(names, second, strict=True) if at == half][:2] for half in (False, True)
    )
    pairs, rng = [(i, j) for i in range(8) for j in range(i + 1, 8)], np.random.default_rng(2)
    score, quality = rng.integers(0, 16, 28) / 16, rng.permutation(8) / 8
    subjects = [a, b, x, y] * 2
    for half, mine in (("choose", (0, 1, 4, 5)), ("report", (2, 3, 6, 7))):
        kept = [k for k, (i, j) in enumerate(pairs) if i in mine and j in mine]
        numbers = judge(tables(subjects, pairs), score, quality, half=half, replicates=10)[
            "numbers"
        ]
        alone = judge(tables(subjects, [pairs[k] for k in kept]), score[kept], quality)["numbers"]
        for metric in ("fnmr", "fnm_pauc(0.5)", "fm_pauc(0.5)"):
            assert find_number(numbers, metric)["value"] == find_number(alone, metric)["value"]
            assert find_number(numbers, metric)["trials"] == find_number(alone, metric)["trials"]
        assert find_number(numbers, "comparisons_across_halves")["value"] == 16


def test_a_starting_error_is_marked_few_by_the_mated_errors_that_set_its_threshold(
    judge: Make,
) -> None:
    mated = [(i / 128, 1.0 + i % 7) for i in range(100)]
    numbers = judge(*listed(mated, [(0.9, 1.0)]), fmr=(), fnmr=(0.29, 0.3))["numbers"]
    for metric in ("fnmr", "fnm_pauc(0.5)", "fnm_pauc(0.5)_over_random"):
        assert [bool(find_number(numbers, metric, start)["few"]) for start in (0.29, 0.3)] == [
            True,
            False,
        ]


def test_numbers_are_marked_few_below_thirty_false_matches(judge: Make) -> None:
    many = [(i / 128, 1.0 + i % 7) for i in range(100)]
    numbers = judge(*listed([(0.9, 1.0)], many), fmr=(0.29, 0.3))["numbers"]
    for metric in (
        "fnmr",
        "fnm_pauc(0.5)",
        "fnm_pauc(0.5)_over_random",
        "fnm_pauc(0.5)_random",
        "fm_pauc(0.5)",
    ):
        marks = [
            (
                find_number(numbers, metric, t)["false_matches"],
                find_number(numbers, metric, t)["few"],
            )
            for t in (0.29, 0.3)
        ]
        assert marks == [(29, True), (30, False)]
    assert find_number(numbers, "erc_auc", 0.3)[
        "few"
    ]  # of five comparisons that remain none can be thirty


def test_areas_of_mated_errors_count_these(judge: Make) -> None:
    many = [(i / 128, 1.0 + i % 7) for i in range(1000)]
    made = listed([(-0.9, 1.0 + i) for i in range(7)] + [(9.0, 1.0)] * 9, many)
    numbers = judge(*made, fmr=(0.3,))["numbers"]
    misses = {
        m: find_number(numbers, m, 0.3)["misses"]
        for m in ("fnmr", "fnm_pauc(0.5)", "erc_auc", "fmr", "fm_pauc(0.5)")
    }
    assert misses == {"fnmr": 7, "fnm_pauc(0.5)": 7, "erc_auc": 7, "fmr": -1, "fm_pauc(0.5)": -1}


# The switches


@pytest.mark.parametrize(
    ("pair", "order"),
    # Qualities of the two templates of three mated comparisons, the second of which is wrong.
    [
        ("min", [(0, 1 / 3), (1 / 3, 0)]),
        ("mean", [(0, 1 / 3), (1 / 3, 1 / 2)]),
        ("product", [(0, 1 / 3), (1 / 3, 1 / 2)]),
    ],
)
def test_pair_says_how_the_quality_of_a_comparison_is_made(
    judge: Make, pair: str, order: Any
) -> None:
    made = tables(["a", "a", "b", "b", "c", "c"], [(0, 1), (2, 3), (4, 5), (0, 2)])
    quality = [2.0, 2.0, 1.0, 8.0, 4.0, 4.0]  # min 2, 1, 4; mean 2, 4.5, 4; product 4, 8, 16
    found = judge(made, [1.0, 0.0, 1.0, 0.5], quality, pair=pair, fmr=(0.0,))
    same(curve(found, "fnm-edc 0")[:2], order)


def test_a_product_of_negative_qualities_is_refused_by_name(judge: Make) -> None:
    made, score, quality = listed([(0.5, -1.0)], [(0.25, -2.0)])
    with pytest.raises(InvalidInput, match=r"evaluate_discard\.pair is 'product'.*found -2"):
        judge(made, score, quality, pair="product")


@pytest.mark.parametrize(
    ("rule", "threshold"), [("at_most", 0.625), ("nearest", 0.5), ("interpolated", 0.475)]
)
def test_rule_says_how_the_threshold_is_chosen(judge: Make, rule: str, threshold: float) -> None:
    numbers = judge(
        *listed(MATED, NONMATED), rule=rule, fmr=(0.4 if rule != "interpolated" else 1.1 / 3,)
    )["numbers"]
    row = find_number(numbers, "fnmr")
    assert row["rule"] == rule
    assert row["threshold"] == pytest.approx(threshold)
    assert row["value"] == sum(s < threshold for s, _ in MATED) / 4
    assert row["false_matches"] == sum(s >= threshold for s, _ in NONMATED)


def test_an_interpolated_threshold_between_neighbouring_scores_is_not_rounded_onto_one(
    judge: Make,
) -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    made, score, quality = listed([(low, 1.0), (high, 2.0)], [(high, 1.0), (low, 2.0)])
    row = find_number(
        judge(made, score, quality, rule="interpolated", fmr=(0.75,))["numbers"], "fnmr"
    )
    assert low < row["threshold"] < high
    assert (row["value"], row["false_matches"]) == (0.5, 1)


def test_discarded_jointly_both_kinds_stand_in_one_order(judge: Make) -> None:
    found = judge(*listed(MATED, NONMATED), discard="joint")
    # Eight comparisons, two of each quality; after the first two three mated remain, two of them
    # wrong.
    assert curve(found, "fnm-edc 0.25") == [
        (0, 1 / 2),
        (0.25, 2 / 3),
        (0.5, 1 / 2),
        (0.75, 0),
        (1, 0),
    ]
    apart = [(0.875, 8.0), (0.75, 5.0), (0.5, 7.0), (0.125, 6.0)]  # better than every non-mated
    found = judge(*listed(apart, NONMATED), discard="joint")
    same(curve(found, "fnm-edc 0.25")[:6], [*((i / 8, 0.5) for i in range(5)), (5 / 8, 2 / 3)])
    assert curve(found, "fm-edc 0.25")[4:] == [(i / 8, 0) for i in range(4, 9)]


@pytest.mark.parametrize("options", [{"discard": "joint"}, {"threshold": "recomputed"}])
def test_oracles_and_intervals_are_of_the_standard_form_alone(judge: Make, options: Any) -> None:
    names = judge(*listed(MATED, NONMATED), **options, replicates=20)["numbers"]
    assert "fnm_pauc(0.5)_random" in names["metric"]
    assert not {f"fnm_pauc(0.5)_{line}" for line in LINES[1:]} & set(names["metric"].tolist())
    assert np.isnan(find_number(names, "fnm_pauc(0.5)")["low"])
    standard = judge(*listed(MATED, NONMATED), replicates=20)["numbers"]
    assert {f"fnm_pauc(0.5)_{line}" for line in LINES} <= set(standard["metric"].tolist())


@pytest.mark.parametrize("how", ["separate", "joint"])
def test_a_recomputed_threshold_is_chosen_anew_at_each_step(judge: Make, how: Any) -> None:
    rng = np.random.default_rng(5)
    mated, nonmated = ([(s, q) for s, q in rng.integers(0, 64, (40, 2)) / 64] for _ in range(2))
    found = judge(*listed(mated, nonmated), threshold="recomputed", discard=how)
    points = curve(found, "fnm-edc 0.25")
    assert [x for x, _ in points] == pytest.approx([*np.arange(20) / 20, 1])
    rows = [(q, i, s, i < 40) for i, (s, q) in enumerate([*mated, *nonmated])]
    for x, y in points[:-1]:
        kinds = [rows] if how == "joint" else [rows[:40], rows[40:]]
        left = [row for kind in kinds for row in sorted(kind)[int(x * len(kind)) :]]
        own, others = ([s for *_, s, m in left if m == truth] for truth in (True, False))
        allowed = [
            t
            for t in [*own, *others, math.inf]
            if sum(s >= t for s in others) <= 0.25 * len(others)
        ]
        assert y == pytest.approx(sum(s < min(allowed) for s in own) / len(own))


def test_recomputed_areas_are_marked_few_by_the_steps_that_they_reach(judge: Make) -> None:
    nonmated = [(i / 512, float(i)) for i in range(400)]
    for limit, few in ((0.1, False), (0.5, True)):
        numbers = judge(
            *listed(MATED, nonmated), threshold="recomputed", fmr=(0.1,), limits=(limit,)
        )["numbers"]
        assert (
            find_number(numbers, f"fnm_pauc({limit:g})")["few"] == few
        )  # 40 false matches, 36 after 10 %, 20 after 50 %


def test_what_is_discarded_to_the_last_has_no_error_and_leaves_the_area_defined(
    judge: Make,
) -> None:
    poor = [(s, q / 8) for s, q in MATED]
    numbers = judge(
        *listed(poor, NONMATED), threshold="recomputed", discard="joint", limits=(0.75,)
    )["numbers"]
    # In steps of 5 %: until 1/8 of all is gone the error is 1/2, then 2/3, then 1/2, then 0: .875
    # is the last one left.
    steps = [int(0.05 * k * 8) for k in range(15)]
    expected = sum(0.05 * {0: 1 / 2, 1: 2 / 3, 2: 1 / 2}.get(gone, 0) for gone in steps)
    assert find_number(numbers, "fnm_pauc(0.75)")["value"] == pytest.approx(expected)


def test_a_starting_error_gives_the_highest_threshold_that_keeps_it(judge: Make) -> None:
    found = judge(*listed(MATED, NONMATED), fmr=(0.25,), fnmr=(0.25, 0.3))
    for start in (0.25, 0.3):
        row = find_number(found["numbers"], "fnmr", start, "starting")
        assert (row["value"], row["threshold"], row["achieved"], row["false_matches"]) == (
            0.25,
            0.5,
            0.5,
            2,
        )
    # .125 alone is wrong, the second poorest.
    same(
        curve(found, "fnm-edc fnmr 0.25"), [(0, 1 / 4), (0.25, 1 / 3), (0.5, 0), (0.75, 0), (1, 0)]
    )
    assert (
        find_number(found["numbers"], "fnmr", 0.25, "at_most")["value"] == 0.5
    )  # the same number as an FMR is another target


def test_the_legacy_curve_is_that_of_the_metric_and_may_be_left_out(judge: Make) -> None:
    rng = np.random.default_rng(7)
    mated, nonmated = ([(s, q) for s, q in rng.integers(0, 64, (60, 2)) / 64] for _ in range(2))
    made, score, quality = listed(mated, nonmated)
    found = judge(made, score, quality)
    expected = discard.legacy_erc(score, np.arange(120) < 60, quality[1:], [0.25])
    row = find_number(found["numbers"], "erc_auc")
    assert (row["value"], row["rule"], row["few"]) == (
        pytest.approx(expected.auc[0]),
        "nearest",
        True,
    )
    same(curve(found, "erc 0.25"), zip(expected.fraction, expected.fnmr[0], strict=True))
    assert "erc_auc" not in judge(made, score, quality, legacy=False)["numbers"]["metric"]


def test_the_legacy_form_takes_scores_that_are_no_cosines_as_they_are(judge: Make) -> None:
    rng = np.random.default_rng(8)
    made, score, quality = listed(*(rng.integers(0, 64, (2, 60, 2)) / 64))
    plain = find_number(judge(made, score, quality)["numbers"], "erc_auc")["value"]
    far = [10 * s - 20 for s in score]  # −20 … −10: all of them would be clipped to −1
    assert find_number(judge(made, far, quality)["numbers"], "erc_auc")["value"] == plain > 0


def test_a_det_is_drawn_of_what_remains(judge: Make) -> None:
    found = judge(*listed(MATED, NONMATED), det_at=(0.5, 0.0))
    # Half of each kind gone: mated .875 and .5, non-mated .25 and 0. No threshold between them
    # errs.
    assert {y for _, y in curve(found, "det 0.5")} == {0.0}
    assert (0.25, 0.5) in curve(found, "det 0")
    assert not [
        name
        for name in judge(*listed(MATED, NONMATED), det_at=())["curves"]["curve"]
        if name.startswith("det")
    ]


# Ends


def test_a_constant_quality_is_discard_at_random_at_any_limit_below_all(judge: Make) -> None:
    made, score, _ = listed(MATED, NONMATED)
    found = judge(made, score, [1.0] * 9, replicates=40)
    assert curve(found, "fnm-edc 0.25") == [(0, 0.5), (1, 0)]
    row = find_number(found["numbers"], "fnm_pauc(0.5)_over_random")
    np.testing.assert_allclose(row["replicates"][np.isfinite(row["replicates"])], 0, atol=1e-15)
    assert row["value"] == 0
    assert sum(y for _, y in curve(found, "quality, mated")) == pytest.approx(1)


@pytest.mark.parametrize("replicates", [0, 6])
@pytest.mark.parametrize("options", [{}, {"threshold": "recomputed"}, {"discard": "joint"}])
@pytest.mark.parametrize(("mated", "nonmated"), [([], NONMATED), (MATED, []), ([], [])])
def test_without_comparisons_of_a_kind_what_needs_them_is_nan(
    judge: Make, mated: Any, nonmated: Any, options: Any, replicates: int
) -> None:
    numbers = judge(*listed(mated, nonmated), fnmr=(0.25,), replicates=replicates, **options)[
        "numbers"
    ]
    for metric in ("fnmr", "fnm_pauc(0.5)", "fnm_pauc(0.5)_over_random", "erc_auc"):
        assert np.isnan(
            find_number(numbers, metric, 0.25, "nearest" if metric == "erc_auc" else "at_most")[
                "value"
            ]
        )
    assert np.isnan(find_number(numbers, "fmr", rule="at_most")["value"]) == (not nonmated)
    assert np.isnan(find_number(numbers, "fnmr", rule="starting")["value"]) == (not mated)


@pytest.mark.parametrize("product", [True, False])
def test_a_template_that_would_be_compared_with_itself_is_refused(
    context: Make, product: bool
) -> None:
    roles = [(0, "reference"), (1, "reference"), (1, "probe")]
    made = tables(
        ["a", "b"],
        [] if product else [(0, 1), (1, 1)],
        roles=roles if product else (),
        product=product,
    )
    with pytest.raises(InvalidInput, match=r"itself|serves as"):
        EvaluateDiscard(DiscardOptions(), context()).fits(made)


@pytest.mark.parametrize(
    "options",
    [{"fmr": (2.0,)}, {"limits": (-0.1,)}, {"det_at": (1.5,)}, {"pair": "max"}, {"level": 1.0}],
)
def test_options_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ValidationError):
        DiscardOptions(**options)


# Intervals


def a_system(gain: float = 1.5) -> tuple[list[str], Any, np.ndarray]:
    """Twelve subjects of two templates, every pair compared."""
    subjects = [f"s{i // 2:02d}" for i in range(24)]
    made = tables(subjects, [(i, j) for i in range(24) for j in range(i + 1, 24)])
    noise = np.random.default_rng(1).normal(0, 1, 276)
    return (
        subjects,
        made,
        (made["comparisons"]["mated"] * gain + np.round(noise, 1)).astype(np.float32),
    )


def test_replicates_are_the_metrics_of_lists_repeated_as_subjects_were_drawn(judge: Make) -> None:
    subjects, made, score = a_system()
    quality = np.random.default_rng(2).integers(0, 6, 24).astype(float)
    numbers = judge(
        made, score, quality, fmr=(0.1,), fnmr=(0.2,), replicates=40, seed=5, level=0.9
    )["numbers"]
    a, b = made["comparisons"]["a"], made["comparisons"]["b"]
    own, other = (np.unique(subjects, return_inverse=True)[1][side] for side in (a, b))
    mated, value = own == other, np.minimum(quality[a], quality[b])
    expected: dict[str, list[float]] = {}
    for w in subject_weights(12, 40, 5).astype(int):
        often = np.where(mated, w[own], w[own] * w[other])
        s, q, m = (np.repeat(column, often) for column in (score, value, mated))
        for rule, target in (("at_most", {"fmr": 0.1}), ("starting", {"fnmr": 0.2})):
            t = discard.threshold_for(s[m], s[~m], **target)
            curves = {"fnm": discard.fnm_edc(s[m], q[m], t), "fm": discard.fm_edc(s[~m], q[~m], t)}
            for name, each in curves.items():
                found = {f"{name}r": each.y[0], f"{name}_pauc(0.5)": each.area(0.5)}
                found |= {f"{name}_pauc(0.5)_over_random": each.area(0.5) - each.y[0] / 2}
                for metric, number_found in found.items():
                    expected.setdefault(f"{metric} {rule}", []).append(number_found)
        expected.setdefault("erc_auc nearest", []).append(
            discard.legacy_erc(np.clip(s, -9, 9), m, q, [0.1]).auc[0]
        )
    for key, drawn in expected.items():
        row = find_number(numbers, *key.split()[:1], rule=key.split()[1])
        np.testing.assert_allclose(row["replicates"], drawn, atol=1e-6, err_msg=key)
        np.testing.assert_allclose(
            [row["low"], row["high"]], np.nanquantile(drawn, [0.05, 0.95]), atol=1e-6
        )


def test_another_quality_is_judged_on_the_same_draws(judge: Make) -> None:
    # Of two measures of which one has a single template more among the worst, only draws of its
    # subject differ.
    _, made, score = a_system()
    first, second = np.ones(24), np.ones(24)
    first[:4] = second[:4] = 0
    second[23] = 0
    cells = [
        find_number(judge(made, score, q, fmr=(0.1,), replicates=60)["numbers"], "fnm_pauc(0.5)")
        for q in (first, second)
    ]
    without = subject_weights(12, 60, 0)[:, 11] == 0
    assert without.any()
    assert not without.all()
    np.testing.assert_array_equal(cells[0]["replicates"][without], cells[1]["replicates"][without])
    assert (cells[0]["replicates"][~without] != cells[1]["replicates"][~without]).any()


def test_against_discard_at_random_a_quality_that_knows_is_told_from_one_that_does_not(
    judge: Make,
) -> None:
    subjects = [f"s{i // 2:03d}" for i in range(240)]
    pairs = [(2 * i, 2 * i + 1) for i in range(120)] + [
        (2 * i, (2 * i + 3) % 240) for i in range(120)
    ]
    rng = np.random.default_rng(4)
    wrong = rng.random(120) < 0.3
    score = np.concatenate([np.where(wrong, -0.5, 0.5), np.linspace(-0.4, 0.4, 120)])
    knows = np.repeat(np.where(wrong, 0.0, 1.0), 2) + rng.random(240) / 2
    for quality, clear in ((knows, True), (rng.random(240), False)):
        row = find_number(
            judge(
                tables(subjects, pairs), score, quality, fmr=(0.01,), limits=(0.2,), replicates=300
            )["numbers"],
            "fnm_pauc(0.2)_over_random",
        )
        assert (row["high"] < 0) == clear
        assert (row["low"] < 0 < row["high"]) != clear
        assert row["low"] <= row["value"] <= row["high"]


def test_without_replicates_there_are_values_and_no_intervals(judge: Make) -> None:
    _, made, score = a_system()
    drawn, plain = (judge(made, score, np.arange(24.0), replicates=r)["numbers"] for r in (10, 0))
    assert plain["metric"].tolist() == drawn["metric"].tolist()
    np.testing.assert_array_equal(plain["value"], drawn["value"])
    assert np.isnan(plain["low"]).all()
    assert plain["replicates"].shape == (plain.rows, 0)


# 1:N


@pytest.fixture(scope="session")
def search_judge(source: Make, context: Make) -> Callable[..., Found]:
    def run(
        subjects: Any,
        roles: Any,
        candidate: Any,
        score: Any,
        quality: Any,
        failed: Any = (),
        **options: Any,
    ) -> Found:
        given = {"replicates": 0, "fpir": (0.5,), "limits": (0.5,), **options}
        stage = EvaluateDiscardIdentification(DiscardIdentificationOptions(**given), context())
        status = np.zeros(len(candidate), np.uint8)
        status[list(failed)] = Status.EMPTY
        rows = np.array(candidate, np.int64).reshape(len(candidate), -1 if len(candidate) else 2)
        found = Batch(
            {
                "status": status,
                "candidate": rows,
                "score": np.array(score, np.float32).reshape(rows.shape),
            }
        )
        made = tables(subjects, roles=roles)
        return checked(
            stage.compute(
                Work(
                    0,
                    len(rows),
                    made,
                    {"candidates": source(found), "quality": source(qualities(quality))},
                )
            )
        )

    return run


GALLERY = [(0, "gallery"), (1, "gallery"), (2, "gallery")]
#             enrolled         mated probes    non-mated
SUBJECTS = ["a", "b", "c", "a", "b", "c", "x", "y"]
PROBES = [(i, "probe") for i in range(3, 8)]
CANDIDATE = [[0, 1], [2, 1], [2, 0], [1, 0], [0, 2]]
SCORE = [[0.75, 0], [0.5, 0.25], [0.25, 0], [0.5, 0], [0.125, 0]]
QUALITY = [9.0, 9.0, 9.0, 3.0, 1.0, 2.0, 1.0, 2.0]


def test_numbers_of_a_small_search_by_hand(search_judge: Make) -> None:
    found = search_judge(SUBJECTS, [*GALLERY, *PROBES], CANDIDATE, SCORE, QUALITY)
    # At .25 one of two non-mated probes is accepted; b's mate is at rank 2, so that its probe, the
    # poorest, is the one miss.
    row = find_number(found["numbers"], "fnir")
    assert (row["threshold"], row["achieved"], row["false_matches"], row["trials"]) == (
        0.25,
        0.5,
        1,
        3,
    )
    assert row["value"] == pytest.approx(1 / 3)
    same(curve(found, "fnir-edc 0.5"), [(0, 1 / 3), (1 / 3, 0), (2 / 3, 0), (1, 0)])
    assert find_number(found["numbers"], "fnir_pauc(0.5)")["value"] == pytest.approx(1 / 9)
    assert find_number(found["numbers"], "fnir_pauc(0.5)_over_random")["value"] == pytest.approx(
        1 / 9 - 1 / 6
    )
    # The false positive is the poorer of the two non-mated.
    assert curve(found, "fpir-edc 0.5") == [(0, 0.5), (0.5, 0), (1, 0)]
    assert find_number(found["numbers"], "fpir_pauc(0.5)")["value"] == 0.25
    assert find_number(found["numbers"], "probes_without_quality")["value"] == 0


def test_a_failed_probe_is_a_miss_and_no_false_positive_at_any_target(search_judge: Make) -> None:
    candidate, score = [row[:] for row in CANDIDATE], [row[:] for row in SCORE]
    for probe in (0, 3):
        candidate[probe], score[probe] = [-1, -1], [np.nan, np.nan]
    roles = [*GALLERY, *PROBES]
    found = search_judge(
        SUBJECTS, roles, candidate, score, QUALITY, failed=[0, 3], fpir=(0.5, 1.0), replicates=30
    )["numbers"]
    for target in (0.5, 1.0):
        assert find_number(found, "fnir", target)["value"] == pytest.approx(
            2 / 3
        )  # a failed, b's mate is at rank 2
        assert (
            find_number(found, "fpir", target)["value"]
            == find_number(found, "fpir", target)["achieved"]
            == 0.5
        )
        weights = subject_weights(5, 30, 0).astype(float)
        n = weights[:, 3:].sum(axis=1)
        accepted = np.where(weights[:, 4] <= target * n, weights[:, 4], 0)
        expected = np.divide(accepted, n, where=n > 0, out=np.full(30, np.nan))
        np.testing.assert_allclose(
            find_number(found, "fpir", target)["replicates"], expected, atol=1e-6
        )


def test_probes_without_a_subject_are_left_out_and_those_without_a_quality_discarded_first(
    search_judge: Make,
) -> None:
    more = [(i, "probe") for i in range(3, 12)]
    subjects, quality = [*SUBJECTS, "a", "x", "", ""], [*QUALITY, None, np.nan, 1.0, None]
    candidate, score = [*CANDIDATE, *[[0, 1]] * 4], [*SCORE, *[[1.0, 0.5]] * 4]
    numbers = search_judge(subjects, [*GALLERY, *more], candidate, score, quality)["numbers"]
    roles = [*GALLERY, *more[:7]]
    alone = search_judge(subjects[:10], roles, candidate[:7], score[:7], [*QUALITY, -7.0, -7.0])[
        "numbers"
    ]
    unlabelled, bare = (
        find_number(numbers, "probes_unlabelled"),
        find_number(numbers, "probes_without_quality"),
    )
    assert (unlabelled["value"], unlabelled["trials"], bare["value"], bare["trials"]) == (
        2,
        9,
        2,
        7,
    )
    for metric in ("fnir", "fnir_pauc(0.5)", "fpir", "fpir_pauc(0.5)"):
        assert find_number(numbers, metric)["value"] == find_number(alone, metric)["value"]
        assert find_number(numbers, metric)["trials"] == find_number(alone, metric)["trials"]
    assert "probes_unlabelled" not in alone["metric"]


@pytest.mark.parametrize(
    ("probes", "left"), [([], set()), (PROBES[:3], set()), (PROBES[3:], {"fpir"})]
)
def test_without_probes_of_a_kind_its_rates_are_left_out(
    search_judge: Make, probes: Any, left: Any
) -> None:
    roles, count = [*GALLERY, *probes], len(probes)
    for replicates in (0, 5):
        candidate, score = [[0, 1]] * count, [[0.5, 0.25]] * count
        found = search_judge(SUBJECTS, roles, candidate, score, QUALITY, replicates=replicates)[
            "numbers"
        ]
        assert {"fnir", "fpir"} & set(found["metric"].tolist()) == left


def a_search(seed: int) -> tuple[list[str], Any, np.ndarray, np.ndarray, np.ndarray]:
    """Twelve enrolled subjects, two probes of each and of six that are not; one candidate of each
    probe.
    """
    rng = np.random.default_rng(seed)
    enrolled, probes = [f"s{i:02d}" for i in range(12)], [f"s{i // 2:02d}" for i in range(36)]
    candidate = np.where(rng.random(36) < 0.8, np.arange(36) // 2 % 12, 0)[:, None]
    roles = [*((i, "gallery") for i in range(12)), *((12 + i, "probe") for i in range(36))]
    return (
        [*enrolled, *probes],
        roles,
        candidate,
        rng.integers(0, 16, (36, 1)) / 16,
        rng.integers(0, 6, 48).astype(float),
    )


def test_replicates_of_a_search_choose_the_threshold_anew(search_judge: Make) -> None:
    subjects, roles, candidate, score, quality = a_search(3)
    options = {"fpir": (0.3,), "replicates": 40, "seed": 2}
    numbers = search_judge(subjects, roles, candidate, score, quality, **options)["numbers"]
    probe, mated = np.arange(36) // 2, np.arange(36) < 24
    hit, top, value = candidate[:, 0] == probe, score[:, 0], quality[12:]
    expected = []
    for w in subject_weights(18, 40, 2).astype(int):
        often = w[probe]
        h, s, q, m = (np.repeat(column, often) for column in (hit, top, value, mated))
        allowed = [t for t in [*s, np.inf] if (s[~m] >= t).sum() <= 0.3 * (~m).sum()]
        t = min(allowed)
        fnir, fpir = discard.edc(~(h & (s >= t))[m], q[m]), discard.edc((s >= t)[~m], q[~m])
        expected.append([fnir.y[0], fnir.area(0.5), fpir.y[0], fpir.area(0.5)])
    for column, metric in enumerate(("fnir", "fnir_pauc(0.5)", "fpir", "fpir_pauc(0.5)")):
        np.testing.assert_allclose(
            find_number(numbers, metric)["replicates"], np.array(expected)[:, column], atol=1e-6
        )


def test_a_half_of_a_search_holds_the_probes_of_its_subjects(search_judge: Make) -> None:
    subjects, roles, candidate, score, quality = a_search(4)
    second, trials = in_second_half(np.unique(subjects)), {}
    for half in ("choose", "report"):
        numbers = search_judge(
            subjects, roles, candidate, score, quality, half=half, replicates=10
        )["numbers"]
        trials[half] = int(find_number(numbers, "fnir")["trials"])
    assert trials == {"choose": 2 * int((~second[:12]).sum()), "report": 2 * int(second[:12].sum())}
