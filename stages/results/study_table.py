"""study_table: the runs of several benchmarks → rows of areas under error versus discard.

Conventions
    Row       one benchmark, one combination of factors (an FR model, a quality method, …),
              averaged as the report section of all benchmarks says; under the rows that judge the
              same scores stand their reference lines.
    Column    one area of one evaluating step at one target: the standard pAUC up to each limit, or
              the legacy AUC; in percent.
    Marks     bold: the least of two or more methods that judge the same scores. ▲ better and ▼
              worse than discard at random, of a standard area and by the interval of the
              difference. †: fewer than 30 errors of a kind decide, in the legacy form false matches
              at any step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.session import Results
from stages.evaluation.discard import STARTING, departures
from stages.results.quantities import AREA, Quantity, number_label, rule_first
from stages.results.ranking import Ranking
from stages.results.rule_table import ROUNDING, Row

BOUNDS = {
    "pair_oracle": "pair oracle",
    "sample_oracle": "sample oracle",
    "random": "random, expected",
}


@dataclass(frozen=True)
class Column:
    """One area.

    `limit` is None in the legacy form; `of` is the error that the target is of, FNMR for a starting
    error. `but` says in what it departs from its form; empty if it does not.
    """

    form: str  # standard or legacy
    but: str
    step: str
    limit: float | None
    of: str
    target: float


@dataclass(frozen=True)
class Area:
    """One number of the table, as a share (not in percent)."""

    value: float
    low: float
    high: float
    few: bool
    trials: int = 0
    over_random: float = math.nan  # standard form: value − area of discard at random
    over_random_low: float = math.nan
    over_random_high: float = math.nan
    best: bool = False

    @property
    def direction(self) -> int:
        """1: clearly better than discard at random; -1: clearly worse; 0: neither.

        Less is better. It is 0 as well for what is not compared, or rests on few errors.
        """
        if self.few:
            return 0
        return int(self.over_random_high < -ROUNDING) - int(self.over_random_low > ROUNDING)


@dataclass(frozen=True)
class StudyRow:
    """One row of the table.

    `group` numbers the rows on the same comparison scores; `bound` names a reference line, empty
    for a quality method.
    """

    benchmark: str
    group: int
    factors: Mapping[str, Any]
    bound: str
    areas: Mapping[Column, Area]


def study_rows(benchmark: str, results: Results, ranking: Ranking) -> Iterator[StudyRow]:
    """Yield the rows of one benchmark, each group on the same scores followed by its bounds."""
    # Rows on the same scores start from the same errors, so that their areas can be compared.
    groups: dict[str, list[Row]] = {}
    for row in ranking.rows:
        cells = [cell for cell in row.cells if cell.kind == "discard"]
        if cells:
            groups.setdefault(cells[0].step.inputs["scores"].step, []).append(row)
    for number, (scores, rows) in enumerate(groups.items()):
        yield from _with_best(
            [StudyRow(benchmark, number, row.factors, "", dict(_areas(row))) for row in rows]
        )
        factors = results.plan.steps[scores].factors
        # a bound depends on the scores only, not on a quality method
        above = {name: value for name, value in factors.items() if name in rows[0].factors}
        for bound, name in BOUNDS.items():
            if areas := dict(_bound(rows[0], bound)):
                yield StudyRow(benchmark, number, above, name, areas)


def columns_of(lines: Sequence[StudyRow]) -> list[Column]:
    """Return every column in its order.

    The standard form comes first, limits rise, targets go from lenient to strict.
    """
    columns = {column for line in lines for column in line.areas}
    return sorted(
        columns, key=lambda c: (c.form == "legacy", c.but, c.step, c.limit or 0, c.of, -c.target)
    )


def factor_names(lines: Sequence[StudyRow]) -> list[str]:
    """Return the factors of all lines, in the order in which they first appear.

    A bound has the factors of the scores that it is of, so the first factor that it lacks tells
    quality methods apart, and the bound's name stands there. If a bound lacks none, a last name,
    'bound', gives it a place.
    """
    names = rule_first(dict.fromkeys(name for line in lines for name in line.factors))
    full = any(line.bound and set(names) <= line.factors.keys() for line in lines)
    return [*names, "bound"] if full else names


def labels(line: StudyRow, names: Sequence[str]) -> list[str]:
    """Return what stands under each name.

    A bound's own name stands in the first place that it has no value for.
    """
    texts = [str(line.factors.get(name, "")) for name in names]
    if line.bound:
        free = next((i for i, name in enumerate(names) if name not in line.factors), -1)
        texts[free] = line.bound
    return texts


def column_heading(column: Column) -> str:
    """Write what a column holds, as in 'pAUC(0.2) @ FMR 1e-3'."""
    area = "ERC" if column.limit is None else f"pAUC({column.limit:g})"
    return f"{area} @ {column.of} {number_label(column.target)}"


def column_headings(columns: Sequence[Column]) -> list[str]:
    """Return the heading of every column, with its step if there are several."""
    several = len({column.step for column in columns}) > 1
    return [column_heading(column) + (f" ({column.step})" if several else "") for column in columns]


def _areas(row: Row) -> Iterator[tuple[Column, Area]]:
    for q, e in row.entries.items():
        if (column := _column_of(row, q)) is None:
            continue
        over = row.entries.get(
            Quantity(q.kind, q.step, f"{q.metric}_over_random", q.target, q.rule)
        )
        over_random = () if over is None else (over.value, over.low, over.high)
        yield column, Area(e.value, e.low, e.high, e.few, e.trials, *over_random)


def _bound(row: Row, bound: str) -> Iterator[tuple[Column, Area]]:
    for q, e in row.entries.items():
        if (column := _column_of(row, q, bound)) is not None:
            yield column, Area(e.value, math.nan, math.nan, e.few, e.trials)


def _column_of(row: Row, q: Quantity, line: str | None = None) -> Column | None:
    """Return the column of one number; None if it has none.

    Without `line` that is an area of a quality method, else of the bound `line`.
    """
    if q.kind != "discard" or q.target is None:
        return None
    if q.metric == "erc_auc" and line is None:
        return Column("legacy", _but(row, q, True), q.step, None, "FMR", q.target)
    area = AREA.fullmatch(q.metric)
    if not area or area[1] != "fnm" or area[3] != line:
        return None
    of = "FNMR" if q.rule == STARTING else "FMR"
    return Column("standard", _but(row, q), q.step, float(area[2]), of, q.target)


def _but(row: Row, q: Quantity, legacy: bool = False) -> str:
    options = next(cell.step.stage.options for cell in row.cells if cell.step.base == q.step)
    return ", ".join(departures(options, legacy))


def _with_best(lines: Sequence[StudyRow]) -> Iterator[StudyRow]:
    """Mark the least of each column.

    Only a column of two areas or more, all over as many comparisons, has a least one.
    """
    known: dict[Column, list[Area]] = {}
    for line in lines:
        for column, area in line.areas.items():
            known.setdefault(column, []).extend([] if math.isnan(area.value) else [area])
    # Areas over unequal numbers of comparisons are of different sets: none of them is best.
    alike = {
        column
        for column, areas in known.items()
        if len(areas) > 1 and len({area.trials for area in areas}) == 1
    }
    least = {column: min(area.value for area in known[column]) for column in alike}
    for line in lines:
        yield replace(
            line, areas={c: replace(a, best=a.value == least.get(c)) for c, a in line.areas.items()}
        )


def records(lines: Sequence[StudyRow]) -> Iterator[dict[str, Any]]:
    for line in lines:
        for column, area in line.areas.items():
            named = {
                "benchmark": line.benchmark,
                **{f"factor.{k}": v for k, v in line.factors.items()},
                "bound": line.bound,
            }
            yield {**named, **asdict(column), **asdict(area)}
