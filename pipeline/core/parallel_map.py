"""Pieces of one shard, computed by the thread that asks and by others that have nothing to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

from pipeline.errors import no_thread

T = TypeVar("T")
R = TypeVar("R")


def spread(
    function: Callable[[T], R], items: Iterable[T], pool: Executor | None = None, threads: int = 1
) -> list[R]:
    """Return the function's result of each item, in order, on at most `threads` threads.

    They are this thread and idle ones of `pool`. This thread may be one of the pool's: it waits for
    nothing that no thread has begun, so nothing can lock up. Raises what the function raises, when
    no other thread computes any of it any more.
    """
    todo = list(items)
    results: dict[int, R] = {}
    waiting = deque(range(len(todo)))

    def work() -> None:
        while True:
            try:
                place = waiting.popleft()
            except IndexError:
                return
            results[place] = function(todo[place])

    helpers: list[Future[None]] = []
    try:
        if pool is not None:
            try:
                helpers.extend(pool.submit(work) for _ in range(min(threads, len(todo)) - 1))
            # If the pool is being closed, this thread computes everything itself.
            except RuntimeError as refused:
                if no_thread(refused):
                    raise
        work()
    finally:
        waiting.clear()
        begun = [helper for helper in helpers if not helper.cancel()]
        failures = [error for helper in begun if (error := helper.exception()) is not None]
    if failures:
        raise failures[0]
    return [results[place] for place in range(len(todo))]
