"""The demo, through the real command, twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def qfuse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_demo_reports_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    first = qfuse(tmp_path, "demo", "--json")
    assert first.returncode == 0, first.stderr
    assert Path(json.loads(first.stdout)["report"][0]).stat().st_size > 10_000
    second = qfuse(tmp_path, "demo", "--json")
    assert json.loads(second.stdout)["ran"] == []


def test_an_unknown_stage_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\ndataset: {reader: synthetic}\nsteps: {embd: {}}\n")
    result = qfuse(tmp_path, "run", "c.yaml")
    assert result.returncode == 3
    assert "did you mean 'embed'?" in result.stderr


def test_a_damaged_artifact_is_found_set_aside_and_recomputed(tmp_path: Path) -> None:
    assert qfuse(tmp_path, "demo", "--json").returncode == 0
    victim = next((tmp_path / ".qfuse/store/quality").glob("??/*.h5"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(data)
    assert qfuse(tmp_path, "store", "verify").returncode == 5
    assert not victim.exists()
    assert qfuse(tmp_path, "store", "verify").returncode == 0
