"""The same plan on dask.distributed: the same results, and whatever dies, what was finished
stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from children import DaskCluster, end, finished, start, wait_for
from distributed import Client
from forks import fork, forked
from laboratory import Lab

from pipeline.core.schema import Status
from pipeline.errors import ResourceRefused
from pipeline.plan.ticket import Ticket
from pipeline.run import dask_executor, dask_worker
from pipeline.run.ready_queue import Job
from pipeline.run.runner import Runner
from pipeline.run.shard_computer import Done

SLOW = ("--set", "steps.measure.options.sleep=0.02")


@pytest.fixture
def dask(slow: Lab) -> Iterator[DaskCluster]:
    with DaskCluster(slow) as cluster:
        yield cluster


def digests(lab: Lab) -> dict[str, str]:
    """Column digest of every artifact, by output and key."""
    store = lab.session(readonly=True).store
    receipts = [store.receipt(path.parent.parent.name, path.stem) for path in store.receipts()]
    return {f"{r.output} {r.key}": r.digest for r in receipts}


def events(lab: Lab) -> list[dict[str, object]]:
    return [
        json.loads(line) for line in (lab.root / "run" / "events.jsonl").read_text().splitlines()
    ]


def commits(lab: Lab) -> int:
    return len(finished(lab)) // 2


def test_serial_local_workers_and_a_cluster_at_an_address_give_the_same_artifacts(
    slow: Lab, dask: DaskCluster
) -> None:
    found = []
    for store, where in (
        ("serial", []),
        ("local", ["--dask", "local:2"]),
        ("file", ["--dask", str(dask.file)]),
    ):
        lab = replace(slow, store=store)
        forked(lab, *where)
        found.append(digests(lab))
    address = json.loads(dask.file.read_text())["address"]
    forked(replace(slow, store="address"), "--set", f"run.dask={address}")
    found.append(digests(replace(slow, store="address")))
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]) > 60


def test_steps_of_the_same_rows_are_computed_by_one_worker(
    slow: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "False")
    places: dict[int, set[str]] = defaultdict(set)
    note = Runner._note

    def noted(runner: Runner, job: Job, outcome: Done, live: bool) -> None:
        if job.step.stage.grain == "map":
            places[job.index].add(outcome.worker)
        note(runner, job, outcome, live)

    monkeypatch.setattr(Runner, "_note", noted)
    with DaskCluster(slow, nanny=False) as cluster:
        with Client(scheduler_file=str(cluster.file), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        session = slow.session("steps.power.stored=true")
        Runner(session.plan, session.store, dask=str(cluster.file)).run()
    assert len(places) == 25
    assert all(len(workers) == 1 for workers in places.values())
    assert len(set.union(*places.values())) == 2


def test_the_dashboard_is_named_when_the_run_starts(slow: Lab) -> None:
    forked(slow, "--dask", "local:1")
    (begun,) = [event for event in events(slow) if event["event"] == "run_started"]
    assert begun["workers"] == 1
    assert str(begun["dashboard"]).startswith("http://127.0.0.1:")


def test_what_only_memory_keeps_is_judged_on_a_cluster_too(slow: Lab) -> None:
    one = ("--set", "factors.power=[-1]", "--set", "run.max_failures=0.001")  # two numbers are 0
    for where in ([], ["--dask", "local:1"]):
        error = forked(slow, *where, *one, expect=4)
        assert re.search(
            r"power\[power=-1\]: [12] of 100 rows failed \([12] not_finite\)", error
        ), error


def test_a_row_whose_reading_kills_the_worker_is_marked_after_at_most_two_deaths(
    slow: Lab, dask: DaskCluster
) -> None:
    (slow.root / "files" / "050.1").write_text("crash")
    (slow.root / "files" / "077.0").write_text("exit")
    forked(slow, "--dask", str(dask.file))
    ran = slow.run()
    status = ran.read("measure", "number")["status"]
    names = [path.name for path in sorted((slow.root / "files").iterdir())]
    assert {names[row] for row in status.nonzero()[0]} == {"050.1", "077.0"}
    assert set(status.tolist()) == {Status.OK, Status.DECODER_CRASH}
    log = (slow.root / "dask-worker.log").read_text()
    assert 2 <= log.count("was killed by signal 11") + log.count("exited with status 7") <= 4, log
    # A run in one process dies of them, is started again, and comes to the same.
    other = replace(slow, store="other")
    ends = []
    for _ in range(4):
        code, _ = fork(other).wait()
        ends.append(code)
        if code == 0:
            break
    assert sorted(ends) == [-11, 0, 7]
    assert digests(other) == digests(slow)


def test_a_worker_that_is_killed_loses_no_finished_shard(slow: Lab, dask: DaskCluster) -> None:
    child = start(slow, "--dask", str(dask.file), *SLOW)
    for n in (1, 2):
        wait_for(slow, child, 10 * n)
        kept = finished(slow)
        victim, *_ = children_of(dask.workers[n - 1].pid)
        os.kill(victim, signal.SIGKILL)
    _, error = child.communicate(timeout=120)
    assert child.returncode == 0, error
    assert {path: finished(slow)[path] for path in kept} == kept
    assert digests(slow) == reference(slow)


def test_a_nanny_that_is_killed_takes_its_worker_along_and_the_other_goes_on(
    slow: Lab, dask: DaskCluster
) -> None:
    child = start(slow, "--dask", str(dask.file), *SLOW)
    wait_for(slow, child, 10)
    dask.workers[0].kill()
    _, error = child.communicate(timeout=120)
    assert child.returncode == 0, error
    assert digests(slow) == reference(slow)


def test_without_its_scheduler_a_run_ends_with_what_to_do_and_continues_on_another(
    slow: Lab, dask: DaskCluster
) -> None:
    child = start(slow, "--dask", str(dask.file), *SLOW)
    wait_for(slow, child, 10)
    end(dask.scheduler)
    _, error = child.communicate(timeout=120)
    assert child.returncode == 6, error
    assert "scheduler" in error
    assert "every finished shard is kept" in error
    assert "Traceback" not in error
    kept = finished(slow)
    assert len(kept) >= 20
    forked(slow, "--dask", "local:2")
    assert {path: finished(slow)[path] for path in kept} == kept
    assert digests(slow) == reference(slow)


def test_a_driver_that_is_killed_takes_its_local_workers_along_and_the_next_one_continues(
    slow: Lab,
) -> None:
    child = start(slow, "--dask", "local:2", *SLOW)
    wait_for(slow, child, 10)
    workers = children_of(child.pid)
    child.kill()
    child.communicate()
    kept = finished(slow)
    for _ in range(500):
        if not any(runs(pid) for pid in workers):
            break
        time.sleep(0.02)
    assert not any(runs(pid) for pid in workers)
    forked(slow, "--dask", "local:1")
    assert {path: finished(slow)[path] for path in kept} == kept
    assert digests(slow) == reference(slow)


@pytest.mark.parametrize(
    "everyone", [False, True], ids=["the driver alone", "the whole group, as a terminal does"]
)
def test_an_interrupt_ends_a_run_on_local_workers_with_everything_whole(
    slow: Lab, everyone: bool
) -> None:
    child = start(slow, "--dask", "local:2", *SLOW)
    wait_for(slow, child, 10)
    (os.killpg if everyone else os.kill)(child.pid, signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130, error
    assert (
        error.strip()
        .splitlines()[-1]
        .endswith("every finished shard is kept; the same command continues from there.")
    )
    assert "Traceback" not in error
    store = slow.session(readonly=True).store
    assert all(store.check_artifact(path) is None for path in store.receipts())
    assert not list((slow.root / slow.store / "journal").iterdir())
    forked(slow)
    assert digests(slow) == reference(slow)


def test_a_worker_with_another_version_of_a_library_is_refused_by_its_name(slow: Lab) -> None:
    info = slow.root / "elsewhere" / "numpy-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    with DaskCluster(slow, workers=0) as dask:
        known = dask._environment["PYTHONPATH"]
        dask.workers.append(dask.worker(PYTHONPATH=f"{info.parent}{os.pathsep}{known}"))
        error = forked(slow, "--dask", str(dask.file), expect=3)
    assert "the worker tcp://127.0.0.1:" in error
    assert "numerics.backends.numpy: " in error
    assert " → 0.0.1. Install the same versions everywhere." in error


@pytest.fixture
def mixed(lab: Lab) -> Iterator[str]:
    """The scheduler file of two workers of which one is told to leave instructions unused."""
    with DaskCluster(lab, workers=1, nanny=False) as dask:
        dask.workers.append(dask.worker(ONEDNN_MAX_CPU_ISA="SSE41"))
        with Client(scheduler_file=str(dask.file), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        yield str(dask.file)


def test_workers_of_several_instruction_sets_are_refused_unless_the_config_allows_it(
    lab: Lab, mixed: str
) -> None:
    network = "steps.measure.options.network=true"
    session = lab.session(network)
    sentence = (
        r"different instruction sets, between which measure differs"
        r" .*\(.*ONEDNN_MAX_CPU_ISA=SSE41.*\): tcp://[0-9.:]+\. "
    )
    with pytest.raises(
        ResourceRefused,
        match=f"{sentence}Use workers of one, or set run.mixed_instruction_sets: true",
    ):
        Runner(session.plan, session.store, dask=mixed).run()
    # One that joins later, and gets a shard of a run whose workers compute with something else.
    with (
        Ticket.of(session.plan, session.store).with_token() as ticket,
        Client(scheduler_file=mixed) as client,
    ):
        other = replace(ticket, computing={"measure": "avx2"})
        found = client.submit(
            dask_worker.compute_shard, other, 1, "measure", 0, frozenset({"number"}), None
        ).result(timeout=60)
    assert isinstance(found, ResourceRefused)
    assert re.search(
        r"the worker tcp://\S+ computes measure with .*, the others with avx2", str(found)
    )
    session = lab.session(network, "run.mixed_instruction_sets=true")
    Runner(session.plan, session.store, dask=mixed).run()
    assert not lab.session(network).plan.to_run


@pytest.mark.parametrize("where", ["local:0", "nowhere.json", "http://127.0.0.1:1"])
def test_a_place_that_is_none_is_refused_with_what_is_expected(slow: Lab, where: str) -> None:
    assert "expected local:N, an address such as tcp://HOST:8786, or a scheduler file" in forked(
        slow, "--dask", where, expect=2
    )


def test_a_scheduler_that_does_not_answer_is_refused_with_what_to_do(
    slow: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_executor, "ANSWER_SECONDS", 0.5)
    session = slow.session()
    with pytest.raises(
        ResourceRefused,
        match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 .*: start one with `dask",
    ):
        Runner(session.plan, session.store, dask="tcp://127.0.0.1:1").run()


def reference(lab: Lab) -> dict[str, str]:
    """Digests of a run in this process, which nothing disturbs."""
    other = replace(lab, store="reference")
    other.run()
    return digests(other)


def children_of(pid: int) -> list[int]:
    """Return the processes below one, the resource trackers of Python's multiprocessing
    left out."""
    found = []
    for line in subprocess.run(
        ["/bin/ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True
    ).stdout.splitlines():
        child, parent, command = line.split(None, 2)
        if int(parent) == pid and "resource_tracker" not in command:
            found.append(int(child))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
