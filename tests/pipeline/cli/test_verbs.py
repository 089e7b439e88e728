"""The command in a process that goes on, as a notebook's does."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipeline.cli import verbs


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
