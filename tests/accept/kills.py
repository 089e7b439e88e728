"""Sixty times kill -9 at seeded random moments: what was finished stays, and the result is the
same.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.store import maintenance
from tests.accept.command import Check, Place, table
from tests.accept.stress import (
    Claims,
    DaskCluster,
    Stamps,
    changed,
    configure,
    drive,
    end,
    receipts,
    stamps,
)

A_STORE = 6  # kills at most, until it is left to come to its end
# Whom → (how often, shards that may be in flight there): a serial run computes workers + 1 side by
# side, a Dask worker 2.
SERIAL = {"serial run": (18, 3)}
LOCAL = {"driver of --dask local:2": (18, 4)}
ADDRESS = {"driver": (6, 4), "worker": (8, 2), "nanny": (5, 2), "scheduler": (5, 4)}


@dataclass
class Tally:
    """What was seen of the stores of one kind of run."""

    kills: Counter[str] = field(default_factory=Counter)
    stores: int = 0
    same: int = 0
    damaged: int = 0
    replaced: int = 0  # files that were there at a kill and became others
    begun: int = 0
    again: int = 0  # computations begun beyond the first of each shard
    in_flight: int = 0  # the most that may have been lost
    ends: list[str] = field(default_factory=list)  # that were not as they should be
    seconds: float = 0.0


def kills() -> tuple[list[Check], str]:
    """Run once undisturbed, then over many stores with a kill after every few artifacts."""
    place = Place.fresh("kills")
    config = configure(place, 281, 192)
    _, wall = place.run("run", config, "--store", "undisturbed", "--workers", "2")
    expected = place.digests("undisturbed")
    rng = random.Random(0)  # noqa: S311  a seeded experiment, no secret
    tallies = {}
    for name, whom in {
        "serial": SERIAL,
        "--dask local:2": LOCAL,
        "--dask FILE, two workers": ADDRESS,
    }.items():
        victims = [victim for victim, (often, _) in whom.items() for _ in range(often)]
        rng.shuffle(victims)
        tallies[name] = tally = Tally()
        begin = time.perf_counter()
        while victims:
            store = f"{name.split()[-1].replace(':', '-')}-{tally.stores}"
            _suffer(place, config, store, victims, rng, len(expected), tally)
            tally.stores += 1
            tally.same += place.digests(store) == expected
            tally.damaged += len(
                maintenance.verify(receipts(place.folder / store), 2, lambda size: None)
            )
        tally.seconds = time.perf_counter() - begin
    done = list(tallies.values())
    total, stores, same = (
        sum(values)
        for values in zip(*((t.kills.total(), t.stores, t.same) for t in done), strict=True)
    )
    damaged, replaced = sum(t.damaged for t in done), sum(t.replaced for t in done)
    again, in_flight = sum(t.again for t in done), sum(t.in_flight for t in done)
    wrong = [end for t in done for end in t.ends]
    rows = [
        ["run", "killed", "stores", "shards begun", "begun again", "in flight at most", "seconds"]
    ]
    for name, t in tallies.items():
        killed = ", ".join(f"{count} × {victim}" for victim, count in t.kills.items())
        rows.append(
            [name, killed, *map(str, (t.stores, t.begun, t.again, t.in_flight)), f"{t.seconds:.0f}"]
        )
    text = (
        f"{len(expected)} artifacts of 3,004 faces, {wall:.0f} s undisturbed. A kill comes after up"
        f" to {len(expected) // 4} more artifacts and half a second, or in the first three seconds"
        " of a run."
    )
    return [
        Check(
            f"{total} times kill -9, then run to the end",
            "the same column digests",
            f"{same} of {stores} stores",
            same == stores,
        ),
        Check("damaged artifacts in those stores", "0", str(damaged), damaged == 0),
        Check(
            "files of finished artifacts replaced after a kill", "0", str(replaced), replaced == 0
        ),
        Check(
            "shards begun again, all kills together",
            f"≤ {in_flight} in flight",
            str(again),
            all(t.again <= t.in_flight for t in done),
        ),
        Check(
            "runs that did not end with 0, or with 6 when the scheduler died",
            "0",
            "; ".join(wrong) or "0",
            not wrong,
        ),
    ], f"{text}\n\n{table(rows)}"


def _suffer(
    place: Place,
    config: str,
    store: str,
    victims: list[str],
    rng: random.Random,
    artifacts: int,
    tally: Tally,
) -> None:
    """Kill some of the victims while a store is computed, then let it come to its end."""
    path = place.folder / store
    claims, kept = Claims(path), list[Stamps]()
    cluster = DaskCluster(place) if store.startswith("workers") else None
    driver = _start(place, config, store, cluster)
    try:
        for _ in range(min(A_STORE, len(victims))):
            if not _moment(rng, path, artifacts, driver):
                break
            victim = victims[-1]
            if not _kill(victim, driver, cluster, rng):
                continue
            victims.pop()
            tally.kills[victim] += 1
            tally.in_flight += {**SERIAL, **LOCAL, **ADDRESS}[victim][1]
            kept.append(stamps(path))
            if victim == "scheduler" and cluster:
                if (code := driver.wait(120)) != 6:
                    tally.ends.append(f"{code} on {store} when the scheduler was killed")
                cluster.close()
                cluster = DaskCluster(place)
            elif victim == "nanny" and cluster:
                cluster.nannies.append(cluster.nanny())
            if driver.poll() is not None:
                driver = _start(place, config, store, cluster)
        while code := driver.wait(600):
            tally.ends.append(f"{code} on {store}")
            driver = _start(place, config, store, cluster)
    finally:
        end(driver)
        if cluster:
            cluster.close()
    after = stamps(path)
    tally.replaced += sum(changed(before, after) for before in kept)
    tally.again += claims.begun_again()
    tally.begun += claims.begun.total()


def _start(
    place: Place, config: str, store: str, cluster: DaskCluster | None
) -> subprocess.Popen[bytes]:
    where: Sequence[str] = ("--workers", "2")
    if cluster:
        where = ("--dask", str(cluster.file))
    elif store.startswith("local"):
        where = ("--dask", "local:2", "--workers", "2")
    return drive(place, config, "--store", store, *where)


def _moment(
    rng: random.Random, store: Path, artifacts: int, driver: subprocess.Popen[bytes]
) -> bool:
    """Wait for a random moment. Returns whether the run still goes on then."""
    more = max(0, rng.randrange(-artifacts // 20, artifacts // 4))
    wanted, until = len(receipts(store)) + more, time.monotonic() + 300
    while driver.poll() is None and len(receipts(store)) < wanted and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.5 if more else 3))
    return driver.poll() is None


def _kill(
    victim: str, driver: subprocess.Popen[bytes], cluster: DaskCluster | None, rng: random.Random
) -> bool:
    """Kill one process. Returns whether there was one."""
    if victim == "worker" and cluster:
        workers = cluster.workers()
        if not workers:
            return False
        os.kill(rng.choice(workers), signal.SIGKILL)
    elif victim == "nanny" and cluster:
        nanny = rng.choice([nanny for nanny in cluster.nannies if nanny.poll() is None])
        nanny.kill()
        nanny.wait(30)
    elif victim == "scheduler" and cluster:
        cluster.scheduler.kill()
        cluster.scheduler.wait(30)
    else:
        driver.kill()
        driver.wait(30)
    return True
