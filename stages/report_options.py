"""What a report may be asked to show. None of it changes a number of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from pipeline.config import Scalar, validate
from pipeline.errors import InvalidInput, unknown
from pipeline.registry import register
from pipeline.stage import Options


class ReportOptions(Options):
    """`average`: factors to average over (default: `seed`, where there is one). `baseline`: the factor values of the
    row that others are compared with (default: rule mean, where there is one). `fmr`: headline targets, the first of
    them the main one (default: 1e-3 and 1e-4, and the main one chosen by `headline.primary`). `crops`: faces in the
    grid, 0 for none. `method`: the quality method that sorts the grid (default: that of the best row).
    """

    title: str | None = None
    average: tuple[str, ...] | None = None
    baseline: dict[str, Scalar] | None = None
    fmr: tuple[float, ...] | None = Field(None, min_length=1)
    crops: int = Field(48, ge=0, le=400)
    method: str | None = None

    @field_validator("average", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


@register("report options", "html")
def read_options(options: Mapping[str, Any], factors: Mapping[str, Sequence[Any]] | None = None) -> ReportOptions:
    """Validate report options; with the config's factors, the names and values that they speak of as well.

    Raises InvalidInput naming the wrong field.
    """
    found: ReportOptions = validate(ReportOptions, dict(options), "report.options")
    if factors is not None:
        for name in found.average or ():
            if name not in factors:
                raise InvalidInput(f"report.options.average: {unknown('factor', name, factors)}")
        for name, value in (found.baseline or {}).items():
            if name not in factors:
                raise InvalidInput(f"report.options.baseline: {unknown('factor', name, factors)}")
            if value not in factors[name]:
                raise InvalidInput(f"report.options.baseline.{name}: {unknown('value', str(value), map(str, factors[name]))}")
    return found
