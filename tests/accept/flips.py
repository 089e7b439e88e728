"""Two hundred flipped bits over every kind of artifact: each found, each artifact computed again
alone, and the same.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py

from pipeline.plan.graph import Step, Task
from pipeline.run.events import Events
from pipeline.session import execute, open_session
from pipeline.store import maintenance
from pipeline.store.mending import mended
from pipeline.store.store import Store
from tests.accept.command import Check, Place
from tests.accept.stress import Stamps, configure, stamps

BATCHES, BATCH, SINGLES, ON_READ = 10, 19, 10, 60
Name = tuple[str, str]  # output, key


def flips() -> tuple[list[Check], str]:
    """Flip bits of a finished store: in batches in this process, one at a time by the command, and
    unseen before a run.
    """
    bench = Bench(Place.fresh("flips"))
    rng = random.Random(0)  # noqa: S311  a seeded experiment, no secret
    for _ in range(BATCHES):
        bench.verified(bench.choose(rng, BATCH), rng)
    for _ in range(SINGLES):
        bench.verified_by_command(bench.choose(rng, 1), rng)
    outputs, flipped, seen = len(bench.artifacts), bench.flipped.total(), bench.seen
    bench.seen = Counter()
    reads = bench.reads()
    for number in range(ON_READ):
        bench.met(reads[number % len(reads)], rng, command=number % 6 == 0)
    met = bench.seen
    same = bench.place.digests("store") == bench.expected
    return (
        [
            Check(
                "single flipped bits found by `verify`, and no other artifact",
                str(flipped),
                _found(seen),
                _all(seen, flipped),
            ),
            Check(
                "computed again, alone, with the same digest",
                str(flipped),
                str(seen["alone"]),
                seen["alone"] == flipped,
            ),
            Check(
                "flips in data found on read, without `verify`",
                str(ON_READ),
                _found(met),
                _all(met, ON_READ),
            ),
            Check(
                "computed again, alone, with the same digest",
                str(ON_READ),
                str(met["alone"]),
                met["alone"] == ON_READ,
            ),
            Check(
                "digests of the store after all that",
                "those before",
                "the same" if same else "others",
                same,
            ),
        ],
        (
            f"{len(bench.expected)} artifacts of {outputs} kinds. By `verify`: {BATCHES} batches of"
            f" {BATCH} bits, {SINGLES} bits alone by the command; {bench.flipped['.h5']} in"
            f" columns' files, {bench.flipped['.json']} in receipts. On read: what was computed"
            f" from the damaged artifact was deleted and asked for again; {len(reads)} kinds."
        ),
    )


def _found(seen: Counter[str]) -> str:
    return f"{seen['found']}" + (f", and {seen['wrong']} others" if seen["wrong"] else "")


def _all(seen: Counter[str], count: int) -> bool:
    return seen["found"] == count and not seen["wrong"]


class Bench:
    """A finished store of every kind of artifact, to flip bits in."""

    def __init__(self, place: Place) -> None:
        self.place, self.root = place, place.folder / "store"
        self.config = configure(place, 24, 32, degraded=True)
        place.run("run", self.config, "--store", "store")
        self.expected = place.digests("store")
        self.artifacts: dict[str, list[str]] = {}
        for name in sorted(self.expected):
            self.artifacts.setdefault(name.split("/")[0], []).append(name.split("/")[1])
        self.flipped: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.plan = open_session(Path(self.config), store=self.root, readonly=True).plan
        self.bases = {
            step.output(output): step.base
            for step in self.plan.steps.values()
            for output in step.stage.produces
        }

    def choose(self, rng: random.Random, count: int) -> set[Name]:
        """Choose artifacts, as many of each kind as of the others where there are as many."""
        found: set[Name] = set()
        while len(found) < count:
            for output in rng.sample(sorted(self.artifacts), len(self.artifacts)):
                if len(found) < count:
                    found.add((output, rng.choice(self.artifacts[output])))
        return found

    def verified(self, damaged: set[Name], rng: random.Random) -> None:
        """Flip a bit of each; verify, set aside and compute again in this process."""
        before = stamps(self.root)
        self._flip(damaged, rng)
        store = Store(self.root)
        problems = maintenance.verify(list(store.receipts()), 2, lambda size: None)
        for problem in problems:
            store.set_aside(problem.output, problem.key, problem.reason)
        for base in dict.fromkeys(step.base for step in self.plan.steps.values()):
            self._run(base)
        self._judge(
            {(problem.output, problem.key) for problem in problems}, damaged, damaged, before
        )

    def verified_by_command(self, damaged: set[Name], rng: random.Random) -> None:
        """The same by `qfuse store verify` and `qfuse run`."""
        before = stamps(self.root)
        self._flip(damaged, rng)
        child = self.place.start("store", "verify", "--store", "store", "--json")
        out, error = child.communicate(timeout=600)
        assert child.returncode == 5, error
        self._run_command({self.bases.get(output) for output, _ in damaged})
        self._judge(
            {(p["output"], p["key"]) for p in json.loads(out)["problems"]}, damaged, damaged, before
        )

    def reads(self) -> list[str]:
        """Return every output that a stored step or the plan itself reads."""
        read = {
            self.plan.steps[ref.step].output(ref.output)
            for step in self.plan.steps.values()
            for ref in step.inputs.values()
        }
        return sorted(read) + [
            o for o in self.artifacts if o.startswith("ingest.") and _data(self._path(o, 0))
        ]

    def met(self, output: str, rng: random.Random, command: bool) -> None:
        """Flip a bit in the data of one artifact, delete one that was computed from it, and ask for
        that one.
        """
        key = rng.choice(self.artifacts[output])
        deleted = set[Name]()
        base = None
        if output in self.bases:
            step, task = rng.choice(self._readers(output, key))
            base, deleted = step.base, {(step.output(o), key) for o, key in task.keys.items()}
        before = stamps(self.root)
        for name in deleted:
            for suffix in (".json", ".h5"):
                Store(self.root).path(*name).with_suffix(suffix).unlink()
        place, length = rng.choice(_data(self._path(output, key)))
        _flip_bit(self._path(output, key), place + rng.randrange(length), rng)
        aside = self._aside()
        if command:
            self._run_command({base})
        else:
            mended(lambda: self._run(base), lambda sentence: None)
        found = {
            (o, k)
            for o, keys in self.artifacts.items()
            for k in keys
            if (f"{o}-{k[:16]}") in self._aside() - aside
        }
        self._judge(found, {(output, key)}, deleted | {(output, key)}, before)

    def _readers(self, output: str, key: str) -> list[tuple[Step, Task]]:
        return [
            (step, task)
            for step in self.plan.steps.values()
            for name, ref in step.inputs.items()
            if self.plan.steps[ref.step].output(ref.output) == output
            for task in step.tasks
            if key
            in {self.plan.steps[ref.step].tasks[i].keys[ref.output] for i in task.needs[name]}
        ]

    def _path(self, output: str, key: str | int) -> Path:
        return Store(self.root).path(
            output, key if isinstance(key, str) else self.artifacts[output][key]
        )

    def _aside(self) -> Counter[str]:
        return Counter(
            path.stem.rpartition("-")[0] for path in self.root.glob("quarantine/*.reason")
        )

    def _flip(self, names: Iterable[Name], rng: random.Random) -> None:
        for name in sorted(names):
            path = Store(self.root).path(*name).with_suffix(rng.choice([".h5", ".h5", ".json"]))
            _flip_bit(path, rng.randrange(path.stat().st_size), rng)
            self.flipped[path.suffix] += 1

    def _run(self, base: str | None) -> Any:
        return execute(open_session(Path(self.config), store=self.root, until=base), Events())

    def _run_command(self, bases: Iterable[str | None]) -> None:
        for base in bases:
            self.place.run(
                "run", self.config, "--store", "store", *(["--until", base] if base else [])
            )

    def _judge(self, found: set[Name], damaged: set[Name], anew: set[Name], before: Stamps) -> None:
        """Count what was found rightly and wrongly, and what was computed again alone with the same
        digest.
        """
        self.seen["found"] += len(found & damaged)
        self.seen["wrong"] += len(found - damaged)
        after, digests = stamps(self.root), self.place.digests("store")
        others = {
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        right = {
            Store(self.root).path(*name).with_suffix(suffix)
            for name in anew
            for suffix in (".h5", ".json")
        }
        if others == right and digests == self.expected:
            self.seen["alone"] += len(damaged)


def _flip_bit(path: Path, place: int, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _data(path: Path) -> list[tuple[int, int]]:
    """Return where in a file the chunks of its largest column lie: (first byte, bytes). Remarks are
    left out.
    """
    columns: list[Any] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                columns.append(node)
                if name not in ("status", "reason/ends", "reason/utf8")
                else None
            )
        )
        columns = [node for node in columns if isinstance(node, h5py.Dataset) and node.chunks]
        if not columns:
            return []
        chunks = max(columns, key=lambda node: node.nbytes).id
        found = [chunks.get_chunk_info(i) for i in range(chunks.get_num_chunks())]
        return [(chunk.byte_offset, chunk.size) for chunk in found]
