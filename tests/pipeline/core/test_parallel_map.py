"""Pieces of a shard are computed once each, by whatever threads are idle, and nothing locks up or
goes on unseen.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.parallel_map import spread


@settings(deadline=None, max_examples=30)
@given(items=st.lists(st.integers(), max_size=40), threads=st.integers(1, 4), pool=st.booleans())
def test_results_come_in_the_order_of_the_items_each_computed_once(
    items: list[int], threads: int, pool: bool
) -> None:
    seen = []

    def double(item: int) -> int:
        seen.append(item)
        return 2 * item

    with ThreadPoolExecutor(3) as executor:
        assert spread(double, items, executor if pool else None, threads) == [
            2 * item for item in items
        ]
    assert sorted(seen) == sorted(items)


def test_idle_threads_help() -> None:
    # breaks, and raises, where the two items do not run at once
    together = threading.Barrier(2, timeout=20)
    with ThreadPoolExecutor(1) as pool:
        spread(lambda _: together.wait(), range(2), pool, 2)


def test_no_more_threads_take_part_than_were_allowed() -> None:
    names: set[str] = set()
    with ThreadPoolExecutor(4) as pool:
        spread(
            lambda _: (time.sleep(0.002), names.add(threading.current_thread().name)),
            range(60),
            pool,
            2,
        )
    assert len(names) <= 2


def test_a_thread_of_the_pool_may_ask_when_all_of_them_are_busy() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(spread, str, range(3), pool, 4).result(20) == ["0", "1", "2"]


def test_a_pool_that_is_closed_helps_no_more() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    assert spread(str, range(3), pool, 2) == ["0", "1", "2"]


def test_a_thread_that_the_system_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            spread(str, range(3), pool, 2)


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_the_function_raises_is_raised_when_nothing_of_it_runs_any_more(where: str) -> None:
    home, both, running = threading.get_ident(), threading.Barrier(2, timeout=20), []

    def fail(_: int) -> None:
        running.append(1)
        both.wait()  # both threads have begun an item
        here = threading.get_ident() == home
        if here == (where == "here"):
            running.pop()
            raise ValueError("as it should")
        time.sleep(0.1)
        running.pop()

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="as it should"):
            spread(fail, range(2), pool, 2)
        assert not running
