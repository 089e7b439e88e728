"""statistics: quality scores of a reference set → what rules scale them by.

The set is the data set itself (`reference: self`, as in the published scripts) or one whose
statistics were written to a file by `qfuse reference`. With a file, a face that comes or goes
changes the templates that hold it and no other, and a new photograph can be weighed alone.

File: JSON {"format": "qfuse-reference/1", "set", "measure", "count", "minimum", "maximum", "mean",
"deviation", "percentiles"}; `measure` says by which method and weights the scores were computed,
and scores of another measure are refused.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.registry import register
from pipeline.core.schema import Batch, Field, Schema, Status
from pipeline.core.stage import Options, Stage, Work
from pipeline.errors import InvalidInput
from pipeline.system.regular_file import read_regular
from stages.exact import sums

REFERENCE_FORMAT = "qfuse-reference/1"
MAX_REFERENCE_BYTES = 1 << 20
SUMMARIES = ("minimum", "maximum", "mean", "deviation")
STATISTICS = Schema(
    "statistics",
    (
        Field("count", "int64"),
        Field("minimum", "float64"),
        Field("maximum", "float64"),
        Field("mean", "float64"),
        Field("deviation", "float64", (), "population form"),
        Field("percentiles", "float64", (101,)),
    ),
)


def summarised(scores: NDArray[np.float64]) -> dict[str, Any]:
    """Return minimum, maximum, mean, deviation and percentiles (101,) of scores (n,).

    All are nan if there are no scores.

    >>> found = summarised(np.array([1.0, 2.0, 3.0]))
    >>> float(found["minimum"]), found["mean"], float(found["percentiles"][50])
    (1.0, 2.0, 2.0)
    """
    known = scores if len(scores) else np.array([np.nan])
    four = {
        "minimum": known.min(),
        "maximum": known.max(),
        "mean": sums.mean(known),
        "deviation": sums.deviation(known),
    }
    return {**four, "percentiles": np.percentile(known, np.arange(101))}


class StatisticsOptions(Options):
    """The set whose scores are the scale."""

    reference: str = "self"
    """`self`, or a file that `qfuse reference` wrote, relative to the config."""

    def result_options(self) -> dict[str, Any]:
        """Where a reference file lies decides nothing; its sha256 is in the identity."""
        return {"reference": self.reference if self.reference == "self" else "file"}


@register("stage", "statistics")
class Statistics(Stage):
    """What the quality scores of a reference set look like, for rules that scale by them."""

    name = "statistics"
    version = 2
    grain = "reduce"
    Options = StatisticsOptions
    produces: ClassVar = {"": STATISTICS}
    inputs: ClassVar = {"quality": "quality"}
    options: StatisticsOptions

    def uses(self) -> tuple[str, ...]:
        return ("quality",) if self.options.reference == "self" else ()

    def identity(self) -> Any:
        return None if self.options.reference == "self" else {"sha256": self._file[1]}

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def refuse_other(self, measure: Mapping[str, Any]) -> None:
        """Raise InvalidInput if the reference set was scored in another way than `measure` says."""
        if self.options.reference != "self" and self._file[0]["measure"] != measure:
            found = self._file[0]["measure"]
            if isinstance(found, dict):
                was = f"by {found.get('method')!r}"
            else:
                was = "in no way that it names"
            raise InvalidInput(
                f"{self._path}: this reference set was scored {was}, and the faces are by"
                f" {measure['method']!r} with other weights, version or model: name the reference"
                " of the same measure, or `self`."
            )

    def compute(self, work: Work) -> dict[str, Batch]:
        if self.options.reference != "self":
            found = self._file[0]
            row = {name: np.array([found[name]], np.float64) for name in SUMMARIES}
            percentiles = np.array([found["percentiles"]], np.float64)
            return {
                "": Batch(
                    {
                        "count": np.array([found["count"]], np.int64),
                        **row,
                        "percentiles": percentiles,
                    }
                )
            }
        scores = work.inputs["quality"].read(("status", "quality"))
        usable = scores["quality"][scores["status"] == Status.OK].astype(np.float64)
        described = {name: np.asarray(value)[None] for name, value in summarised(usable).items()}
        return {"": Batch({"count": np.array([len(usable)], np.int64), **described})}

    @property
    def _path(self) -> Path:
        return (self.context.base / Path(self.options.reference).expanduser()).absolute()

    @cached_property
    def _file(self) -> tuple[dict[str, Any], str]:
        """The reference file, and its sha256."""
        try:
            if self._path.stat().st_size > MAX_REFERENCE_BYTES:
                raise InvalidInput(
                    f"{self._path}: a reference file is small, and this has more than"
                    f" {MAX_REFERENCE_BYTES:,} bytes."
                )
            data = read_regular(self._path)
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"statistics.reference: {self.options.reference!r} is neither `self` nor a file"
                f" that can be read ({getattr(error, 'strerror', None) or error}); `qfuse reference"
                " CONFIG FILE` writes one."
            ) from None
        return checked_reference(data, self._path), hashlib.sha256(data).hexdigest()


def reference_content(name: str, measure: Mapping[str, Any], statistics: Batch) -> dict[str, Any]:
    """Return the content of a reference file for the set called `name`.

    `statistics` is one row of STATISTICS.
    """
    row = {key: float(statistics[key][0]) for key in SUMMARIES}
    percentiles = [float(value) for value in statistics["percentiles"][0]]
    counted = {"count": int(statistics["count"][0]), **row, "percentiles": percentiles}
    return {"format": REFERENCE_FORMAT, "set": name, "measure": dict(measure), **counted}


def checked_reference(data: bytes, path: Path) -> dict[str, Any]:
    found: Any = None
    with suppress(ValueError, RecursionError):
        found = json.loads(data)
    if not isinstance(found, dict) or found.get("format") != REFERENCE_FORMAT:
        raise InvalidInput(
            f"{path} is not a reference file of format {REFERENCE_FORMAT}; `qfuse reference"
            " CONFIG FILE` writes one."
        )
    problems = [name for name in SUMMARIES if not _is_finite_number(found.get(name))]
    problems += [] if type(found.get("count")) is int and found["count"] > 0 else ["count"]
    levels = found.get("percentiles")
    sound = (
        isinstance(levels, list)
        and len(levels) == 101
        and all(map(_is_finite_number, levels))
        and levels == sorted(levels)
    )
    problems += ([] if sound else ["percentiles"]) + ([] if "measure" in found else ["measure"])
    if problems:
        raise InvalidInput(
            f"{path}: {', '.join(problems)} should hold the finite numbers that `qfuse reference`"
            " writes."
        )
    return found


def _is_finite_number(value: Any) -> bool:
    # which nan is not
    return type(value) in (int, float) and bool(abs(value) <= sys.float_info.max)
