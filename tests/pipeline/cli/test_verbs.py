"""The command in a process that goes on, as a notebook's does."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipeline.cli import main, verbs
from pipeline.system import interruption


def test_verbs_of_other_packages_are_added_once_in_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[object] = []
    monkeypatch.setattr(
        verbs, "entry_points", lambda group: [SimpleNamespace(load=lambda: given.append)]
    )
    monkeypatch.setattr(sys, "argv", ["qfuse", "--version"])
    verbs._add_more.cache_clear()
    try:
        assert [verbs.command(), verbs.command()] == [0, 0]
    finally:
        verbs._add_more.cache_clear()  # what is asked for next finds the real ones
    assert given == [verbs.app]


@pytest.mark.parametrize(
    ("error", "computing", "told"),
    [
        (MemoryError(), True, "out of memory; use fewer --workers, or smaller dataset.shard_rows."),
        (MemoryError(), False, "out of memory; close other programs."),
        (RuntimeError("can't start new thread"), False, "a thread; close other programs, or raise"),
    ],
)
def test_only_what_computes_shards_is_told_of_workers_where_the_machine_has_too_little(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    computing: bool,
    told: str,
) -> None:
    def lacking() -> int:
        raise error

    monkeypatch.setattr(verbs, "command", lacking)
    monkeypatch.setattr(interruption, "computing", computing)
    assert main._ended() == 6
    said = capsys.readouterr().err
    assert told in said
    assert ("shards are kept" in said) == ("--workers" in said) == computing
