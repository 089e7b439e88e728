"""What `--dask local:N` opens to other accounts of the machine: nothing."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed.comm.core import connect
from distributed.security import Security

from pipeline.run.local_workers import LocalWorkers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    workers = LocalWorkers(1)
    try:
        yield workers.cluster()
    finally:
        workers.close()


def addresses(cluster: Any) -> list[str]:
    """Where the scheduler, the worker and its nanny listen."""
    return [
        cluster.scheduler_address,
        *cluster.scheduler_info["workers"],
        *(n.address for n in cluster.workers.values()),
    ]


def connections(cluster: Any, scheme: str, security: Security) -> list[Any]:
    """Return what comes of an attempt to connect to each of them: a connection, or the error."""
    arguments = security.get_connection_args("client")

    async def attempt() -> list[Any]:
        places = [f"{scheme}://{address.partition('://')[2]}" for address in addresses(cluster)]
        return await asyncio.gather(
            *(connect(a, timeout=1, **arguments) for a in places), return_exceptions=True
        )

    return asyncio.run(attempt())


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_whoever_has_not_the_credentials_of_the_run_gets_no_connection(
    cluster: Any, scheme: str
) -> None:
    stranger = Security(require_encryption=False) if scheme == "tcp" else Security.temporary()
    found = connections(cluster, scheme, stranger)
    assert len(found) == 3
    assert all(isinstance(one, OSError) for one in found), found


def test_the_run_itself_gets_them(cluster: Any) -> None:
    assert not any(
        isinstance(one, Exception) for one in connections(cluster, "tls", cluster.security)
    )


def test_workers_look_for_modules_in_a_folder_that_only_this_account_may_open(cluster: Any) -> None:
    (info,) = cluster.scheduler_info["workers"].values()
    folders = [cluster.scheduler.local_directory, info["local_directory"]]
    for folder in map(Path, folders):
        (own,) = [parent for parent in folder.parents if parent.name.startswith("qfuse-")]
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert own.stat().st_uid == os.geteuid()


def test_the_folder_is_gone_with_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.run.local_workers._start", lambda count, folder: Path(folder, "left").touch()
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    workers = LocalWorkers(1)
    workers.cluster()
    assert list(tmp_path.glob("*/left"))
    workers.close()
    assert not list(tmp_path.iterdir())
