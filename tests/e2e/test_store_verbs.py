"""`qfuse store verify` and `gc`, on stores of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from e2e.conftest import Answer
from PIL import Image

from pipeline.keys import file_digest
from stages.datasets.tables_file import write_tables
from stages.tables import Protocol, build_tables, singletons

Qfuse = Callable[..., Answer]

BEST = ("--set", "steps.fuse.options.rule=best")


def test_store_verify_keep_reports_damage_and_leaves_it(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("run", "c.yaml", "--until", "quality").code == 0
    (stored,) = (tmp_path / ".qfuse/store/quality").glob("??/*.h5")
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    answer = qfuse("store", "verify", "--keep")
    assert answer.code == 5
    assert f"{stored}: expected sha256" in answer.err
    assert "left where they are" in answer.err
    assert stored.exists()


def test_store_gc_first_says_and_then_deletes_what_no_config_needs(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("run", "c.yaml").code == 0
    assert qfuse("run", "c.yaml", *BEST).code == 0
    store = tmp_path / ".qfuse/store"
    before = set(store.rglob("*"))
    dry = qfuse("store", "gc", "c.yaml", "--json").json
    assert dry["deleted"] is False
    assert dry["bytes"] == sum(os.path.getsize(path) for path in dry["files"]) > 0
    assert "add --delete to do it" in qfuse("store", "gc", "c.yaml").out
    assert set(store.rglob("*")) == before
    gone = qfuse("store", "gc", "c.yaml", "--delete", "--json").json
    assert before - set(store.rglob("*")) == {Path(path) for path in gone["files"]} == {Path(path) for path in dry["files"]}
    assert qfuse("run", "c.yaml", "--json").json["ran"] == []
    assert "nothing to delete" in qfuse("store", "gc", "c.yaml").out


def test_store_gc_of_crops_keeps_everything_else(qfuse: Qfuse, tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(4)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((112, 112, 3), 40 * i, np.uint8)).save(tmp_path / name)
    digests = [file_digest(tmp_path / name) for name in names]
    score = {"score": np.full(4, 0.9, np.float32)}
    found = Protocol(face_id=names, path=names, sha256=digests, subject=names, columns=score, **singletons(names, names))
    write_tables(tmp_path / "tables.h5", build_tables(found, "test"))
    (tmp_path / "c.yaml").write_text(
        "name: c\ndataset: {reader: tables, path: .}\n"
        "steps: {align: {options: {detector: none}}, quality: {options: {method: detector-score}}}\n"
    )
    assert qfuse("run", "c.yaml").code == 0
    store = tmp_path / ".qfuse/store"
    others = {path for path in store.rglob("*.h5") if path.parents[1].name != "align.crops"}
    assert qfuse("run", "c.yaml", "--until", "align").code == 0
    assert list(store.glob("align.crops/??/*.h5"))
    assert qfuse("store", "gc", "--crops", "--delete").code == 0
    assert set(store.rglob("*.h5")) == others
    assert qfuse("run", "c.yaml", "--json").json["ran"] == []
