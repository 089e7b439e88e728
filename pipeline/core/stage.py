"""What a stage is: typed column batches in, typed column batches out.

It knows no scheduler and commits nothing.

Four grains say how a stage reads what is above it:

    map     one upstream shard → one shard of the same rows, in micro-batches; `load` may read files
    group   the upstream shards that hold a shard's members → one shard of whole groups
    tile    every upstream shard and one range of rows of a table → one shard
    reduce  every upstream shard → one small artifact
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic import Field as PydanticField

from pipeline.config.validation import no_boolean
from pipeline.core.numerics import ALIKE, ON_DEVICE, Profile
from pipeline.core.parallel_map import spread
from pipeline.core.schema import Array, Batch, Schema, concat
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files
from pipeline.system.instruction_sets import gpu_architecture, instruction_set

Grain = Literal["map", "group", "tile", "reduce"]
T = TypeVar("T")
R = TypeVar("R")


class Options(BaseModel):
    """Base of a stage's options.

    Every field is a result option, and in the key, unless made by `execution`.
    """

    # a folder may be called 2024
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)
    _numbers = field_validator("*", mode="before")(no_boolean)

    def result_options(self) -> dict[str, Any]:
        """The fields that decide numbers, as JSON."""
        return self.model_dump(mode="json", exclude=execution_fields(type(self)))


def execution(default: Any) -> Any:
    """Declare an option that may change speed or wording but no number: it is not in the key."""
    return PydanticField(default, json_schema_extra={"execution": True})


def execution_fields(options: type[BaseModel]) -> set[str]:
    return {
        name
        for name, info in options.model_fields.items()
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("execution")
    }


@dataclass(frozen=True)
class Context:
    """What surrounds a stage: numerics, the data set's files, where weights and their cards are."""

    profile: Profile
    files: Callable[[], Files] | None = None
    model_folders: tuple[Path, ...] = ()
    model_cards: tuple[Path, ...] = ()
    base: Path = Path(".")  # the config's folder


@dataclass(frozen=True)
class Source:
    """The shards of one input, read when asked for. Rows are numbered along the whole axis."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    read_shard: Callable[[int, Sequence[str] | None], Batch] = field(repr=False)

    def read(self, columns: Sequence[str] | None = None) -> Batch:
        """Return every row of this input's shards, in order."""
        return concat([self.read_shard(i, columns) for i in range(len(self.starts))])

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Batch]]:
        """Yield (first row, shard) one at a time."""
        for i, start in enumerate(self.starts):
            yield start, self.read_shard(i, columns)

    def take(self, rows: Array, columns: Sequence[str] | None = None) -> Batch:
        """Return the given rows (int64 indices along the axis, any order, repeats allowed)."""
        shard = np.searchsorted(self.stops, rows, side="right")
        used = np.unique(shard)
        if len(used) == 0:
            return self.read_shard(0, columns).take(slice(0, 0))
        if len(used) == 1:
            # consecutive rows become a slice, which copies nothing
            return self.read_shard(int(used[0]), columns).take(_span(rows - self.starts[used[0]]))
        found: dict[str, Array] = {}
        # one after another: no more than one shard is held beside what is returned
        for i in used.tolist():
            part, mine = self.read_shard(i, columns), _span(np.flatnonzero(shard == i))
            inside = _span(rows[mine] - self.starts[i])
            if not found:
                found = {
                    name: np.empty((len(rows), *array.shape[1:]), array.dtype)
                    for name, array in part.items()
                }
            if part.columns.keys() != found.keys():
                raise InvalidInput(
                    f"cannot join shards of {', '.join(found)} and of {', '.join(part)}: different"
                    " columns."
                )
            for name, array in part.items():
                found[name][mine] = array[inside]
        return Batch(found)


def _span(rows: Array) -> slice | Array:
    """Return consecutive rows as a slice, others as they are."""
    first, count = int(rows[0]), len(rows)
    if np.array_equal(rows, np.arange(first, first + count)):
        return slice(first, first + count)
    return rows


@dataclass(frozen=True)
class Work:
    """One shard of a group, tile or reduce stage: its rows, tables and inputs, and who may help."""

    start: int
    stop: int
    tables: Mapping[str, Batch]
    inputs: Mapping[str, Source]
    pool: Executor | None = field(default=None, repr=False)
    threads: int = 1  # that compute shards, counting this one

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return the function's result of each item, in order, with the help of idle threads.

        The items must not depend on the number of threads, so that no bit of a result either.
        """
        return spread(function, items, self.pool, self.threads)


class Stage:
    """Base of all stages. A stage is cheap to make (plans make many); open models in `open`."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised whenever results may change
    grain: ClassVar[Grain]
    axis: ClassVar[str] = "faces"
    Options: ClassVar[type[Options]] = Options
    produces: ClassVar[Mapping[str, Schema]]  # output name → schema; a single output is called ""
    # input name → the step (or step.output) it reads by default
    inputs: ClassVar[Mapping[str, str]] = {}
    consumes: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # table → columns that decide numbers
    # table → columns that only say where to find things
    locates: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # group: (table, column that numbers upstream rows, their axis)
    members: ClassVar[tuple[str, str, str] | None] = None
    # input name → the axis whose rows it must have, where that matters
    rows: ClassVar[Mapping[str, str]] = {}
    # the stage that computes this one's numbers on the way, if both run the same network
    follows: ClassVar[str] = ""
    # outputs that are the bulk of a store and can be made again
    bulk: ClassVar[tuple[str, ...]] = ()
    stored: ClassVar[bool] = True  # False: recomputed when needed, kept only when a config says so

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context
        self.above: Mapping[str, Stage] = {}  # the stages of its inputs, set while planning

    def uses(self) -> tuple[str, ...]:
        """The inputs that these options need.

        A factor that reaches a step only through other inputs is pruned.
        """
        return tuple(self.inputs)

    def consumed(self) -> Mapping[str, tuple[str, ...]]:
        """Table columns that decide numbers under these options."""
        return self.consumes

    @property
    def cut_along(self) -> str:
        """The axis along which shards cut tables; empty if each has all of them."""
        return "" if self.grain == "reduce" else self.axis

    def fits(self, tables: Mapping[str, Batch]) -> None:
        """Raise InvalidInput if a data set lacks what these options need; asked while planning."""

    def doubts(self, tables: Mapping[str, Batch]) -> list[str]:
        """Return sentences on what these options cannot use of a data set that `fits`."""
        return []

    def identity(self) -> Any:
        """Whatever else decides numbers, as JSON: digests of weights, a model's preprocessing."""
        return None

    def backends(self) -> tuple[str, ...]:
        """Libraries whose version may change the last bits.

        With any but NumPy and SciPy, the numerics profile may change them too.
        """
        return ()

    @property
    def profiled(self) -> bool:
        """Whether the numerics profile may change the last bits, and so is in the key.

        A map is handed `compute_batch` rows at once, whatever computes them.
        """
        backends = set(self.backends())
        return bool(backends if self.grain == "map" else backends - ALIKE)

    @property
    def gpu(self) -> bool:
        """Whether it computes on the GPU of the numerics profile.

        If so, its shards ask a cluster for one.
        """
        return self.context.profile.device == "cuda" and not ON_DEVICE.isdisjoint(self.backends())

    @property
    def computed_with(self) -> str:
        """The instruction set that decides last bits here, or the GPU's kind; "" if unknown."""
        return gpu_architecture() if self.gpu else instruction_set(self.backends())

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        """Bytes that one shard surely holds besides its inputs and outputs, by what they are.

        A map is asked about one micro-batch. `rows` counts the rows of the shard (under "") and of
        each input, `sizes` has the bytes that a row takes in each column of an input, and `tables`
        are the shard's own. An entry named like an output's column of open length says how many
        bytes that column takes. This is asked before any work starts, when nothing is open yet.
        """
        return {}

    def open(self) -> None:
        """Check and load what is needed to run; called once, before the first row.

        `check` opens a stage by itself, with nothing above it, where its inputs cannot be told.
        """

    def load(self, rows: Batch) -> Any:
        """map only: read the files of one micro-batch. Runs in a worker thread."""
        return None

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        """map only: table rows and input rows of a micro-batch → these rows of every output."""
        raise NotImplementedError(f"{type(self).__name__}.run")

    def compute(self, work: Work) -> dict[str, Batch]:
        """group, tile, reduce: one shard."""
        raise NotImplementedError(f"{type(self).__name__}.compute")
