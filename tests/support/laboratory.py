"""A laboratory for tests of the engine: a folder with the toy data set, a config and a store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import toy
import yaml

from pipeline.core.schema import Batch
from pipeline.plan.graph import Step
from pipeline.plan.last_plan import remember
from pipeline.run.events import Events
from pipeline.run.runner import Runner
from pipeline.session import Session, open_session

# exact in binary, like their sums and squares
NUMBERS = [(7 * i) % 23 - 5 + i / 8 for i in range(22)]
GROUPS = [(i * i) % 5 for i in range(22)]  # 0, 1 and 4, scattered over the faces …
GROUPS[3], GROUPS[20] = 2, 3  # … and two of one face

CONFIG = {
    "name": "toy",
    "dataset": {"reader": "toy", "path": "files", "shard_rows": {"faces": 4, "groups": 2}},
    "numerics": {"compute_batch": 3},
    "factors": {"power": [1, 2]},
    "steps": {
        "measure": {},
        "power": {"options": {"power": "$power"}},
        "total": {},
        "nearest": {},
        "overall": {},
    },
    "run": {"folder": "run", "workers": 2, "max_failures": 1},
}


@dataclass
class Lab:
    """The toy data set in `root`; `session` plans it, `run` computes it."""

    root: Path
    store: str = "store"

    def write(self, row: int, content: object) -> None:
        """Let the file of one face hold `content`."""
        (self.root / "files" / f"{row:02}.{GROUPS[row]}").write_text(str(content))

    def configure(self, **changed: Any) -> None:
        config = {**CONFIG, **changed}
        config["run"] = {**config["run"], "folder": str(self.root / "run")}
        (self.root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def session(self, *overrides: str, **options: Any) -> Session:
        return open_session(self.root / "config.yaml", overrides, self.root / self.store, **options)

    def run(self, *overrides: str, until: str | None = None, events: Events | None = None) -> Ran:
        """Plan, compute, remember the plan, and count what each stage computed."""
        session = self.session(*overrides, until=until)
        toy.calls.clear()
        runner = Runner(session.plan, session.store, events)
        try:
            runner.run()
        finally:
            remember(session.plan.steps.values(), session.store, session.folder / "plan.json")
        return Ran(session, runner)

    def forget(self, step: Step, shard: int) -> None:
        """Take one shard of a step out of the store."""
        store = self.session(readonly=True).store
        for output, key in step.tasks[shard].keys.items():
            for suffix in (".json", ".h5"):
                store.path(step.output(output), key).with_suffix(suffix).unlink()

    def artifacts(self) -> dict[tuple[str, str], float]:
        """(output, key) of every stored artifact of a step → when it was made."""
        store = self.session(readonly=True).store
        receipts = [store.receipt(path.parent.parent.name, path.stem) for path in store.receipts()]
        return {(r.output, r.key): r.created for r in receipts if not r.output.startswith("ingest")}

    def contents(self) -> dict[tuple[str, str], str]:
        """(output, key) of every stored artifact → the digest of the columns that its
        file holds."""
        store = self.session(readonly=True).store
        names = [(path.parent.parent.name, path.stem) for path in store.receipts()]
        return {name: store.read(*name).digest() for name in names}

    def reference(self) -> dict[tuple[str, str], str]:
        """The contents of another store, after a run in this process which nothing disturbs."""
        other = replace(self, store="reference")
        other.run()
        return other.contents()


@dataclass
class Ran:
    """A run that came to its end."""

    session: Session
    runner: Runner

    def read(self, step: str, output: str = "") -> Batch:
        return self.runner.results(self.session.plan.steps[step], output)

    def digests(self) -> dict[str, str]:
        """The column digest of every stored output, all its shards together."""
        steps = [step for step in self.session.plan.steps.values() if step.stored]
        return {
            f"{s.name}.{o}": self.read(s.name, o).digest() for s in steps for o in s.stage.produces
        }
