"""One micro-batch of a map stage: rows that raise, or that come out as nan, are lost alone.

A row on which a stage raises is found by running its micro-batch row by row; it becomes a row with
a status and a reason. Only where every row raises is it the stage that is wrong, and its error
comes through. What the machine lacks (memory, open files, a library) is no row's fault and ends the
run: a failed row would be kept under a healthy key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.schema import Batch, Status, concat
from pipeline.core.stage import Stage
from pipeline.errors import InvalidInput, QfuseError, ResourceRefused, advice, no_memory, no_thread
from pipeline.plan.graph import Step, Task
from pipeline.store.claims import RowRange


class DecoderCrash(InvalidInput):
    """Stands for the error of a row that ends the process which runs it."""


@dataclass(frozen=True)
class LostRow:
    """One row on which a stage raised, or died.

    It becomes a failed row when a good one has shown the columns' shapes.
    """

    error: Exception

    @property
    def status(self) -> Status:
        return Status.DECODER_CRASH if isinstance(self.error, DecoderCrash) else Status.FAILED

    def reason(self, stage: Stage) -> str:
        if isinstance(self.error, DecoderCrash):
            return str(self.error)
        return f"{stage.name} raised {type(self.error).__name__}: {self.error}".splitlines()[0]


Part = dict[str, Batch] | LostRow


def micro_batches(step: Step, task: Task) -> Iterator[RowRange]:
    """Yield the rows (of the shard) of each micro-batch; one, an empty one, if there are none."""
    size, count = step.stage.context.profile.compute_batch, task.stop - task.start
    for start in range(0, max(count, 1), size):
        yield start, min(start + size, count)


def cut_around(rows: RowRange, alone: Collection[int]) -> Iterator[RowRange]:
    """Cut a range of rows so that each of the rows in `alone` is a range by itself."""
    start, stop = rows
    for row in sorted(row for row in alone if start <= row < stop):
        if row > start:
            yield start, row
        yield row, row + 1
        start = row + 1
    if start < stop or start == rows[0]:
        yield start, stop


def run_micro_batch(stage: Stage, rows: Batch, inputs: dict[str, Batch]) -> list[Part]:
    """Run a micro-batch; if that raises, row by row, so that only the rows to blame are lost."""
    try:
        return [_with_nan_failed(stage, stage.run(rows, inputs, stage.load(rows)))]
    except QfuseError:
        raise
    except Exception as error:
        if refused := machine_refusal(stage.name, error):
            raise refused from error
        if rows.rows == 0:
            raise
        if rows.rows == 1:
            return [LostRow(error)]
    ones = (slice(i, i + 1) for i in range(rows.rows))
    return [
        part
        for i in ones
        for part in run_micro_batch(stage, rows.take(i), {k: b.take(i) for k, b in inputs.items()})
    ]


def machine_refusal(where: str, error: Exception) -> ResourceRefused | None:
    """Return the refusal for an error of the machine's; None for one that rows may have caused."""
    if no_memory(error):
        problem = "memory ran out"
        todo = "use fewer workers, or a smaller numerics.compute_batch or dataset.shard_rows"
    elif no_thread(error):
        problem, todo = (
            "the system refused a thread",
            "use fewer workers, or raise the limit (`ulimit -u`)",
        )
    elif isinstance(error, OSError) and error.errno:
        problem, todo = "the machine refused a file", advice(error)
    elif isinstance(error, ImportError):
        problem, todo = "a library is missing or broken", "install it"
    else:
        return None
    found = f"{type(error).__name__}: {error}".splitlines()[0]
    return ResourceRefused(
        f"{where}: {problem} ({found:.200}): {todo}, and run again. Nothing of these rows was"
        " stored."
    )


def good_part(parts: list[Part]) -> dict[str, Batch] | None:
    """Return the first part that did not raise."""
    return next((part for part in parts if not isinstance(part, LostRow)), None)


def first_error(parts: list[Part]) -> Exception:
    """Return what the first lost row raised."""
    return next(part.error for part in parts if isinstance(part, LostRow))


def assemble(stage: Stage, parts: list[Part], example: dict[str, Batch]) -> dict[str, Batch]:
    """Return a whole shard, lost rows as failed ones whose columns have the shapes of `example`."""
    filled = []
    for part in parts:
        if isinstance(part, LostRow):
            part = {
                o: schema.blank(1, example[o], part.status, part.reason(stage))
                for o, schema in stage.produces.items()
            }
        filled.append(part)
    return {output: concat([part[output] for part in filled]) for output in filled[0]}


def _with_nan_failed(stage: Stage, outputs: dict[str, Batch]) -> dict[str, Batch]:
    """Turn rows that claim to be OK but hold nan or infinity into failed rows."""
    for output, batch in outputs.items():
        schema = stage.produces[output]
        if not schema.finite:
            continue
        finite = np.ones(batch.rows, dtype=bool)
        for name in schema.finite:
            finite &= np.isfinite(batch[name]).all(axis=tuple(range(1, batch[name].ndim)))
        bad = ~finite & (batch["status"] == Status.OK)
        if bad.any():
            blank = schema.blank(
                int(bad.sum()), batch, Status.NOT_FINITE, f"{stage.name} gave nan or infinity"
            )
            columns = {name: array.copy() for name, array in batch.columns.items()}
            for name in columns:
                columns[name][bad] = blank[name]
            outputs = {**outputs, output: Batch(columns)}
    return outputs
