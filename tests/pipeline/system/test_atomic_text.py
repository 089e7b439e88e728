"""What `pipeline.system.atomic_text.replace_text` promises: the old text or the new one, whoever
writes or stops.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pipeline.system.atomic_text import replace_text


def test_text_is_replaced_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    for text in ("one, and longer", "zwö\udcff"):
        replace_text(path, text)
        assert path.read_text("utf-8", "surrogatepass") == text
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_folder_in_the_way_is_renamed_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("one", "two"):
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "mine").write_text(text)
        replace_text(path, text)
        assert path.read_text() == text
    assert [(tmp_path / f"a.json.{i}" / "mine").read_text() for i in (1, 2)] == ["one", "two"]


def test_text_that_cannot_be_put_in_place_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("former")

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        replace_text(tmp_path / "a.json", "text")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "former")]


def test_text_written_by_several_at_once_is_one_of_theirs(tmp_path: Path) -> None:
    texts = [str(i) * 100_000 for i in range(4)]
    threads = [
        threading.Thread(target=replace_text, args=(tmp_path / "a", text))
        for text in texts
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1
