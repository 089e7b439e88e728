"""Where one artifact of a plan is damaged, more may be: which ones are looked at then, all at
once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import CorruptArtifact
from pipeline.plan.plan import Plan


@contextmanager
def doubting(plan: Plan) -> Iterator[None]:
    """Let the damage that is met say what else is doubted: else every flipped bit would be met in a
    pass of its own.
    """
    try:
        yield
    except CorruptArtifact as damage:
        damage.doubted = plan.live_artifacts() - _unread_bulk(plan)
        raise


def _unread_bulk(plan: Plan) -> set[tuple[str, str]]:
    """Return (output, key) of crops that no missing shard reads: checking every byte of them would
    take long.
    """
    read = {(ref.step, ref.output) for step in plan.to_run for ref in step.inputs.values()}
    return {
        (step.output(output), task.keys[output])
        for step in plan.steps.values()
        for output in step.stage.bulk
        if (step.name, output) not in read
        for task in step.tasks
    }
