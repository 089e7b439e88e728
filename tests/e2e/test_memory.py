"""Memory at the command line: the plan tells the peak, and a run that cannot have it begins
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from e2e.conftest import Answer


def test_a_plan_tells_its_peak_and_a_run_that_may_not_have_it_is_refused(
    tmp_path: Path, qfuse: Callable[..., Answer]
) -> None:
    last = qfuse("plan", "c.yaml", "--set", "run.memory=5").out.splitlines()[-1]
    assert last.startswith("peak memory about ")
    assert last.endswith(" MB of 5.0 GB available")
    told = qfuse("plan", "c.yaml", "--json").json["memory"]
    assert set(told) == {
        "embed",
        "quality",
        "statistics",
        "fuse",
        "compare",
        "evaluate_verification",
    }
    assert all(size > 0 for size in told.values())
    refused = qfuse("run", "c.yaml", "--set", "run.memory=0.0001")
    assert refused.code == 6
    assert " would take at least 1 MB of memory, and 1 MB are available: " in refused.err
    assert "Nothing was computed: " in refused.err
    assert not list((tmp_path / ".qfuse/store").glob("embed*"))
    assert qfuse("run", "c.yaml").code == 0
    assert qfuse("run", "c.yaml", "--set", "run.memory=0.0001").code == 0  # nothing is left to do
    assert "peak memory" not in qfuse("plan", "c.yaml").out
