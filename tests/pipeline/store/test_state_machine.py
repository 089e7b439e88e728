"""Whatever happens to a store, in whatever order: a run that ends well has the results of one that
nothing disturbed.

`machine(examples, steps)` tries so many stories of so many events each; a longer search than the
test's needs only larger numbers.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import toy
from artifacts import flip
from children import environment
from forks import end_all, fork
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from laboratory import NUMBERS, Lab

from pipeline.errors import CorruptArtifact
from pipeline.plan.plan import Plan
from pipeline.run.events import Event, Events
from pipeline.store import hdf5, maintenance
from pipeline.store.mending import mended
from pipeline.store.store import Store

Name = tuple[str, str]  # output, key
FACES = 10
SCALE = "steps.measure.options.scale"
FIELDS: dict[str, list[Any]] = {  # the last two decide nothing of what is stored
    SCALE: [1, 2, 3, 4, 5, 6, 7, 8],
    "dataset.shard_rows.faces": [4, 3],
    "steps.overall.options.totals": [False, True],
    "factors.power": [[1, 2], [1]],
    "steps.power.stored": [False, True],
    "steps.measure.options.sleep": [0, 0.0001],
    "run.workers": [2, 1],
}
DECISIVE = len(FIELDS) - 2
POINTS = [
    f"commit:{place}"
    for place in ("before_write", "before_link", "before_receipt", "after_receipt")
]
POINTS += ["set_aside:after_json", "set_aside:after_h5", "batch:before_run"]
ENDS = {"kill": -9, "interrupt": 130, "enospc": 6}


def laboratory(folder: str) -> Lab:
    lab = Lab(Path(folder))
    (lab.root / "files").mkdir()
    for row, number in enumerate(NUMBERS[:FACES]):
        lab.write(row, number)
    lab.configure()
    return lab


@cache
def reference(*overrides: str) -> dict[Name, str]:
    """Digests of all artifacts of a config, from a store that nothing disturbs."""
    with TemporaryDirectory() as folder:
        lab = laboratory(folder)
        lab.run(*overrides)
        return lab.contents()


class StoreMachine(RuleBasedStateMachine):
    """One store and one config, both of which change."""

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.patch = TemporaryDirectory(), pytest.MonkeyPatch()
        self.lab = laboratory(self.folder.name)
        self.patch.setenv("PYTHONPATH", environment(self.lab)["PYTHONPATH"])  # for trial processes
        self.fields = {name: values[0] for name, values in FIELDS.items()}
        self.sound = True  # nothing was harmed since all that is damaged was set aside

    def teardown(self) -> None:
        end_all()
        self.patch.undo()
        self.folder.cleanup()

    @property
    def root(self) -> Path:
        return self.lab.root / self.lab.store

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(f"{name}={json.dumps(value)}" for name, value in self.fields.items())

    @rule()
    def run(self) -> None:
        before, events = self.whole(), list[Event]()
        ran = mended(
            lambda: self.lab.run(*self.overrides, events=Events(None, events.append)),
            lambda _: None,
        )
        self.kept(before)
        plan = ran.session.plan
        for event in events:
            if event["event"] == "committed":
                step = plan.steps[event["step"]]
                names = {
                    (step.output(output), key)
                    for output, key in step.tasks[event["shard"]].keys.items()
                }
                assert not names <= before.keys(), f"{event} was whole, and was computed again"
        self.right(plan)

    @rule(
        point=st.sampled_from(POINTS),
        count=st.integers(1, 5),
        action=st.sampled_from([*ENDS, "kill"]),
        scale=st.sampled_from([None, *FIELDS[SCALE]]),
    )
    def fail(self, point: str, count: int, action: str, scale: int | None) -> None:
        self.fields[SCALE] = scale or self.fields[SCALE]  # so that there is something to do
        before = self.whole()
        words = [word for override in self.overrides for word in ("--set", override)]
        code, error = fork(self.lab, *words, QFUSE_FAULT=f"{point}:*:{count}={action}").wait()
        assert code in (0, ENDS[action]), error
        assert "Traceback" not in error
        self.kept(before)
        # a damaged table of the data set that the run did not read is met, and set aside, now
        if code == 0:
            self.right(mended(lambda: self.lab.session(*self.overrides), lambda _: None).plan)

    @precondition(lambda self: self.root.exists())
    @rule(which=st.integers(0, 10_000), bit=st.integers(0, 1_000_000), values=st.booleans())
    def flip_a_bit(self, which: int, bit: int, values: bool) -> None:
        files = sorted(path for path in self.root.glob("*/??/*") if path.suffix in (".h5", ".json"))
        if files:
            path = files[which % len(files)]
            first, stop = place_of_values(path, bit) if values else (0, path.stat().st_size)
            flip(path, 8 * first + bit % (8 * (stop - first)))
            self.sound = False

    @precondition(lambda self: self.root.exists())
    @rule(
        which=st.integers(0, 10_000),
        what=st.sampled_from(["a file of an artifact", "another file", "an output"]),
    )
    def delete(self, which: int, what: str) -> None:
        artifacts = set(self.root.glob("*/??/*"))
        others = {
            path for path in self.root.rglob("*") if path.is_file() and path.name != "format.json"
        } - artifacts
        found = {
            "a file of an artifact": artifacts,
            "another file": others,
            "an output": {p.parents[1] for p in artifacts},
        }[what]
        if found:
            path = sorted(found)[which % len(found)]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.sound &= what != "a file of an artifact"

    @rule(name=st.sampled_from([SCALE, SCALE, SCALE, *FIELDS]), number=st.integers(0, 7))
    def change_a_field(self, name: str, number: int) -> None:
        self.fields[name] = FIELDS[name][number % len(FIELDS[name])]

    @precondition(lambda self: self.root.exists())
    @rule()
    def collect_garbage(self) -> None:
        before, store = self.whole(), Store(self.root)
        try:
            live = self.lab.session(*self.overrides, readonly=True).plan.live_artifacts()
        except CorruptArtifact:  # a table of the data set
            assert not self.sound
            return
        maintenance.delete(store.garbage(live))
        needed = reference(*self.overrides[:DECISIVE])
        self.kept({name: state for name, state in before.items() if name in needed})
        assert {(path.parent.parent.name, path.stem) for path in store.receipts()} <= live

    @precondition(lambda self: self.root.exists())
    @rule()
    def verify(self) -> None:
        before, store = self.whole(), Store(self.root)
        for problem in maintenance.verify(list(store.receipts()), 2, lambda _: None):
            assert (problem.output, problem.key) not in before
            assert store.set_aside(problem.output, problem.key, problem.reason)
        self.sound = True
        self.kept(before)

    def whole(self) -> dict[Name, tuple[int, ...]]:
        """Artifacts that are what their receipts say → inodes of their two files."""
        store = Store(self.root, readonly=True)
        paths = [path for path in store.receipts() if store.check_artifact(path) is None]
        files = {
            (path.parent.parent.name, path.stem): (path, path.with_suffix(".h5")) for path in paths
        }
        return {name: tuple(path.stat().st_ino for path in pair) for name, pair in files.items()}

    def kept(self, before: dict[Name, tuple[int, ...]]) -> None:
        """Artifacts that were whole are the same files as before; where nothing was harmed since,
        all are whole.
        """
        now = self.whole()
        assert {name: now.get(name) for name in before} == before
        if self.sound:
            assert len(now) == len(list(Store(self.root, readonly=True).receipts()))

    def right(self, plan: Plan) -> None:
        """What a run was asked for is there, and whatever can be read of its plan is as it should
        be.
        """
        store, expected = Store(self.root, readonly=True), reference(*self.overrides[:DECISIVE])
        read = {ref.step for step in plan.steps.values() for ref in step.inputs.values()}
        for step in filter(lambda step: step.stored, plan.steps.values()):
            for output, key in [item for task in step.tasks for item in task.keys.items()]:
                name = step.output(output), key
                try:
                    assert store.read(*name).digest() == expected[name]
                except CorruptArtifact:
                    assert not self.sound or not (store.has(*name) or step.name not in read), name


def place_of_values(path: Path, which: int) -> tuple[int, int]:
    """Return where the values of a column lie in a file; the whole file where there are none, or it
    is damaged.
    """
    image = path.read_bytes()
    with suppress(CorruptArtifact):
        columns = hdf5.read(path).columns.values() if path.suffix == ".h5" else ()
        values = [array.tobytes() for array in columns if array.dtype != object and array.nbytes]
        if values:
            found = values[which % len(values)]
            return image.index(found), image.index(found) + len(found)
    return 0, len(image)


def machine(examples: int, steps: int) -> None:
    """Try so many stories of at most so many events. Raises what goes wrong, with the shortest
    story that leads to it.
    """
    toy.install()
    try:
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        toy.remove()


def test_whatever_happens_to_a_store_a_run_that_ends_well_has_the_right_results() -> None:
    machine(examples=15, steps=12)
