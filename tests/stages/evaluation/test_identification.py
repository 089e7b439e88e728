"""1:N evaluation, candidates in and numbers out, against a count probe by probe and sums
by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Work
from pipeline.errors import InvalidInput
from stages.evaluation.identification import EvaluateIdentification, IdentificationOptions
from stages.evaluation.numbers import find_number
from stages.faces.embed import Embed, EmbedOptions
from stages.metrics.bootstrap import subject_weights
from stages.metrics.subjects import in_second_half
from stages.tables.schemas import CURVES, NUMBERS
from stages.tables.tables import ProtocolLists, build_tables, singletons

Make = Callable[..., Any]
Numbers = dict[str, Batch]


def tables(subjects: Any, roles: Any) -> dict[str, Batch]:
    names = [f"t{i}" for i in range(len(subjects))]
    found = ProtocolLists(
        face_id=names,
        path=names,
        sha256=names,
        subject=list(subjects),
        role_template=[names[i] for i, _ in roles],
        role=[role for _, role in roles],
        **singletons(names, subjects),
    )
    return build_tables(found, "a set")


@pytest.fixture(scope="session")
def identify(source: Make, context: Make) -> Callable[..., Numbers]:
    def run(
        subjects: Any, roles: Any, candidate: Any, score: Any, failed: Any = (), **options: Any
    ) -> Numbers:
        options = {"replicates": 0, "fpir": (0.5,), "ranks": (1, 2), **options}
        stage = EvaluateIdentification(IdentificationOptions(**options), context())
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
        work = Work(
            0,
            len(candidate),
            tables(subjects, roles),
            {"candidates": source(found, len(candidate) // 2)},
        )
        made = stage.compute(work)
        NUMBERS.check(made["numbers"])
        CURVES.check(made["curves"])
        return made

    return run


GALLERY = [(0, "gallery"), (1, "gallery"), (2, "gallery")]
#             enrolled         mated probes    non-mated
SUBJECTS = ["a", "b", "c", "a", "b", "c", "x", "y"]
PROBES = [(i, "probe") for i in range(3, 8)]
NONE = [-1, -1]
NAN = [np.nan, np.nan]


def test_numbers_of_a_small_search_by_hand(identify: Make) -> None:
    candidate = [[0, 1], [2, 1], [2, 0], [1, 0], [0, 2]]
    score = [[0.75, 0], [0.5, 0.25], [0.25, 0], [0.5, 0], [0.125, 0]]
    numbers = identify(SUBJECTS, [*GALLERY, *PROBES], candidate, score)["numbers"]
    assert [find_number(numbers, "rank", k)["value"] for k in (1, 2)] == [pytest.approx(2 / 3), 1]
    row = find_number(numbers, "tpir", 0.5)
    # The threshold is .25, the lowest that accepts one non-mated probe of two (.5): a and c are at
    # rank 1 and at or above.
    assert (row["threshold"], row["achieved"], row["false_matches"], row["trials"]) == (
        0.25,
        0.5,
        1,
        3,
    )
    assert row["value"] == pytest.approx(2 / 3)
    row = find_number(
        identify(SUBJECTS, [*GALLERY, *PROBES], candidate, score, fpir=(0.1,))["numbers"],
        "tpir",
        0.1,
    )
    assert (row["threshold"], row["achieved"], row["false_matches"]) == (0.75, 0, 0)
    assert row["value"] == pytest.approx(1 / 3)


def test_a_failed_probe_is_a_miss_and_no_false_positive(identify: Make) -> None:
    candidate = [[0, 1], NONE, [2, 0], NONE, [0, 2]]
    score = [[0.75, 0], NAN, [0.25, 0], NAN, [0.5, 0]]
    numbers = identify(SUBJECTS, [*GALLERY, *PROBES], candidate, score, failed=[1, 3])["numbers"]
    assert find_number(numbers, "rank", 1)["value"] == pytest.approx(2 / 3)
    row = find_number(numbers, "tpir", 0.5)
    assert (row["achieved"], row["value"], row["trials"]) == (0.5, pytest.approx(2 / 3), 3)
    assert (find_number(numbers, "fta")["value"], find_number(numbers, "fta")["trials"]) == (0.4, 5)


def test_a_mate_that_failed_to_enrol_is_a_miss(identify: Make) -> None:
    # Template 1 of subject b is in the gallery and has no usable face: nothing ever finds it.
    candidate = [[0, 2], [0, 2], [2, 0], [0, 2], [2, 0]]
    score = [[0.75, 0], [0.5, 0], [0.75, 0], [0.25, 0], [0.25, 0]]
    numbers = identify(SUBJECTS, [*GALLERY, *PROBES], candidate, score)["numbers"]
    assert find_number(numbers, "rank", 2)["value"] == pytest.approx(2 / 3)
    assert find_number(numbers, "rank", 2)["trials"] == 3


def test_where_every_template_of_the_gallery_failed_no_rate_is_defined(identify: Make) -> None:
    numbers = identify(SUBJECTS, [*GALLERY, *PROBES], [NONE] * 5, [NAN] * 5)["numbers"]
    assert np.isnan(
        [find_number(numbers, metric, at)["value"] for metric, at in (("rank", 1), ("tpir", 0.5))]
    ).all()
    assert find_number(numbers, "fta")["value"] == 0
    # Where every probe failed, and somebody may well be enrolled, each is a miss.
    numbers = identify(SUBJECTS, [*GALLERY, *PROBES], [NONE] * 5, [NAN] * 5, failed=range(5))[
        "numbers"
    ]
    assert [find_number(numbers, "rank", 1)["value"], find_number(numbers, "fta")["value"]] == [
        0,
        1,
    ]


@pytest.mark.parametrize(("subjects", "told"), [(SUBJECTS, 0), (["a", "a", "a", *SUBJECTS[3:]], 1)])
def test_a_gallery_of_one_subject_is_told(context: Make, subjects: Any, told: int) -> None:
    stage = EvaluateIdentification(IdentificationOptions(), context())
    said = stage.doubts(tables(subjects, [*GALLERY, *PROBES]))
    assert len(said) == told
    assert all("Only one subject is enrolled as 'gallery'" in each for each in said)


def test_any_template_of_the_subject_is_a_mate(identify: Make) -> None:
    roles = [(0, "gallery"), (1, "gallery"), (2, "gallery"), (3, "probe")]
    numbers = identify(["a", "b", "a", "a"], roles, [[1, 2]], [[0.75, 0.5]])["numbers"]
    assert [find_number(numbers, "rank", k)["value"] for k in (1, 2)] == [0, 1]


@pytest.mark.parametrize("replicates", [0, 6])
@pytest.mark.parametrize("probes", [[], PROBES[:3], PROBES[3:]])
def test_without_probes_of_a_kind_its_rates_are_nan(
    identify: Make, probes: Any, replicates: int
) -> None:
    roles = [*GALLERY, *probes]
    made = identify(
        SUBJECTS, roles, [[0, 1]] * len(probes), [[0.5, 0.25]] * len(probes), replicates=replicates
    )
    numbers = made["numbers"]
    assert np.isnan(find_number(numbers, "rank", 1)["value"]) == (probes != PROBES[:3])
    assert np.isnan(find_number(numbers, "tpir", 0.5)["value"])
    assert np.isnan(find_number(numbers, "fta")["value"]) == (not probes)


def a_search(seed: int) -> tuple[list[str], Any, np.ndarray, np.ndarray]:
    """Twenty probes, twelve of them of enrolled subjects, over a gallery of eight; scores tie."""
    rng = np.random.default_rng(seed)
    subjects = (
        [f"s{i}" for i in range(8)]
        + [f"s{i}" for i in rng.integers(0, 8, 12)]
        + [f"x{i // 2}" for i in range(8)]
    )
    roles = [*((i, "gallery") for i in range(8)), *((8 + i, "probe") for i in range(20))]
    score = np.round(
        rng.random((20, 8))
        + [[0.4 * (subjects[8 + p] == subjects[g]) for g in range(8)] for p in range(20)],
        1,
    )
    order = np.argsort(-score, axis=1, kind="stable")[:, :3]
    return subjects, roles, order, np.take_along_axis(score, order, axis=1)


def rates_by_hand(
    subjects: list[str], candidate: Any, score: Any, often: Any, target: float
) -> tuple[float, float, float]:
    """rank-1, rank-3 and TPIR, probe by probe, each counted as often as its subject was drawn."""
    enrolled = set(subjects[:8])
    mated, tops = [], []
    for p in range(len(candidate)):
        subject = subjects[8 + p]
        place = next((i for i, g in enumerate(candidate[p]) if subjects[g] == subject), 9)
        for _ in range(often[subject]):
            if subject in enrolled:
                mated.append((place, score[p][0]))
            else:
                tops.append(score[p][0])
    tried = [
        t
        for t in {*tops, *(s for _, s in mated), np.inf}
        if sum(top >= t for top in tops) <= target * len(tops)
    ]

    def share(hits: Any) -> float:
        return sum(hits) / len(mated) if mated else np.nan

    found = share(place == 0 and s >= min(tried) for place, s in mated) if tops else np.nan
    return share(place < 1 for place, _ in mated), share(place < 3 for place, _ in mated), found


@pytest.mark.parametrize("seed", range(4))
def test_rates_and_replicates_equal_a_count_probe_by_probe(identify: Make, seed: int) -> None:
    subjects, roles, candidate, score = a_search(seed)
    numbers = identify(
        subjects, roles, candidate, score, ranks=(1, 3), fpir=(0.25,), replicates=40, seed=seed
    )["numbers"]
    names = sorted(set(subjects))
    drawn = [
        dict(zip(names, w.tolist(), strict=True)) for w in subject_weights(len(names), 40, seed)
    ]
    rows = [
        find_number(numbers, "rank", 1),
        find_number(numbers, "rank", 3),
        find_number(numbers, "tpir", 0.25),
    ]
    once = rates_by_hand(subjects, candidate, score, dict.fromkeys(names, 1), 0.25)
    assert [row["value"] for row in rows] == pytest.approx(once)
    expected = np.array([rates_by_hand(subjects, candidate, score, often, 0.25) for often in drawn])
    for row, column in zip(rows, expected.T, strict=True):
        np.testing.assert_allclose(row["replicates"], column, atol=1e-6)


def test_cmc_is_the_rank_rate_at_every_rank_that_was_kept(identify: Make) -> None:
    subjects, roles, candidate, score = a_search(7)
    made = identify(subjects, roles, candidate, score, ranks=(1, 2, 3))
    mine = made["curves"]["curve"] == "cmc"
    assert made["curves"]["x"][mine].tolist() == [1, 2, 3]
    assert made["curves"]["y"][mine].tolist() == [
        find_number(made["numbers"], "rank", k)["value"] for k in (1, 2, 3)
    ]


def test_a_rank_beyond_the_candidates_that_were_kept_is_refused(identify: Make) -> None:
    subjects, roles, candidate, score = a_search(0)
    with pytest.raises(InvalidInput, match=r"rank 5, and search\.k kept 3 of 8 candidates"):
        identify(subjects, roles, candidate, score, ranks=(1, 5))


def test_a_rank_beyond_a_gallery_that_was_kept_whole_is_known(identify: Make) -> None:
    candidate = [[0, -1], [0, -1]]
    numbers = identify(
        ["a", "a", "x"],
        [(0, "gallery"), (1, "probe"), (2, "probe")],
        candidate,
        [[1, np.nan]] * 2,
        ranks=(10,),
    )
    assert find_number(numbers["numbers"], "rank", 10)["value"] == 1


def test_probes_of_unknown_subject_are_left_out_and_counted(identify: Make) -> None:
    subjects = [*SUBJECTS[:6], "x", ""]
    candidate = [[0, 1], [1, 2], [2, 0], [1, 0], [0, 2]]
    score = [[0.75, 0], [0.5, 0.25], [0.5, 0], [0.25, 0], [0.99, 0]]
    numbers = identify(subjects, [*GALLERY, *PROBES], candidate, score, fpir=(0.5,))["numbers"]
    row = find_number(numbers, "tpir")
    assert (row["nonmated"], row["trials"], row["value"]) == (
        1,
        3,
        1,
    )  # the best score of the unknown probe does not count
    assert find_number(numbers, "probes_unlabelled")["value"] == 1


def test_a_search_of_another_gallery_is_refused(identify: Make) -> None:
    roles = [(0, "gallery"), (1, "gallery_2"), (2, "gallery_2"), *PROBES]
    with pytest.raises(
        InvalidInput,
        match=r"gallery is 'gallery_2', and the search found templates of another gallery",
    ):
        identify(SUBJECTS, roles, [[0, 1]] * 5, [[0.5, 0.25]] * 5, gallery="gallery_2")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([(0, "galery"), *PROBES], "unknown role 'gallery': did you mean 'galery'"),
        ([(3, "gallery"), *PROBES], "template 't3' serves as 'gallery' and as 'probe'"),
    ],
)
def test_a_gallery_that_is_not_there_or_holds_a_probe_is_refused_while_planning(
    context: Make, roles: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        EvaluateIdentification(IdentificationOptions(), context()).fits(tables(SUBJECTS, roles))


def test_false_positives_are_counted_by_pairs_of_subjects_as_well(identify: Make) -> None:
    subjects = ["a", "b", "c", "x", "x", "x", "y"]
    roles = [*GALLERY, *((i, "probe") for i in range(3, 7))]
    candidate = [[0, 1], [0, 2], [1, 0], [0, 1]]
    score = [[0.75, 0], [0.5, 0], [0.25, 0], [0.125, 0]]
    numbers = identify(subjects, roles, candidate, score, fpir=(0.5, 1.0))["numbers"]
    found = [find_number(numbers, "tpir", target) for target in (0.5, 1.0)]
    assert [(row["false_matches"], row["subject_pairs"]) for row in found] == [(2, 1), (4, 3)]


def test_a_half_holds_the_probes_of_its_subjects_in_the_whole_gallery(identify: Make) -> None:
    names = [f"n{i}" for i in range(40)]
    second = in_second_half(names)
    (a, b), (x, y) = (np.array(names)[second == half][:2].tolist() for half in (False, True))
    subjects, roles = (
        [a, x, a, b, x, y],
        [(0, "gallery"), (1, "gallery"), *((i, "probe") for i in range(2, 6))],
    )
    candidate, score = (
        [[0, 1], [1, 0], [0, 1], [1, 0]],
        [[0.75, 0], [0.5, 0], [0.25, 0], [0.125, 0]],
    )
    found = {}
    for half in ("choose", "report"):
        numbers = identify(subjects, roles, candidate, score, half=half, replicates=20, ranks=(1,))[
            "numbers"
        ]
        row = find_number(numbers, "tpir")
        found[half] = (
            find_number(numbers, "rank", 1)["value"],
            row["trials"],
            row["nonmated"],
            find_number(numbers, "fta")["trials"],
        )
    # The mated probe of the second half finds the other half's subject first.
    assert found == {"choose": (1, 1, 1, 2), "report": (0, 1, 1, 2)}


def test_enrolled_templates_that_failed_are_failures_to_enrol(source: Make, context: Make) -> None:
    stage = EvaluateIdentification(
        IdentificationOptions(replicates=0, ranks=(1,), templates=True), context()
    )
    status = np.array([0, Status.EMPTY, 0, 0, Status.EMPTY, 0, 0, 0], np.uint8)
    built = Batch({"status": status, "fallback": np.arange(8) >= 6})
    lists = {
        "candidate": np.full((5, 2), 0),
        "score": np.full((5, 2), 0.5, np.float32),
        "status": status[3:],
    }
    inputs = {"candidates": source(Batch(lists)), "templates": source(built)}
    numbers = stage.compute(Work(0, 5, tables(SUBJECTS, [*GALLERY, *PROBES]), inputs))["numbers"]
    fte, fallback = find_number(numbers, "fte"), find_number(numbers, "fused_fallback")
    assert (fte["value"], fte["trials"]) == (pytest.approx(1 / 3), 3)
    assert (fallback["value"], fallback["trials"]) == (2, 8)


def test_a_gallery_that_does_not_say_which_fell_back_is_refused_before_any_work(
    context: Make,
) -> None:
    stage = EvaluateIdentification(IdentificationOptions(templates=True), context())
    stage.above = {"templates": Embed(EmbedOptions(model="given"), context())}
    with pytest.raises(
        InvalidInput, match="a step of stage 'embed', which does not say which templates fell back"
    ):
        stage.fits(tables(SUBJECTS, [*GALLERY, *PROBES]))


def test_templates_without_a_subject_are_drawn_in_neither_half(identify: Make) -> None:
    names = [f"n{i}" for i in range(40)]
    mine = next(n for n, second in zip(names, in_second_half(names), strict=True) if second)
    candidate, score = [[0, 1], [0, 1]], [[0.75, 0.25], [0.5, 0.25]]
    found = []
    roles = [(0, "gallery"), (1, "gallery"), (2, "probe"), (3, "probe")]
    for unknown in (0, 8):
        subjects = [
            mine,
            mine,
            mine,
            next(n for n in names if n != mine and in_second_half([n])[0]),
            *[""] * unknown,
        ]
        made = identify(subjects, roles, candidate, score, half="report", replicates=9)
        found.append(find_number(made["numbers"], "rank", 1)["replicates"])
    np.testing.assert_array_equal(*found)
