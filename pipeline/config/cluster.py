"""What `--dask` and run.dask may name: local processes, a scheduler's address, or its file."""

from __future__ import annotations

import os
import re

from pipeline.errors import UsageError

ADDRESS, LOCAL = r"(?:tcp|tls|ucx|wss?)://\S+", r"local:(0*[1-9][0-9]{0,2})"
MOST = 256  # as of --workers


def need_cluster(where: str | None) -> None:
    """Raise UsageError if this names no cluster at all.

    Whether it answers is seen when there is something to compute. A scheduler's file exists only
    while the scheduler runs, and stored results need no cluster, so the file may be missing here.
    """
    if (
        where
        and not re.fullmatch(rf"{LOCAL}|{ADDRESS}|.*\.json", where)
        and not os.path.isfile(where)
    ):
        raise no_cluster(where)
    if where and (match := re.fullmatch(LOCAL, where)) and int(match[1]) > MOST:
        raise UsageError(
            f"--dask (or run.dask) {where}: {MOST} processes are the most that one machine is asked"
            " for."
        )


def no_cluster(where: str) -> UsageError:
    """Return the error for a text that names no cluster."""
    expected = "expected local:N, an address such as tcp://HOST:8786, or a scheduler file"
    return UsageError(f"--dask (or run.dask) {where}: {expected}.")
