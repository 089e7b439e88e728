"""The shards of a step: which upstream shards each reads, and what its key is the hash of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.core.numerics import backend_version
from pipeline.core.schema import Batch
from pipeline.core.stage import Stage
from pipeline.plan.dataset import Axis, Dataset
from pipeline.plan.graph import Step, Task
from pipeline.system.canonical_json import KEY_FORMAT, key_of


def tasks_of(
    step: Step, steps: dict[str, Step], dataset: Dataset, digests: dict[Any, str]
) -> Iterator[Task]:
    stage = step.stage
    axis: Axis = dataset.axes[stage.axis]
    fixed = {
        "format": KEY_FORMAT,
        "stage": stage.name,
        "version": stage.version,
        "produces": {name: schema.fingerprint for name, schema in stage.produces.items()},
        "options": stage.options.result_options(),
        "identity": stage.identity(),
        "numerics": _numerics(stage),
    }
    # Only the columns that decide numbers are hashed: a moved folder re-computes nothing.
    consumed = stage.consumed()
    for index, (start, stop) in enumerate(
        axis.shards if stage.grain != "reduce" else [(0, axis.rows)]
    ):
        needs = {
            key: _needed_shards(stage, steps[ref.step], index, dataset, start, stop)
            for key, ref in step.inputs.items()
        }
        preimage = {
            **fixed,
            "inputs": {
                key: _keys_of(steps[ref.step], ref.output, needs[key], digests)
                for key, ref in step.inputs.items()
            },
            "tables": {
                table: _table_digest(dataset, stage, table, columns, start, stop, digests)
                for table, columns in consumed.items()
            },
            # A tile reads all of its inputs, so only its range tells it from other tiles.
            "range": [start, stop] if stage.grain == "tile" else None,
        }
        keys = {output: key_of([preimage, output]) for output in stage.produces}
        yield Task(index, start, stop, keys, preimage, needs)


def _numerics(stage: Stage) -> dict[str, Any] | None:
    """Return what may change the numbers in how a stage computes.

    That is the versions of libraries, and the numerics profile where it matters.
    """
    backends = {name: backend_version(name) for name in stage.backends()}
    profile: dict[str, Any] = {}
    if stage.profiled:
        profile = stage.context.profile.model_dump(mode="json", exclude={"name", "engine"})
    return {**profile, "backends": backends} if backends else None


def _table_digest(
    dataset: Dataset,
    stage: Stage,
    table: str,
    columns: tuple[str, ...],
    start: int,
    stop: int,
    digests: dict[Any, str],
) -> str:
    axis = stage.cut_along
    if not axis or stage.members is None or stage.members[0] != table:
        return dataset.digest(table, columns, axis, start, stop)
    name = (stage.members, columns, stage.axis, start, stop)
    if name not in digests:
        # A row is told by its place among the shards that are read, not by its number: a number
        # would mean another row when a shard before grows or shrinks.
        part = dataset.part(table, columns, stage.axis, start, stop)
        shard, within = dataset.axes[stage.members[2]].places(part[stage.members[1]])
        _, place = np.unique(shard, return_inverse=True)
        digests[name] = Batch(
            {**part.columns, stage.members[1]: within, "shard": place.astype(np.int64)}
        ).digest()
    return digests[name]


def _needed_shards(
    stage: Stage, upstream: Step, index: int, dataset: Dataset, start: int, stop: int
) -> tuple[int, ...]:
    if stage.grain == "map":
        return (index,)
    if stage.members and upstream.stage.axis == stage.members[2] and upstream.stage.grain == "map":
        table, column, axis = stage.members
        shard, _ = dataset.axes[axis].places(
            dataset.part(table, (column,), stage.axis, start, stop)[column]
        )
        # Without a member it still reads one shard, to learn the columns.
        return tuple(np.unique(shard).tolist()) or (0,)
    return tuple(range(len(upstream.tasks)))


def _keys_of(step: Step, output: str, shards: tuple[int, ...], digests: dict[Any, str]) -> str:
    name = (step.name, output, shards)
    if name not in digests:
        digests[name] = key_of([step.tasks[i].keys[output] for i in shards])
    return digests[name]
