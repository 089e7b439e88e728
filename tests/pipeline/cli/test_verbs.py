"""The command in a process that goes on, as a notebook's does."""

from __future__ import annotations

import sys

import pytest

from pipeline.cli import verbs


def test_verbs_of_other_packages_are_added_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["qfuse", "--version"])
    found = []
    for _ in range(2):
        assert verbs.command() == 0
        found.append([each.callback.__name__ for each in verbs.app.registered_commands if each.callback])
    assert found[0] == found[1]
    assert {"demo", "steps", "run"} <= set(found[0])
