"""Which rows failed and why, and which carry a note, as the first step to say so stored it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.schema import Status
from pipeline.errors import counted
from pipeline.plan.graph import Step
from pipeline.plan.plan import Plan
from pipeline.store.store import Store
from pipeline.system.streams import visible_line


@dataclass(frozen=True)
class Remark:
    """What a step said about one row: a failure, or (status ok) a note.

    `row` counts along the step's axis.
    """

    step: str
    row: int
    id: str
    status: str
    reason: str

    @property
    def sentence(self) -> str:
        """The row's id, where it has one, and the reason."""
        return ": ".join(filter(None, (self.id, self.reason or self.status)))


def remarks(plan: Plan, store: Store, notes: bool = True) -> list[Remark]:
    """Return every stored remark in the order of the plan, failures first.

    A remark that several cells share counts once.

    Without `notes` only failures are returned, and only shards whose receipt counts one are opened.
    Rows that a step takes over as failed from the step above it have no reason of their own and are
    left out.
    """
    found: dict[tuple[Any, ...], Remark] = {}
    for step in plan.steps.values():
        for remark in _of_step(step, plan, store, notes):
            found.setdefault((step.base, remark.row, remark.status, remark.reason), remark)
    return sorted(found.values(), key=lambda remark: remark.status == "ok")


def _of_step(step: Step, plan: Plan, store: Store, notes: bool) -> Iterator[Remark]:
    output, schema = next(iter(step.stage.produces.items()))
    columns = [field.name for field in schema.fields if field.name in ("status", "reason")]
    if not step.stored or columns != ["status", "reason"]:
        return
    ids = plan.dataset.ids(step.stage.axis)
    for task in step.tasks:
        name = step.output(output), task.keys[output]
        if not store.has(*name) or not (notes or store.receipt(*name).status.keys() - {"ok"}):
            continue
        batch = store.read(*name, columns)
        for i in (
            ((batch["reason"] != "") & (notes | (batch["status"] != Status.OK)))
            .nonzero()[0]
            .tolist()
        ):
            row = task.start + i
            status = Status(int(batch["status"][i])).name.lower()
            yield Remark(
                step.base,
                row,
                str(ids[row]) if ids is not None else "",
                status,
                str(batch["reason"][i]),
            )


def remark_lines(found: Sequence[Remark], most: int | None) -> list[str]:
    """Return lines for a terminal: what failed, by step and status, then notes.

    At most `most` rows are listed of each.
    """
    lines = []
    failed, notes = [r for r in found if r.status != "ok"], [r for r in found if r.status == "ok"]
    one, several = (f"failed and {verb} left out of every result" for verb in ("was", "were"))
    whats = (one if len(failed) == 1 else several, "usable, with a note")
    for rows, what in zip((failed, notes), whats, strict=True):
        if not rows:
            continue
        counts = Counter((r.step, r.status) for r in rows)
        by = ", ".join(
            f"{step}: {count:,}{'' if status == 'ok' else f' {status}'}"
            for (step, status), count in counts.items()
        )
        lines.append(f"{counted(len(rows), 'row')} {what} ({by}):")
        lines += [f"  {visible_line(remark.sentence)}" for remark in rows[:most]]
        if most is not None and len(rows) > most:
            lines.append(f"  … and {len(rows) - most:,} more")
    return lines


def by_config_step(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return status rows with the cells of each config step added up."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault(row["step"].partition("[")[0], []).append(row)
    rows_of_steps = []
    for base, same in cells.items():
        states = {row["status"] for row in same}
        counts: Counter[str] = Counter()
        for row in same:
            counts.update(row["rows"])
        rows_of_steps.append(
            {
                "step": base if len(same) == 1 else f"{base} ({len(same)} cells)",
                "status": next(
                    state for state in ("run", "present", "not needed") if state in states
                ),
                "stored": sum(row["stored"] for row in same),
                "shards": sum(row["shards"] for row in same),
                "rows": counts,
            }
        )
    return rows_of_steps
