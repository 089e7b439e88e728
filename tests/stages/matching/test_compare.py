"""compare: cosines against a float64 dot product, the same to the last bit in whatever shard they
fall.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from helped import compute
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Options, Work
from pipeline.plan.dataset import Dataset
from pipeline.plan.shard_tables import tables_of_shard
from stages.matching import compare as module
from stages.matching.compare import TILE_ROWS, Compare
from stages.tables.pair_layouts import Triangle
from stages.tables.schemas import SCORES
from stages.tables.tables import LAYOUT, ProtocolLists, build_tables, singletons

Make = Callable[..., Any]
properties = settings(deadline=None, max_examples=25)


def templates(rows: int, width: int = 7, failed: Any = (), seed: int = 0) -> Batch:
    """Templates that are not of unit length, as embeddings are not; failed ones hold nan."""
    rng = np.random.default_rng(seed)
    embedding = (rng.standard_normal((rows, width)) * rng.uniform(0.1, 30, (rows, 1))).astype(
        np.float32
    )
    status = np.zeros(rows, np.uint8)
    for i in failed:
        status[i], embedding[i] = Status.EMPTY, np.nan
    return Batch({"status": status, "embedding": embedding})


def tables(
    rows: int, pairs: Any = (), roles: Any = (), product: bool = False, triangle: Any = None
) -> dict[str, Batch]:
    """A list of pairs, every reference with every probe, or all pairs of the rows `triangle`, in
    their order.
    """
    roles = roles if triangle is None else [(i, "face") for i in triangle]
    names = [f"t{i}" for i in range(rows)]
    found = ProtocolLists(
        face_id=names,
        path=[""] * rows,
        sha256=[""] * rows,
        subject=names,
        comparison_a=[names[a] for a, _ in pairs],
        comparison_b=[names[b] for _, b in pairs],
        mated=[False] * len(pairs),
        role_template=[names[i] for i, _ in roles],
        role=[role for _, role in roles],
        all_pairs=("reference", "probe")
        if product
        else None
        if triangle is None
        else ("face", "face"),
        **singletons(names, names),
    )
    return build_tables(found, "a set")


def compare(
    source: Make,
    context: Make,
    made: dict[str, Batch],
    batch: Batch,
    shards: int = 10**9,
    cuts: Any = (),
) -> np.ndarray:
    """All scores, computed in shards of `shards` comparisons."""
    dataset = Dataset("", made, LAYOUT.axes(made, {"comparisons": shards}), LAYOUT, None)
    stage, scores = Compare(Options(), context()), []
    for start, stop in dataset.axes["comparisons"].shards:
        work = Work(
            start,
            stop,
            tables_of_shard(stage, dataset, start, stop),
            {"templates": source(batch, *cuts)},
        )
        scores.append(SCORES.check(compute(stage, work)[""])["score"])
    return np.concatenate(scores)


def a_list(rows: int, count: int) -> dict[str, Batch]:
    """Random comparisons, in no order, of templates with each other."""
    return tables(rows, np.random.default_rng(rows).integers(0, rows, (count, 2)).tolist())


def slow(batch: Batch, a: int, b: int) -> float:
    x, y = (batch["embedding"][i].astype(np.float64) for i in (a, b))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@properties
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 12))
def test_a_list_and_a_product_equal_a_float64_cosine(
    source: Make, context: Make, seed: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    batch = templates(rows, failed=rng.permutation(rows)[: rows // 4], seed=seed)
    a, b = (rng.integers(0, rows, rng.integers(1, 8)).tolist() for _ in "ab")
    product = [(i, j) for i in a for j in b]
    expected = [slow(batch, i, j) for i, j in product]
    listed = compare(source, context, tables(rows, product), batch)
    roles = [*((i, "reference") for i in a), *((j, "probe") for j in b)]
    multiplied = compare(source, context, tables(rows, roles=roles, product=True), batch)
    np.testing.assert_allclose(listed, expected, atol=1e-6)
    np.testing.assert_allclose(multiplied, expected, atol=1e-6)


@properties
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(0, 12),
    shard=st.integers(1, 20),
    one_span=st.booleans(),
)
def test_all_pairs_of_a_role_score_as_the_list_of_them_does(
    source: Make, context: Make, seed: int, rows: int, shard: int, one_span: bool
) -> None:
    rng = np.random.default_rng(seed)
    batch = templates(12, failed=rng.permutation(12)[:3], seed=seed)
    role = np.arange(12 - rows, 12) if one_span else rng.permutation(12)[:rows]
    made, pairs = tables(12, triangle=role), list(combinations(role.tolist(), 2))
    whole = compare(source, context, made, batch)
    np.testing.assert_allclose(whole, [slow(batch, i, j) for i, j in pairs], atol=1e-6)
    np.testing.assert_allclose(whole, compare(source, context, tables(12, pairs), batch), atol=1e-6)
    assert np.array_equal(
        compare(source, context, made, batch, shards=shard), whole, equal_nan=True
    )


@pytest.mark.parametrize("columns", [module.TILE_COLUMNS, 200])
@pytest.mark.parametrize("width", [7, 128])
def test_shards_of_all_pairs_of_a_role_change_no_bit(
    source: Make, context: Make, monkeypatch: pytest.MonkeyPatch, width: int, columns: int
) -> None:
    monkeypatch.setattr(module, "TILE_COLUMNS", columns)
    rows = 2 * TILE_ROWS + 37
    batch, role = (
        templates(rows, width, failed=[5, TILE_ROWS, rows - 1]),
        np.random.default_rng(0).permutation(rows),
    )
    made, size = tables(rows, triangle=role), rows * (rows - 1) // 2
    whole = compare(source, context, made, batch)
    for shards in (40_009, size - 1):
        assert np.array_equal(
            compare(source, context, made, batch, shards=shards), whole, equal_nan=True
        )
    a, b = Triangle(role).templates(some := np.arange(0, size, 991))
    np.testing.assert_allclose(
        whole[some], [slow(batch, *pair) for pair in zip(a, b, strict=True)], atol=1e-6
    )


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_of_a_role_of_few_templates_there_are_few_pairs(
    source: Make, context: Make, rows: int
) -> None:
    assert compare(source, context, tables(3, triangle=range(rows)), templates(3)).shape == (
        rows == 2,
    )


def test_a_failure_of_all_pairs_of_a_role_says_on_which_side_it_is(
    source: Make, context: Make
) -> None:
    made, batch = tables(4, triangle=[2, 0, 3, 1]), templates(4, failed=[0, 1])
    found = compute(Compare(Options(), context()), Work(0, 6, made, {"templates": source(batch)}))[
        ""
    ]
    #                                   20 23 21 03 01 31
    assert found["failed"].tolist() == [2, 0, 2, 1, 3, 2]
    assert np.isnan(found["score"]).tolist() == [True, False, True, True, True, True]


def test_a_comparison_with_a_failed_template_scores_nan_and_no_other_does(
    source: Make, context: Make
) -> None:
    batch, pairs = templates(4, failed=[1]), [(0, 1), (1, 2), (1, 1), (0, 2), (3, 0)]
    assert np.isnan(compare(source, context, tables(4, pairs), batch)).tolist() == [
        True,
        True,
        True,
        False,
        False,
    ]
    roles = [(0, "reference"), (1, "reference"), (1, "probe"), (2, "probe"), (3, "probe")]
    assert (
        np.isnan(compare(source, context, tables(4, roles=roles, product=True), batch)).tolist()
        == [True, False, False] + [True] * 3
    )


def test_a_failed_row_that_holds_numbers_scores_nan(source: Make, context: Make) -> None:
    batch = templates(2)
    batch = Batch({**batch.columns, "status": np.array([0, Status.FAILED], np.uint8)})
    assert np.isnan(compare(source, context, tables(2, [(0, 1)]), batch)).all()


FORMS = {
    "a list": {"pairs": list(combinations(range(4), 2))},
    "all pairs of a role": {"triangle": range(4)},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_template_of_zeros_that_is_ok_scores_0_and_one_that_failed_nan(
    source: Make, context: Make, form: str
) -> None:
    batch = Batch(
        {
            "status": np.array([0, 0, Status.EMPTY, 0], np.uint8),
            "embedding": np.float32([[0, 0], [-3, 4], [0, 0], [-0.6, 0.8]]),
        }
    )
    scores = compare(source, context, tables(4, **FORMS[form]), batch)
    np.testing.assert_allclose(scores, [0, np.nan, 0, np.nan, 1, np.nan], atol=1e-6)
    assert (scores[[0, 2]] == 0).all()
    assert not np.signbit(scores[[0, 2]]).any()


def test_a_template_of_zeros_scores_0_with_all_of_another_role(source: Make, context: Make) -> None:
    batch = Batch(
        {"status": np.zeros(3, np.uint8), "embedding": np.float32([[0, 0], [3, 4], [0, 0]])}
    )
    made = tables(
        3, roles=[(0, "reference"), (1, "reference"), (1, "probe"), (2, "probe")], product=True
    )
    scores = compare(source, context, made, batch)
    np.testing.assert_allclose(scores, [0, 0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("width", [7, 128, 512])
def test_shards_of_a_product_change_no_bit(source: Make, context: Make, width: int) -> None:
    references, probes = 2 * TILE_ROWS + 37, 61
    rows = references + probes
    batch = templates(rows, width, failed=[5, references + 3])
    made = tables(
        rows,
        roles=[(i, "reference" if i < references else "probe") for i in range(rows)],
        product=True,
    )
    whole = compare(source, context, made, batch)
    for lines in (1, 7, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1, 2 * TILE_ROWS):
        assert np.array_equal(
            compare(source, context, made, batch, shards=lines * probes), whole, equal_nan=True
        )


@pytest.mark.parametrize(
    "rows", [50, 600, 3000]
)  # a list of 1,200: dense, dense over several tiles, sparse
def test_shards_of_a_list_change_no_bit(source: Make, context: Make, rows: int) -> None:
    made, batch = a_list(rows, 1200), templates(rows, 128, failed=[3, 40])
    whole = compare(source, context, made, batch)
    for shards in (61, 500, 1199):
        assert np.array_equal(
            compare(source, context, made, batch, shards=shards), whole, equal_nan=True
        )


def test_a_list_of_all_pairs_scores_as_the_product_does(source: Make, context: Make) -> None:
    references, probes = TILE_ROWS + 30, 90
    rows = references + probes
    batch = templates(rows, 128, failed=[7, references + 3])
    roles = [(i, "reference" if i < references else "probe") for i in range(rows)]
    expected = compare(source, context, tables(rows, roles=roles, product=True), batch)
    pairs = [(i, references + j) for i in range(references) for j in range(probes)]
    assert np.array_equal(
        compare(source, context, tables(rows, pairs), batch), expected, equal_nan=True
    )


@pytest.mark.parametrize("block", [module.COMPARISONS_ORDERED, 100])
@pytest.mark.parametrize("width", [module.TILE_COLUMNS, 64])
def test_the_order_of_a_list_changes_no_bit(
    source: Make, context: Make, monkeypatch: pytest.MonkeyPatch, width: int, block: int
) -> None:
    monkeypatch.setattr(module, "TILE_COLUMNS", width)
    monkeypatch.setattr(module, "COMPARISONS_ORDERED", block)
    made, batch = (
        a_list(2 * TILE_ROWS + 90, 15_000),
        templates(2 * TILE_ROWS + 90, 32, failed=[600]),
    )
    rows = made["comparisons"]
    sorted_by_tile = compare(
        source, context, {**made, "comparisons": rows.take(np.argsort(rows["a"]))}, batch
    )
    scores, order = compare(source, context, made, batch), np.argsort(rows["a"])
    assert np.array_equal(scores[order], sorted_by_tile, equal_nan=True)
    some = np.arange(0, rows.rows, 301)
    expected = [slow(batch, rows["a"][i], rows["b"][i]) for i in some]
    np.testing.assert_allclose(scores[some], expected, atol=1e-6)


def test_a_score_of_a_sparse_list_does_not_depend_on_the_rest_of_the_list(
    source: Make, context: Make
) -> None:
    made, batch = a_list(3000, 1200), templates(3000, 128)
    scores = compare(source, context, made, batch)
    for some in (slice(0, 600), slice(700, 701)):
        part = {**made, "comparisons": made["comparisons"].take(some)}
        if some.stop - some.start > 1:
            assert np.array_equal(compare(source, context, part, batch), scores[some])
        else:  # one comparison is all the pairs of its sides
            np.testing.assert_allclose(
                compare(source, context, part, batch), scores[some], atol=1e-6
            )


def test_shards_of_the_templates_change_no_bit(source: Make, context: Make) -> None:
    batch, pairs = templates(20, 128), [(i, 19 - i) for i in range(20)]
    whole = compare(source, context, tables(20, pairs), batch)
    assert np.array_equal(
        compare(source, context, tables(20, pairs), batch, cuts=(1, 9, 10)), whole
    )


def test_a_templates_score_does_not_depend_on_other_templates(source: Make, context: Make) -> None:
    batch, roles = templates(40, 128), [(i, "reference" if i < 30 else "probe") for i in range(40)]
    made = tables(40, roles=roles, product=True)
    before = compare(source, context, made, batch).reshape(30, 10)
    embedding = batch["embedding"].copy()
    embedding[:20] = 1
    after = compare(
        source, context, made, Batch({**batch.columns, "embedding": embedding})
    ).reshape(30, 10)
    assert np.array_equal(after[20:], before[20:])


def test_no_comparisons_give_no_scores(source: Make, context: Make) -> None:
    assert compare(source, context, tables(2), templates(2)).shape == (0,)


def test_all_pairs_of_a_role_that_no_template_has_give_no_scores(
    source: Make, context: Make
) -> None:
    for role in ("reference", "probe"):
        assert compare(
            source, context, tables(2, roles=[(0, role)], product=True), templates(2)
        ).shape == (0,)


@pytest.mark.parametrize("form", ["list", "sparse list", "product"])
def test_equal_templates_have_equal_scores_wherever_they_stand(
    source: Make, context: Make, form: str
) -> None:
    batch, rng = templates(400, 512, seed=7), np.random.default_rng(7)
    copies = rng.permutation(np.arange(1, 400))[:150]
    batch["embedding"][copies] = batch["embedding"][0]
    others = np.setdiff1d(np.arange(400), [0, *copies])
    pairs = [(int(i), int(j)) for i in (0, *copies) for j in others]
    if form == "product":
        roles = [
            *((int(i), "reference") for i in (0, *copies)),
            *((int(j), "probe") for j in others),
        ]
        made = tables(400, roles=roles, product=True)
    else:
        made = tables(400, pairs if form == "list" else rng.permutation(pairs)[:300].tolist())
    found = compare(source, context, made, batch)
    expected = {int(j): slow(batch, 0, j) for j in others}
    score = {
        int(j): {
            x
            for x, (_, b) in zip(found.tolist(), listing(made, pairs, form), strict=True)
            if b == j
        }
        for j in others
    }
    assert all(len(values) <= 1 for values in score.values())
    assert all(abs(value - expected[j]) < 1e-7 for j, values in score.items() for value in values)


def listing(made: dict[str, Batch], pairs: Any, form: str) -> Any:
    return (
        pairs
        if form == "product"
        else list(zip(made["comparisons"]["a"], made["comparisons"]["b"], strict=True))
    )


def test_the_two_sides_of_a_comparison_may_be_swapped(source: Make, context: Make) -> None:
    batch, pairs = templates(90, 512, seed=8), np.random.default_rng(8).integers(0, 90, (4000, 2))
    there, back = (
        compare(source, context, tables(90, each.tolist()), batch)
        for each in (pairs, pairs[:, ::-1])
    )
    np.testing.assert_array_equal(there, back)
