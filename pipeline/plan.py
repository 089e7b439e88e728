"""Config → Plan: every step, its shards, their keys, whether they are stored and, if not, why. Nothing runs here.

A step that names a factor (`$model`) is made once for each of its values; steps below inherit the factors of the
inputs they actually use, so a cell that does not depend on a factor exists once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, StepConfig, validate
from pipeline.dataset import Axis, Dataset
from pipeline.errors import InvalidInput, unknown
from pipeline.keys import difference, key_of
from pipeline.numerics import backend_version, profile_of
from pipeline.registry import lookup
from pipeline.stage import Context, Stage
from pipeline.store import Store


@dataclass(frozen=True)
class Ref:
    """An input of a step: an output of another step."""

    step: str
    output: str


@dataclass
class Task:
    """One shard of one step."""

    index: int
    start: int
    stop: int
    keys: dict[str, str]  # output → artifact key
    preimage: dict[str, Any]
    needs: dict[str, tuple[int, ...]]  # input name → upstream shards
    missing: set[str] = field(default_factory=set)  # outputs wanted and not stored
    reason: str = ""


@dataclass
class Step:
    """One stage with its options, for one combination of factors."""

    name: str
    base: str
    stage: Stage
    factors: dict[str, Any]
    inputs: dict[str, Ref]
    stored: bool
    tasks: list[Task] = field(default_factory=list)

    def output(self, name: str) -> str:
        """The folder of the store that holds one output of this step."""
        return f"{self.stage.name}.{name}" if name else self.stage.name

    @property
    def to_run(self) -> list[Task]:
        return [task for task in self.tasks if task.missing]

    @property
    def status(self) -> str:
        if self.to_run:
            return "run"
        return "present" if self.stored else "not needed"

    @property
    def reason(self) -> str:
        return self.to_run[0].reason if self.to_run else ""


@dataclass
class Plan:
    """All steps in an order in which they can run, each consumer soon after what it reads."""

    config: Config
    dataset: Dataset
    steps: dict[str, Step]
    context: Context

    @property
    def to_run(self) -> list[Step]:
        return [step for step in self.steps.values() if step.to_run]

    def cells(self, stage: str) -> Iterator[Step]:
        """Yield every step that runs the named stage."""
        return (step for step in self.steps.values() if step.stage.name == stage)

    def live(self) -> set[tuple[str, str]]:
        """Return (output, key) of everything this plan would keep."""
        kept = {(s.output(o), key) for s in self.steps.values() for t in s.tasks for o, key in t.keys.items()}
        return kept | {(f"ingest.{name}", self.dataset.key) for name in self.dataset.tables}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON: what `qfuse plan --json` prints and what `why` compares with later."""
        return {
            "config": self.config.name,
            "dataset": self.dataset.key,
            "steps": [
                {
                    "step": s.name,
                    "stage": s.stage.name,
                    "status": s.status,
                    "reason": s.reason,
                    "shards": len(s.tasks),
                    "to_run": len(s.to_run),
                    "tasks": [{"index": t.index, "rows": [t.start, t.stop], "keys": t.keys} for t in s.tasks],
                }
                for s in self.steps.values()
            ],
        }

    def preimages(self) -> dict[str, Any]:
        return {f"{s.name}#{t.index}": t.preimage for s in self.steps.values() for t in s.tasks}


def build(
    config: Config,
    dataset: Dataset,
    store: Store,
    context: Context,
    until: str | None = None,
    recall: Path | None = None,
) -> Plan:
    """Return the plan of a config over its data set.

    `until` names the step (or stage) after which to stop; `recall` is the file of a former plan's pre-images, from which
    reasons are told. Raises InvalidInput for unknown stages, steps, inputs, options or factors, and for cycles.
    """
    bases = _ordered(config)
    if until is not None:
        wanted = {name for name, step in config.steps.items() if until in (name, step.stage)}
        if not wanted:
            raise InvalidInput(unknown("step", until, config.steps))
        bases = _above(config, bases, wanted)
    used = {f for n in bases for f in _own_factors(config, n)}
    if until is None and (idle := set(config.factors) - used):
        raise InvalidInput(f"factors.{sorted(idle)[0]}: no step uses it; write ${sorted(idle)[0]} where it should go.")
    steps: dict[str, Step] = {}
    for name in bases:
        for step in _expand(name, config, context, steps):
            steps[step.name] = step
    steps = {step.name: step for step in _depth_first(steps)}
    read = {ref.step for step in steps.values() for ref in step.inputs.values()}
    lists: dict[Any, str] = {}
    for step in steps.values():
        step.stored |= step.name not in read  # what nothing reads is what was asked for
        step.tasks = list(_tasks(step, steps, dataset, lists))
    plan = Plan(config, dataset, steps, context)
    _mark(plan, store, _recalled(recall))
    return plan


def _stage_name(config: Config, name: str) -> str:
    return config.steps[name].stage or name


def _refs(config: Config, name: str) -> dict[str, Ref]:
    cls: type[Stage] = lookup("stage", _stage_name(config, name))
    given = config.steps[name].inputs
    for key in given:
        if key not in cls.inputs:
            raise InvalidInput(f"steps.{name}.inputs: {unknown('input', key, cls.inputs)}")
    return {key: Ref(*(given.get(key, default).partition(".")[::2])) for key, default in cls.inputs.items()}


def _ordered(config: Config) -> list[str]:
    """Config steps so that each comes after what it may read. An input no step provides is only an error if used."""
    order: list[str] = []
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in visiting:
            raise InvalidInput(f"steps: {' → '.join([*visiting[visiting.index(name) :], name])} is a cycle.")
        visiting.append(name)
        for ref in _refs(config, name).values():
            if ref.step in config.steps:
                visit(ref.step)
        visiting.pop()
        order.append(name)

    for name in config.steps:
        visit(name)
    return order


def _above(config: Config, order: list[str], wanted: set[str]) -> list[str]:
    keep = set(wanted)
    for name in reversed(order):
        if name in keep:
            keep |= {ref.step for ref in _refs(config, name).values()}
    return [name for name in order if name in keep]


def _own_factors(config: Config, name: str) -> list[str]:
    step = config.steps[name]
    found = set(_variables([step.options, step.numerics]))
    for factor in found:
        if factor not in config.factors:
            raise InvalidInput(f"steps.{name}: {unknown('factor', factor, config.factors)}")
    return [factor for factor in config.factors if factor in found]


def _variables(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("$"):
        yield value[1:]
    elif isinstance(value, dict):
        for item in value.values():
            yield from _variables(item)
    elif isinstance(value, list):
        for item in value:
            yield from _variables(item)


def _substitute(value: Any, factors: dict[str, Any]) -> Any:
    if isinstance(value, str) and value.startswith("$"):
        return factors[value[1:]]
    if isinstance(value, dict):
        return {key: _substitute(item, factors) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, factors) for item in value]
    return value


def _combinations(config: Config, factors: Iterable[str]) -> list[dict[str, Any]]:
    combos: list[dict[str, Any]] = [{}]
    for factor in factors:
        combos = [{**combo, factor: value} for combo in combos for value in config.factors[factor]]
    return combos


def _expand(name: str, config: Config, context: Context, steps: dict[str, Step]) -> Iterator[Step]:
    section: StepConfig = config.steps[name]
    cls: type[Stage] = lookup("stage", _stage_name(config, name))
    for own in _combinations(config, _own_factors(config, name)):
        where = f"{config.name}: steps.{name}.options"
        options = validate(cls.Options, _substitute(section.options, own), where)
        numerics = _substitute(section.numerics if section.numerics is not None else config.numerics, own)
        stage = cls(options, Context(profile_of(numerics), context.files, context.model_folders, context.model_cards))
        refs = {key: ref for key, ref in _refs(config, name).items() if key in stage.uses()}
        for key, ref in refs.items():
            _check_ref(f"steps.{name}.inputs.{key}", ref, config)
        for factors, inputs in _joined(own, refs, steps):
            ordered = {factor: factors[factor] for factor in config.factors if factor in factors}
            label = ",".join(f"{factor}={value}" for factor, value in ordered.items())
            stored = section.stored if section.stored is not None else cls.stored
            yield Step(f"{name}[{label}]" if label else name, name, stage, ordered, inputs, stored)


def _check_ref(where: str, ref: Ref, config: Config) -> None:
    if ref.step not in config.steps:
        raise InvalidInput(f"{where}: {unknown('step', ref.step, config.steps)}")
    outputs = lookup("stage", _stage_name(config, ref.step)).produces
    if ref.output not in outputs:
        named = [f"{ref.step}.{o}" if o else ref.step for o in outputs]
        raise InvalidInput(f"{where}: {unknown('output', f'{ref.step}.{ref.output}'.rstrip('.'), named)}")


def _joined(
    own: dict[str, Any], refs: dict[str, Ref], steps: dict[str, Step]
) -> Iterator[tuple[dict[str, Any], dict[str, Ref]]]:
    """Yield every combination of input steps whose factors agree with each other and with this step's own."""
    found: list[tuple[dict[str, Any], dict[str, Ref]]] = [(own, {})]
    for key, ref in refs.items():
        candidates = [step for step in steps.values() if step.base == ref.step]
        found = [
            ({**factors, **step.factors}, {**inputs, key: Ref(step.name, ref.output)})
            for factors, inputs in found
            for step in candidates
            if all(factors.get(factor, value) == value for factor, value in step.factors.items())
        ]
    yield from found


def _depth_first(steps: dict[str, Step]) -> Iterator[Step]:
    """Order steps so that what is computed is used, and its memory freed, soon."""
    done: set[str] = set()
    consumed = {ref.step for step in steps.values() for ref in step.inputs.values()}

    def visit(step: Step) -> Iterator[Step]:
        if step.name not in done:
            done.add(step.name)
            for ref in step.inputs.values():
                yield from visit(steps[ref.step])
            yield step

    for step in steps.values():
        if step.name not in consumed:
            yield from visit(step)


def _tasks(step: Step, steps: dict[str, Step], dataset: Dataset, lists: dict[Any, str]) -> Iterator[Task]:
    stage = step.stage
    axis: Axis = dataset.axes[stage.axis]
    backends = stage.backends()
    fixed = {
        "format": "qfuse/1",
        "stage": stage.name,
        "version": stage.version,
        "produces": {name: schema.fingerprint for name, schema in stage.produces.items()},
        "options": stage.options.result_options(),
        "identity": stage.identity(),
        "numerics": {
            **stage.context.profile.model_dump(mode="json", exclude={"name"}),
            "backends": {name: backend_version(name) for name in backends},
        }
        if backends
        else None,
    }
    consumed = stage.consumed()
    for index, (start, stop) in enumerate(axis.shards if stage.grain != "reduce" else [(0, axis.rows)]):
        needs = {key: _needed_shards(stage, steps[ref.step], index, dataset, start, stop) for key, ref in step.inputs.items()}
        preimage = {
            **fixed,
            "inputs": {key: _keys_of(steps[ref.step], ref.output, needs[key], lists) for key, ref in step.inputs.items()},
            "tables": {
                table: _table_digest(dataset, stage, table, columns, start, stop) for table, columns in consumed.items()
            },
            "range": [start, stop] if stage.grain == "tile" else None,
        }
        keys = {output: key_of([preimage, output]) for output in stage.produces}
        yield Task(index, start, stop, keys, preimage, needs)


def _table_digest(dataset: Dataset, stage: Stage, table: str, columns: tuple[str, ...], start: int, stop: int) -> str:
    if stage.grain == "reduce":
        return dataset.digest(table, columns, "", 0, 0)
    return dataset.digest(table, columns, stage.axis, start, stop)


def _needed_shards(stage: Stage, upstream: Step, index: int, dataset: Dataset, start: int, stop: int) -> tuple[int, ...]:
    if stage.grain == "map":
        return (index,)
    if stage.grain == "group" and stage.members and len(upstream.tasks) > 1:
        table, column = stage.members
        rows = dataset.part(table, (column,), stage.axis, start, stop)[column]
        stops = [task.stop for task in upstream.tasks]
        return tuple(int(i) for i in np.unique(np.searchsorted(stops, rows, side="right"))) or (0,)
    return tuple(range(len(upstream.tasks)))


def _keys_of(step: Step, output: str, shards: tuple[int, ...], lists: dict[Any, str]) -> str:
    name = (step.name, output, shards)
    if name not in lists:
        lists[name] = key_of([step.tasks[i].keys[output] for i in shards])
    return lists[name]


def _recalled(path: Path | None) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    try:
        data = json.loads(path.read_bytes())
        return data if isinstance(data, dict) else {}
    except ValueError:
        return {}  # only reasons are lost


def _mark(plan: Plan, store: Store, former: dict[str, Any]) -> None:
    """From the leaves up, mark the tasks whose outputs are wanted and not stored, and say why."""
    consumed = {(ref.step, ref.output) for step in plan.steps.values() for ref in step.inputs.values()}
    leaves = {name for name in plan.steps if not any(name == consumer for consumer, _ in consumed)}
    wanted: dict[tuple[str, str], set[int]] = {}
    present: Callable[[str], set[str]] = _remembered(store)
    for step in reversed(plan.steps.values()):
        for task in step.tasks:
            outputs = [o for o in step.stage.produces if step.name in leaves or task.index in wanted.get((step.name, o), ())]
            task.missing = {o for o in outputs if not (step.stored and task.keys[o] in present(step.output(o)))}
            if not task.missing:
                continue
            for key, ref in step.inputs.items():
                wanted.setdefault((ref.step, ref.output), set()).update(task.needs[key])
            task.reason = _reason(step, task, former.get(f"{step.name}#{task.index}"))


def _remembered(store: Store) -> Callable[[str], set[str]]:
    found: dict[str, set[str]] = {}

    def present(output: str) -> set[str]:
        if output not in found:
            found[output] = store.present(output)
        return found[output]

    return present


def _reason(step: Step, task: Task, former: dict[str, Any] | None) -> str:
    if former is None:
        return "never computed"
    changes = difference(former, task.preimage)
    if not changes:
        return "not in the store" if step.stored else "kept in memory only, and needed below"
    words = []
    for change in changes:
        section, _, rest = change.partition(".")
        if section == "inputs":
            words.append(
                f"{step.inputs[rest.partition(':')[0]].step} changed"
                if rest.partition(":")[0] in step.inputs
                else "inputs changed"
            )
        elif section == "tables":
            words.append(f"the data set's {rest.partition(':')[0]} changed")
        else:
            words.append(change)
    return "; ".join(dict.fromkeys(words))
