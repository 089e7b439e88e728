"""Shards of steps that are not stored, kept in memory until nobody reads them any more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from pipeline.core.schema import Batch
from pipeline.run.ready_queue import ShardName


class ShardCache:
    """Shards by (step, number).

    Beyond `budget` bytes, where there is one, those go first that were read longest ago.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._budget, self._size = budget, 0
        self._lock = threading.Lock()
        self._making: dict[ShardName, threading.Lock] = {}
        self._shards: OrderedDict[ShardName, dict[str, Batch]] = OrderedDict()

    def put(self, shard: ShardName, outputs: Mapping[str, Batch]) -> None:
        with self._lock:
            self._size += _size_of(outputs) - _size_of(self._shards.get(shard, {}))
            self._shards[shard] = dict(outputs)
            while self._budget is not None and len(self._shards) > 1 and self._size > self._budget:
                self._size -= _size_of(self._shards.popitem(last=False)[1])

    def get(self, shard: ShardName, make: Callable[[], dict[str, Batch]]) -> dict[str, Batch]:
        """Return a shard's outputs; if there are none, one thread calls `make` for all that ask."""
        with self._lock:
            making = self._making.setdefault(shard, threading.Lock())
        with making:
            with self._lock:
                found = self._shards.get(shard)
                if found is not None:
                    self._shards.move_to_end(shard)
            if found is None:
                found = make()
                self.put(shard, found)
            return found

    def forget(self, step: str) -> None:
        """Drop the shards of a step."""
        with self._lock:
            for shard in [shard for shard in self._shards if shard[0] == step]:
                self._size -= _size_of(self._shards.pop(shard))


def _size_of(outputs: Mapping[str, Batch]) -> int:
    return sum(batch.nbytes for batch in outputs.values())
