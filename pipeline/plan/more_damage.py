"""Where one artifact of a plan is damaged, more may be: which ones are then checked at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import CorruptArtifact
from pipeline.plan.plan import Plan


@contextmanager
def doubting(plan: Plan) -> Iterator[None]:
    """Let an artifact that proves damaged cast doubt on others of the plan, to be checked now.

    Otherwise every flipped bit would take a pass of its own to be found.
    """
    try:
        yield
    except CorruptArtifact as damage:
        damage.doubted = plan.live_artifacts() - _unread_bulk(plan)
        raise


def _unread_bulk(plan: Plan) -> set[tuple[str, str]]:
    """Return (output, key) of crops that no missing shard reads: checking them takes long."""
    read = {(ref.step, ref.output) for step in plan.to_run for ref in step.inputs.values()}
    return {
        (step.output(output), task.keys[output])
        for step in plan.steps.values()
        for output in step.stage.bulk
        if (step.name, output) not in read
        for task in step.tasks
    }
