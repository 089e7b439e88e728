"""finished_runs: finished runs as their reports recorded them, and their replicates in the store.

A run's report leaves its record in the run's folder: numbers.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from pipeline.config.config import Config, Scalar, load_config, load_layers
from pipeline.config.origin import report_folder
from pipeline.config.validation import validate
from pipeline.core.schema import Array
from pipeline.errors import InvalidInput, UsageError, unknown
from pipeline.store.store import Store
from pipeline.system.canonical_json import canonical
from pipeline.system.regular_file import read_regular
from stages.results.quantities import Kind, Quantity

RUNS = Path(".qfuse/runs")


class Named(BaseModel):
    """Which number a line of the table is."""

    step: str
    kind: Kind
    metric: str
    target: float | None
    threshold_rule: str

    @property
    def quantity(self) -> Quantity:
        return Quantity(self.kind, self.step, self.metric, self.target, self.threshold_rule)


class RecordedNumber(Named):
    """One number of one row of the table; null if it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    few: bool
    few_matches: bool | None = None  # null in what former versions wrote
    misses: int | None = None


class Evaluation(BaseModel):
    """Where the numbers of one cell are in the store."""

    step: str
    output: str
    key: str


class RecordedRow(BaseModel):
    """One row of the table: its factors, its lines, and the evaluations that it averages."""

    factors: dict[str, Scalar]
    lines: tuple[int, int]
    evaluations: list[Evaluation]


class Intervals(BaseModel):
    level: float = Field(gt=0, lt=1)
    replicates: int = Field(ge=0)


class Record(BaseModel):
    """What numbers.json says of a run, as far as it is read here."""

    config: dict[str, Any]
    dataset: str
    versions: dict[str, str]
    intervals: Intervals
    store: str
    headline: list[Named]
    rows: list[RecordedRow]
    table: list[RecordedNumber]


@dataclass(frozen=True)
class Drawn:
    """The replicates of one row's numbers of one step, means over its cells.

    `how` holds what decided which subjects were drawn: two that agree in all of it drew the same
    subjects in replicate r.
    """

    replicates: Mapping[Quantity, Array]
    how: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """A finished run.

    `config` is the config that it was named by, as it is now; None if it was named by its folder.
    """

    folder: Path
    record: Record
    config: Config | None = None
    _drawn: dict[tuple[int, str], Drawn | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        parts = [self.record.config.get(part) for part in ("name", "benchmark")]
        return " · ".join(str(part) for part in parts if part) or self.folder.name

    @cached_property
    def store(self) -> Store | None:
        """The store of the run, read-only; None if it is not found.

        It is where the record says or, if both were moved, beside the folder of runs. A key is a
        digest of contents, so whatever store has the key holds what was evaluated.
        """
        places = (Path(self.record.store), self.folder.parent.parent / "store")
        return next((Store(root, readonly=True) for root in places if root.is_dir()), None)

    def lines(self, row: int) -> dict[Quantity, RecordedNumber]:
        return {
            line.quantity: line for line in self.record.table[slice(*self.record.rows[row].lines)]
        }

    def drawn(self, row: int, step: str) -> Drawn | None:
        """Return the replicates of a row's numbers of one step.

        None if they are not in the store any more.
        """
        if (row, step) not in self._drawn:
            made = [e for e in self.record.rows[row].evaluations if e.step == step]
            kept = self.store is not None and all(self.store.has(e.output, e.key) for e in made)
            try:
                self._drawn[row, step] = self._read(row, step, made) if kept and made else None
            except (KeyError, TypeError, InvalidInput):
                # The record may have been edited, so that it names what is not an evaluation.
                self._drawn[row, step] = None
        return self._drawn[row, step]

    def _read(self, row: int, step: str, evaluations: list[Evaluation]) -> Drawn:
        assert self.store is not None  # noqa: S101  asked by `drawn`
        sums: dict[tuple[str, float | None, str], Array] = {}
        hows: dict[str, set[str]] = {"data": set(), "version": set(), "seed": set(), "half": set()}
        for evaluation in evaluations:
            made = self.store.receipt(evaluation.output, evaluation.key).provenance["preimage"]
            hows["data"].add(canonical(made["tables"]))
            hows["version"].add(canonical([made["stage"], made["version"]]))
            for option in ("seed", "half"):
                hows[option].add(canonical(made["options"].get(option)))
            n = self.store.read(
                evaluation.output, evaluation.key, ("metric", "target", "rule", "replicates")
            )
            targets = [None if np.isnan(target) else target for target in n["target"].tolist()]
            for i, name in enumerate(
                zip(n["metric"].tolist(), targets, n["rule"].tolist(), strict=True)
            ):
                sums[name] = sums.get(name, np.float64(0)) + n["replicates"][i]
        replicates = {
            q: sums[q.metric, q.target, q.rule] / len(evaluations)
            for q in self.lines(row)
            if q.step == step and (q.metric, q.target, q.rule) in sums
        }
        # Cells of one row may differ in these; sorted, so that their order does not count.
        return Drawn(replicates, {name: "\n".join(sorted(values)) for name, values in hows.items()})


def find_run(asked: str | Path, runs: Path = RUNS) -> Run:
    """Return the run that a folder, a name under `runs`, or a config stands for.

    A name is NAME or NAME/BENCHMARK; a config must have been run. Raises InvalidInput for anything
    else, and for a record that is not whole; UsageError for a config of several benchmarks, and for
    a name that is also the path of another run or file here: then "./NAME" is the path.
    """
    config, given = None, Path(asked)
    folder = given
    if given.name == "numbers.json":
        folder = given.parent
    elif _names_a_run(str(asked), runs):
        folder = runs / given
    # Path.exists may raise for a name that is longer than a file system allows.
    elif not os.path.exists(given):
        if str(asked) == given.name:
            names = []
            if runs.is_dir():
                names = [path.name for path in runs.iterdir() if _names_a_run(path.name, runs)]
            raise InvalidInput(
                f"{unknown('run', str(given), names)} It was looked for in {runs}; `--runs FOLDER`"
                f" looks elsewhere. Or give the folder of a run ({RUNS}/NAME), or its config."
            )
        raise InvalidInput(
            f"{given} does not exist; give the folder of a run ({RUNS}/NAME), or its config."
        )
    elif given.is_file():
        if (layers := load_layers(given, [])).several:
            named = ", ".join(layers.benchmarks)
            raise UsageError(
                f"{given} has the benchmarks {named}: give the run of one, as"
                f" NAME/{next(iter(layers.benchmarks))}."
            )
        config = load_config(given)
        folder = report_folder(config.run_folder(), config.name, config.origin)
    return Run(folder.absolute(), _record(folder / "numbers.json", given, config), config)


def _names_a_run(asked: str, runs: Path) -> bool:
    """Whether this is the name of a run.

    A name begins with a letter or a digit, a path may begin with "./". Raises UsageError if a file
    or another run's folder here has the same name; a folder of something else hides no run.
    """
    if not (asked[:1].isalnum() and os.path.isdir(runs / asked)):
        return False
    other = ""
    if os.path.isfile(asked):
        other = "a file"
    elif os.path.isfile(f"{asked}/numbers.json"):
        other = "a run's folder"
    if other and not os.path.samefile(asked, runs / asked):
        raise UsageError(
            f"{asked!r} is the name of a run, {runs / asked}, and of {other} here: write"
            f" {runs / asked} for the run, or ./{asked} for the other."
        )
    return True


def _record(path: Path, given: Path, config: Config | None) -> Record:
    try:
        content = json.loads(read_regular(path))
        # raises if a number is not finite, or the JSON is nested too deep to be compared
        canonical(content)
    except (FileNotFoundError, NotADirectoryError):
        if config is None:
            raise InvalidInput(
                f"{given} holds no numbers.json, so it is not the folder of a finished run with a"
                f" report; these are {RUNS}/NAME, and `qfuse run CONFIG` makes them."
            ) from None
        add = "" if config.report else "add `report: {}` to it, and "
        raise InvalidInput(
            f"{given}: there is no {path}; {add}`qfuse run {given}` first."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path} cannot be read ({error}); `qfuse report CONFIG` writes it again."
        ) from None
    if isinstance(content, dict) and "table" in content and "rows" not in content:
        raise InvalidInput(
            f"{path} was written by an older qfuse; `qfuse report CONFIG` writes it again."
        )
    try:
        record: Record = validate(Record, content, str(path))
    except InvalidInput as error:
        raise InvalidInput(f"{error}. `qfuse report CONFIG` writes it again.") from None
    return record
