"""Dask workers of this machine: processes that start while the driver still reads the data set and plans."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any


def local_workers(where: str | None) -> LocalWorkers | None:
    """Begin to start the workers that `local:N` asks for; None where another cluster, or none, is meant."""
    match = re.fullmatch(r"local:([0-9]{1,3})", where or "")
    return LocalWorkers(int(match[1])) if match and int(match[1]) else None


class LocalWorkers:
    """A cluster of `count` worker processes on its way. Whoever made it closes it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(1, "qfuse-cluster")
        self._cluster = self._pool.submit(_start, count)

    def __str__(self) -> str:
        return f"local:{self.count}"

    def cluster(self) -> Any:
        """Return the distributed.LocalCluster, once it is there. Raises what kept it from starting."""
        return self._cluster.result()

    def close(self) -> None:
        """End the workers."""
        with suppress(Exception):
            self._cluster.result().close(timeout=10)
        self._pool.shutdown()


def _start(count: int) -> Any:
    import dask
    from distributed import LocalCluster

    from pipeline.cluster import SETTINGS, SLOTS

    with dask.config.set(SETTINGS):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=SLOTS,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            preload=["pipeline.worker"],
            silence_logs=logging.CRITICAL,
            memory_limit=0,  # nothing is kept in a worker that it could give up
            resources={"GPU": 1},  # asked for by steps on a GPU alone
        )
