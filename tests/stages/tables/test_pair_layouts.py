"""Which two templates each comparison is of: all pairs, never written out, against the same pairs
written out.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.tables.pair_layouts import Listed, Product, Triangle

properties = settings(deadline=None, max_examples=60)
roles = st.permutations(range(9)).flatmap(
    lambda rows: st.integers(0, 9).map(lambda count: np.array(rows[:count], np.int64))
)


def pairs_of(form: Product | Triangle) -> list[tuple[int, int]]:
    if isinstance(form, Triangle):
        return list(combinations(form.role.tolist(), 2))
    return list(product(form.a.tolist(), form.b.tolist()))


def listed(form: Product | Triangle) -> Listed:
    return Listed(*np.array(pairs_of(form), np.int64).reshape(-1, 2).T)


forms = st.one_of(roles.map(Triangle), st.tuples(roles, roles).map(lambda sides: Product(*sides)))


@properties
@given(form=forms)
def test_every_pair_has_the_number_of_its_place(form: Product | Triangle) -> None:
    expected = pairs_of(form)
    assert form.size == len(expected)
    a, b = form.templates(np.arange(form.size))
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == expected
    for one, other in product(range(9), range(9)):
        found = form.number(one, other)
        assert found == (expected.index((one, other)) if (one, other) in expected else None)


@properties
@given(count=st.integers(2, 10**5), part=st.floats(0, 1))
def test_numbers_are_exact_at_the_ends_of_rows(count: int, part: float) -> None:
    """Of integers of any size: the comparison of i and j is i·n − i(i+1)/2 + (j − i − 1)."""
    form = Triangle(np.arange(count))
    assert form.size == count * (count - 1) // 2
    for i in {0, int(part * (count - 2)), count - 2}:
        ends = [i * count - i * (i + 1) // 2 + (j - i - 1) for j in (i + 1, count - 1)]
        assert (
            form.numbers(np.array([i, i]), np.array([i, count - 2])).tolist() == ends
        )  # column j − 1
        a, b = form.templates(np.array(ends))
        assert (a.tolist(), b.tolist()) == ([i, i], [i + 1, count - 1])
        if ends[0]:
            a, b = form.templates(np.array([ends[0] - 1]))
            assert (a.tolist(), b.tolist()) == ([i - 1], [count - 1])


@properties
@given(role=roles, data=st.data())
def test_the_lines_of_a_range_are_its_comparisons_row_by_row(role: Any, data: Any) -> None:
    form = Triangle(role)
    start = data.draw(st.integers(0, form.size))
    stop = data.draw(st.integers(start, form.size))
    found = [
        (row, int(form.a[row]), int(b), place)
        for row, columns, cut in form.lines(start, stop)
        for b, place in zip(form.b[columns], range(cut.start, cut.stop), strict=True)
    ]
    expected = pairs_of(form)[start:stop]
    assert [(a, b) for _, a, b, _ in found] == expected
    assert [place for *_, place in found] == list(range(stop - start))
    low, high = form.rows(start, stop)
    assert sorted({row for row, *_ in found}) == list(range(low, high))


@properties
@given(form=forms, seed=st.integers(0, 10**6))
def test_what_is_asked_of_all_pairs_is_what_the_list_of_them_answers(
    form: Product | Triangle, seed: int
) -> None:
    rng, same = np.random.default_rng(seed), listed(form)
    values, mask = rng.integers(0, 3, 9).astype(np.int32), rng.random(form.size) < 0.4
    np.testing.assert_array_equal(form.same(values), values[same.a] == values[same.b])
    for mine, theirs in zip(form.chosen(mask, values), same.chosen(mask, values), strict=True):
        assert mine.dtype == values.dtype
        np.testing.assert_array_equal(mine, theirs)
    failed = (rng.integers(0, 4, form.size) * (rng.random(form.size) < 0.3)).astype(np.uint8)
    for mine, theirs in zip(form.failed(failed), same.failed(failed), strict=True):
        assert set(mine.tolist()) == set(theirs.tolist())


@properties
@given(form=forms, seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_some_templates_leave_the_comparisons_among_them_in_order(
    form: Product | Triangle, seed: int, share: float
) -> None:
    rng, same = np.random.default_rng(seed), listed(form)
    kept, values = rng.random(9) < share, rng.random(form.size).astype(np.float32)
    inside = kept[same.a] & kept[same.b]
    assert pairs_of(form.among(kept)) == [
        pair for pair, here in zip(pairs_of(form), inside, strict=True) if here
    ]
    np.testing.assert_array_equal(form.cut(kept, values), values[inside])


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_templates_have_no_pair(count: int) -> None:
    form, none = Triangle(np.arange(count)), np.zeros(0, np.uint8)
    assert (form.size, list(form.lines(0, 0))) == (0, [])
    assert [
        len(side)
        for side in (*form.templates(np.arange(0)), *form.failed(none), form.same(np.zeros(2)))
    ] == [0] * 5
