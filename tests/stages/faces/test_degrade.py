"""degrade: what is spoilt, and how, is drawn from the seed and the face's id and from nothing
else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, Status, text
from stages.faces.degrade import DEGRADATIONS, DEGRADED, Degrade, DegradeOptions, degrade

Make = Callable[..., Any]
FACES = 60


@pytest.fixture(scope="module")
def crops() -> Batch:
    """Smooth crops with an edge in them, every seventh failed."""
    y, x = np.mgrid[:112, :112]
    rng = np.random.default_rng(0)
    crop = [
        128
        + 60 * np.sin(x / rng.uniform(3, 9) + rng.uniform(0, 6))
        + 40 * (y > rng.integers(30, 80))
        for _ in range(FACES)
    ]
    crop = np.repeat(np.array(crop)[..., None], 3, axis=3).clip(0, 255).astype(np.uint8)
    status = np.zeros(FACES, np.uint8)
    status[::7] = Status.NOT_FOUND
    crop[::7] = 0
    return Batch({"status": status, "crop": crop})


@pytest.fixture(scope="module")
def spoil(crops: Batch, context: Make) -> Callable[..., Batch]:
    """Degrade the given rows of `crops`."""

    def run(rows: Any = range(FACES), ids: Any = None, **options: Any) -> Batch:
        rows = np.array(rows, np.int64)
        table = Batch({"face_id": text(ids or [f"face {i}" for i in rows])})
        stage = Degrade(DegradeOptions(**options), context())
        return DEGRADED.check(stage.run(table, {"crops": crops.take(rows)}, None)[""])

    return run


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, FACES - 1), max_size=12))
def test_order_shards_and_neighbours_change_nothing(spoil: Make, rows: list[int]) -> None:
    assert spoil(rows).digest() == spoil().take(np.array(rows, np.int64)).digest()


def test_the_seed_and_the_id_decide(spoil: Make) -> None:
    first, other_seed, other_ids = (
        spoil(),
        spoil(seed=1),
        spoil(ids=[f"g{i}" for i in range(FACES)]),
    )
    assert spoil(seed=0).digest() == first.digest()
    for other in (other_seed, other_ids):
        assert np.mean(other["kind"] != first["kind"]) > 0.3


def test_a_fraction_of_zero_changes_nothing_and_one_changes_every_usable_crop(
    spoil: Make, crops: Batch
) -> None:
    none, every = spoil(fraction=0), spoil(fraction=1)
    assert np.array_equal(none["crop"], crops["crop"])
    assert set(none["kind"]) == {""}
    usable = crops["status"] == Status.OK
    assert set(every["kind"][usable]) == set(DEGRADATIONS)
    assert not (every["crop"][usable] == crops["crop"][usable]).all(axis=(1, 2, 3)).any()


def test_failed_crops_stay_failed_and_as_they_are(spoil: Make, crops: Batch) -> None:
    every = spoil(fraction=1)
    assert np.array_equal(every["status"], crops["status"])
    assert not every["crop"][::7].any()
    assert set(every["kind"][::7]) == {""}


def test_a_larger_fraction_spoils_more_faces_and_the_same_ones_alike(spoil: Make) -> None:
    some, more = spoil(fraction=0.4), spoil(fraction=0.8)
    spoilt = some["kind"] != ""
    assert 0 < spoilt.sum() < (more["kind"] != "").sum()
    assert np.array_equal(more["kind"][spoilt], some["kind"][spoilt])
    assert np.array_equal(more["crop"][spoilt], some["crop"][spoilt])


def test_the_crops_read_are_left_as_they_were(spoil: Make, crops: Batch) -> None:
    before = crops.digest()
    spoil(fraction=1)
    assert crops.digest() == before


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_each_kind_loses_what_it_says(crops: Batch, kind: str) -> None:
    clean = crops["crop"][1]
    for seed in range(5):
        spoilt = degrade(clean, kind, np.random.default_rng(seed))
        assert spoilt.shape == clean.shape
        assert spoilt.dtype == np.uint8
        if kind == "block":
            same = (spoilt == clean).all(axis=2)
            hidden = 1 - same.mean()
            assert 0.2 < hidden < 0.55  # sides of 0.5 to 0.72: a quarter to a half
            assert len(np.unique(spoilt[~same].reshape(-1, 3), axis=0)) == 1
        elif kind == "dark_noise":
            assert spoilt.mean() < 0.35 * clean.mean()
        else:
            assert _detail(spoilt) < 0.9 * _detail(clean)
            assert abs(spoilt.mean() - clean.mean()) < 5


def _detail(crop: np.ndarray) -> float:
    return float(np.abs(np.diff(crop.astype(np.float64), axis=1)).mean())
