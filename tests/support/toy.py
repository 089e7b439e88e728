"""A toy data set and toy stages of every grain: tiny, deterministic, known to the engine after
`install`.

The data set is a folder of files NAME.GROUP, each holding one number. `measure` reads the numbers,
`power` raises them, `total` adds them up by group, `nearest` finds for each group the one with the
nearest total, `overall` counts and adds up everything. A file that holds no number makes `measure`
raise; one that holds `nan` gives nan; `crash`, `exit` and `killed` end the process that reads them,
the last one as a machine does that lacks memory.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.core import registry
from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Field, Schema, Status, text
from pipeline.core.stage import Options, Stage, Work, execution
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files
from pipeline.plan.dataset import Axis

STATUS, REASON, VALUE = Field("status", "uint8"), Field("reason", "text"), Field("value", "float64")
NUMBER = Schema("number", (STATUS, REASON, VALUE), finite=("value",))
MULTIPLES = Schema("multiples", (STATUS, Field("multiples", "float32", (None,))))
TOTAL = Schema("total", (STATUS, VALUE))
NEAREST = Schema("nearest", (Field("group", "int64"), Field("gap", "float64")))
OVERALL = Schema("overall", (Field("count", "int64"), VALUE))

calls: Counter[str] = Counter()  # rows (map) or shards that each stage computed
_lock = threading.Lock()


def count(stage: Stage, rows: int) -> None:
    with _lock:
        calls[stage.name] += rows
    # A file, in which processes count together.
    if "TOY_LOG" in os.environ and not sys.argv[0].endswith("crash_probe_child.py"):
        with open(os.environ["TOY_LOG"], "a") as log:
            log.write(f"{stage.name} {rows}\n")


class ToyLayout:
    schemas: ClassVar[Mapping[str, Schema]] = {
        "faces": Schema(
            "faces", (Field("face_id", "text"), Field("path", "text"), Field("sha256", "text"))
        ),
        "members": Schema("members", (Field("group", "int64"), Field("face", "int64"))),
        "groups": Schema("groups", (Field("group_id", "text"),)),
    }
    sorted_index: ClassVar[Mapping[tuple[str, str], str]] = {("members", "group"): "groups"}

    def same_rows(self, one: str, other: str, tables: Mapping[str, Batch]) -> bool:
        return False

    def axes(self, tables: Mapping[str, Batch], shard_rows: Mapping[str, int]) -> dict[str, Axis]:
        return {
            axis: Axis(tables[axis].rows, shard_rows.get(axis, 4)) for axis in ("faces", "groups")
        }


class ToyReader:
    name: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = Options
    layout: ClassVar[ToyLayout] = ToyLayout()

    def __init__(self, options: Any) -> None:
        pass

    def sources(self, files: Files) -> list[str]:
        return files.names()

    def read(self, files: Files | None) -> dict[str, Batch]:
        if files is None:
            raise InvalidInput("the toy reader needs dataset.path.")
        names = files.names()
        groups = sorted({name.rpartition(".")[2] for name in names})
        group = np.array([groups.index(name.rpartition(".")[2]) for name in names], dtype=np.int64)
        order = np.argsort(group, kind="stable")
        digests = [hashlib.sha256(files.read(name)).hexdigest() for name in names]
        return {
            "faces": Batch({"face_id": text(names), "path": text(names), "sha256": text(digests)}),
            "members": Batch({"group": group[order], "face": order}),
            "groups": Batch({"group_id": text(groups)}),
        }


def _number(content: bytes) -> float:
    if content in (b"crash", b"killed"):
        signal.raise_signal(signal.SIGSEGV if content == b"crash" else signal.SIGKILL)
    if content == b"exit":
        os._exit(7)
    return float(content)


class MeasureOptions(Options):
    scale: float = 1.0
    sleep: float = execution(0.0)  # seconds a row
    network: bool = False  # whether it says of itself that PyTorch computes it


class Measure(Stage):
    name = "measure"
    grain = "map"
    Options = MeasureOptions
    produces: ClassVar[Mapping[str, Schema]] = {"number": NUMBER, "multiples": MULTIPLES}
    consumes: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("sha256",)}
    locates: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("path",)}

    def backends(self) -> tuple[str, ...]:
        return ("numpy", *["torch"] * self.options.network)

    def load(self, rows: Batch) -> Array:
        files = self.context.files()
        time.sleep(self.options.sleep * rows.rows)
        return np.array([_number(files.read(path)) for path in rows["path"]])

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Array) -> dict[str, Batch]:
        count(self, rows.rows)
        status, value = np.zeros(rows.rows, np.uint8), loaded * self.options.scale
        multiples = (value[:, None] * np.arange(1.0, 4.0)).astype(np.float32)
        return {
            "number": Batch({"status": status, "reason": text([""] * rows.rows), "value": value}),
            "multiples": Batch({"status": status, "multiples": multiples}),
        }


class PowerOptions(Options):
    power: float = 1.0
    add: float = 0.0


class Power(Stage):
    name = "power"
    grain = "map"
    stored = False
    Options = PowerOptions
    produces: ClassVar[Mapping[str, Schema]] = {"": NUMBER}
    inputs: ClassVar[Mapping[str, str]] = {"number": "measure.number"}

    def run(self, rows: Batch, inputs: Mapping[str, Batch], loaded: Any) -> dict[str, Batch]:
        count(self, rows.rows)
        number = inputs["number"]
        with np.errstate(divide="ignore"):
            value = number["value"] ** self.options.power + self.options.add
        return {"": Batch({**number.columns, "value": value})}


class TotalOptions(Options):
    sleep: float = execution(0.0)  # seconds a shard


class Total(Stage):
    name = "total"
    grain = "group"
    axis = "groups"
    Options = TotalOptions
    produces: ClassVar[Mapping[str, Schema]] = {"": TOTAL}
    inputs: ClassVar[Mapping[str, str]] = {"value": "power"}
    consumes: ClassVar[Mapping[str, tuple[str, ...]]] = {"members": ("group", "face")}
    members = ("members", "face", "faces")

    def compute(self, work: Work) -> dict[str, Batch]:
        count(self, 1)
        time.sleep(self.options.sleep)
        members = work.tables["members"]
        found = work.inputs["value"].take(members["face"])
        usable = found["status"] == Status.OK
        size = work.stop - work.start
        group = members["group"][usable]
        value = np.bincount(group, weights=found["value"][usable], minlength=size).astype(
            np.float64
        )
        empty = np.bincount(group, minlength=size) == 0
        value[empty] = np.nan
        return {
            "": Batch(
                {
                    "status": np.where(empty, Status.EMPTY, Status.OK).astype(np.uint8),
                    "value": value,
                }
            )
        }


class Nearest(Stage):
    name = "nearest"
    grain = "tile"
    axis = "groups"
    produces: ClassVar[Mapping[str, Schema]] = {"": NEAREST}
    inputs: ClassVar[Mapping[str, str]] = {"totals": "total"}

    def compute(self, work: Work) -> dict[str, Batch]:
        count(self, 1)
        value = work.inputs["totals"].read(["value"])["value"]
        rows = np.arange(work.start, work.stop)
        gap = np.nan_to_num(np.abs(value[rows, None] - value[None, :]), nan=np.inf)
        gap[np.arange(len(rows)), rows] = np.inf
        gap = np.pad(gap, ((0, 0), (0, 1)), constant_values=np.inf)  # for a data set without groups
        return {"": Batch({"group": gap.argmin(axis=1), "gap": gap.min(axis=1)})}


class OverallOptions(Options):
    totals: bool = False


class Overall(Stage):
    name = "overall"
    grain = "reduce"
    Options = OverallOptions
    produces: ClassVar[Mapping[str, Schema]] = {"": OVERALL}
    inputs: ClassVar[Mapping[str, str]] = {"number": "measure.number", "totals": "total"}

    def uses(self) -> tuple[str, ...]:
        return ("totals",) if self.options.totals else ("number",)

    def compute(self, work: Work) -> dict[str, Batch]:
        count(self, 1)
        (source,) = work.inputs.values()
        found = source.read(["status", "value"])
        usable = found["status"] == Status.OK
        value = math.fsum(found["value"][usable])
        return {
            "": Batch({"count": np.array([usable.sum()], np.int64), "value": np.array([value])})
        }


PARTS = [
    ("reader", ToyReader),
    *(("stage", stage) for stage in (Measure, Power, Total, Nearest, Overall)),
]


def install() -> None:
    for kind, part in PARTS:
        register(kind, part.name)(part)


def remove() -> None:
    for kind, part in PARTS:
        registry._parts[kind].pop(part.name)
