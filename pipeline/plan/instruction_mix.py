"""What processors mean for a plan: mixed instruction sets in one store, and bf16 in software.

Only steps of networks and of OpenCV are looked at: what follows from embeddings is the same, to the
bit, everywhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress

from pipeline.config.config import Config
from pipeline.errors import CorruptArtifact
from pipeline.plan.graph import Step
from pipeline.plan.plan import Plan
from pipeline.store.store import Store
from pipeline.system.instruction_sets import DEPENDENT, lacks_bf16

OPTION = "run.mixed_instruction_sets"
# step → the instruction set that computes it; "" if that is not known
Computing = Mapping[str, str]


def computing(steps: Iterable[Step]) -> dict[str, str]:
    """Return, for each step whose results depend on it, what this process computes it with."""
    return {
        step.name: step.stage.computed_with
        for step in steps
        if not DEPENDENT.isdisjoint(step.stage.backends())
    }


def computed(step: Step, store: Store) -> Counter[str]:
    """Count a step's stored shards by what computed them, as far as their receipts tell."""
    found, output = Counter[str](), next(iter(step.stage.produces))
    for task in step.tasks if step.stored else ():
        name = step.output(output), task.keys[output]
        # Whoever needs the shard reports the damage, and has it computed again.
        with suppress(CorruptArtifact):
            if store.has(*name) and (what := store.receipt(*name).provenance.get("computed_with")):
                found[str(what)] += 1
    return found


def computed_otherwise(plan: Plan, store: Store, here: Computing) -> list[str]:
    """Return a line for each config step whose stored shards mix instruction sets.

    They may differ from each other, or from those that will be computed `here`.
    """
    stored: dict[str, Counter[str]] = defaultdict(Counter)
    now: dict[str, set[str]] = defaultdict(set)
    for name, what in here.items():
        counts, base = computed(plan.steps[name], store), plan.steps[name].base
        if len({what, *counts} - {""}) > 1:
            stored[base].update(counts)
            now[base].add(what)
    return [
        f"{base} was computed with {_counted(counts)}, here it would be with"
        f" {' or '.join(sorted(now[base])) or 'a GPU'}"
        for base, counts in stored.items()
    ]


def notes(plan: Plan, store: Store, here: Computing, slow: bool) -> list[str]:
    """Return what to know before a plan is computed `here`.

    `slow`: without instructions for bf16.
    """
    found = slow_bf16(plan.to_run, slow)
    if plan.config.run.mixed_instruction_sets or here.keys().isdisjoint(
        step.name for step in plan.to_run
    ):
        return found
    if mixed := computed_otherwise(plan, store, here):
        found.append(
            "this run mixes instruction sets, between which networks differ in their last bits:"
            f" {'; '.join(mixed)}. Choose another --store for results of one, or set {OPTION}:"
            " true."
        )
    return found


def notes_here(plan: Plan, store: Store) -> list[str]:
    """Return what to know before this machine computes a plan; nothing if a cluster is to do it."""
    if not computes_here(plan.config):
        return []
    return notes(plan, store, computing(plan.steps.values()), lacks_bf16())


def computes_here(config: Config) -> bool:
    """Whether a config's runs compute on this machine."""
    return config.run.dask is None or config.run.dask.startswith("local:")


def slow_bf16(steps: Iterable[Step], slow: bool) -> list[str]:
    """Return a warning if a processor without bf16 instructions is to compute networks in bf16."""
    profiles = {
        step.base: step.stage.context.profile for step in steps if "torch" in step.stage.backends()
    }
    found = [
        base
        for base, profile in profiles.items()
        if (profile.device, profile.precision) == ("cpu", "bf16")
    ]
    if not found or not slow:
        return []
    return [
        f"{', '.join(found)}: numerics in bf16, for which the processor has no instructions"
        " (AVX-512 BF16 or AMX), or may not use them (ONEDNN_MAX_CPU_ISA): five to nine times"
        " slower than in float32. Set numerics: cpu-fp32."
    ]


def mixing_refusal(plan: Plan, where: str, workers: Mapping[str, Computing]) -> str:
    """Return a sentence that names workers (by address) of several instruction sets, or ""."""
    for step in plan.to_run:
        groups: dict[str, list[str]] = defaultdict(list)
        for address, here in workers.items():
            if here.get(step.name):
                groups[here[step.name]].append(address)
        if len(groups) > 1:
            told = "; ".join(
                f"{what}:"
                f" {', '.join(sorted(group)[:4])}{f' and {len(group) - 4} more' * (len(group) > 4)}"
                for what, group in sorted(groups.items())
            )
            return (
                f"the workers of {where} have different instruction sets, between which {step.base}"
                f" differs in its last bits: {told}. Use workers of one, or set {OPTION}: true."
            )
    return ""


def _counted(counts: Counter[str]) -> str:
    return " and ".join(
        f"{what} ({count:,} shard{'s' * (count > 1)})" for what, count in sorted(counts.items())
    )
