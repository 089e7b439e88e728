"""Stores that cannot be used, or hold damage, through the real command."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from e2e.conftest import CONFIG, Answer

Qfuse = Callable[..., Answer]


def test_a_store_of_another_version_is_refused(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/format.json").write_text('{"format": 99}')
    answer = qfuse("run", "c.yaml", "--store", "s")
    assert answer.code == 3
    assert "is a store of format 99; this qfuse reads format 2" in answer.err
    assert "another folder with --store" in answer.err


def test_a_store_whose_format_file_is_damaged_says_what_it_should_hold(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/format.json").write_text('{"gormat": 2}')
    for words in (("run", "c.yaml", "--store", "s"), ("store", "list", "--store", "s")):
        answer = qfuse(*words)
        assert answer.code == 3
        assert (
            """s/format.json is damaged: expected {"format":2}, found '{"gormat": 2}'."""
            in answer.err
        )


def test_a_folder_with_other_things_in_it_is_no_store(qfuse: Qfuse) -> None:
    answer = qfuse("run", "c.yaml", "--store", ".")
    assert answer.code == 3
    assert "is not empty and is not a qfuse store; choose another folder with --store" in answer.err


@pytest.mark.parametrize("store", ["c.yaml", "c.yaml/below"])
def test_a_store_on_or_below_a_file_is_refused(qfuse: Qfuse, tmp_path: Path, store: str) -> None:
    answer = qfuse("run", "c.yaml", "--store", store)
    assert answer.code == 6
    assert f"cannot write to the store {tmp_path / store}" in answer.err
    assert "choose another folder with --store" in answer.err


@pytest.mark.parametrize("verb", ["list", "verify"])
def test_a_store_verb_without_a_store_says_how_to_name_one(qfuse: Qfuse, verb: str) -> None:
    answer = qfuse("store", verb)
    assert answer.code == 3
    assert ": give its folder with --store" in answer.err


def bound_by_permissions() -> None:
    """In the child: give up the right to ignore permission bits (PR_CAPBSET_DROP of
    CAP_DAC_OVERRIDE), which root has.
    """
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) != 0:
        raise OSError("cannot give up CAP_DAC_OVERRIDE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gives up a Linux capability")
def test_a_read_only_store_is_read_and_refuses_new_results(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("run", "c.yaml").code == 0
    store = tmp_path / ".qfuse/store"
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        same = qfuse("run", "c.yaml", "--json", preexec_fn=bound_by_permissions)
        other = qfuse(
            "run",
            "c.yaml",
            "--set",
            "steps.fuse.options.rule=best",
            preexec_fn=bound_by_permissions,
        )
        flip(stored(tmp_path, "embed"))
        verified = qfuse("store", "verify", preexec_fn=bound_by_permissions)
    except Exception as refused:
        pytest.skip(f"this machine does not let a test give up rights ({refused})")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert same.json["ran"] == []
    assert other.code == 6
    assert f"cannot write to the store {store}" in other.err
    assert "choose another folder with --store, or fix its permissions" in other.err
    assert verified.code == 5
    assert "left where they are, because the store cannot be written" in verified.err


def test_a_run_folder_that_cannot_be_made_is_named(qfuse: Qfuse, tmp_path: Path) -> None:
    answer = qfuse("run", "c.yaml", "--set", "run.folder=c.yaml/runs")
    assert answer.code == 6
    assert str(tmp_path / "c.yaml/runs") in answer.err


@pytest.mark.parametrize("damage", ["bit", "receipt", "gone"])
def test_what_is_damaged_is_set_aside_and_computed_again_alone_by_the_run_that_needs_it(
    qfuse: Qfuse, tmp_path: Path, damage: str
) -> None:
    assert qfuse("run", "c.yaml").code == 0
    path = stored(tmp_path, "embed")
    before = {
        receipt: receipt.stat().st_ino
        for receipt in (tmp_path / ".qfuse/store").glob("*/??/*.json")
    }
    digest = json.loads(path.with_suffix(".json").read_bytes())["digest"]
    {"bit": flip, "receipt": lambda path: flip(path.with_suffix(".json")), "gone": Path.unlink}[
        damage
    ](path)
    again = qfuse("run", "c.yaml", "--set", "steps.fuse.options.rule=best")
    assert again.code == 0
    assert str(path.stem) in again.err
    assert json.loads(path.with_suffix(".json").read_bytes())["digest"] == digest
    assert {receipt for receipt, inode in before.items() if receipt.stat().st_ino != inode} == {
        path.with_suffix(".json")
    }
    assert len(list((tmp_path / ".qfuse/store/quarantine").glob("embed-*.reason"))) == 1
    assert qfuse("store", "verify").code == 0


@pytest.mark.parametrize("where", [(), ("--dask", "local:1")], ids=["here", "workers"])
def test_several_flipped_bits_are_met_in_one_pass(
    qfuse: Qfuse, tmp_path: Path, where: tuple[str, ...]
) -> None:
    (tmp_path / "c.yaml").write_text(
        CONFIG.replace("scale: 0.001}", "scale: 0.001}, shard_rows: {faces: 100}")
    )
    assert qfuse("run", "c.yaml").code == 0
    paths = [
        path
        for output in ("embed", "quality")
        for path in (tmp_path / ".qfuse/store" / output).glob("??/*.h5")
    ]
    for path in paths:
        flip(path, "embedding" if path.parent.parent.name == "embed" else "quality")
    (log,) = (tmp_path / ".qfuse/runs").glob("small/events.jsonl")
    log.unlink()
    again = qfuse("run", "c.yaml", "--set", "steps.fuse.options.rule=best", *where)
    assert again.code == 0
    assert log.read_text().count('"run_started"') == 2
    assert len(list((tmp_path / ".qfuse/store/quarantine").glob("*.reason"))) == len(paths) > 4
    assert qfuse("store", "verify").code == 0


def stored(tmp_path: Path, output: str) -> Path:
    """The only artifact of an output."""
    (path,) = (tmp_path / ".qfuse/store" / output).glob("??/*.h5")
    return path


def flip(path: Path, column: str = "embedding") -> None:
    """Change a bit of an artifact's values, or of a receipt's middle."""
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            at = file[column].id.get_chunk_info(0).byte_offset + 100
    data[at] ^= 1
    path.write_bytes(data)
