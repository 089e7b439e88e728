"""Check a config without computing, and find all problems of its data set, steps and report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.cluster import need_cluster
from pipeline.config.config import Config
from pipeline.core.numerics import profile_of
from pipeline.core.registry import available, lookup
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput, QfuseError
from pipeline.files.digests import DigestCache
from pipeline.files.file_tree import Folder
from pipeline.plan.dataset import Dataset, ingest
from pipeline.plan.graph import (
    Step,
    combinations,
    count_cells,
    expand,
    need_used_factors,
    ordered,
    own_factors,
    stage_of,
)
from pipeline.plan.instruction_mix import computes_here, slow_bf16
from pipeline.plan.plan import Plan, build_plan, context_of, need_few_shards, need_rows
from pipeline.store.store import Store
from pipeline.system.instruction_sets import lacks_bf16
from pipeline.system.scratch import scratch_folder


class Problems:
    """The problems found so far, in order, each once."""

    def __init__(self) -> None:
        self.found: dict[str, QfuseError] = {}

    def attempt(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a call returns; if it raises a problem, keep that and return None."""
        try:
            return call(*arguments)
        except QfuseError as problem:
            self.found.setdefault(str(problem), problem)
            return None


@dataclass(frozen=True)
class ConfigCheck:
    """What is wrong with a config, one by one and as one sentence.

    Of a config with nothing wrong: the rows of its tables, the number of its steps, and notes.
    """

    problems: list[str]
    sentence: str = ""
    notes: Sequence[str] = ()
    tables: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0


def check_config(path: Path, load: Callable[[], Config]) -> ConfigCheck:
    """Check the config that `load` returns, or say why it returns none."""
    try:
        problems, plan, notes = find_problems(load())
    except InvalidInput as problem:
        return ConfigCheck([str(problem)], str(problem))
    if plan is None:
        return ConfigCheck(problems, f"{path}: {listed(problems)}", notes)
    tables = {name: batch.rows for name, batch in plan.dataset.tables.items()}
    notes += slow_bf16(plan.steps.values(), computes_here(plan.config) and lacks_bf16())
    return ConfigCheck(problems, "", notes, tables, len(plan.steps))


def find_problems(config: Config) -> tuple[list[str], Plan | None, list[str]]:
    """Return every problem as a sentence, the plan if there is none, and notes on the data set.

    Nothing is written.
    """
    problems = Problems()
    attempt = problems.attempt
    attempt(check_report, config)
    attempt(need_cluster, config.cluster)
    with scratch_folder() as nowhere:
        store = Store(nowhere / "store", readonly=True)
        dataset = attempt(ingest, config, store, DigestCache(None))
        # already among the problems; the steps are checked all the same
        if attempt(profile_of, config.numerics) is None:
            config = config.model_copy(update={"numerics": "cpu-fp32"})
        # Where the data set is wrong the weights are looked at all the same.
        context = context_of(
            config, lambda: dataset.files if dataset is not None else Folder(nowhere)
        )
        _check_steps(config, context, dataset, attempt)
        plan = None if problems.found else attempt(build_plan, config, dataset, store, context)
    notes = list(dataset.notes) if dataset is not None else []
    return list(problems.found), plan, notes + (doubts(plan) if plan is not None else [])


def doubts(plan: Plan) -> list[str]:
    """Return what the steps of a plan remark on its data set, each sentence once."""
    return list(
        dict.fromkeys(
            said for step in plan.steps.values() for said in step.stage.doubts(plan.dataset.tables)
        )
    )


def _check_steps(
    config: Config, context: Context, dataset: Dataset | None, attempt: Callable[..., Any]
) -> None:
    """Attempt all that can be checked of the steps: one problem must not hide another."""
    known = [
        name
        for name, section in config.steps.items()
        if attempt(lookup, "stage", section.stage or name)
    ]
    whole = len(known) == len(config.steps)
    order = (attempt(ordered, config) if whole else None) or known
    attempt(need_used_factors, config)
    if attempt(count_cells, config, order) is None:
        return
    steps = _steps(config, order, context, attempt) if whole else {}
    for step in steps.values():
        attempt(step.stage.open)
        if dataset is not None:
            attempt(need_rows, step, steps, dataset)
            attempt(step.stage.fits, dataset.tables)
    if dataset is not None:
        attempt(need_few_shards, steps.values(), dataset)
    expanded = {step.base for step in steps.values()}
    # The other steps could not be made, because what they read is wrong.
    for name in (name for name in order if name not in expanded):
        used = attempt(own_factors, config, name)
        for own in combinations(config, used) if used is not None else ():
            if stage := attempt(stage_of, name, config, context, own):
                attempt(stage.open)


def _steps(
    config: Config, order: Sequence[str], context: Context, attempt: Callable[..., Any]
) -> dict[str, Step]:
    """Return the steps that can be made.

    Of a config step that cannot, every combination of its factors is attempted.
    """
    steps: dict[str, Step] = {}
    for name in order:
        try:
            made = list(expand(name, config, context, steps))
        except QfuseError:
            for values in combinations(config, attempt(own_factors, config, name) or ()):
                single = config.model_copy(
                    update={"factors": {factor: [value] for factor, value in values.items()}}
                )
                attempt(lambda name=name, single=single: list(expand(name, single, context, {})))
            continue
        steps |= {step.name: step for step in made}
    return steps


def open_all(
    steps: Iterable[Step], opened: Callable[[Step], None] = lambda step: step.stage.open()
) -> None:
    """Open every step, so that whatever is missing is reported before another has run for hours.

    Raises the QfuseError of the first that cannot be opened, with the sentences of all.
    """
    problems = Problems()
    for step in steps:
        problems.attempt(opened, step)
    if problems.found:
        raise type(next(iter(problems.found.values())))(listed(list(problems.found)))


def listed(problems: Sequence[str]) -> str:
    """Return one problem as it is, several as a list of lines."""
    if len(problems) == 1:
        return problems[0]
    return "\n  - ".join([f"{len(problems)} problems:", *problems])


def check_report(config: Config) -> None:
    """Check the report's kind and its options.

    A kind may register a check of its options, which takes them and the config, under 'report
    options'. Raises InvalidInput, before a run rather than after it.
    """
    if config.report is not None:
        lookup("report", config.report.kind)
        options = available("report options").get(config.report.kind)
        if options is not None:
            options(config.report.options, config)
