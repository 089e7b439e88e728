"""The verbs of the command, thin over `pipeline.session`.

Plug-ins add theirs through the entry point `qfuse.commands`. Nothing heavy is imported before a
verb needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from dataclasses import asdict
from functools import cache
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.run import Until, run
from pipeline.cli.sessions import looked_at, looked_into
from pipeline.cli.store import store_app
from pipeline.cli.terminal import AsJson, ConfigPath, Overrides, StorePath, emit, say, show, warn
from pipeline.errors import InvalidInput, UsageError, counted, unknown
from pipeline.system.available import require_limits, require_to_compute
from pipeline.system.signs_of_life import pulse
from pipeline.system.streams import visible

if TYPE_CHECKING:
    from pipeline.config.config import Config
    from pipeline.plan.plan import Plan
    from pipeline.run.memory_estimate import Need
    from pipeline.run.row_failures import Remark
    from pipeline.session import Session

app = typer.Typer(
    name="qfuse",
    help=(
        "How much is one face image worth to a template? Fuse, compare and search with quality"
        " weights, and measure the gain."
    ),
    epilog=(
        "Example: qfuse demo; then, with your own photographs: qfuse init faces.yaml, qfuse check"
        " faces.yaml, qfuse run faces.yaml.\n\nExit codes: 0 done · 1 internal · 2 usage · 3"
        " invalid input · 4 too many failures · 5 corrupt artifact · 6 resource refused · 130"
        " interrupted, resumable."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(store_app, name="store")


def _version(asked: bool) -> None:
    if asked:
        say(f"qfuse {version('qfuse')}")
        raise typer.Exit


@app.callback()
def everything(
    shown: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    if "--help" not in sys.argv:
        require_limits()


app.command(epilog="Example: qfuse run configs/lfw.yaml --set steps.embed.options.flip=none")(run)


@app.command(epilog="Example: qfuse plan configs/lfw_templates.yaml --until fuse")
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    store: StorePath = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run, and why, without running anything."""
    from pipeline.cli.config_benchmarks import on_each
    from pipeline.cli.display import plan_table
    from pipeline.plan.check import doubts
    from pipeline.plan.forecast import Forecast, forecast, in_words
    from pipeline.plan.instruction_mix import notes_here
    from pipeline.run.memory_estimate import estimate, outlook

    def plan_of_one(loaded: Config) -> Any:
        def look(session: Session) -> tuple[Plan, list[Need], Forecast, list[str]]:
            plan = session.plan
            notes = [*session.dataset.notes, *doubts(plan), *notes_here(plan, session.store)]
            needs = estimate(plan, session.store)
            return plan, needs, forecast(plan, session.store), notes

        planned, needs, ahead, notes = looked_at(loaded, store, look, until)
        if as_json:
            return {
                **planned.to_json(),
                "memory": {need.step: need.bytes for need in needs},
                "forecast": asdict(ahead),
                "notes": notes,
            }
        show(plan_table(planned))
        shards = sum(len(step.to_run) for step in planned.to_run)
        if shards:
            say(f"{counted(shards, 'shard')} to run; start with `qfuse run`")
        else:
            say("nothing to do")
        if needs:
            say(outlook(planned, needs))
        if words := in_words(ahead):
            say(words)
        for note in notes:
            say(f"note: {note}")
        return None

    on_each(config, overrides, plan_of_one, as_json)


@app.command(epilog="Example: qfuse why configs/lfw.yaml embed --set steps.embed.options.flip=none")
def why(
    config: ConfigPath,
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="A step of the config, or one of its cells.")
    ],
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Say which field made a step out of date since the last run of this config."""
    from pipeline.config.config import load_config

    steps = looked_at(
        load_config(config, overrides or []), store, lambda session: session.plan.steps.values()
    )
    found = [s for s in steps if step in (s.name, s.base, s.stage.name)]
    if not found:
        raise UsageError(unknown("step", step, {s.base for s in steps}))
    rows: list[dict[str, Any]] = [
        {"step": s.name, "shard": t.index, "rows": [t.start, t.stop], "reason": t.reason}
        for s in found
        for t in s.to_run
    ]
    if as_json:
        emit(rows)
        return
    if not rows:
        say(f"{step}: nothing to run; all that is wanted of it is stored")
    for reason in dict.fromkeys(row["reason"] for row in rows):
        same = [row for row in rows if row["reason"] == reason]
        cells = list(dict.fromkeys(row["step"] for row in same))
        more = f" and {counted(len(cells) - 1, 'more cell')}" if len(cells) > 1 else ""
        say(f"{cells[0]}{more}, {counted(len(same), 'shard')}: {reason}")


@app.command(epilog="Example: qfuse status configs/lfw.yaml --all")
def status(
    config: ConfigPath,
    overrides: Overrides = None,
    store: StorePath = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", metavar="", help="Show every cell and every row, not only the first ten."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which results of a config are stored, which rows failed, and why."""
    from pipeline.cli.config_benchmarks import on_each
    from pipeline.cli.display import status_rows, status_table
    from pipeline.plan.instruction_mix import computed_otherwise, computing
    from pipeline.run.row_failures import by_config_step, remark_lines, remarks
    from pipeline.session import store_root
    from pipeline.store.store import is_store

    def status_of_one(loaded: Config) -> Any:
        def look(session: Session) -> tuple[list[dict[str, Any]], list[Remark], list[str]]:
            plan, opened = session.plan, session.store
            here = computing(plan.steps.values())
            notes = [*session.dataset.notes, *computed_otherwise(plan, opened, here)]
            return status_rows(plan, opened), remarks(plan, opened), notes

        rows, found, notes = looked_at(loaded, store, look)
        root = store_root(loaded, store)
        if as_json:
            found_rows = [asdict(remark) for remark in found]
            return {"steps": rows, "rows": found_rows, "notes": notes, "store": str(root)}
        show(status_table(rows if every else by_config_step(rows)))
        say(f"store: {root}{'' if is_store(root) else ' (not there yet)'}")
        for line in remark_lines(found, None if every else 10):
            say(line)
        for note in notes:
            say(f"note: {note}")
        return None

    on_each(config, overrides, status_of_one, as_json)


@app.command(epilog="Example: qfuse check configs/lfw.yaml")
def check(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a config, its data set and its weights, and report every problem at once.

    Computes and writes nothing.
    """
    from pipeline.cli.config_benchmarks import check_all
    from pipeline.plan.check import listed

    require_to_compute(None)  # imported here because it opens the models
    found = check_all(config, overrides)
    values = {
        name: {
            "problems": one.problems,
            "notes": one.notes,
            "tables": one.tables,
            "steps": one.steps,
        }
        for name, one in found.items()
    }
    if as_json:
        emit({"config": str(config), **values.get("", {"benchmarks": values})})
    if wrong := [
        f"{name}{': ' if name else ''}{one.sentence}" for name, one in found.items() if one.problems
    ]:
        for note in dict.fromkeys(
            note for one in found.values() if one.problems for note in one.notes
        ):
            warn(f"note: {note}")
        raise InvalidInput(listed(wrong))
    for name, one in found.items() if not as_json else ():
        counts = ", ".join(
            counted(rows, table.removesuffix("s")) for table, rows in one.tables.items() if rows
        )
        place = f"{config} · {name}" if name else f"{config}"
        say(
            f"{place}: fine. {counts}; {counted(one.steps, 'step')}; data, weights and options fit."
        )
        for note in one.notes:
            say(f"note: {note}")


@app.command(epilog="Example: qfuse report configs/lfw.yaml")
def report(
    config: ConfigPath,
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a finished run again."""
    from pipeline.config.config import load_config
    from pipeline.plan.check import check_report
    from pipeline.session import current_report

    loaded = load_config(config, overrides or [])
    if loaded.report is None:
        raise InvalidInput(f"{config} has no `report` section; add `report: {{}}` to get one.")
    check_report(loaded)  # before a report for other overrides is moved away
    files = looked_into(
        loaded, store, lambda session: current_report(session, warn, anew=True), config, as_json
    )
    emit([str(path) for path in files]) if as_json else say(f"report: {files[0]}")


@cache
def _add_more() -> None:
    """Add the verbs that other packages bring, once in a process."""
    for point in entry_points(group="qfuse.commands"):
        point.load()(app)


def _let_flow(shown: Any) -> None:
    """Make one line of every paragraph of the help, so that the terminal's width breaks it.

    Typer does this to the first paragraph alone.
    """
    if shown.help:
        paragraphs = inspect.cleandoc(shown.help).split("\n\n")
        shown.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    for inner in getattr(shown, "commands", {}).values():
        _let_flow(inner)


def command() -> int:
    """Run what the command line asks for, and return the exit code. Raises what the verb raises."""
    _add_more()
    # A terminal has bars, and whoever asks for JSON reads nothing else.
    quiet = sys.stderr.isatty() or "--json" in sys.argv
    try:
        with contextlib.nullcontext() if quiet else pulse.beating():
            asked = typer.main.get_command(app)
            _let_flow(asked)
            code = asked(standalone_mode=False)
    except typer.Abort as error:  # what typer makes of an EOFError
        raise error.__cause__ or error from None
    except Exception as error:
        # Usage errors know how to show themselves, whichever copy of click typer brings along.
        if not (hasattr(error, "show") and hasattr(error, "format_message")):
            raise
        message = visible(error.format_message())
        error.format_message = lambda: message
        error.show()
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0
