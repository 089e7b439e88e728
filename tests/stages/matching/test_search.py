"""search against a sort of every score, in whole numbers: small galleries and large, by FAISS and
torch, ties included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import faiss
import numpy as np
import pytest
from helped import compute
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Work
from stages.exact import vectors
from stages.exact.grid import GRID
from stages.matching import candidates, search
from stages.matching.compare import TILE_ROWS
from stages.matching.search import Search, SearchOptions
from stages.tables.schemas import CANDIDATES

Make = Callable[..., Any]
WAYS = ("tiles", "faiss", "torch")  # of a small gallery, and of a large one by back end


class Set:
    """Templates with their roles: row i of `roles` says in which of (gallery, probe) template i
    serves.
    """

    def __init__(self, embedding: Any, gallery: Any, probes: Any, failed: Any = ()) -> None:
        embedding = np.array(embedding, np.float32)
        status = np.zeros(len(embedding), np.uint8)
        for i in failed:
            status[i], embedding[i] = Status.EMPTY, np.nan
        self.templates = Batch({"status": status, "embedding": embedding})
        self.gallery, self.probes = [int(i) for i in gallery], [int(i) for i in probes]
        rows = np.array([*self.gallery, *self.probes], np.int64)
        self.roles = Batch(
            {
                "template": rows,
                "role": text(["gallery"] * len(self.gallery) + ["probe"] * len(self.probes)),
            }
        )

    def search(self, source: Make, context: Make, way: str, k: int, shards: int = 10**9) -> Batch:
        stage = Search(
            SearchOptions(k=k, backend="torch" if way == "torch" else "faiss"), context()
        )
        parts = []
        for start in range(0, max(1, len(self.probes)), shards):
            work = Work(
                start,
                min(start + shards, len(self.probes)),
                {"roles": self.roles},
                {"templates": source(self.templates)},
            )
            with patch.object(
                search, "SMALL_GALLERY", search.SMALL_GALLERY if way == "tiles" else -1
            ):
                parts.append(CANDIDATES.check(compute(stage, work)[""]))
        return Batch({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def slow(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores by sorting the whole gallery for every probe by (−score, row)."""
        steps = (vectors.units(self.templates["embedding"]).astype(np.float64) / GRID).astype(
            np.int64
        )
        products = steps[self.probes] @ steps.T  # of whole numbers
        usable = self.templates["status"] == Status.OK
        rows, scores = (
            np.full((len(self.probes), k), -1),
            np.full((len(self.probes), k), np.nan, np.float32),
        )
        for p, probe in enumerate(self.probes):
            if usable[probe]:
                # Scores are stored as float32 within −1…1, and a tie is a tie of what is stored.
                score = np.clip((products[p] * GRID**2).astype(np.float32), -1, 1)
                all_scores = [(-score[g], g) for g in {*self.gallery} if usable[g]]
                for place, (score, g) in enumerate(sorted(all_scores)[:k]):
                    rows[p, place], scores[p, place] = g, -score
        return rows, scores


def check(found: Batch, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found["candidate"], expected[0])
    np.testing.assert_array_equal(found["score"], expected[1])


def drawn(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    distinct=st.integers(1, 6),
    enrolled=st.integers(0, 60),
    probes=st.integers(0, 6),
    failed=st.floats(0, 1),
    k=st.integers(1, 8),
)
def test_every_way_equals_a_sort_of_all_scores(
    source: Make,
    context: Make,
    seed: int,
    distinct: int,
    enrolled: int,
    probes: int,
    failed: float,
    k: int,
) -> None:
    rng = np.random.default_rng(seed)
    rows = enrolled + probes
    # Few distinct vectors: most scores tie with many others.
    embedding = drawn(distinct, seed=seed)[rng.integers(0, distinct, rows)]
    lost = np.flatnonzero(rng.random(rows) < failed / 2)
    made = Set(embedding, rng.permutation(enrolled), enrolled + rng.permutation(probes), lost)
    expected = made.slow(k)
    for way in WAYS:
        check(made.search(source, context, way, k), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("same", [5, 40, 300])
def test_identical_templates_come_in_the_order_of_their_rows(
    source: Make, context: Make, way: str, same: int
) -> None:
    best = drawn(1, seed=1)
    gallery = np.concatenate([drawn(50, seed=2), np.repeat(best, same, axis=0), drawn(50, seed=3)])
    made = Set(
        np.concatenate([gallery, best]),
        np.random.default_rng(4).permutation(len(gallery)),
        [len(gallery)],
    )
    found = made.search(source, context, way, k=5)
    assert found["candidate"].tolist() == [[50, 51, 52, 53, 54]]
    check(found, made.slow(5))


@pytest.mark.parametrize("way", WAYS)
def test_ties_with_the_last_place_are_decided_by_row(source: Make, context: Make, way: str) -> None:
    # Two places are certain; 60 identical templates, far more than is selected at first, contend
    # for the other two.
    probe, other = np.eye(16)[0], np.eye(16)[0] + np.eye(16)[1]
    embedding = np.stack([*[other] * 30, probe, *[other] * 30, probe, probe])
    made = Set(embedding, range(62), [62])
    assert made.search(source, context, way, k=4)["candidate"].tolist() == [[30, 61, 0, 1]]


@pytest.mark.parametrize("way", WAYS)
def test_a_gallery_smaller_than_k_pads_with_no_candidate(
    source: Make, context: Make, way: str
) -> None:
    made = Set(drawn(5), range(3), [3, 4])
    found = made.search(source, context, way, k=7)
    assert (found["candidate"][:, :3] >= 0).all()
    assert (found["candidate"][:, 3:] == -1).all()
    assert np.isnan(found["score"][:, 3:]).all()
    check(found, made.slow(7))


@pytest.mark.parametrize("way", WAYS)
def test_a_gallery_of_one_and_of_none(source: Make, context: Make, way: str) -> None:
    check(
        Set(drawn(3), [1], [0, 2]).search(source, context, way, k=2),
        Set(drawn(3), [1], [0, 2]).slow(2),
    )
    for nobody in (Set(drawn(2), [], [0, 1]), Set(drawn(3), [2], [0, 1], failed=[2])):
        found = nobody.search(source, context, way, k=2)
        assert (found["candidate"] == -1).all()
        assert np.isnan(found["score"]).all()
        assert (found["status"] == Status.OK).all()


@pytest.mark.parametrize("way", WAYS)
def test_failed_templates_are_never_candidates_and_failed_probes_have_none(
    source: Make, context: Make, way: str
) -> None:
    made = Set(drawn(8), range(5), [5, 6, 7], failed=[2, 6])
    found = made.search(source, context, way, k=5)
    assert 2 not in found["candidate"]
    assert found["status"].tolist() == [Status.OK, Status.EMPTY, Status.OK]
    assert (found["candidate"][1] == -1).all()
    check(found, made.slow(5))


@pytest.mark.parametrize("way", WAYS)
def test_a_template_listed_twice_in_the_gallery_is_one_candidate(
    source: Make, context: Make, way: str
) -> None:
    found = Set(drawn(3), [0, 1, 0, 0], [2]).search(source, context, way, k=4)
    assert sorted(found["candidate"][0].tolist()) == [-1, -1, 0, 1]


def crowd() -> Set:
    """700 enrolled and 600 probes around 40 centres, many of them identical; some failed."""
    rng = np.random.default_rng(9)
    centres = drawn(40, 128, seed=9)
    embedding = centres[rng.integers(0, 40, 1300)] + rng.standard_normal((1300, 128)) * 0.05
    embedding[::7] = embedding[3]
    return Set(embedding, range(700), range(700, 1300), failed=[11, 750])


def test_shards_of_probes_and_the_back_end_change_no_bit(source: Make, context: Make) -> None:
    made = crowd()
    whole = made.search(source, context, "tiles", k=20)
    check(whole, made.slow(20))
    for way in WAYS:
        for shards in (199, TILE_ROWS):
            assert made.search(source, context, way, k=20, shards=shards).digest() == whole.digest()


@pytest.mark.parametrize("lost", [20, 900])
def test_a_template_that_fails_moves_no_bit_of_the_other_lists(
    source: Make, context: Make, lost: int
) -> None:
    made = crowd()
    before = made.search(source, context, "tiles", k=20)
    made.templates["status"][lost], made.templates["embedding"][lost] = Status.EMPTY, np.nan
    after = made.search(source, context, "tiles", k=20)
    kept = ~(before["candidate"] == lost).any(axis=1) & (np.array(made.probes) != lost)
    assert 500 < kept.sum() < 600
    for name in before:
        assert np.array_equal(after[name][kept], before[name][kept], equal_nan=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_template_of_zeros_that_is_ok_scores_0_with_everyone(
    source: Make, context: Make, way: str
) -> None:
    embedding = drawn(6)
    embedding[[1, 4]] = 0
    given = Set(embedding, range(3), range(3, 6))
    found = given.search(source, context, way, k=3)
    check(found, given.slow(3))
    assert found["candidate"][1].tolist() == [0, 1, 2]
    assert (found["score"][1] == 0).all()
    assert (found["score"][found["candidate"] == 1] == 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_template_of_zeros_that_failed_is_no_candidate_and_has_none(
    source: Make, context: Make, way: str
) -> None:
    given = Set(drawn(6), range(3), range(3, 6), failed=[1, 4])
    held = np.nan_to_num(given.templates["embedding"])
    given.templates = Batch({"status": given.templates["status"], "embedding": held})
    found = given.search(source, context, way, k=3)
    assert 1 not in found["candidate"]
    assert (found["candidate"] >= 0).sum(axis=1).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    "select",
    [
        candidates.with_numpy,
        partial(candidates.with_torch, half=False),
        partial(candidates.with_torch, half=True),
        partial(candidates.with_torch, device="cpu"),  # as on a GPU
    ],
)
def test_products_of_lower_precision_select_the_same_lists(select: Make) -> None:
    rng = np.random.default_rng(2)
    gallery = vectors.units(rng.standard_normal((5000, 32)) + 0.5)
    probes = vectors.units(gallery[:20] + rng.standard_normal((20, 32)) * 0.02)
    expected = search._top_of_all(gallery, probes, 9)
    small = {"COLUMNS_AT_ONCE": 1000, "GPU_COLUMNS": 1500, "GPU_PROBES": 7}
    with patch.multiple(candidates, **small):
        found = search.exact_top(gallery, probes, 9, select(gallery))
    for ours, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize(
    "select",
    [
        candidates.with_numpy,
        candidates.with_faiss,
        candidates.with_torch,
        partial(candidates.with_torch, device="cpu"),
    ],
)
def test_a_probe_with_too_many_candidates_is_left_to_the_exact_product(select: Make) -> None:
    rng = np.random.default_rng(3)
    gallery = np.repeat(vectors.units(rng.standard_normal((1, 8))), 400, axis=0)
    probes = np.concatenate([gallery[:2], vectors.units(rng.standard_normal((2, 8)))])
    with patch.object(candidates, "CROWD", 50):
        assert select(gallery)(probes, 3).crowded.all()
        rows, scores = search.exact_top(gallery, probes, 3, select(gallery))
    assert (rows == [0, 1, 2]).all()
    assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("k", [9, 30])
def test_faiss_is_asked_on_a_gpu_for_no_longer_list_than_it_makes(
    monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    """On a stand-in: the index that FAISS would put on a GPU, which refuses longer lists."""

    class Index(faiss.IndexFlatIP):
        def search(self, probes: Any, reach: int) -> Any:
            assert reach <= 30
            return super().search(probes, reach)

    def moved(resources: Any, device: int, index: Any) -> Any:
        found = Index(index.d)
        found.add(index.reconstruct_n(0, index.ntotal))
        return found

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", moved, raising=False)
    monkeypatch.setattr(candidates, "GPU_REACH", 30)
    gallery = np.repeat(vectors.units(drawn(50, 8)), 12, axis=0)  # more than 30 tie with the k-th
    probes = vectors.units(drawn(6, 8, seed=1))
    found = search.exact_top(gallery, probes, k, candidates.with_faiss(gallery, device="cuda"))
    for ours, right in zip(found, search._top_of_all(gallery, probes, k), strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("way", WAYS)
def test_a_profile_for_a_gpu_changes_no_bit_with_or_without_one(
    source: Make, context: Make, way: str
) -> None:
    made = crowd()
    on_gpu = partial(context, profile="cuda-fp32")
    check(made.search(source, on_gpu, way, k=20), made.slow(20))


def test_faiss_by_itself_leaves_the_order_of_ties_open() -> None:
    # What the second scoring of large galleries is for. If this fails, FAISS has changed.
    same = np.repeat(np.float32([[0.6, 0.8]]), 5, axis=0)
    index = faiss.IndexFlatIP(2)
    index.add(same)
    assert index.search(same[:1], 5)[1].tolist() != [[0, 1, 2, 3, 4]]
