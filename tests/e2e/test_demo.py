"""The demo, through the real command, twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from e2e.conftest import Answer


def test_the_demo_reports_and_a_second_run_has_nothing_to_do(
    qfuse: Callable[..., Answer], tmp_path: Path
) -> None:
    first = qfuse("demo")
    assert first.code == 0, first.err
    assert "quality-linear" in first.out
    page = Path(first.out.rpartition("report: ")[2].strip())
    assert page.stat().st_size > 10_000
    second = qfuse("demo", "--json").json
    assert second["ran"] == []
    assert second["report"][0] == str(page)
