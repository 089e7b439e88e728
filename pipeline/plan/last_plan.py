"""What a former plan's keys were made of, kept in the run folder.

From it the next plan can tell why a step is stale.

Only shards that are there now replace what was remembered of them, so that an interrupted run, or
one of a part of the steps, takes no reason away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.plan.graph import Step, Task
from pipeline.store.store import Store
from pipeline.system.atomic_text import replace_text
from pipeline.system.canonical_json import canonical
from pipeline.system.regular_file import read_regular


def recalled(path: Path | None) -> dict[str, Any]:
    """Return the remembered pre-images by `STEP#SHARD`; none if missing or unreadable."""
    try:
        data = json.loads(read_regular(path), parse_constant=str) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}  # all that is lost is the reason why a step is stale
    if not isinstance(data, dict):
        return {}
    return {name: value for name, value in data.items() if isinstance(value, dict)}


def remember(steps: Iterable[Step], store: Store, path: Path) -> None:
    """Remember the pre-images of what is stored and of what never is, beside those known before."""
    former = recalled(path)
    now = {
        f"{s.name}#{t.index}": t.preimage for s in steps for t in s.tasks if _is_stored(s, t, store)
    }
    kept = {**former, **now}
    if kept != former:
        try:
            text = canonical(kept)
        # What the file says of other shards is damaged: drop it.
        except (ValueError, RecursionError):
            text = canonical(now)
        replace_text(path, text)


def _is_stored(step: Step, task: Task, store: Store) -> bool:
    return not step.stored or all(
        store.has(step.output(output), task.keys[output]) for output in task.missing
    )
