"""The verbs that look into finished runs: explain (one score) and diff (two runs).

`commands.add_to` adds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.terminal import AsJson, ConfigPath, Overrides, StorePath, emit, say, show, warn

if TYPE_CHECKING:
    from pipeline.plan.graph import Step
    from pipeline.session import Session
    from stages.explain.compared_pair import ComparedPair
    from stages.explain.explain import Scored

EXPLAIN = (
    "Example: qfuse explain configs/demo.yaml t000003 t000200 --where rule=quality-linear --where"
    " method=given"
)
DIFF = "Example: qfuse diff .qfuse/runs/before .qfuse/runs/after --all"


def explain(
    config: ConfigPath,
    template_a: Annotated[
        str,
        typer.Argument(metavar="TEMPLATE_A", help="Id of a template; in LFW, the name of a face."),
    ],
    template_b: Annotated[
        str,
        typer.Argument(metavar="TEMPLATE_B", help="Id of the template to compare it with."),
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="FACTOR=VALUE", help="Use only cells with this value; repeatable."
        ),
    ] = None,
    overrides: Overrides = None,
    store: StorePath = None,
    every: Annotated[
        bool,
        typer.Option("--all", metavar="", help="Show every face and cell, not only the first."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain a score of a finished run.

    Shows the pair, its templates, their media and faces, and the weight of each face.
    """
    from pipeline.cli.sessions import looked_into
    from pipeline.config.config import load_config
    from stages.explain.compared_pair import chosen_cells, find_pair
    from stages.explain.explain import explained
    from stages.report import explain_text

    def asked(session: Session) -> tuple[list[Step], ComparedPair]:
        return chosen_cells(session, where or []), find_pair(
            session.dataset.tables, template_a, template_b
        )

    def told(session: Session) -> tuple[ComparedPair, list[Scored]]:
        steps, pair = asked(session)
        return pair, list(explained(session, pair, steps))

    pair, cells = looked_into(
        load_config(config, overrides or []), store, told, config, as_json, asked
    )
    if as_json:
        emit(explain_text.to_json(pair, cells))
        return
    for line in explain_text.heading(pair, cells):
        say(line)
    if len(cells) > 1:
        shown = len(cells) if every else explain_text.MOST_CELLS
        show(explain_text.cells_table(cells[:shown]))
        for line in explain_text.cells_legend(cells, shown):
            say(line)
        return
    for line in explain_text.decided(cells[0]):
        say(line)
    for letter, template in zip("AB", cells[0].templates, strict=True):
        say(f"\n{explain_text.template_line(letter, template)}")
        show(explain_text.faces_table(template, cells[0], every))
        for line in explain_text.below(template, every):
            say(line)
    say("\n" + "\n".join(explain_text.faces_legend(cells[0])))


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A run's folder (.qfuse/runs/NAME), its name, or its config."
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The run to compare with A.")],
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs",
            metavar="FOLDER",
            help="Look for named runs in this folder; default: .qfuse/runs here.",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", metavar="", help="Show all numbers and rows, not only the main one."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two finished runs.

    Shows the config fields that differ, and the numbers with intervals of their differences.
    """
    from pipeline.store.mending import mended
    from stages.report import diff_text
    from stages.results.diff import diff as compare
    from stages.results.finished_runs import RUNS, find_run

    folder = runs or RUNS
    found = mended(lambda: compare(find_run(a, folder), find_run(b, folder)), warn)
    if as_json:
        emit(diff_text.to_json(found))
        return
    for line in diff_text.heading(found):
        say(line)
    say("")
    if every or not all(c.same for c in found.compared):
        show(diff_text.numbers_table(found, every))
    for line in diff_text.legend(found):
        say(line)
