"""How an axis is cut: shards end where names say so, so that rows that come or go change the shard
they lie in.
"""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.plan.dataset import Axis

Shards = list[tuple[str, ...]]


def named(count: int) -> list[str]:
    return [f"person{i // 7:05d}/{i % 7}.jpg" for i in range(count)]


def cut(names: list[str], most: int = 1024, growing: bool = True) -> Shards:
    """The names in each shard."""
    shards = Axis(len(names), most, names=np.array(names, object), growing=growing).shards
    return [tuple(names[start:stop]) for start, stop in shards]


def changed(before: Shards, after: Shards) -> int:
    return len(set(after) - set(before))


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 128, 129, 388, 512, 4096, 10_000])
@pytest.mark.parametrize("most", [1, 2, 3, 64, 1024])
@pytest.mark.parametrize("growing", [False, True])
def test_every_row_is_in_one_shard_of_at_most_so_many_rows_and_in_order(
    count: int, most: int, growing: bool
) -> None:
    shards = cut(named(count), most, growing)
    assert [name for shard in shards for name in shard] == named(count)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) <= most
    assert growing or all(size >= most / 2 for size in sizes[:-1])


@pytest.mark.parametrize("count", [388, 3000])
@pytest.mark.parametrize("growing", [False, True])
def test_a_row_that_comes_or_goes_changes_its_shard_and_hardly_ever_another(
    count: int, growing: bool
) -> None:
    names, most = named(count), 1024 if growing else 128
    before = cut(names, most, growing)
    touched = []
    for place in range(0, count, 17):
        touched.append(
            changed(before, cut([*names[:place], "new.jpg", *names[place:]], most, growing))
        )
        touched.append(changed(before, cut([*names[:place], *names[place + 1 :]], most, growing)))
    assert max(touched) <= 8
    assert np.mean(touched) < 1.2


def test_rows_that_are_appended_change_the_last_shard_only_whatever_the_set_grows_to() -> None:
    names = named(6000)
    for count in range(50, 6000, 50):
        before = cut(names[:count])
        assert cut(names[: count + 1])[: len(before) - 1] == before[:-1]


def test_shards_of_a_growing_axis_get_larger_with_the_rows_before_them() -> None:
    sizes = [len(shard) for shard in cut(named(60_000))]
    starts = np.cumsum([0, *sizes[:-1]])
    assert sizes[0] <= 128
    for start, most in ((0, 128), (512, 256), (4096, 512), (32_768, 1024)):
        inside = [size for size, row in zip(sizes[:-1], starts[:-1], strict=True) if row >= start]
        assert min(inside) >= most / 2
    assert len(sizes) < 2 * len(cut(named(60_000), growing=False))
