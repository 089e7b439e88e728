"""A file where a folder of a store should be, or something else where its format file should be,
through the real command.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, REPORT, Answer, command, commands

from pipeline.system.regular_file import kind_of, obstacle

VERBS = {
    words.removesuffix(" b.yaml"): tuple(words.split())
    for words in ("run b.yaml", "status b.yaml", "store gc b.yaml")
}
VERBS |= {"build": ("build", "b.yaml", "t.h5"), "verify": ("store", "verify")}
# What is wanted of each verb: the exit code; 0 where the verb has no need of that folder.
ALL = {"run": 6, "build": 6, "status": 6, "store gc": 6, "verify": 5}
WRITERS = ALL | {"status": 0, "store gc": 0}
PLACES = {
    "store/embed": ALL,  # of an output
    "store/embed/??": ALL,  # of the keys that begin alike
    "store/ingest.faces": WRITERS,  # of a table of the data set
    "store/quarantine": WRITERS,
    "runs/b": WRITERS | {"verify": 0},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `c.yaml` has been run; `b.yaml` would read its embeddings."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "c.yaml").write_text(CONFIG + REPORT)
    (folder / "b.yaml").write_text(
        CONFIG.replace("name: small", "name: b").replace("rule: mean", "rule: best")
    )
    assert command(folder, "run", "c.yaml").code == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def put_file(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("a file")


def answers(folder: Path) -> dict[str, Answer]:
    found = commands(folder, list(VERBS.values()))
    return {verb: found[words] for verb, words in VERBS.items()}


@pytest.mark.parametrize("place", PLACES)
def test_a_file_where_a_folder_should_be_is_named_by_whoever_needs_the_folder(
    folder: Path, place: str
) -> None:
    home = folder / ".qfuse"
    if place == "store/quarantine":  # which is needed where something is damaged
        (embedded,) = (home / "store/embed").glob("??/*.h5")
        embedded.write_bytes(b"damaged")
    blocked = next(home.glob(place), home / place)
    put_file(blocked)
    found = answers(folder)
    assert {verb: answer.code for verb, answer in found.items()} == PLACES[place]
    for answer in found.values():
        assert answer.code == 0 or (
            f"{blocked} is a file and should be a folder" in answer.err and "move" in answer.err
        )
    assert blocked.read_text() == "a file"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_a_format_file_that_is_none_is_named_by_every_verb(
    folder: Path, make: Callable[[Path], object]
) -> None:
    marker = folder / ".qfuse/store/format.json"
    marker.unlink()
    make(marker)
    for answer in answers(folder).values():
        assert answer.code == 3
        assert (
            f"{marker} is {kind_of(marker)} and should be a file: move it away and write"
            ' {"format":2} into' in answer.err
        )


def test_a_file_where_the_folder_of_a_finished_run_should_be_is_named(folder: Path) -> None:
    put_file(folder / ".qfuse/runs/small")
    answer = command(folder, "run", "c.yaml")
    assert answer.code == 6
    blocked = folder / ".qfuse/runs/small"
    told = (
        f"{blocked} is a file and should be a folder; move it away and run the same command again."
    )
    assert answer.err.strip() == f"qfuse: {told}"


def test_store_verify_counts_what_is_in_the_way_beside_what_is_damaged(folder: Path) -> None:
    store = folder / ".qfuse/store"
    put_file(store / "embed")
    (damaged,) = (store / "quality").glob("??/*.h5")
    damaged.write_bytes(b"damaged")
    answer = command(folder, "store", "verify")
    assert ": 1 damaged (quality: 1), and 1 in the way of a folder" in answer.out
    assert "the next run recomputes them" in answer.err
    assert json.loads(command(folder, "store", "verify", "--json").out)["in_the_way"] == [
        str(store / "embed")
    ]


def test_once_what_is_in_the_way_is_moved_away_the_run_goes_on(folder: Path) -> None:
    blocked = folder / ".qfuse/store/embed"
    put_file(blocked)
    assert command(folder, "run", "b.yaml").code == 6
    blocked.rename(folder / "moved")
    assert command(folder, "run", "b.yaml").code == 0
    assert command(folder, "store", "verify").code == 0


def test_a_file_that_is_in_nobodys_way_is_none_of_the_stores_business(folder: Path) -> None:
    (folder / ".qfuse/store/README").write_text("ours")
    (folder / ".qfuse/store/embed/README").write_text("ours")
    assert {answer.code for answer in answers(folder).values()} == {0}


def test_what_is_in_the_way_is_found_also_above_the_folder_and_where_it_is_no_file(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    assert (
        obstacle(tmp_path / "pipe" / "a" / "b")
        == f"{tmp_path / 'pipe'} is a pipe and should be a folder"
    )
    assert (
        obstacle(tmp_path / "link")
        == f"{tmp_path / 'link'} is a link that leads nowhere and should be a folder"
    )
    assert obstacle(tmp_path / "new" / "folder") == ""
