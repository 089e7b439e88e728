"""Dask workers of this machine, which start while the driver still reads the data set and plans.

They, the scheduler and the driver talk by TLS with a certificate that only they have, so that no
other account of the machine can give them work; and what they write lies in a folder that only this
account may open.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pipeline.config.cluster import LOCAL
from pipeline.errors import Interrupted
from pipeline.system import interruption
from pipeline.system.available import require_threads, require_to_compute

# shards at a time for a local worker, and for a thread of any: while one is committed, the next is
# computed
SHARDS_AT_ONCE = 2
DRIVER_THREADS = 14  # of the driver, for its cluster
WORKER_THREADS = 9  # of a worker process
SETTINGS: dict[str, Any] = {
    # One thread a library, as numerics profiles want it; without Dask's MALLOC_TRIM_THRESHOLD_,
    # which makes every large array cost its page faults anew.
    "distributed.nanny.pre-spawn-environ": {
        f"{name}_NUM_THREADS": 1 for name in ("OMP", "MKL", "OPENBLAS")
    },
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.retry.count": 0,
    # Dask watching itself: a sampler and a clock that wake the driver and every worker fifty to a
    # hundred times a second.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}


def local_workers(where: str | None) -> LocalWorkers | None:
    """Begin to start the workers that `local:N` asks for; return None if it is not `local:N`.

    Raises ResourceRefused if the limits of this process, which are also theirs, leave too little
    for them.
    """
    match = re.fullmatch(LOCAL, where or "")
    if not match:
        return None
    require_to_compute(1)
    require_threads(DRIVER_THREADS + int(match[1]) * WORKER_THREADS)
    return LocalWorkers(int(match[1]))


class LocalWorkers:
    """A cluster of `count` worker processes that is being started; its maker has to close it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._folder = tempfile.TemporaryDirectory(prefix="qfuse-", ignore_cleanup_errors=True)
        interruption.folders.add(self._folder.name)
        self._pool = ThreadPoolExecutor(1, "qfuse-cluster")
        self._cluster = self._pool.submit(_start, count, self._folder.name)

    def __str__(self) -> str:
        return f"local:{self.count}"

    def cluster(self) -> Any:
        """Return the distributed.LocalCluster, once it is there.

        Raises what kept it from starting.
        """
        return self._cluster.result()

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        # an interruption waits for nobody: see `interruption`
        if kind is None or not issubclass(kind, KeyboardInterrupt | Interrupted):
            self.close()

    def close(self) -> None:
        """End the workers."""
        with suppress(Exception):
            self._cluster.result().close(timeout=10)
        self._pool.shutdown()
        self._folder.cleanup()
        interruption.folders.discard(self._folder.name)


def _start(count: int, folder: str) -> Any:
    from multiprocessing import resource_tracker

    import dask
    from distributed import LocalCluster

    # Python's resource tracker tidies up after workers that are killed. It need not say so.
    warnings = filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"))
    os.environ["PYTHONWARNINGS"] = ",".join(warnings)
    resource_tracker.ensure_running()  # before the mask below, because it unblocks signals
    # A terminal's Ctrl-C reaches every process of the group. It is the driver's: what this thread
    # starts inherits the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # The folder is the first place where the driver and the workers look for modules: Dask's own
    # choice, below /tmp, may have been made, and be written to, by somebody else.
    with dask.config.set({**SETTINGS, "temporary-directory": folder}):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=SHARDS_AT_ONCE,
            processes=True,
            host="127.0.0.1",
            security=_credentials(),
            dashboard_address="127.0.0.1:0",
            preload=["pipeline.run.dask_worker"],  # imports it while the driver still plans
            silence_logs=logging.CRITICAL,
            memory_limit=0,  # a worker keeps nothing that it could spill
            resources={"GPU": 1},  # only steps on a GPU ask for it
        )


def _credentials() -> Any:
    """Return distributed's Security: a key and a certificate for this run, in memory only.

    As `Security.temporary` makes them, but valid whatever the clock does, and of a curve, whose
    keys are made at once.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID
    from distributed.security import Security

    pem = serialization.Encoding.PEM
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "qfuse")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    certificate = made.public_bytes(pem).decode()
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    of_roles: dict[str, str] = {}
    for role in ("client", "scheduler", "worker"):
        of_roles |= {f"tls_{role}_cert": certificate, f"tls_{role}_key": private}
    return Security(require_encryption=True, tls_ca_file=certificate, **of_roles)
