"""Config → the steps of its DAG: what each reads, and one step for each combination of factors.

A step that names a factor (`$model`) is made once for each of its values; steps below inherit the
factors of the inputs they actually use, so a cell that does not depend on a factor exists once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from pipeline.config.config import Config, StepConfig
from pipeline.config.validation import validate
from pipeline.core.numerics import profile_of
from pipeline.core.registry import lookup
from pipeline.core.stage import Context, Stage
from pipeline.errors import InvalidInput, unknown

MAX_CELLS = 10_000  # that a config may have: planning takes a millisecond for each


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

    @property
    def name(self) -> str:
        """The first of its keys, which stands for all of them."""
        return next(iter(self.keys.values()))


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


def _stage_name(config: Config, name: str) -> str:
    return config.steps[name].stage or name


def _refs(config: Config, name: str) -> dict[str, Ref]:
    cls: type[Stage] = lookup("stage", _stage_name(config, name))
    given = config.steps[name].inputs
    for key in given:
        if key not in cls.inputs:
            raise InvalidInput(f"steps.{name}.inputs: {unknown('input', key, cls.inputs)}")
    return {
        key: Ref(*(given.get(key, default).partition(".")[::2]))
        for key, default in cls.inputs.items()
    }


def ordered(config: Config) -> list[str]:
    """Config steps so that each comes after what it may read.

    An input no step provides is only an error if used.
    """
    order: list[str] = []
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in visiting:
            raise InvalidInput(
                f"steps: {' → '.join([*visiting[visiting.index(name) :], name])} is a cycle."
            )
        visiting.append(name)
        for ref in _refs(config, name).values():
            if ref.step in config.steps:
                visit(ref.step)
        visiting.pop()
        order.append(name)

    for name in config.steps:
        visit(name)
    return order


def count_cells(config: Config, names: Iterable[str]) -> int:
    """Return how many cells the factors make of the config steps, which come in running order.

    It may count too many where some steps do not read all of their inputs.

    Nothing is expanded: the factors that a step's options name, and those of what it reads,
    multiply. Raises InvalidInput where there are more than a config may have.
    """
    reach: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for name in names:
        step = config.steps[name]
        inputs = lookup("stage", _stage_name(config, name)).inputs
        above = {step.inputs.get(key, default).partition(".")[0] for key, default in inputs.items()}
        reach[name] = {
            factor
            for factor in _variables([step.options, step.numerics])
            if factor in config.factors
        }
        reach[name] = reach[name].union(*(reach[base] for base in above if base in reach))
        counts[name] = math.prod(len(config.factors[factor]) for factor in reach[name])
    cells = sum(counts.values())
    if cells > MAX_CELLS:
        worst = max(counts, key=lambda name: counts[name])
        values = " × ".join(
            f"{name} ({len(given)})"
            for name, given in config.factors.items()
            if name in reach[worst]
        )
        raise InvalidInput(
            f"{config.full_name}: factors: {values} make {counts[worst]:,} cells of {worst}, and a"
            f" config may have {MAX_CELLS:,} cells in all: give fewer values, or make several"
            " configs."
        )
    return cells


def down_to(steps: dict[str, Step], bases: set[str]) -> dict[str, Step]:
    """Return the steps of these config steps and all that they read, in the same order."""
    kept = with_all_above(steps, {name for name, step in steps.items() if step.base in bases})
    return {name: step for name, step in steps.items() if name in kept}


def with_all_above(steps: Mapping[str, Step], names: Iterable[str]) -> set[str]:
    """Return the names of some steps and of all that they read, directly or not.

    `steps` has each step after what it reads.
    """
    kept = set(names)
    # Backwards: by the time a step is met, whatever reads it has been.
    for name in reversed(list(steps)):
        if name in kept:
            kept |= {ref.step for ref in steps[name].inputs.values()}
    return kept


def computed_beside(steps: Iterable[Step]) -> dict[str, str]:
    """Return the steps whose numbers another computes on the way, and which one does, by name.

    Both run the same network under the same numerics profile (`Stage.follows`), and the other does
    not read this one.
    """
    every = {step.name: step for step in steps}
    return {
        step.name: other.name
        for step in every.values()
        for other in every.values()
        if other.stage.name == step.stage.follows
        and other.stage.identity() is not None
        and other.stage.identity() == step.stage.identity()
        and other.stage.context.profile == step.stage.context.profile
        and step.name not in with_all_above(every, [other.name])
    }


def own_factors(config: Config, name: str) -> list[str]:
    """Return the factors that a step's own options or numerics name.

    Raises InvalidInput for one that is unknown.
    """
    step = config.steps[name]
    found = set(_variables([step.options, step.numerics]))
    for factor in found:
        if factor not in config.factors:
            raise InvalidInput(f"steps.{name}: {unknown('factor', factor, config.factors)}")
    return [factor for factor in config.factors if factor in found]


def need_used_factors(config: Config) -> None:
    """Raise InvalidInput if no step uses a factor."""
    if idle := sorted(
        set(config.factors)
        - {factor for name in config.steps for factor in own_factors(config, name)}
    ):
        told = (
            f"factors.{name}: no step uses it; write ${name} where it should go" for name in idle
        )
        raise InvalidInput(f"{'; '.join(told)}.")


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


def combinations(config: Config, factors: Iterable[str]) -> list[dict[str, Any]]:
    """Return every combination of the factors' values."""
    combos: list[dict[str, Any]] = [{}]
    for factor in factors:
        combos = [{**combo, factor: value} for combo in combos for value in config.factors[factor]]
    return combos


def stage_of(name: str, config: Config, context: Context, own: dict[str, Any]) -> Stage:
    """Return the stage of a config step, its own factors at these values; nothing is above it yet.

    Raises InvalidInput for an option or numerics that do not exist or do not fit.
    """
    section = config.steps[name]
    cls: type[Stage] = lookup("stage", _stage_name(config, name))
    options = validate(
        cls.Options, _substitute(section.options, own), f"{config.full_name}: steps.{name}.options"
    )
    numerics = _substitute(
        section.numerics if section.numerics is not None else config.numerics, own
    )
    return cls(options, replace(context, profile=profile_of(numerics)))


def expand(name: str, config: Config, context: Context, steps: dict[str, Step]) -> Iterator[Step]:
    """Yield the steps of one config step, one for each combination of factors that reach it.

    `steps` are those that it may read.

    Raises InvalidInput for an option, an input or numerics that do not exist or do not fit.
    """
    section: StepConfig = config.steps[name]
    cls: type[Stage] = lookup("stage", _stage_name(config, name))
    for own in combinations(config, own_factors(config, name)):
        # Made once without inputs, only to ask which inputs these options need.
        alone = stage_of(name, config, context, own)
        options, needed = alone.options, alone.uses()
        refs = {key: ref for key, ref in _refs(config, name).items() if key in needed}
        for key, ref in refs.items():
            if ref.step not in config.steps and key not in section.inputs:
                raise InvalidInput(_lacks(name, key, ref, options))
            _check_ref(f"steps.{name}.inputs.{key}", cls, ref, config)
        # The inputs bring factors of their own: one step for every choice of inputs that agree.
        for factors, inputs in _joined(own, refs, steps):
            ordered = {factor: factors[factor] for factor in config.factors if factor in factors}
            label = ",".join(f"{factor}={value}" for factor, value in ordered.items())
            stored = section.stored if section.stored is not None else cls.stored
            # Each step has a stage of its own, which knows what is above it.
            stage = cls(options, alone.context)
            stage.above = {key: steps[ref.step].stage for key, ref in inputs.items()}
            yield Step(f"{name}[{label}]" if label else name, name, stage, ordered, inputs, stored)


def _lacks(name: str, key: str, ref: Ref, options: BaseModel) -> str:
    """Return the error for an input that is read by default and is not a step of the config."""
    chosen = ", ".join(
        f"{field}: {value}" for field, value in options.model_dump(exclude_defaults=True).items()
    )
    return (
        f"steps.{name}{f', with these options ({chosen}),' if chosen else ''} reads a step"
        f" {ref.step!r}, and there is none: add `{ref.step}: {{}}` to its steps, or name the step"
        f" that it should read in steps.{name}.inputs.{key}."
    )


def _check_ref(where: str, cls: type[Stage], ref: Ref, config: Config) -> None:
    if ref.step not in config.steps:
        raise InvalidInput(f"{where}: {unknown('step', ref.step, config.steps)}")
    above: type[Stage] = lookup("stage", _stage_name(config, ref.step))
    outputs = above.produces
    if cls.grain == "map" and above.grain != "map":
        raise InvalidInput(
            f"{where}: {cls.name!r} reads row by row, and {ref.step!r} has no row for each row of"
            f" {cls.axis}."
        )
    if cls.grain == "group" and cls.members and above.grain in ("group", "tile"):
        raise InvalidInput(
            f"{where}: {cls.name!r} gathers rows of faces, and {ref.step!r} has no row for each of"
            " them."
        )
    if ref.output not in outputs:
        named = [f"{ref.step}.{o}" if o else ref.step for o in outputs]
        raise InvalidInput(
            f"{where}: {unknown('output', f'{ref.step}.{ref.output}'.rstrip('.'), named)}"
        )


def _joined(
    own: dict[str, Any], refs: dict[str, Ref], steps: dict[str, Step]
) -> Iterator[tuple[dict[str, Any], dict[str, Ref]]]:
    """Yield every choice of input steps whose factors agree, with each other and with `own`."""
    # A natural join, input by input: what is found so far, times the cells of the next input that
    # give every factor they share the same value.
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


def depth_first(steps: dict[str, Step]) -> dict[str, Step]:
    """Order the steps so that each result is soon used by all its readers, and its memory freed."""
    found: dict[str, Step] = {}
    reads = {step.name: {ref.step for ref in step.inputs.values()} for step in steps.values()}
    readers: dict[str, list[Step]] = {name: [] for name in steps}
    for step in steps.values():
        for name in reads[step.name]:
            readers[name].append(step)

    # Follow a step at once with each reader whose other inputs are there too.
    def place(step: Step) -> None:
        found[step.name] = step
        for reader in readers[step.name]:
            if reader.name not in found and reads[reader.name] <= found.keys():
                place(reader)

    for step in steps.values():
        if not reads[step.name]:
            place(step)
    return found
