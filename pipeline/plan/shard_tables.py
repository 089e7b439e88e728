"""What a stage sees of the data set's tables: which columns, and for one shard which rows."""

from __future__ import annotations

from pipeline.core.schema import Batch
from pipeline.core.stage import Stage
from pipeline.plan.dataset import Dataset


def tables_of_shard(stage: Stage, dataset: Dataset, start: int, stop: int) -> dict[str, Batch]:
    """Return the tables of one shard, rows start…stop of its stage's axis."""
    return {
        table: dataset.part(table, columns, stage.cut_along, start, stop)
        for table, columns in columns_seen(stage, dataset).items()
    }


def columns_seen(stage: Stage, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return every column that a stage sees, by table.

    They are those that decide numbers and those that only say where files lie.
    """
    merged = dict(stage.consumed())
    for table, columns in stage.locates.items():
        merged[table] = tuple(dict.fromkeys((*merged.get(table, ()), *columns)))
    if stage.grain == "map":
        # A map stage is handed the rows of its axis even if it needs no column of them: the
        # micro-batch has to have a length.
        merged.setdefault(stage.axis, (dataset.layout.schemas[stage.axis].fields[0].name,))
    return merged
