"""The command line: thin verbs over `pipeline.session`. Plug-ins add theirs through the entry point `qfuse.commands`.

Nothing heavy is imported before a verb needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pipeline.errors import InvalidInput, QfuseError

app = typer.Typer(
    name="qfuse",
    help="What is a face image worth to a template? Quality-weighted fusion, comparison and search, measured.",
    epilog="Exit codes: 0 done · 1 internal · 2 usage · 3 invalid input · 4 too many failures · 5 corrupt artifact · "
    "6 resource refused · 130 interrupted, resumable.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
store_app = typer.Typer(help="Look after the artifact store.", no_args_is_help=True)
app.add_typer(store_app, name="store")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A config file (.yaml); `qfuse init` writes one.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the config; repeatable.")
]
StorePath = Annotated[Path | None, typer.Option("--store", help="The store's folder, instead of the config's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command(epilog="Example: qfuse run configs/lfw.yaml --set steps.embed.options.flip=none")
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    store: StorePath = None,
    until: Annotated[str | None, typer.Option(help="Stop after this step or stage.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Worker threads; default: the cores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute what a config lacks, then report. What is stored is never computed again."""
    from pipeline.events import Events
    from pipeline.progress import Progress, show_summary
    from pipeline.session import execute, make_report, open_session

    session = open_session(config, overrides or [], store, until)
    todo = session.plan.to_run
    page = session.folder / "report.html"
    files: list[Path] = [page] if page.exists() else []
    seconds = None
    if todo:
        with Progress(session.plan, quiet=as_json) as progress:
            events = Events(session.folder, progress.on_event)
            summary = execute(session, events, workers)
            events.close()
        seconds = summary.by_stage()
    if until is None and session.config.report is not None and (todo or not files):
        files = make_report(session)
    if as_json:
        steps = {name: {"steps": n, "rows": rows, "seconds": round(s, 3)} for name, (n, rows, s) in (seconds or {}).items()}
        emit({"ran": [step.name for step in todo], "steps": steps, "report": [str(path) for path in files]})
        return
    if not todo:
        say(f"nothing to do: all {len(session.plan.steps)} steps of {session.config.name} are in {session.store.root}")
    else:
        show_summary(summary, sum(len(step.to_run) for step in todo))
    show_results(session)
    if files and until is None:
        say(f"report: {files[0]}")


@app.command(epilog="Example: qfuse plan configs/lfw_templates.yaml --json | jq '.steps[] | select(.status == \"run\")'")
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    store: StorePath = None,
    until: Annotated[str | None, typer.Option(help="Stop after this step or stage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run, and why, without running anything."""
    from pipeline.progress import plan_table
    from pipeline.session import open_session

    session = open_session(config, overrides or [], store, until, readonly=True)
    if as_json:
        emit(session.plan.to_json())
    else:
        show(plan_table(session.plan))


@app.command(epilog="Example: qfuse why configs/lfw.yaml embed")
def why(
    config: ConfigPath,
    step: Annotated[str, typer.Argument(help="A step of the config, or one of its cells.")],
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Say which field made a step stale, shard by shard."""
    from pipeline.errors import unknown
    from pipeline.session import open_session

    session = open_session(config, overrides or [], store, readonly=True)
    found = [s for s in session.plan.steps.values() if step in (s.name, s.base, s.stage.name)]
    if not found:
        raise InvalidInput(unknown("step", step, {s.base for s in session.plan.steps.values()}))
    rows: list[dict[str, Any]] = [
        {"step": s.name, "shard": t.index, "rows": [t.start, t.stop], "reason": t.reason} for s in found for t in s.to_run
    ]
    if as_json:
        emit(rows)
    elif not rows:
        say(f"{step}: nothing is stale; {sum(len(s.tasks) for s in found)} shards are stored or not needed")
    for row in [] if as_json else rows:
        say(f"{row['step']} shard {row['shard']} (rows {row['rows'][0]}-{row['rows'][1]}): {row['reason']}")


@app.command(epilog="Example: qfuse status configs/lfw.yaml")
def status(config: ConfigPath, overrides: Overrides = None, store: StorePath = None, as_json: AsJson = False) -> None:
    """Show what of a config is stored, and the rows that failed, from receipts alone."""
    from pipeline.progress import status_rows, status_table
    from pipeline.session import open_session

    session = open_session(config, overrides or [], store, readonly=True)
    rows = status_rows(session.plan, session.store)
    if as_json:
        emit(rows)
    else:
        show(status_table(rows))


@app.command(epilog="Example: qfuse check configs/lfw.yaml")
def check(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a config and its data set without computing: keys, names, files, tables, shards."""
    import tempfile

    from pipeline.session import open_session

    with tempfile.TemporaryDirectory() as nowhere:
        session = open_session(config, overrides or [], Path(nowhere) / "store", readonly=True)
        tables = {name: batch.rows for name, batch in session.dataset.tables.items()}
        for step in session.plan.steps.values():
            step.stage.open()
    if as_json:
        emit({"config": session.config.name, "tables": tables, "steps": len(session.plan.steps)})
    else:
        counts = ", ".join(f"{rows:,} {name}" for name, rows in tables.items() if rows)
        say(f"{config}: fine. {counts}; {len(session.plan.steps)} steps; every file they need is there.")


@app.command(epilog="Example: qfuse report configs/lfw.yaml")
def report(config: ConfigPath, overrides: Overrides = None, store: StorePath = None, as_json: AsJson = False) -> None:
    """Write the report of a finished run again."""
    from pipeline.session import make_report, open_session

    session = open_session(config, overrides or [], store)
    if session.plan.to_run:
        raise InvalidInput(f"{len(session.plan.to_run)} steps have not run yet: `qfuse run {config}` first.")
    if session.config.report is None:
        raise InvalidInput(f"{config} has no `report` section; add `report: {{}}` to get one.")
    files = make_report(session)
    emit([str(path) for path in files]) if as_json else say(f"report: {files[0]}")


@store_app.command("list", epilog="Example: qfuse store list --store .qfuse/store")
def store_list(store: StorePath = None, as_json: AsJson = False) -> None:
    """Show what the store holds: artifacts, rows and bytes by output."""
    from pipeline.progress import store_rows, store_table

    rows = store_rows(existing_store(store))
    emit(rows) if as_json else show(store_table(rows))


@store_app.command("verify", epilog="Example: qfuse store verify --keep")
def store_verify(
    store: StorePath = None,
    keep: Annotated[bool, typer.Option("--keep", help="Only report; do not set damaged artifacts aside.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every artifact with its receipt, byte for byte. Damaged ones are set aside and recomputed by the next run."""
    from pipeline.errors import CorruptArtifact

    opened = existing_store(store)
    receipts = list(opened.receipts())
    problems = [problem for receipt in receipts if (problem := opened.check(receipt))]
    if not keep:
        for problem in problems:
            opened.quarantine(problem)
    if as_json:
        emit({"checked": len(receipts), "problems": [{"path": str(p.path), "reason": p.reason} for p in problems]})
    else:
        say(f"{len(receipts)} artifacts checked, {len(problems)} damaged")
    if problems:
        done = "left where they are" if keep else "set aside in quarantine/; the next run recomputes them"
        names = "; ".join(f"{p.path}: {p.reason}" for p in problems[:5])
        raise CorruptArtifact(f"{names}{' …' if len(problems) > 5 else ''} — {done}.")


@store_app.command("gc", epilog="Example: qfuse store gc configs/lfw.yaml --delete")
def store_gc(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="What these configs need is kept.")],
    store: StorePath = None,
    crops: Annotated[bool, typer.Option("--crops", help="Collect only crops, needed or not: the bulk of a store.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it, only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what no given config needs: superseded artifacts, orphans, leftovers of killed writers."""
    from pipeline.session import open_session

    opened = existing_store(store)
    live: set[tuple[str, str]] = set()
    for config in configs:
        live |= open_session(config, [], opened.root, readonly=True).plan.live()
    outputs = [path.name for path in opened.root.iterdir() if path.name.endswith("crops")] + ["degrade"] if crops else None
    found = opened.garbage(set() if crops else live, outputs)
    size = sum(path.stat().st_size for path in found)
    if delete:
        for path in sorted(found, key=lambda p: p.suffix == ".h5"):  # receipts first: no receipt without its file
            path.unlink()
    if as_json:
        emit({"files": [str(path) for path in found], "bytes": size, "deleted": delete})
    else:
        verb = "deleted" if delete else "would delete (add --delete to do it)"
        say(f"{verb}: {len(found)} files, {size / 1e6:.1f} MB")


def existing_store(path: Path | None) -> Any:
    """Return the store at `path` (default .qfuse/store). Raises InvalidInput where there is none."""
    from pipeline.store import Store

    root = path or Path(".qfuse/store")
    if not (root / "format.json").exists():
        raise InvalidInput(f"{root} is no qfuse store; give its folder with --store.")
    return Store(root.absolute())


def show_results(session: Any) -> None:
    """Print the table that a report kind offers for the terminal, if it does."""
    from pipeline.registry import available
    from pipeline.runner import Runner
    from pipeline.session import Results

    section = session.config.report
    terminal = available("terminal report").get(section.kind) if section else None
    if terminal:
        show(terminal(Results(session, Runner(session.plan, session.store)), section.options))


def emit(value: Any) -> None:
    """Print JSON on standard output."""
    from pipeline.session import plain

    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def say(sentence: str) -> None:
    print(sentence)


def show(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: finished shards stay, and the exit code is 130."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main() -> None:
    """Run the command line; every known error ends as one sentence on standard error and its exit code."""
    for point in entry_points(group="qfuse.commands"):
        point.load()(app)
    try:
        with _terminable():
            code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except QfuseError as error:
        print(f"qfuse: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("qfuse: interrupted: every finished shard is kept; the same command continues from there.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except Exception as error:
        # Usage errors know how to show themselves, whichever copy of click typer brings along.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
