"""Steps → Plan: every shard, its key, whether it is stored and, if not, why. Nothing runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.config import Config
from pipeline.core.numerics import profile_of
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput, unknown
from pipeline.files.file_tree import Files
from pipeline.plan.dataset import Dataset
from pipeline.plan.graph import (
    Step,
    Task,
    count_cells,
    depth_first,
    down_to,
    expand,
    need_used_factors,
    ordered,
    with_all_above,
)
from pipeline.plan.last_plan import recalled
from pipeline.plan.shard_keys import tasks_of
from pipeline.store.store import Store
from pipeline.system.canonical_json import changed_fields, key_of

MAX_SHARDS = 250_000  # that a plan may have: each takes 2 kB, and 0.2 ms to plan
SET_ASIDE = "set aside as damaged"


@dataclass
class Plan:
    """All steps in an order in which they can run, each consumer soon after what it reads."""

    config: Config
    dataset: Dataset
    steps: dict[str, Step]
    context: Context
    until: str | None = None

    @cached_property
    def digest(self) -> str:
        """One digest of every key: plans of equal digests compute and read the same artifacts."""
        return key_of(
            [[step.name, [task.keys for task in step.tasks]] for step in self.steps.values()]
        )

    @property
    def to_run(self) -> list[Step]:
        return [step for step in self.steps.values() if step.to_run]

    @property
    def finished(self) -> bool:
        """Whether a run has computed all that was asked for.

        What has been set aside as damaged since then does not count.
        """
        read = {ref.step for step in self.steps.values() for ref in step.inputs.values()}
        lacking = (task for step in self.to_run if step.name not in read for task in step.to_run)
        return all(task.reason == SET_ASIDE for task in lacking)

    def cells(self, stage: str) -> Iterator[Step]:
        """Yield every step that runs the named stage."""
        return (step for step in self.steps.values() if step.stage.name == stage)

    def narrow(self, names: Iterable[str]) -> None:
        """Leave to do only what is missing of the named steps and of all that they read.

        No key changes.
        """
        kept = with_all_above(self.steps, names)
        for step in self.steps.values():
            for task in step.tasks if step.name not in kept else ():
                task.missing = set()

    def live_artifacts(self) -> set[tuple[str, str]]:
        """Return (output, key) of everything this plan would keep."""
        kept = {
            (s.output(o), key)
            for s in self.steps.values()
            for t in s.tasks
            for o, key in t.keys.items()
        }
        return kept | {(f"ingest.{name}", self.dataset.key) for name in self.dataset.tables}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON, which `qfuse plan --json` prints."""
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
                    "tasks": [
                        {"index": t.index, "rows": [t.start, t.stop], "keys": t.keys}
                        for t in s.tasks
                    ],
                }
                for s in self.steps.values()
            ],
        }


def context_of(config: Config, files: Callable[[], Files]) -> Context:
    """Return what surrounds the stages of a config. Raises InvalidInput for unknown numerics."""
    return Context(
        profile_of(config.numerics),
        files=files,
        base=config.base,
        model_folders=tuple(config.resolve(folder) for folder in config.models.folders),
        model_cards=tuple(config.resolve(cards) for cards in config.models.cards),
    )


def build_plan(
    config: Config,
    dataset: Dataset,
    store: Store,
    context: Context,
    until: str | None = None,
    recall: Path | None = None,
) -> Plan:
    """Return the plan of a config over its data set.

    `until` names the step (or stage) after which to stop; `recall` is the file of a former plan's
    pre-images, from which reasons are told. Raises InvalidInput for unknown stages, steps, inputs,
    options or factors, and for cycles.
    """
    if not config.steps:
        raise InvalidInput(
            f"{config.full_name}: `steps` is empty; name at least one, as in steps: {{embed:"
            " {}}."
        )
    steps: dict[str, Step] = {}
    order = ordered(config)
    # Counted before any is made: a few factors too many would take minutes and all memory.
    count_cells(config, order)
    for name in order:
        steps |= {step.name: step for step in expand(name, config, context, steps)}
    if until is not None:
        wanted = {name for name, step in config.steps.items() if until in (name, step.stage)}
        if not wanted:
            raise InvalidInput(unknown("step", until, config.steps))
        steps = down_to(steps, wanted)
    else:
        # Not for a part of the steps: another part may use the factor.
        need_used_factors(config)
    steps = depth_first(steps)
    read = {ref.step for step in steps.values() for ref in step.inputs.values()}
    # digests of lists of keys, and of rows, that several shards share
    digests: dict[Any, str] = {}
    need_few_shards(steps.values(), dataset)
    for step in steps.values():
        need_rows(step, steps, dataset)
        step.stage.fits(dataset.tables)
        step.stored |= step.name not in read  # a step that nothing reads is what was asked for
        step.tasks = list(tasks_of(step, steps, dataset, digests))
    plan = Plan(config, dataset, steps, context, until)
    _mark_missing(plan, store, recalled(recall))
    return plan


def need_few_shards(steps: Collection[Step], dataset: Dataset) -> None:
    """Raise InvalidInput if all steps together have more shards than a plan may have.

    They are counted before any is cut.
    """
    shards, cells = dict[str, int](), Counter[str]()
    for step in steps:
        axis = dataset.axes[step.stage.axis]
        shards[step.base] = 1 if step.stage.grain == "reduce" else axis.fewest
        cells[step.base] += 1
    if sum(cells[base] * shards[base] for base in cells) > MAX_SHARDS:
        worst = max(cells, key=lambda base: cells[base] * shards[base])
        name = next(step.stage.axis for step in steps if step.base == worst)
        axis = dataset.axes[name]
        raise InvalidInput(
            f"{axis.rows:,} {name}, {axis.shard_rows:,} a shard, make {shards[worst]:,} shards of"
            f" each of {cells[worst]:,} cells of {worst}, and a plan may have {MAX_SHARDS:,} shards"
            f" in all: raise dataset.shard_rows.{name}"
            + (", or give factors fewer values." if cells[worst] > 1 else ".")
        )


def need_rows(step: Step, steps: Mapping[str, Step], dataset: Dataset) -> None:
    """Raise InvalidInput if an input numbers other rows than the stage takes them for."""
    for name, axis in (
        (name, axis) for name, axis in step.stage.rows.items() if name in step.inputs
    ):
        above = steps[step.inputs[name].step]
        found = above.stage.axis if above.stage.grain in ("map", "group") else ""
        if found != axis and not (found and dataset.layout.same_rows(found, axis, dataset.tables)):
            given = f"{found}, which are not the same rows here" if found else "none of them"
            raise InvalidInput(
                f"steps.{step.base}.inputs.{name}: {step.stage.name!r} reads {axis}, and"
                f" {above.base!r} gives {given}: name a step that gives {axis}."
            )


def _mark_missing(plan: Plan, store: Store, former: dict[str, Any]) -> None:
    """From the leaves up, mark the tasks whose outputs are wanted and not stored, and say why.

    What was set aside as damaged is wanted, even if no missing shard would read it.
    """
    leaves = plan.steps.keys() - {
        ref.step for step in plan.steps.values() for ref in step.inputs.values()
    }
    # (step, output) → the shards that a missing shard below would read
    wanted: dict[tuple[str, str], set[int]] = {}
    present: Callable[[str], set[str]] = _remembered(store)
    aside = store.aside()
    # Backwards, so that what is missing below has said which shards it would read.
    for step in reversed(plan.steps.values()):
        for task in step.tasks:
            hurt: set[str] = set()
            if step.stored:
                # A name in quarantine/ holds the first 16 digits of the key.
                hurt = {o for o, key in task.keys.items() if (step.output(o), key[:16]) in aside}
            outputs = [
                o
                for o in step.stage.produces
                if step.name in leaves or task.index in wanted.get((step.name, o), ())
            ]
            task.missing = {
                o
                for o in {*outputs, *hurt}
                if not (step.stored and task.keys[o] in present(step.output(o)))
            }
            if not task.missing:
                continue  # it needs nothing from the steps above
            for key, ref in step.inputs.items():
                wanted.setdefault((ref.step, ref.output), set()).update(task.needs[key])
            known = task.missing <= hurt
            task.reason = (
                SET_ASIDE if known else _reason(step, task, former.get(f"{step.name}#{task.index}"))
            )


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
    try:
        changes = changed_fields(former, task.preimage)
    except (ValueError, RecursionError):  # the remembered pre-image may be damaged in any way
        return "never computed"
    if not changes:
        return "not in the store" if step.stored else "kept in memory only, and needed below"
    words = []
    for change in changes:
        # Keys and digests of a pre-image mean nothing to a user: name the step or table instead.
        section, _, rest = change.partition(".")
        if section == "inputs":
            above = step.inputs.get(rest.partition(":")[0])
            words.append(f"{above.step if above else 'inputs'} changed")
        elif section == "tables":
            words.append(f"the data set's {rest.partition(':')[0]} changed")
        else:
            words.append(change)
    return "; ".join(dict.fromkeys(words))
