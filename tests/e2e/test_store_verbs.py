"""`qfuse store verify` and `gc`, on stores of their own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from e2e.conftest import Answer, command, commands
from PIL import Image

from pipeline.files.digests import file_digest
from pipeline.store.store import Store
from stages.datasets.tables_file import write_tables
from stages.tables.tables import ProtocolLists, build_tables, singletons

Qfuse = Callable[..., Answer]

BEST = ("--set", "steps.fuse.options.rule=best")


def damaged(tmp_path: Path, *outputs: str) -> list[Path]:
    """Change the last byte of the only artifact of each output."""
    found = []
    for output in outputs:
        (stored,) = (tmp_path / ".qfuse/store" / output).glob("??/*.h5")
        stored.write_bytes(stored.read_bytes()[:-1] + bytes([stored.read_bytes()[-1] ^ 1]))
        found.append(stored)
    return found


def test_store_verify_tells_what_is_damaged_and_keeps_it_or_sets_it_aside(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    assert qfuse("run", "c.yaml").code == 0
    stored = damaged(tmp_path, "embed", "quality")
    kept = qfuse("store", "verify", "--keep", "--workers", 2)
    assert kept.code == 5
    assert re.search(
        r"^\d+ artifacts, [\d.]+ MB checked in [\d.]+ s: 2 damaged \(embed: 1, quality: 1\)$",
        kept.out,
        re.M,
    )
    assert all(f"{path}: expected sha256" in kept.err for path in stored)
    assert "left where they are." in kept.err
    assert all(path.exists() for path in stored)
    aside = qfuse("store", "verify")
    assert aside.code == 5
    assert "set aside in quarantine/; the next run recomputes them" in aside.err
    assert len(list((tmp_path / ".qfuse/store/quarantine").glob("*.h5"))) == 2
    assert "0 damaged" in qfuse("store", "verify").out


def test_where_there_is_no_store_that_is_said_and_how_to_name_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines = [
        ("store", "verify"),
        ("store", "list"),
        ("store", "gc", "--crops"),
        ("store", "verify", "--json"),
    ]
    for line, answer in commands(tmp_path, lines).items():
        said = (
            f"there is no store at {tmp_path}/.qfuse/store: give its folder with --store; `qfuse"
            " status CONFIG` names"
        )
        assert (answer.code, answer.out, said in answer.err) == (3, "", True), line
    assert (
        "file is not a qfuse store: give"
        in command(tmp_path, "store", "verify", "--store", "file").err
    )


def test_a_store_without_an_artifact_is_verified_and_said_to_be_empty(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    verified, listed = commands(
        tmp_path, [("store", verb, "--store", "store") for verb in ("verify", "list")]
    ).values()
    assert (verified.code, listed.code) == (0, 0)
    assert f"0 damaged; the store at {tmp_path}/store is empty" in verified.out


def test_store_verify_prints_json_and_counts_files_without_receipt(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    assert qfuse("run", "c.yaml").code == 0
    (stored,) = damaged(tmp_path, "quality")
    (orphan,) = (tmp_path / ".qfuse/store/embed").glob("??/*.json")
    orphan.unlink()
    receipts = len(list((tmp_path / ".qfuse/store").glob("*/??/*.json")))
    answer = qfuse("store", "verify", "--json")
    assert answer.code == 5
    found = json.loads(answer.out)
    assert found["checked"] == receipts
    assert (found["orphans"], found["damaged"], found["set_aside"]) == (1, {"quality": 1}, True)
    (problem,) = found["problems"]
    assert problem["path"] == str(stored)
    assert (problem["output"], problem["key"]) == ("quality", stored.stem)
    assert "1 file without a receipt, left by interrupted commits" in qfuse("store", "verify").out


def test_store_gc_first_says_and_then_deletes_what_no_config_needs(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    assert qfuse("run", "c.yaml").code == 0
    assert qfuse("run", "c.yaml", *BEST).code == 0
    store = tmp_path / ".qfuse/store"
    before = set(store.rglob("*"))
    dry = qfuse("store", "gc", "c.yaml", "--json").json
    assert dry["deleted"] is False
    assert dry["bytes"] == sum(os.path.getsize(path) for path in dry["files"]) > 0
    assert "add --delete to do it" in qfuse("store", "gc", "c.yaml").out
    assert set(store.rglob("*")) == before
    assert dry["classes"] == {"not needed": {"files": len(dry["files"]), "bytes": dry["bytes"]}}
    gone = qfuse("store", "gc", "c.yaml", "--delete", "--json").json
    assert (
        before - set(store.rglob("*"))
        == {Path(path) for path in gone["files"]}
        == {Path(path) for path in dry["files"]}
    )
    assert qfuse("run", "c.yaml", "--json").json["ran"] == []
    assert "nothing to delete" in qfuse("store", "gc", "c.yaml").out


def test_store_gc_tells_each_class_and_takes_what_was_set_aside_when_asked(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    assert qfuse("run", "c.yaml").code == 0
    store = tmp_path / ".qfuse/store"
    damaged(tmp_path, "quality")
    assert qfuse("store", "verify").code == 5
    (orphan,) = (store / "embed").glob("??/*.json")
    orphan.unlink()
    assert "set aside" not in qfuse("store", "gc", "c.yaml").out
    answer = qfuse("store", "gc", "c.yaml", "--quarantine", "--delete")
    assert re.search(r"^without a receipt: 1 file, [\d.]+ MB$", answer.out, re.M)
    assert re.search(r"^set aside: 3 files, [\d.]+ MB$", answer.out, re.M)
    assert not list((store / "embed").glob("??/*"))
    assert not list((store / "quarantine").iterdir())
    assert "nothing to delete" in qfuse("store", "gc", "c.yaml", "--quarantine").out


def test_store_gc_of_crops_keeps_everything_else(qfuse: Qfuse, tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(4)]
    for i, name in enumerate(names):
        shades = np.random.default_rng(i).integers(0, 256, (112, 112, 3), np.uint8)
        Image.fromarray(shades).save(tmp_path / name)
    digests = [file_digest(tmp_path / name) for name in names]
    score = {"score": np.full(4, 0.9, np.float32)}
    found = ProtocolLists(
        face_id=names,
        path=names,
        sha256=digests,
        subject=names,
        columns=score,
        **singletons(names, names),
    )
    write_tables(tmp_path / "tables.h5", build_tables(found, "test"))
    (tmp_path / "c.yaml").write_text(
        "name: c\ndataset: {reader: tables, path: .}\nsteps: {align: {options: {detector: none}},"
        " quality: {options: {method: detector-score}}}\n"
    )
    assert qfuse("run", "c.yaml").code == 0
    store = tmp_path / ".qfuse/store"
    others = {path for path in store.rglob("*.h5") if path.parents[1].name != "align.crops"}
    assert qfuse("run", "c.yaml", "--until", "align").code == 0
    assert list(store.glob("align.crops/??/*.h5"))
    assert qfuse("store", "gc", "--crops", "--delete").code == 0
    assert set(store.rglob("*.h5")) == others
    assert qfuse("run", "c.yaml", "--json").json["ran"] == []
