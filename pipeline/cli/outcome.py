"""What a run achieved: what it computed, what failed, results and report, as text or JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.terminal import console, say, show

if TYPE_CHECKING:
    from pipeline.run.row_failures import Remark
    from pipeline.run.runner import Summary
    from pipeline.session import Session


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended well.

    `ran` names the steps that it computed, including those computed again after damage.
    """

    session: Session
    ran: list[str]
    summary: Summary
    files: list[Path]
    failed: list[Remark]
    results: Any  # the table for the terminal, if any

    def to_json(self) -> dict[str, Any]:
        done = {
            name: {"steps": n, "rows": rows, "seconds": s}
            for name, (n, rows, s) in self.summary.by_stage().items()
        }
        return {
            "ran": self.ran,
            "steps": done,
            "failed": [asdict(remark) for remark in self.failed],
            "notes": [*self.session.dataset.notes, *self.summary.notes],
            "report": [str(path) for path in self.files],
            "store": str(self.session.store.root),
        }

    def tell(self, path: Path) -> None:
        """Print what was done for the config at `path`, what failed, and where the report is."""
        from pipeline.cli.display import summary_table
        from pipeline.run.row_failures import remark_lines

        config = self.session.config
        if not self.ran:
            say(
                f"nothing to do: all that {config.full_name} asks for is in"
                f" {self.session.store.root}"
            )
        else:
            show(summary_table(self.summary))
        for note in self.session.dataset.notes:
            say(f"note: {note}")
        for line in remark_lines(self.failed, 5):
            say(line)
        if len(self.failed) > 5:
            chosen = f" --set benchmark={config.benchmark}" if config.benchmark else ""
            say(f"`qfuse status {path}{chosen} --all` names every one")
        if self.results is not None:
            show(self.results)
        if self.files:
            say(f"report: {self.files[0]}")
        elif note := without_report(self.session):
            say(note)


def without_report(session: Session) -> str:
    """Return how to see the numbers of a run whose config asks for no report.

    Empty if it asks for one, or evaluates nothing.
    """
    evaluated = any("numbers" in step.stage.produces for step in session.plan.steps.values())
    if session.config.report is not None or not evaluated:
        return ""
    return (
        "the config asks for no report, so no number is shown: add `report: {}` to it and run it"
        " again"
    )


def results_table(session: Session) -> Any:
    """Return the table that a report kind offers for the terminal; None if it offers none."""
    from pipeline.core.registry import available
    from pipeline.session import Results

    section = session.config.report
    terminal = available("terminal report").get(section.kind) if section else None
    if not (terminal and section):
        return None
    return terminal(Results(session), section.options, console().width)
