"""What `pipeline.core.schema` promises about columns, batches, their digests and text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import (
    Batch,
    Field,
    Schema,
    Status,
    concat,
    decode_text,
    encode_text,
    status_counts,
    text,
)
from pipeline.errors import InvalidInput

SCORES = Schema(
    "scores",
    (
        Field("status", "uint8"),
        Field("reason", "text"),
        Field("vector", "float32", (None, 2)),
        Field("box", "int64", (4,), optional=True),
    ),
    finite=("vector",),
)
ANY_TEXT = st.text(st.characters(), max_size=12)  # surrogates included


def scores(rows: int = 3, **changed: object) -> Batch:
    columns = {
        "status": np.zeros(rows, np.uint8),
        "reason": text([""] * rows),
        "vector": np.zeros((rows, 5, 2), np.float32),
        **changed,
    }
    return Batch({name: column for name, column in columns.items() if column is not None})  # type: ignore[misc]


def test_a_batch_of_the_schemas_columns_passes_with_and_without_the_optional_ones() -> None:
    assert SCORES.check(scores()).rows == 3
    assert SCORES.check(scores(box=np.zeros((3, 4), np.int64))).rows == 3


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"reason": None}, "expected a column 'reason', found status, vector"),
        ({"rason": text("abc")}, "unknown column of scores 'rason': did you mean 'reason'?"),
        (
            {"status": np.zeros(3, np.int64)},
            "'status' should be uint8 with rows of shape (), found int64",
        ),
        ({"status": np.zeros(3, ">u2")}, "'status' should be uint8"),
        (
            {"vector": np.zeros((3, 5, 3), np.float32)},
            "rows of shape (None, 2), found float32 with rows of shape (5, 3)",
        ),
        ({"vector": np.zeros((3, 2), np.float32)}, "found float32 with rows of shape (2,)"),
        ({"box": np.zeros((3, 5), np.int64)}, "'box' should be int64 with rows of shape (4,)"),
        ({"reason": np.array(["", "", 7], dtype=object)}, "'reason' should hold text, found 7"),
        ({"reason": np.zeros(3)}, "'reason' should be text"),
    ],
)
def test_a_wrong_column_is_named_with_what_was_expected_and_found(
    changed: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        SCORES.check(scores(**changed), "embed.npz")
    assert sentence in str(caught.value)


def test_a_wrong_column_is_located_by_the_name_of_its_source() -> None:
    with pytest.raises(InvalidInput, match=r"^shard 7: column 'status'"):
        SCORES.check(scores(status=np.zeros(3)), "shard 7")


def test_columns_of_different_lengths_make_no_batch() -> None:
    with pytest.raises(InvalidInput, match="one length"):
        Batch({"a": np.zeros(2), "b": np.zeros(3)})


def test_a_batch_without_columns_has_no_rows() -> None:
    assert Batch({}).rows == 0


def test_an_unknown_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'vector'"):
        scores()["vektor"]
    with pytest.raises(InvalidInput, match="did you mean 'status'"):
        scores().select(["statsu"])


def test_a_text_column_has_no_row_shape() -> None:
    with pytest.raises(ValueError, match="one string"):
        Field("name", "text", (2,))


def test_blank_rows_stand_for_no_value_and_say_why() -> None:
    blank = SCORES.blank(2, scores(), Status.MISSING, "no such file")
    assert SCORES.check(blank).rows == 2
    assert list(blank["status"]) == [Status.MISSING] * 2
    assert list(blank["reason"]) == ["no such file"] * 2
    assert np.isnan(blank["vector"]).all()
    assert blank["vector"].shape == (2, 5, 2)
    assert "box" not in blank


@given(st.lists(st.integers(0, 19), max_size=9))
@settings(max_examples=30, deadline=None)
def test_take_gives_the_same_rows_of_every_column(rows: list[int]) -> None:
    batch = Batch({"n": np.arange(20), "s": text(range(20)), "v": np.arange(40.0).reshape(20, 2)})
    taken = batch.take(np.array(rows, dtype=np.int64))
    assert list(taken["n"]) == rows
    assert list(taken["s"]) == [str(row) for row in rows]
    assert taken["v"].tolist() == [[2 * row, 2 * row + 1] for row in rows]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.data())
@settings(max_examples=30, deadline=None)
def test_joining_consecutive_parts_gives_the_whole(sizes: list[int], data: st.DataObject) -> None:
    rows = sum(sizes)
    whole = Batch(
        {
            "n": np.arange(rows),
            "s": text(data.draw(st.lists(ANY_TEXT, min_size=rows, max_size=rows))),
        }
    )
    stops = np.cumsum(sizes)
    parts = [
        whole.take(slice(int(stop) - size, int(stop)))
        for size, stop in zip(sizes, stops, strict=True)
    ]
    assert concat(parts).digest() == whole.digest()


def test_batches_of_different_columns_are_not_joined() -> None:
    with pytest.raises(InvalidInput, match="different columns"):
        concat([Batch({"a": np.zeros(1)}), Batch({"b": np.zeros(1)})])


def test_equal_columns_have_one_digest_whatever_their_order_and_memory_layout() -> None:
    values = np.arange(12.0).reshape(4, 3)
    first = Batch({"v": values, "t": text("abcd")})
    second = Batch({"t": text("abcd"), "v": np.asfortranarray(values)})
    assert first.digest() == second.digest()
    assert (
        first.digest()
        == Batch({"t": text("xabcdx")[1:-1], "v": np.repeat(values, 2, axis=0)[::2]}).digest()
    )


@pytest.mark.parametrize(
    "other",
    [
        Batch({"v": np.array([1.0, 2.0, 3.0]), "t": text(["a", "bc", "d"])}),
        Batch({"v": np.array([1.0, 2.0, 3.0]), "u": text(["ab", "c", "d"])}),
        Batch({"v": np.array([1.0, 2.0, 3.0], np.float32), "t": text(["ab", "c", "d"])}),
        Batch({"v": np.array([[1.0], [2.0], [3.0]]), "t": text(["ab", "c", "d"])}),
        Batch({"v": np.array([1.0, 2.0, np.nextafter(3.0, 4)]), "t": text(["ab", "c", "d"])}),
        Batch({"v": np.array([1.0, 2.0, 3.0])}),
    ],
    ids=["text cut elsewhere", "column name", "dtype", "shape", "last bit", "column left out"],
)
def test_every_difference_changes_the_digest(other: Batch) -> None:
    assert (
        other.digest()
        != Batch({"v": np.array([1.0, 2.0, 3.0]), "t": text(["ab", "c", "d"])}).digest()
    )


@given(st.lists(ANY_TEXT, max_size=8))
@settings(max_examples=50, deadline=None)
def test_text_survives_encoding_lone_surrogates_included(values: list[str]) -> None:
    decoded = decode_text(*encode_text(text(values)))
    assert decoded.dtype == object
    assert list(decoded) == values


@pytest.mark.parametrize("ends", [[1, 4], [4, 1], [3, 2, 3], [-1, 3], []], ids=str)
def test_offsets_that_do_not_fit_the_bytes_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        decode_text(np.frombuffer(b"abc", np.uint8), np.array(ends, np.int64))


def test_statuses_are_counted_by_name_and_absent_ones_left_out() -> None:
    batch = Batch({"status": np.array([0, 4, 0, 6], np.uint8)})
    assert status_counts(batch) == {"ok": 2, "not_found": 1, "failed": 1}
    assert status_counts(Batch({"n": np.zeros(2)})) == {}


def test_units_are_prose_and_dtypes_are_not() -> None:
    plain = Schema("s", (Field("a", "float32"),))
    assert Schema("s", (Field("a", "float32", unit="pixels"),)).fingerprint == plain.fingerprint
    assert Schema("s", (Field("a", "float64"),)).fingerprint != plain.fingerprint
    assert Schema("s", (Field("a", "float32", (None,)),)).fingerprint != plain.fingerprint
    assert Schema("s", (Field("a", "float32", optional=True),)).fingerprint != plain.fingerprint
