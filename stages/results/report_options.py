"""What a report may be asked to show. None of it changes a number of a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from pipeline.config.config import Config, Scalar
from pipeline.config.validation import validate
from pipeline.core.registry import available, register
from pipeline.core.stage import Options
from pipeline.errors import InvalidInput, unknown
from stages.results.quantities import KINDS, number_label

DRAWN = ("seed", "replicates", "level")  # what decides how subjects are drawn


class Choose(Options):
    """A parameter to choose on one half of the subjects.

    It is chosen among the values of the factor `among`, by the number `metric` at `target`.
    """

    among: str
    metric: str = "tar"
    target: float | None = None


class ReportOptions(Options):
    """What a report may be asked to show.

    `average`: factors to average over (default: `seed`, if there is one). `baseline`: the factor
    values of the row that others are compared with (default: rule mean, if there is one). `fmr`:
    headline targets, the first of them the main one (default: 1e-3 and 1e-4, and the main one
    chosen by `ranking.primary`). `crops`: faces in the grid, 0 for none. `method`: the quality
    method whose scores sort the grid (default: that of the best row). `pairs`: mated comparisons
    shown face by face that the best row accepts and the baseline does not, 0 for no such section;
    half as many of the reverse and of false matches. `choose`: which parameter to choose on one
    half of the subjects and report on the other, by a factor with the values choose and report.
    """

    title: str | None = None
    average: tuple[str, ...] | None = None
    baseline: dict[str, Scalar] | None = None
    fmr: tuple[float, ...] | None = Field(None, min_length=1)
    crops: int = Field(48, ge=0, le=400)
    method: str | None = None
    pairs: int = Field(3, ge=0, le=20)
    choose: Choose | None = None

    @field_validator("average", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


@register("report options", "html")
def check_options(options: Mapping[str, Any], config: Config) -> None:
    """Check the options of a report against its config.

    What they ask for must be evaluated, and the replicates of all evaluating steps be fit to be
    paired. Raises InvalidInput naming the wrong field, or the steps whose draws differ.
    """
    _need_evaluated(read_options(options, config.factors).fmr or (), config)
    drawn: dict[str, str] = {}
    for name, section in config.steps.items():
        stage = available("stage").get(section.stage or name)
        if (
            (section.stage or name) in KINDS
            and stage is not None
            and "replicates" in stage.Options.model_fields
        ):
            fields = stage.Options.model_fields
            drawn[name] = ", ".join(
                str(section.options.get(field, fields[field].default)) for field in DRAWN
            )
    if len(set(drawn.values())) > 1:
        by_step = "; ".join(f"{name}: {values}" for name, values in drawn.items())
        raise InvalidInput(
            f"the evaluating steps differ in {', '.join(DRAWN)} ({by_step}), so their replicates"
            " cannot be paired: give them the same."
        )


def _need_evaluated(fmr: Sequence[float], config: Config) -> None:
    """Raise InvalidInput for an FMR that no evaluating step has among its targets.

    Targets that a factor decides may be any, so nothing is asked of them.
    """
    known: list[float] = []
    for name, section in config.steps.items():
        stage = available("stage").get(section.stage or name)
        if (
            (section.stage or name) in KINDS
            and stage is not None
            and "fmr" in stage.Options.model_fields
        ):
            targets = section.options.get("fmr", stage.Options.model_fields["fmr"].default)
            if not isinstance(targets, list | tuple):
                return
            known += [target for target in targets if isinstance(target, int | float)]
    wrong = [
        target for target in fmr if known and not any(math.isclose(target, each) for each in known)
    ]
    if wrong:
        named, there = (
            ", ".join(map(number_label, each)) for each in (wrong, dict.fromkeys(known))
        )
        raise InvalidInput(
            f"report.options.fmr: {named} is not evaluated: add it to `fmr` of the evaluating step,"
            f" which has {there}."
        )


def read_options(
    options: Mapping[str, Any], factors: Mapping[str, Sequence[Any]] | None = None
) -> ReportOptions:
    """Validate report options.

    With the config's factors, the names and values of factors in them are checked as well. Raises
    InvalidInput naming the wrong field.
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
                raise InvalidInput(
                    f"report.options.baseline.{name}:"
                    f" {unknown('value', str(value), map(str, factors[name]))}"
                )
        if found.choose is not None:
            _check_choice(found.choose, found.average or (), factors)
    return found


def half_factor(factors: Mapping[str, Sequence[Any]]) -> str | None:
    """Return the factor whose values are choose and report."""
    return next(
        (name for name, values in factors.items() if {*map(str, values)} == {"choose", "report"}),
        None,
    )


def _check_choice(
    choose: Choose, average: Sequence[str], factors: Mapping[str, Sequence[Any]]
) -> None:
    half = half_factor(factors)
    if choose.among not in factors:
        raise InvalidInput(
            f"report.options.choose.among: {unknown('factor', choose.among, factors)}"
        )
    if half is None:
        raise InvalidInput(
            "report.options.choose: no factor has the values choose and report; add `half: [choose,"
            " report]` to the factors and `half: $half` to the options of the evaluation."
        )
    for name in {half, choose.among} & set(average):
        raise InvalidInput(
            f"report.options.choose needs the values of {name!r} apart: take it out of"
            " report.options.average."
        )
