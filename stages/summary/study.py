"""study: the runs of several benchmarks, derived once.

They give one table of areas under error versus discard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.session import Results
from stages.results.quantities import Quantity
from stages.results.ranking import Ranking, rank
from stages.results.study_table import Column, StudyRow, columns_of, study_rows
from stages.summary.discard_curves import DiscardCurves, discard_curves


@dataclass(frozen=True)
class Judged:
    """One benchmark: its rows, figures, and whether it has a report of its own."""

    name: str
    ranking: Ranking
    discards: Sequence[DiscardCurves]
    has_page: bool


@dataclass(frozen=True)
class Study:
    """The table of several benchmarks; no rows if none of them has error versus discard."""

    title: str
    name: str
    question: str
    benchmarks: Sequence[Judged]
    rows: Sequence[StudyRow]
    columns: Sequence[Column]

    @property
    def quantities(self) -> list[Quantity]:
        """Every number of every benchmark."""
        tables = [each.ranking.table for each in self.benchmarks]
        return list(dict.fromkeys(q for table in tables for q in table.quantities))


def summarise_study(runs: Sequence[tuple[str, Results]], options: Mapping[str, Any]) -> Study:
    """Derive the table of several runs. Raises InvalidInput for options that do not fit one."""
    ranked = [(name, results, rank(results, options)) for name, results in runs]
    rows = [row for each in ranked for row in study_rows(*each)]
    config = runs[0][1].plan.config
    return Study(
        title=ranked[0][2].options.title or config.name,
        name=config.name,
        question=config.description,
        benchmarks=[
            Judged(
                name, ranking, discard_curves(results, ranking), bool(results.plan.config.report)
            )
            for name, results, ranking in ranked
        ],
        rows=rows,
        columns=columns_of(rows),
    )
