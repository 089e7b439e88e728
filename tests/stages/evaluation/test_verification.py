"""1:1 evaluation, scores in and numbers out, against scikit-learn, plain loops and sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.core.schema import Batch
from pipeline.core.stage import Work
from pipeline.errors import InvalidInput
from stages.evaluation.numbers import find_number
from stages.evaluation.verification import EvaluateVerification, VerificationOptions
from stages.faces.embed import Embed, EmbedOptions
from stages.fusion.fuse import Fuse, FuseOptions
from stages.metrics.bootstrap import subject_weights
from stages.metrics.subjects import in_second_half
from stages.tables.schemas import CURVES, NUMBERS
from stages.tables.tables import ProtocolLists, build_tables, singletons

Make = Callable[..., Any]
Numbers = dict[str, Batch]
properties = settings(deadline=None, max_examples=25)
scores_with_ties = st.lists(st.integers(-6, 6).map(lambda i: i / 8), min_size=1, max_size=15)
METRICS = ("tar", "frr", "eer", "auc", "fta")


def tables(
    subjects: Any,
    pairs: Any = (),
    mated: Any = None,
    fold: Any = (),
    roles: Any = (),
    product: bool = False,
    triangle: Any = None,
) -> Any:
    """A list of pairs, every reference with every probe, or all pairs of the templates `triangle`,
    in their order.
    """
    roles = roles if triangle is None else [(i, "face") for i in triangle]
    names = [f"t{i}" for i in range(len(subjects))]
    found = ProtocolLists(
        face_id=names,
        path=[""] * len(names),
        sha256=[""] * len(names),
        subject=list(subjects),
        comparison_a=[names[a] for a, _ in pairs],
        comparison_b=[names[b] for _, b in pairs],
        mated=[subjects[a] == subjects[b] for a, b in pairs] if mated is None else mated,
        fold=fold,
        role_template=[names[i] for i, _ in roles],
        role=[role for _, role in roles],
        all_pairs=(
            ("reference", "probe") if product else None if triangle is None else ("face", "face")
        ),
        **singletons(names, subjects),
    )
    return build_tables(found, "a set")


def checked(outputs: Numbers) -> Numbers:
    NUMBERS.check(outputs["numbers"])
    CURVES.check(outputs["curves"])
    return outputs


@pytest.fixture(scope="session")
def verify(source: Make, context: Make) -> Callable[..., Numbers]:
    def run(made: Any, score: Any, failed: Any = None, **options: Any) -> Numbers:
        """Where nothing is said of who failed, the second template of a comparison without a score
        did.
        """
        given = np.array(score, np.float32)
        failed = np.where(np.isnan(given), 2, 0) if failed is None else failed
        stage = EvaluateVerification(
            VerificationOptions(**{"replicates": 0, "fmr": (0.3,), **options}), context()
        )
        scores = source(
            Batch({"score": given, "failed": np.array(failed, np.uint8)}), len(score) // 2
        )
        return checked(stage.compute(Work(0, len(score), made, {"scores": scores})))

    return run


def listed(mated: list[float], nonmated: list[float]) -> tuple[Any, list[float]]:
    """A list that has these scores: template 0 of subject a with others of a, or of others."""
    subjects = ["a"] * (1 + len(mated)) + [f"s{i}" for i in range(len(nonmated))]
    return tables(subjects, [(0, 1 + i) for i in range(len(mated) + len(nonmated))]), [
        *mated,
        *nonmated,
    ]


@properties
@given(
    mated=scores_with_ties,
    nonmated=scores_with_ties,
    target=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
)
def test_error_rates_equal_scikit_learn(
    verify: Make, mated: list[float], nonmated: list[float], target: float
) -> None:
    numbers = verify(*listed(mated, nonmated), fmr=(target,))["numbers"]
    truth = [1] * len(mated) + [0] * len(nonmated)
    fpr, tpr, threshold = roc_curve(truth, [*mated, *nonmated], drop_intermediate=False)
    assert find_number(numbers, "auc")["value"] == pytest.approx(
        roc_auc_score(truth, [*mated, *nonmated])
    )
    for rule in ("at_most", "nearest"):
        distance = (
            np.where(fpr <= target, target - fpr, np.inf)
            if rule == "at_most"
            else abs(fpr - target)
        )
        # Of equally near points the most lenient one: the last of the curve.
        point = len(distance) - 1 - int(np.argmin(distance[::-1]))
        row = find_number(numbers, "tar", target, rule)
        assert row["value"] == pytest.approx(tpr[point])
        assert row["achieved"] == pytest.approx(fpr[point])
        assert row["threshold"] == threshold[point]
        assert row["false_matches"] == round(fpr[point] * len(nonmated))
        assert row["trials"] == len(mated)
        assert row["few"]


def test_numbers_of_a_small_list_by_hand(verify: Make) -> None:
    numbers = verify(*listed([0.875, 0.75, 0.5, 0.125], [0.625, 0.5, 0.25, 0.0]), fmr=(0.3, 0.4))[
        "numbers"
    ]
    strict, nearest = (find_number(numbers, "tar", 0.4, rule) for rule in ("at_most", "nearest"))
    # At .625 one of four non-mated is accepted; at .5 two are, and three of four mated ones.
    assert (strict["achieved"], strict["threshold"], strict["false_matches"], strict["value"]) == (
        0.25,
        0.625,
        1,
        0.5,
    )
    assert (
        nearest["achieved"],
        nearest["threshold"],
        nearest["false_matches"],
        nearest["value"],
    ) == (0.5, 0.5, 2, 0.75)
    assert find_number(numbers, "tar", 0.3, "nearest")["threshold"] == 0.625
    assert find_number(numbers, "frr", 0.4, "at_most")["value"] == 0.5
    # Between .625 (FMR 1/4, FNMR 1/2) and .5 (1/2, 1/4) the rates cross at 3/8. Of 16 orders 12 are
    # right, one is a tie.
    assert find_number(numbers, "eer")["value"] == 0.375
    assert find_number(numbers, "auc")["value"] == 11.5 / 16
    assert find_number(numbers, "fta")["value"] == 0
    assert find_number(numbers, "comparisons_lost")["value"] == 0


def test_points_are_marked_few_below_thirty_false_matches(verify: Make) -> None:
    nonmated = [i / 128 for i in range(100)]
    numbers = verify(*listed([1.0], nonmated), fmr=(0.29, 0.3))["numbers"]
    assert (
        find_number(numbers, "tar", 0.29)["false_matches"],
        find_number(numbers, "tar", 0.29)["few"],
    ) == (
        29,
        True,
    )
    assert (
        find_number(numbers, "tar", 0.3)["false_matches"],
        find_number(numbers, "tar", 0.3)["few"],
    ) == (
        30,
        False,
    )


def test_mated_errors_are_counted_beside_the_false_matches(verify: Make) -> None:
    mated, nonmated = [-1.0] * 7 + [1.0] * 93, [i / 128 for i in range(100)]
    numbers = verify(*listed(mated, nonmated), fmr=(0.4,))["numbers"]
    rows = [
        find_number(numbers, metric, 0.4, rule)
        for metric in ("tar", "frr")
        for rule in ("at_most", "nearest")
    ]
    assert {(row["false_matches"], row["misses"], row["few"]) for row in rows} == {(40, 7, False)}


@pytest.mark.parametrize(("wrong", "few"), [(29, True), (30, False)])
def test_eer_has_the_errors_of_both_kinds_at_its_threshold(
    verify: Make, wrong: int, few: bool
) -> None:
    mated, nonmated = (
        [0.25] * wrong + [0.75] * (100 - wrong),
        [0.75] * wrong + [0.25] * (100 - wrong),
    )
    row = find_number(verify(*listed(mated, nonmated))["numbers"], "eer")
    assert (row["value"], row["misses"], row["false_matches"], row["few"]) == (
        wrong / 100,
        wrong,
        wrong,
        few,
    )


def test_where_no_error_was_seen_intervals_reach_to_the_bound_over_subjects(verify: Make) -> None:
    subjects = [f"s{i}" for i in range(20) for _ in "ab"]
    pairs = [(2 * i, 2 * i + 1) for i in range(20)] + [(2 * i, 2 * i + 3) for i in range(19)]
    made, score = tables(subjects, pairs), [0.75] * 20 + [0.25] * 19
    numbers = verify(made, score, replicates=200, fmr=(0.1,))["numbers"]
    bound = 1 - 0.05 ** (1 / 20)  # “rule of 3”: about 3 / 20
    for metric, low, high in (
        ("tar", 1 - bound, 1),
        ("auc", 1 - bound, 1),
        ("eer", 0, bound),
        ("frr", 0, bound),
        ("fta", 0, bound),
    ):
        row = find_number(numbers, metric)
        assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high)), metric
    assert find_number(numbers, "tar")["subjects"] == 20


def test_the_rule_of_the_scripts_has_no_interval(verify: Make) -> None:
    subjects = [f"s{i // 2}" for i in range(12)]
    pairs = list(combinations(range(12), 2))
    numbers = verify(
        tables(subjects, pairs), [(7 * i % 23) / 23 for i in range(len(pairs))], replicates=20
    )["numbers"]
    low = {
        rule: find_number(numbers, "tar", 0.3, rule)["low"]
        for rule in ("at_most", "nearest", "script")
    }
    assert {rule: bool(np.isnan(end)) for rule, end in low.items()} == {
        "at_most": False,
        "nearest": False,
        "script": True,
    }


def test_in_a_product_mated_is_what_shares_a_subject(verify: Make) -> None:
    roles = [(0, "reference"), (1, "reference"), (2, "probe"), (3, "probe"), (4, "probe")]
    made = tables(["a", "b", "a", "b", "c"], roles=roles, product=True)
    #        a·a   a·b  a·c  b·a  b·b  b·c
    score = [0.75, 0.5, 0.0, 0.0, 0.25, 0.125]
    row = find_number(verify(made, score, fmr=(0.25,))["numbers"], "tar", 0.25, "at_most")
    assert (row["trials"], row["value"], row["achieved"], row["threshold"]) == (2, 1, 0.25, 0.25)


def test_where_mated_follows_from_subjects_templates_without_one_are_left_out_and_counted(
    verify: Make,
) -> None:
    roles = [(0, "reference"), (1, "reference"), (2, "probe"), (3, "probe")]
    numbers = verify(
        tables(["", "a", "b", "a"], roles=roles, product=True), [0.5, 0.25, 0, 1], replicates=5
    )["numbers"]
    row = find_number(numbers, "tar")
    assert (row["trials"], row["nonmated"], row["value"]) == (1, 1, 1)
    assert find_number(numbers, "comparisons_unlabelled")["value"] == 2
    assert (find_number(numbers, "fte")["trials"], find_number(numbers, "fta")["trials"]) == (1, 2)


@pytest.mark.parametrize("replicates", [0, 9])
@pytest.mark.parametrize("half", ["all", "choose", "report"])
@properties
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 12),
    enrolled=st.sampled_from(["none", "first"]),
)
def test_all_pairs_of_a_role_give_the_numbers_of_the_list_of_those_with_subjects(
    verify: Make, half: str, replicates: int, seed: int, count: int, enrolled: str
) -> None:
    rng = np.random.default_rng(seed)
    subjects = rng.choice(["", *(f"n{i}" for i in range(6))], 12, p=[0.1, *[0.15] * 6]).tolist()
    role, lost = rng.permutation(12)[:count].tolist(), rng.random(12) < 0.15
    pairs = list(combinations(role, 2))
    failed = np.array([lost[a] + 2 * lost[b] for a, b in pairs], np.uint8)
    score = np.where(failed > 0, np.nan, rng.integers(-4, 8, len(pairs)) / 8)
    told = [k for k, (a, b) in enumerate(pairs) if subjects[a] and subjects[b]]
    options = {"half": half, "replicates": replicates, "enrolled": enrolled, "fmr": (0.05, 0.3)}
    mine = verify(tables(subjects, triangle=role), score, failed, **options)
    listed = tables(subjects, [pairs[k] for k in told])
    theirs = verify(listed, score[told], failed[told], **options)
    numbers, unlabelled = mine["numbers"], mine["numbers"]["metric"] == "comparisons_unlabelled"
    assert numbers.take(~unlabelled).digest() == theirs["numbers"].digest()
    assert mine["curves"].digest() == theirs["curves"].digest()
    assert unlabelled.any() == (len(told) < len(pairs))
    if unlabelled.any():
        row = find_number(numbers, "comparisons_unlabelled")
        assert (row["value"], row["trials"]) == (len(pairs) - len(told), len(pairs))


def test_in_all_pairs_of_a_role_every_failure_is_one_to_acquire(verify: Make) -> None:
    # Even of two templates, of which each is on one side.
    for count, score in ((2, [np.nan]), (3, [np.nan, 0.5, np.nan])):  # template 1 failed
        found = verify(
            tables(["a", "b", "b"], triangle=range(count)), score, [2, 0, 1][: len(score)]
        )["numbers"]
        assert (find_number(found, "fta")["value"], find_number(found, "fta")["trials"]) == (
            1 / count,
            count,
        )
        assert not {"fte", "gfrr"} & set(found["metric"])


def test_fallen_back_templates_of_all_pairs_are_counted_among_those_with_subjects(
    source: Make, context: Make
) -> None:
    made = tables(["a", "", "b", "c"], triangle=[3, 1, 0])
    scores = source(Batch({"score": np.zeros(3, np.float32), "failed": np.zeros(3, np.uint8)}))
    built = source(Batch({"status": np.zeros(4, np.uint8), "fallback": np.ones(4, bool)}))
    stage = EvaluateVerification(VerificationOptions(replicates=0, templates=True), context())
    row = find_number(
        stage.compute(Work(0, 3, made, {"scores": scores, "templates": built}))["numbers"],
        "fused_fallback",
    )
    assert (row["value"], row["trials"]) == (2, 2)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (
            [(0, "reference"), (1, "reference"), (1, "probe")],
            "template 't1' serves as 'reference' and as 'probe'",
        ),
        ([], "comparison 1 is of a template with itself"),
    ],
)
def test_a_template_that_would_be_compared_with_itself_is_refused(
    context: Make, roles: Any, message: str
) -> None:
    made = tables(["a", "b"], [] if roles else [(0, 1), (1, 1)], roles=roles, product=bool(roles))
    with pytest.raises(InvalidInput, match=message):
        EvaluateVerification(VerificationOptions(), context()).fits(made)


def test_in_all_pairs_of_a_role_no_template_meets_itself_unless_it_is_listed_twice(
    context: Make,
) -> None:
    stage = EvaluateVerification(VerificationOptions(), context())
    stage.fits(tables(["a", "b", "a"], triangle=[2, 0, 1]))
    with pytest.raises(InvalidInput, match="template 't2' is listed more than once as 'face'"):
        stage.fits(tables(["a", "b", "a"], triangle=[2, 0, 2]))


def test_failed_probes_count_in_fta_and_frr_and_in_no_matching_rate(verify: Make) -> None:
    roles = [(0, "reference"), (1, "reference"), (2, "probe"), (3, "probe"), (4, "probe")]
    made = tables(["a", "b", "a", "b", "b"], roles=roles, product=True)
    nan = np.nan  # template 3 failed
    numbers = verify(made, [-0.25, nan, 0.5, 0.0, nan, 0.75], fmr=(0.5,))["numbers"]
    assert find_number(numbers, "fta")["value"] == pytest.approx(1 / 3)
    assert (find_number(numbers, "fta")["trials"], find_number(numbers, "fte")["trials"]) == (3, 2)
    assert (
        find_number(numbers, "tar")["value"] == 1 / 2
    )  # mated -.25 and .75, non-mated .5 and 0: one false match is allowed
    assert find_number(numbers, "frr")["value"] == pytest.approx(1 / 3 + 1 / 2 * 2 / 3)
    assert find_number(numbers, "gfrr")["value"] == find_number(numbers, "frr")["value"]
    assert (
        find_number(numbers, "comparisons_lost")["value"],
        find_number(numbers, "comparisons_lost")["trials"],
    ) == (2, 6)


def test_failed_references_count_in_fte_and_with_the_probes_in_gfrr(verify: Make) -> None:
    roles = [(0, "reference"), (1, "reference"), (2, "probe"), (3, "probe"), (4, "probe")]
    made = tables(["a", "b", "a", "b", "b"], roles=roles, product=True)
    # reference 1 and probe 2 failed: what is left is non-mated, but for one comparison that does
    # not exist
    nan = np.nan
    score, failed = [nan, 0.5, 0.0, nan, nan, nan], [2, 0, 0, 3, 1, 1]
    numbers = verify(made, score, failed, fmr=(0.5,), replicates=20)["numbers"]
    assert (find_number(numbers, "fte")["value"], find_number(numbers, "fta")["value"]) == (
        1 / 2,
        pytest.approx(1 / 3),
    )
    listed_so = tables(["a", "b", "a", "b", "a"], [(0, 2), (0, 3), (1, 2), (1, 3), (0, 4)])
    numbers = verify(
        listed_so, [0.75, 0.5, nan, nan, 0.25], [0, 0, 1, 1, 0], fmr=(0.0,), replicates=20
    )["numbers"]
    assert (find_number(numbers, "fte")["value"], find_number(numbers, "fta")["value"]) == (
        1 / 2,
        0,
    )
    tar, frr, gfrr = (find_number(numbers, metric) for metric in ("tar", "frr", "gfrr"))
    assert (tar["value"], frr["value"], gfrr["value"]) == (0.5, 0.5, 1 / 2 + 1 / 2 * 1 / 2)
    fte = find_number(numbers, "fte")["replicates"]
    np.testing.assert_allclose(gfrr["replicates"], fte + (1 - fte) * frr["replicates"])


def test_where_a_template_stands_on_both_sides_every_failure_is_one_to_acquire(
    verify: Make,
) -> None:
    # Of five templates 1 and 3 failed; template 0 is good and has no comparison with a score.
    made = tables(["a", "a", "b", "b", "b"], [(0, 1), (2, 3), (2, 4), (4, 2)])
    numbers = verify(made, [np.nan, np.nan, 0.5, 0.5], failed=[2, 2, 0, 0])["numbers"]
    assert find_number(numbers, "fta")["value"] == pytest.approx(2 / 5)
    for metric in ("fte", "gfrr"):
        with pytest.raises(KeyError):
            find_number(numbers, metric)


def test_a_template_that_is_compared_with_failed_ones_only_has_not_failed(verify: Make) -> None:
    made = tables(["a", "a", "b", "b", "b"], [(0, 1), (2, 3), (2, 4)])
    numbers = verify(made, [np.nan, np.nan, 0.5], failed=[2, 2, 0])["numbers"]
    assert (find_number(numbers, "fte")["value"], find_number(numbers, "fta")["value"]) == (
        0,
        pytest.approx(2 / 3),
    )


def test_behind_false_matches_stands_the_number_of_distinct_pairs_of_subjects(verify: Make) -> None:
    subjects = ["a", "b", "c", "a", "b", "c"]
    #                a·b     b·a    a·b     c·a     c·b      mated
    pairs = [(0, 1), (4, 3), (3, 1), (2, 0), (5, 4), (0, 3)]
    made, score = tables(subjects, pairs), [0.75, 0.5, 0.5, 0.25, 0.0, 1.0]
    found = verify(made, score, fmr=(0.2, 0.6, 0.8, 1.0))["numbers"]
    rows = [find_number(found, "tar", target) for target in (0.2, 0.6, 0.8, 1.0)]
    assert [(row["false_matches"], row["subject_pairs"]) for row in rows] == [
        (1, 1),
        (3, 1),
        (4, 2),
        (5, 3),
    ]
    assert find_number(found, "eer")["subject_pairs"] == -1


def test_in_a_product_the_pairs_of_subjects_are_those_of_its_rows_and_columns(verify: Make) -> None:
    roles = [(0, "reference"), (1, "reference"), (2, "probe"), (3, "probe"), (4, "probe")]
    made = tables(["a", "b", "a", "b", "c"], roles=roles, product=True)
    #        a·a   a·b  a·c  b·a  b·b  b·c
    score = [0.75, 0.5, 0.0, 0.5, 0.25, 0.125]
    row = find_number(verify(made, score, fmr=(0.5,))["numbers"], "tar", 0.5)
    assert (row["false_matches"], row["subject_pairs"]) == (2, 1)


def halves(count: int) -> tuple[list[str], list[str]]:
    """`count` names of each half."""
    names = [f"n{i}" for i in range(20 * count)]
    second = in_second_half(names)
    first, other = (
        [n for n, at in zip(names, second, strict=True) if at == half][:count]
        for half in (False, True)
    )
    return first, other


@pytest.mark.parametrize("product", [True, False])
def test_a_half_holds_the_comparisons_of_its_subjects_and_counts_those_across(
    verify: Make, product: bool
) -> None:
    (a, b), (x, y) = halves(2)
    subjects = [a, b, x, y, a, b, x, y]
    roles = [(i, "reference" if i < 4 else "probe") for i in range(8)]
    pairs = [(i, j) for i in range(4) for j in range(4, 8)]
    made = tables(subjects, [] if product else pairs, roles=roles, product=product)
    score = [(7 * i % 16) / 16 for i in range(16)]
    apart = {}
    for half, chosen in (("choose", (0, 1)), ("report", (2, 3))):
        numbers = verify(made, score, half=half, replicates=30)["numbers"]
        small = [k for k, (i, j) in enumerate(pairs) if i in chosen and j - 4 in chosen]
        alone = verify(
            tables(subjects, [pairs[k] for k in small]), [score[k] for k in small], replicates=30
        )["numbers"]
        for metric in ("tar", "eer", "auc", "fta", "fte"):
            mine, theirs = find_number(numbers, metric), find_number(alone, metric)
            assert (mine["value"], mine["trials"]) == (theirs["value"], theirs["trials"]), metric
        across = find_number(numbers, "comparisons_across_halves")
        assert (across["value"], across["trials"]) == (8, 16)
        apart[half] = find_number(numbers, "tar")["trials"]
    assert apart == {"choose": 2, "report": 2}


def test_a_half_holds_no_comparison_of_a_template_without_a_subject(verify: Make) -> None:
    (a, b), (x, y) = halves(2)
    unknown = range(5, 13)
    pairs = [(0, 1), (0, 2), (3, 4), *((i, u) for i in (0, 3) for u in unknown), (5, 6)]
    made = tables([a, a, b, x, y, *[""] * len(unknown)], pairs)
    score, trials = [0.5] * len(pairs), 0
    for half in ("choose", "report"):
        numbers = verify(made, score, half=half)["numbers"]
        assert find_number(numbers, "comparisons_across_halves")["value"] == 17
        trials += int(find_number(numbers, "auc")["trials"])
    assert trials == 3
    assert find_number(verify(made, score)["numbers"], "auc")["trials"] == len(pairs)


def test_whether_the_first_side_is_enrolled_follows_from_the_whole_list_and_not_from_a_half(
    verify: Make,
) -> None:
    (a, b), (x, y) = halves(2)
    subjects, score = [a, b, x, y, a, b, x, y], [0.75, 0.5, 0.25, 0.0]
    apart = tables(subjects, [(0, 4), (1, 5), (2, 6), (3, 7)])
    # template 6 stands on both sides, in one half
    swapped = tables(subjects, [(0, 4), (1, 5), (2, 6), (6, 3)])
    for half in ("choose", "report"):
        assert "fte" in verify(apart, score, half=half)["numbers"]["metric"]
        assert "fte" not in verify(swapped, score, half=half)["numbers"]["metric"]


def test_which_side_is_enrolled_may_be_said(verify: Make) -> None:
    roles = [(0, "reference"), (1, "reference"), (2, "probe"), (3, "probe"), (4, "probe")]
    made, nan = tables(["a", "b", "a", "b", "b"], roles=roles, product=True), np.nan
    # reference 1 and probe 3 failed
    score, failed = ([0.75, nan, 0.25, nan, nan, nan], [0, 2, 0, 1, 3, 1])
    first, none = (
        verify(made, score, failed, enrolled=which)["numbers"] for which in ("first", "none")
    )
    assert (find_number(first, "fte")["value"], find_number(first, "fta")["value"]) == (
        1 / 2,
        pytest.approx(1 / 3),
    )
    assert find_number(none, "fta")["value"] == pytest.approx(2 / 5)
    assert not {"fte", "gfrr"} & set(none["metric"])
    # Template 2 stands on both sides, and failed on both.
    both = tables(["a", "b", "c", "d"], [(0, 1), (2, 3), (1, 2)])
    found = verify(both, [0.5, nan, nan], [0, 1, 2], enrolled="first")["numbers"]
    assert (find_number(found, "fte")["value"], find_number(found, "fte")["trials"]) == (
        pytest.approx(1 / 3),
        3,
    )
    assert (find_number(found, "fta")["value"], find_number(found, "fta")["trials"]) == (
        pytest.approx(1 / 3),
        3,
    )


def test_a_half_without_comparisons_has_an_undefined_fte(verify: Make) -> None:
    (a, b), _ = halves(2)
    made = tables([a, b, a, b], [(0, 2), (1, 3)])
    fte = find_number(verify(made, [0.5, 0.5], half="report", replicates=4)["numbers"], "fte")
    assert (np.isnan(fte["value"]), fte["trials"]) == (True, 0)


def test_with_every_template_failed_fta_and_frr_say_so(verify: Make) -> None:
    made, _ = listed([0.5, 0.5], [0.25])
    numbers = verify(made, [np.nan] * 3, failed=[3] * 3, replicates=5)["numbers"]
    assert find_number(numbers, "fta")["value"] == 1
    assert find_number(numbers, "comparisons_lost")["value"] == 3
    assert np.isnan(find_number(numbers, "tar")["value"])


@pytest.mark.parametrize("replicates", [0, 7])
@pytest.mark.parametrize(("mated", "nonmated"), [([], [0.25, 0.5]), ([0.5, 0.75], []), ([], [])])
def test_an_empty_class_gives_nan_and_no_interval(
    verify: Make, mated: list[float], nonmated: list[float], replicates: int
) -> None:
    numbers = verify(*listed(mated, nonmated), replicates=replicates)["numbers"]
    for metric in ("eer", "auc", "tar", "frr"):
        row = find_number(numbers, metric)
        assert np.isnan([row["value"], row["low"], row["high"]]).all(), metric
        assert row["replicates"].shape == (replicates,)
    assert np.isnan(find_number(numbers, "fta")["value"]) == (not mated and not nonmated)


def test_one_comparison_of_each_kind_is_enough(verify: Make) -> None:
    numbers = verify(*listed([0.5], [0.25]), replicates=20)["numbers"]
    assert [find_number(numbers, metric)["value"] for metric in METRICS] == [1, 0, 0, 1, 0]
    assert find_number(numbers, "tar")["threshold"] == 0.5


def test_accuracy_is_decided_at_the_threshold_of_the_other_folds(verify: Make) -> None:
    rng = np.random.default_rng(3)
    truth, fold = np.arange(120) % 2 == 0, np.arange(120) // 20
    score = np.round(rng.normal(truth * 1.0, 0.7), 1).astype(np.float32)
    subjects = [f"s{i // 2 if truth[i // 2] else i}" for i in range(240)]
    pairs = [(2 * i, 2 * i + 1) for i in range(120)]
    numbers = verify(tables(subjects, pairs, fold=fold), score)["numbers"]
    accuracy = []
    for test in range(6):
        rest = fold != test
        tried = {
            t: np.mean((score[rest] >= t) == truth[rest]) for t in sorted({*score.tolist(), np.inf})
        }
        threshold = max(tried, key=lambda t: (tried[t], -t))
        accuracy.append(np.mean((score[~rest] >= threshold) == truth[~rest]))
    assert find_number(numbers, "accuracy")["value"] == pytest.approx(np.mean(accuracy))
    assert find_number(numbers, "accuracy_deviation")["value"] == pytest.approx(np.std(accuracy))


def test_without_folds_there_is_no_accuracy(verify: Make) -> None:
    with pytest.raises(KeyError, match="accuracy"):
        find_number(verify(*listed([0.5], [0.25]))["numbers"], "accuracy")


def drawn_by_hand(
    subjects: list[str], made: Any, score: np.ndarray, target: float, replicates: int, seed: int
) -> np.ndarray:
    """TAR, FRR, EER and AUC of lists in which each comparison stands as often as its subjects were
    drawn: (R, 4).
    """
    names = sorted(set(subjects))
    number_of = np.array([names.index(s) for s in subjects])
    a, b = number_of[made["comparisons"]["a"]], number_of[made["comparisons"]["b"]]
    alive = np.isfinite(score)
    rows = []
    for w in subject_weights(len(names), replicates, seed).astype(int):
        often = np.where(a == b, w[a], w[a] * w[b]) * alive
        truth, values = np.repeat(a == b, often), np.repeat(score, often)
        if truth.all() or not truth.any():
            rows.append([np.nan] * 3)
            continue
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
        gap = fpr - (1 - tpr)
        after = int(np.argmax(gap >= 0))
        part = -gap[after - 1] / (gap[after] - gap[after - 1])
        eer = fpr[after - 1] + part * (fpr[after] - fpr[after - 1])
        rows.append([tpr[fpr <= target].max(), eer, roc_auc_score(truth, values)])
    return np.array(rows)


def a_system(seed: int, gain: float) -> tuple[list[str], Any, np.ndarray]:
    """Twelve subjects of two templates, every pair compared; systems of one seed differ in their
    scores alone.
    """
    subjects = [f"s{i // 2:02d}" for i in range(24)]
    pairs = [(i, j) for i in range(24) for j in range(i + 1, 24)]
    made = tables(subjects, pairs)
    noise = np.random.default_rng(seed).normal(0, 1, len(pairs))
    return (
        subjects,
        made,
        (made["comparisons"]["mated"] * gain + np.round(noise, 1)).astype(np.float32),
    )


def test_replicates_are_the_metrics_of_lists_repeated_as_subjects_were_drawn(verify: Make) -> None:
    subjects, made, score = a_system(1, 1.5)
    score[[3, 40, 99]] = np.nan
    numbers = verify(made, score, fmr=(0.1,), replicates=60, seed=5, level=0.9)["numbers"]
    expected = drawn_by_hand(subjects, made, score, 0.1, 60, 5)
    for column, metric in enumerate(("tar", "eer", "auc")):
        row = find_number(numbers, metric)
        np.testing.assert_allclose(row["replicates"], expected[:, column], atol=1e-6)
        bounds = np.quantile(expected[:, column], [0.05, 0.95])
        np.testing.assert_allclose([row["low"], row["high"]], bounds, atol=1e-6)
        assert row["low"] <= row["value"] <= row["high"]
    _, subject = np.unique(subjects, return_inverse=True)
    weights = subject_weights(12, 60, 5).astype(float)[:, subject]  # of each template
    lost = np.unique(made["comparisons"]["b"][[3, 40, 99]])
    fta = weights[:, lost].sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(find_number(numbers, "fta")["replicates"], fta, atol=1e-12)
    np.testing.assert_allclose(
        find_number(numbers, "frr")["replicates"],
        fta + (1 - expected[:, 0]) * (1 - fta),
        atol=1e-12,
    )


def test_cells_are_paired_replicate_by_replicate(verify: Make) -> None:
    # The better system accepts one more mated pair, that of subject s03: so the difference of every
    # replicate is that subject's share of the draw, in which threshold and denominator are the
    # same.
    _, made, score = a_system(2, 0.0)
    own = np.flatnonzero(made["comparisons"]["mated"])
    score[own] = -10
    better = score.copy()
    better[own[3]] = 10
    cells = [
        find_number(verify(made, s, fmr=(0.1,), replicates=50)["numbers"], "tar")["replicates"]
        for s in (score, better)
    ]
    weights = subject_weights(12, 50, 0)
    np.testing.assert_allclose(cells[1] - cells[0], weights[:, 3] / 12, atol=1e-6)


def test_a_failure_in_one_cell_leaves_its_draws_paired_with_the_others(verify: Make) -> None:
    _, made, score = a_system(2, 1.0)
    lost = score.copy()
    mine = (made["comparisons"]["a"] == 23) | (made["comparisons"]["b"] == 23)
    lost[mine] = np.nan
    cells = [
        find_number(verify(made, s, replicates=50)["numbers"], "auc")["replicates"]
        for s in (score, lost)
    ]
    assert np.corrcoef(*cells)[0, 1] > 0.9
    assert np.corrcoef(cells[0], cells[1][::-1])[0, 1] < 0.5


def test_another_seed_draws_otherwise_and_the_same_one_alike(verify: Make) -> None:
    _, made, score = a_system(1, 1.0)
    first, again, other = (verify(made, score, replicates=20, seed=s)["numbers"] for s in (0, 0, 1))
    assert first.digest() == again.digest()
    assert not np.array_equal(
        find_number(first, "tar")["replicates"], find_number(other, "tar")["replicates"]
    )
    assert find_number(first, "tar")["value"] == find_number(other, "tar")["value"]


def test_the_roc_curve_is_made_of_points_of_the_roc(verify: Make) -> None:
    _, made, score = a_system(3, 1.0)
    curves = verify(made, score)["curves"]
    mine = curves["curve"] == "roc"
    fpr, tpr, _ = roc_curve(made["comparisons"]["mated"], score, drop_intermediate=False)
    points = {(round(x, 9), round(y, 9)) for x, y in zip(fpr, tpr, strict=True)}
    assert {
        (round(x, 9), round(y, 9))
        for x, y in zip(curves["x"][mine], curves["y"][mine], strict=True)
    } <= points
    assert (np.diff(curves["x"][mine]) >= 0).all()
    for name in ("mated scores", "non-mated scores"):
        assert 0 < curves["y"][curves["curve"] == name].sum() <= 1 + 1e-9


def test_histograms_hold_scores_that_are_no_cosines(verify: Make) -> None:
    curves = verify(*listed([-1.5, -1.75, -2.25], [-2.5, -2.75, 1.5]))["curves"]
    for name, tops in (
        ("mated scores", [-2.25, -1.75, -1.5]),
        ("non-mated scores", [-2.75, -2.5, 1.5]),
    ):
        x, y = (curves[axis][curves["curve"] == name] for axis in ("x", "y"))
        assert (x[0], round(float(x[-1] + x[1] - x[0]), 9)) == (-3, 2)
        np.testing.assert_allclose(x[y > 0], tops, atol=x[1] - x[0])
        np.testing.assert_allclose(y[y > 0], 1 / 3)


def test_a_list_that_contradicts_the_subjects_cannot_be_resampled(verify: Make) -> None:
    for subjects, mated, message in (
        (
            ["a", "a"],
            [False],
            "comparison 0 is listed as non-mated, and its templates are of one subject",
        ),
        (
            ["", ""],
            [True],
            "comparison 0 is listed as mated, and its templates are not of one subject",
        ),
    ):
        made = tables(subjects, [(0, 1)], mated)
        with pytest.raises(InvalidInput, match=message):
            verify(made, [0.5], replicates=2)
        assert find_number(verify(made, [0.5])["numbers"], "tar")["trials"] == sum(mated)


@pytest.mark.parametrize(
    "options", [{"fmr": (2.0,)}, {"fmr": (-0.1,)}, {"level": 1.0}, {"replicates": -1}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VerificationOptions(**options)


def test_templates_that_fell_back_to_equal_weights_are_counted_among_the_compared(
    source: Make, context: Make
) -> None:
    made, score = tables(["a", "a", "b", "c"], [(0, 1), (0, 2)]), [0.5, 0.25]
    scores = source(Batch({"score": np.float32(score), "failed": np.zeros(2, np.uint8)}))
    stage = EvaluateVerification(VerificationOptions(replicates=0, templates=True), context())
    assert stage.uses() == ("scores", "templates")

    def run(rows: int) -> Any:
        built = Batch(
            {
                "status": np.zeros(rows, np.uint8),
                "fallback": np.array([True, False, False, True])[:rows],
            }
        )
        return find_number(
            stage.compute(Work(0, 2, made, {"scores": scores, "templates": source(built)}))[
                "numbers"
            ],
            "fused_fallback",
        )

    assert (run(4)["value"], run(4)["trials"]) == (1, 3)  # the fourth is compared with nobody
    with pytest.raises(InvalidInput, match="has 3 rows, and there are 4 templates"):
        run(3)


def test_templates_that_do_not_say_which_fell_back_are_refused_before_any_work(
    context: Make,
) -> None:
    made = tables(["a", "a", "b"], [(0, 1), (0, 2)])
    stage = EvaluateVerification(VerificationOptions(templates=True), context())
    stage.above = {"templates": Embed(EmbedOptions(model="given"), context())}
    with pytest.raises(
        InvalidInput, match="a step of stage 'embed', which does not say which templates fell back"
    ):
        stage.fits(made)
    stage.above = {"templates": Fuse(FuseOptions(rule="mean"), context())}
    stage.fits(made)
