"""summary: everything that a report of a run shows, derived once, as plain data.

    store → cells → rule_table → ranking → summary → a page, csv, json, LaTeX, a terminal's table

What formats a summary needs neither the run nor its store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.session import Results
from stages.explain.examples import Examples, examples
from stages.results import provenance
from stages.results.acquisition import Acquired, acquired
from stages.results.published import PublishedNumber, published_numbers
from stages.results.ranking import Ranking, rank
from stages.results.rule_table import Row
from stages.results.verdict import Verdict, verdicts
from stages.summary.curves import Curves, curves_of, method_of
from stages.summary.discard_curves import (
    DiscardCurves,
    DiscardDetails,
    discard_curves,
    discard_details,
)
from stages.summary.quality_scores import Qualities, qualities
from stages.tables.comparisons import Comparisons, role_rows


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    `data` is None if they are made from a seed, `ended` if it is not known.
    """

    config: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str]
    dataset: str  # its key
    data: str | None
    notes: Sequence[str]  # of its files
    ended: datetime | None
    store: str
    # of each row of the table, its evaluations as they lie in the store: step, output, key
    evaluations: Sequence[Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class Summary:
    """What a report shows of a run."""

    title: str
    name: str
    question: str
    sizes: Mapping[str, int]
    ranking: Ranking
    verdicts: Sequence[Verdict]
    published: Sequence[PublishedNumber]
    curves: Curves
    discards: Sequence[DiscardCurves]
    discard_details: Sequence[DiscardDetails]
    examples: Examples | None
    qualities: Qualities
    acquired: Acquired
    provenance: Provenance


def summarise(results: Results, options: Mapping[str, Any]) -> Summary:
    """Derive everything that a report of a run shows.

    Raises InvalidInput for options that do not fit the run.
    """
    config, ranking = results.plan.config, rank(results, options)
    rows = (row for group in ranking.groups for row in (*group.others, *group.rows))
    best = next((method for row in rows if (method := method_of(results, row))), "")
    return Summary(
        title=ranking.options.title or config.full_name,
        name=config.full_name,
        question=config.description,
        sizes=_sizes(results, ranking),
        ranking=ranking,
        verdicts=verdicts(ranking.groups, ranking.main, ranking.table.level),
        published=published_numbers(results, ranking.rows),
        curves=curves_of(results, ranking),
        discards=discard_curves(results, ranking),
        discard_details=discard_details(results, ranking),
        examples=examples(results, ranking),
        qualities=qualities(results, best, ranking.options.method, ranking.options.crops),
        acquired=acquired(results),
        provenance=_provenance(results, ranking),
    )


def _sizes(results: Results, ranking: Ranking) -> dict[str, int]:
    """Return the counts that a reader wants to know first; those that are 0 are left out."""
    tables = results.session.dataset.tables
    searched = any(cell.kind == "1:N" for cell in ranking.cells)
    sizes = {
        "subjects": len(set(tables["templates"]["subject"]) - {""}),
        "faces": tables["faces"].rows,
        "templates": tables["templates"].rows,
        "comparisons": Comparisons.of(tables).rows,
        "probes": len(role_rows(tables["roles"], "probe")) if searched else 0,
        "rows in the table": len(ranking.rows),
    }
    for name, values in ranking.table.average.items():
        many = f"{name.removesuffix('y')}ies" if name.endswith("y") else f"{name}s"
        sizes[f"{many} averaged"] = len(values)
    sizes["bootstrap replicates"] = ranking.table.replicates
    return {name: size for name, size in sizes.items() if size}


def _provenance(results: Results, ranking: Ranking) -> Provenance:
    return Provenance(
        config=provenance.config_of(results),
        steps=provenance.step_lines(results),
        versions=provenance.versions(results),
        dataset=results.session.dataset.key,
        data=provenance.data_path(results),
        notes=list(results.session.dataset.notes),
        ended=provenance.ended(results),
        store=str(results.session.store.root),
        evaluations=[_evaluations(row) for row in ranking.table.rows],
    )


def _evaluations(row: Row) -> list[dict[str, str]]:
    steps = [cell.step for cell in row.cells]
    return [
        {
            "step": step.base,
            "output": step.output("numbers"),
            "key": step.tasks[0].keys["numbers"],
        }
        for step in steps
    ]
