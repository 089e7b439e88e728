"""What `pipeline.plan.dataset.ingest` promises: its tables speak of the bytes that their key speaks
of.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import toy
from laboratory import Lab

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files


def pack(lab: Lab, name: str) -> Path:
    with zipfile.ZipFile(lab.root / name, "w") as archive:
        for file in sorted((lab.root / "files").iterdir()):
            archive.write(file, file.name)
    return lab.root / name


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_tables_of_files_that_change_while_they_are_read_are_not_kept(lab: Lab, kind: str) -> None:
    overrides = ("dataset.path=files.zip",) if kind == "zip" else ()
    pack(lab, "files.zip")

    def change() -> None:
        lab.write(3, 99)
        os.replace(pack(lab, "other.zip"), lab.root / "files.zip")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.ToyReader, "read", before(change))
        with pytest.raises(InvalidInput, match="changed while they were read; run again"):
            lab.session(*overrides)
    assert list(lab.session(readonly=True).store.receipts()) == []
    assert lab.run(*overrides).read("measure", "number")["value"][3] == 99


def before(change: Callable[[], None]) -> Callable[[toy.ToyReader, Files | None], dict[str, Batch]]:
    """`ToyReader.read`, with something happening just before."""
    read = toy.ToyReader.read

    def changed(reader: toy.ToyReader, files: Files | None) -> dict[str, Batch]:
        change()
        return read(reader, files)

    return changed


def test_a_file_that_comes_while_others_are_read_is_noticed(lab: Lab) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            toy.ToyReader,
            "read",
            before(lambda: (lab.root / "files" / "99.0").write_text("1") and None),
        )
        with pytest.raises(InvalidInput, match="changed while they were read"):
            lab.session()
