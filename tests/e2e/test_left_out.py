"""What a reader leaves out of a data set is told by every verb that opens it."""

from __future__ import annotations

from typing import Any

import pytest
from bench_sets import xqlfw
from e2e.conftest import Answer, commands

CONFIG = """
name: part
dataset: {reader: xqlfw, path: set, options: {counts: any}}
steps:
  align: {options: {detector: none}}
"""
VERBS = ("check", "plan", "run", "status")
NOTE = (
    "1 of 4 pairs of xqlfw_pairs.txt are left out; line 2: a pair naming an unknown face: there is"
    " no image Person_A/"
)

PASSED = (
    "9 files are used, 1 is passed over: 1 of suffix .avif (as"
    " xqlfw_aligned_112/Person_A/Person_A_0009.avif)."
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Answer]:
    folder = tmp_path_factory.mktemp("part")
    xqlfw(folder / "set")
    (folder / "set/xqlfw_aligned_112/Person_A/Person_A_0002.jpg").unlink()
    (folder / "set/xqlfw_aligned_112/Person_A/Person_A_0009.avif").write_bytes(b"not decoded")
    (folder / "c.yaml").write_text(CONFIG)
    return commands(
        folder, [(verb, "c.yaml", *words) for words in ((), ("--json",)) for verb in VERBS]
    )


@pytest.mark.parametrize("verb", VERBS)
def test_pairs_that_are_left_out_are_counted_by(told: dict[Any, Answer], verb: str) -> None:
    plain, as_json = told[verb, "c.yaml"], told[verb, "c.yaml", "--json"]
    assert plain.code == 0, plain.err
    assert f"note: {NOTE}" in plain.out
    assert any(note.startswith(NOTE) for note in as_json.json["notes"])


@pytest.mark.parametrize("verb", VERBS)
def test_files_that_are_passed_over_are_counted_by(told: dict[Any, Answer], verb: str) -> None:
    assert f"note: {PASSED}" in told[verb, "c.yaml"].out
    assert PASSED in told[verb, "c.yaml", "--json"].json["notes"]
