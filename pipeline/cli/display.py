"""What the terminal shows: live progress, plan, status and store tables.

Built on rich, imported when first needed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline.plan.plan import Plan
from pipeline.run.events import Event
from pipeline.run.runner import Summary
from pipeline.store.store import Store
from pipeline.system.signs_of_life import pulse
from pipeline.system.streams import visible


class Progress:
    """One bar a config step (its cells together), fed by events."""

    def __init__(self, plan: Plan, quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet)
        self._bars = Bars(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._bases = {step.name: step.base for step in plan.steps.values()}
        self._totals: dict[str, int] = defaultdict(int)
        self._units: dict[str, str] = {}
        for step in plan.to_run:
            rows = step.stage.grain == "map"
            self._units[step.base] = "rows" if rows else "shards"
            self._totals[step.base] += (
                sum(t.stop - t.start for t in step.to_run) if rows else len(step.to_run)
            )
        self._tasks: dict[str, TaskID] = {}
        self._cells = Counter(step.base for step in plan.to_run)
        self._counts: Counter[str] = Counter()  # of the steps under way
        pulse.at(self._line)

    def on_event(self, event: Event) -> None:
        for note in event.get("notes", ()):
            self._bars.console.print(
                visible(f"note: {note}"), markup=False, highlight=False, soft_wrap=True
            )
        if event.get("dashboard"):
            place = visible(f"{event['workers']} workers; dashboard: {event['dashboard']}")
            self._bars.console.print(place, markup=False)
        base = self._bases.get(event.get("step", ""), "")
        if not base:
            return
        if base not in self._tasks:
            self._tasks[base] = self._bars.add_task(
                base, total=self._totals[base], unit=self._units.get(base, "")
            )
            self._counts[base] = 0
        if event["event"] == "advance":
            self._bars.advance(self._tasks[base], event["rows"])
            self._counts[base] += event["rows"]
        elif event["event"] == "step_finished":
            self._cells[base] -= 1
            if self._cells[base] == 0:
                self._counts.pop(base)
                unit = self._units.get(base, "")
                total = self._totals[base]
                pulse.done(f"{base}: finished, {total:,} {unit if total != 1 else unit[:-1]}")

    def _line(self) -> str:
        under_way = list(self._counts.items())
        lines = [
            f"{base}: {count:,} of {self._totals[base]:,} {self._units.get(base, '')}"
            for base, count in under_way
        ]
        return "; ".join(lines) or "computing"

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


@contextmanager
def bytes_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of bytes on standard error, if that is a terminal; yield what moves it on."""
    console = Console(stderr=True)
    columns = (
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(
        TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.advance(task, done)


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def summary_table(summary: Summary) -> Table:
    """One line a config step that ran: its cells, rows and seconds of work."""
    table = _table(
        "step", "cells", "rows", "seconds", "rows/s", right=("cells", "rows", "seconds", "rows/s")
    )
    for name, (steps, rows, seconds) in summary.by_stage().items():
        rate = f"{rows / seconds:,.0f}" if seconds > 0 else ""
        table.add_row(name, str(steps), f"{rows:,}", f"{seconds:.1f}", rate)
    return table


def plan_table(plan: Plan) -> Table:
    """One line a config step: how many of its cells and shards would run, and the first reason."""
    table = _table(
        "step", "stage", "cells", "shards", "to run", "why", right=("cells", "shards", "to run")
    )
    bases: dict[str, list[Any]] = defaultdict(list)
    for step in plan.steps.values():
        bases[step.base].append(step)
    for base, steps in bases.items():
        running = [step for step in steps if step.to_run]
        reasons = list(dict.fromkeys(part for step in running for part in step.reason.split("; ")))
        why = steps[0].status
        if running:
            why = "; ".join(reasons[:3]) + (" …" if len(reasons) > 3 else "")
        shards, todo = sum(len(s.tasks) for s in steps), sum(len(s.to_run) for s in steps)
        table.add_row(base, steps[0].stage.name, str(len(steps)), str(shards), str(todo), why)
    return table


def status_rows(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Return, for every step, how many shards are stored and how many rows failed by status."""
    rows = []
    for step in plan.steps.values():
        first = next(iter(step.stage.produces))
        stored = 0
        counts: dict[str, int] = defaultdict(int)
        for task in step.tasks:
            if step.stored and store.has(step.output(first), task.keys[first]):
                stored += 1
                for status, count in store.receipt(
                    step.output(first), task.keys[first]
                ).status.items():
                    counts[status] += count
        rows.append(
            {
                "step": step.name,
                "status": step.status,
                "stored": stored,
                "shards": len(step.tasks),
                "rows": dict(counts),
            }
        )
    return rows


def status_table(rows: list[dict[str, Any]]) -> Table:
    table = _table("step", "status", "stored", "rows by status")
    for row in rows:
        counts = ", ".join(f"{count:,} {status}" for status, count in row["rows"].items())
        table.add_row(row["step"], row["status"], f"{row['stored']}/{row['shards']}", counts)
    return table


def store_rows(store: Store) -> list[dict[str, Any]]:
    """Return artifacts, rows and bytes by output, from receipts alone."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for path in store.receipts():
        receipt = store.receipt(path.parent.parent.name, path.stem)
        total = totals[receipt.output]
        total[0], total[1], total[2] = (
            total[0] + 1,
            total[1] + receipt.rows,
            total[2] + receipt.bytes,
        )
    return [
        {"output": o, "artifacts": a, "rows": r, "bytes": b}
        for o, (a, r, b) in sorted(totals.items())
    ]


def store_table(rows: list[dict[str, Any]]) -> Table:
    table = _table("output", "artifacts", "rows", "MB", right=("artifacts", "rows", "MB"))
    for row in rows:
        table.add_row(
            row["output"], str(row["artifacts"]), f"{row['rows']:,}", f"{row['bytes'] / 1e6:.1f}"
        )
    return table
