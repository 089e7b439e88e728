"""Several runs on one store at once: all end well, share the work, and wait for nobody who is
dead."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from children import computed, finished, planned
from forks import Fork, end_all, fork, forked, until
from laboratory import Lab

SLOW = ("--set", "steps.measure.options.sleep=0.02")


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    end_all()


def drive(lab: Lab, number: int, *words: str, **more: str) -> Fork:
    """Start a run that has a folder for itself; all count together in `log`."""
    return fork(
        lab,
        "--set",
        f"run.folder={lab.root}/run-{number}",
        *words,
        TOY_LOG=str(lab.root / "log"),
        **more,
    )


def ended_well(lab: Lab, *drivers: Fork, tidy: bool = True) -> None:
    """The runs ended with all as it should be; `tidy`: and nobody was killed who might have left
    something lying about.
    """
    assert [driver.wait() for driver in drivers] == [(0, "")] * len(drivers)
    assert lab.contents() == lab.reference()
    assert forked(lab, "store", "verify") == ""
    files = [
        path
        for path in (lab.root / "store").rglob("*")
        if path.name.startswith(".") or path.parent.name == "journal"
    ]
    assert files == [] or not tidy


@pytest.mark.parametrize("drivers", [2, 3])
def test_runs_on_one_store_share_the_work(slow: Lab, drivers: int) -> None:
    lacking = planned(slow)
    ended_well(slow, *(drive(slow, number, *SLOW) for number in range(drivers)))
    done = computed(slow.root / "log")
    again = {
        stage: done[stage] - lacking[stage] for stage in ("measure", "total", "nearest", "overall")
    }
    assert min(again.values()) >= 0
    assert again["measure"] / 4 + again["total"] + again["nearest"] + again["overall"] <= drivers
    lines = [
        (slow.root / f"run-{number}" / "events.jsonl").read_text() for number in range(drivers)
    ]
    committed = [text.count('"committed"') for text in lines]
    assert (
        len(finished(slow)) // 2 <= sum(committed) <= len(finished(slow)) // 2 + 2 * drivers
    )  # a shard of measure has two
    assert min(committed) > 0


def test_a_run_in_one_process_and_one_on_workers_share_a_store(slow: Lab) -> None:
    lacking = planned(slow)
    workers = drive(slow, 1, "--dask", "local:1", *SLOW)
    until(lambda: bool(computed(slow.root / "log")), workers)
    alone = drive(slow, 2, *SLOW)
    assert workers.wait()[0] == 0
    ended_well(slow, alone)
    done = computed(slow.root / "log")
    again = {
        stage: done[stage] - lacking[stage] for stage in ("measure", "total", "nearest", "overall")
    }
    assert again["measure"] / 4 + again["total"] + again["nearest"] + again["overall"] <= 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_waits_for_anothers_shard_goes_on_when_that_one_ends(
    lab: Lab, number: signal.Signals
) -> None:
    first = drive(lab, 1, "--set", "steps.total.options.sleep=1000")
    until(lambda: computed(lab.root / "log")["total"] > 0 and settled(lab), first)
    os.kill(first.pid, signal.SIGSTOP)
    held = {path.name for path in (lab.root / "store" / "journal").iterdir()}
    assert held
    second = drive(lab, 2)
    free = {key for _, key in lab.reference()} - behind(lab, held)
    until(lambda: free <= {path.stem for path in (lab.root / "store").glob("*/??/*.json")}, second)
    time.sleep(0.5)  # it asks again and again
    assert second.process.is_alive()
    os.kill(first.pid, number)
    if number != signal.SIGKILL:  # which does not wait for that
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait()[0] == (-number if number == signal.SIGKILL else 130)
    ended_well(lab, second, tidy=number != signal.SIGKILL)


def settled(lab: Lab) -> bool:
    """Whether nothing has been claimed or committed for a while: so no commit is stopped halfway,
    with a folder locked.
    """
    looks = []
    for _ in range(3):
        looks.append([names for _, _, names in os.walk(lab.root / "store")])
        time.sleep(0.2)
    return looks[0] == looks[1] == looks[2]


def behind(lab: Lab, held: set[str]) -> set[str]:
    """Return the keys of the shards that are held, and of all that read them."""
    plan = lab.session(readonly=True).plan
    found: dict[tuple[str, int], set[str]] = {}
    for step in plan.steps.values():
        for task in step.tasks:
            above = {
                (ref.step, index) for key, ref in step.inputs.items() for index in task.needs[key]
            }
            if (step.stored and task.name in held) or above & found.keys():
                found[step.name, task.index] = set(task.keys.values())
    return set().union(*found.values())
