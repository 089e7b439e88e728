"""A source gives rows of its shards in any order, and holds no more than one shard beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, text
from pipeline.core.stage import Source
from pipeline.errors import InvalidInput

WHOLE = Batch(
    {
        "number": np.arange(10),
        "wide": np.arange(30.0).reshape(10, 3),
        "name": text(f"n{i}" for i in range(10)),
    }
)
BOUNDS = [(0, 4), (4, 4), (4, 7), (7, 10)]


def source(*without: int) -> Source:
    """Ten rows in four shards, one of them empty; shards in `without` lack a column."""

    def read(i: int, columns: object) -> Batch:
        part = WHOLE.take(slice(*BOUNDS[i]))
        return part.select(
            ["number", "wide"] if i in without else columns or ["number", "wide", "name"]
        )

    return Source(tuple(a for a, _ in BOUNDS), tuple(b for _, b in BOUNDS), read)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.integers(0, 9), max_size=30))
def test_rows_come_in_the_order_that_was_asked_for(rows: list[int]) -> None:
    index = np.array(rows, np.int64)
    assert source().take(index).digest() == WHOLE.take(index).digest()


def test_a_span_of_one_shard_is_no_copy() -> None:
    found = source().take(np.array([1, 2, 3]))
    assert np.shares_memory(found["wide"], WHOLE["wide"])


def test_shards_of_different_columns_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different columns"):
        source(2).take(np.array([0, 5]))
