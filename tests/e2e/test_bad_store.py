"""Stores that cannot be used, or hold damage, through the real command."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from e2e.conftest import Answer

Qfuse = Callable[..., Answer]


def test_a_store_of_another_version_is_refused(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/format.json").write_text('{"format": 99}')
    answer = qfuse("run", "c.yaml", "--store", "s")
    assert answer.code == 3
    assert "is a store of format 99; this qfuse reads format 1" in answer.err
    assert "another folder with --store" in answer.err


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
    assert "is no qfuse store; give its folder with --store" in answer.err


def bound_by_permissions() -> None:
    """In the child: give up the right to ignore permission bits (PR_CAPBSET_DROP of CAP_DAC_OVERRIDE), which root has."""
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
        other = qfuse("run", "c.yaml", "--set", "steps.fuse.options.rule=best", preexec_fn=bound_by_permissions)
    except Exception as refused:
        pytest.skip(f"this machine does not let a test give up rights ({refused})")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert same.json["ran"] == []
    assert other.code == 6
    assert f"cannot write to the store {store}" in other.err
    assert "choose another folder with --store, or mend its permissions" in other.err


def test_a_run_folder_that_cannot_be_made_is_named(qfuse: Qfuse, tmp_path: Path) -> None:
    answer = qfuse("run", "c.yaml", "--set", "run.folder=c.yaml/runs")
    assert answer.code == 6
    assert str(tmp_path / "c.yaml/runs") in answer.err


def test_a_damaged_artifact_is_met_by_the_run_that_reads_it_set_aside_and_recomputed(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("run", "c.yaml").code == 0
    (stored,) = (tmp_path / ".qfuse/store/embed").glob("??/*.h5")
    with h5py.File(stored) as file:
        at = file["embedding"].id.get_chunk_info(0).byte_offset
    data = bytearray(stored.read_bytes())
    data[at + 100] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(data)
    met = qfuse("run", "c.yaml", "--set", "steps.fuse.options.rule=best")
    assert met.code == 5
    assert str(stored) in met.err
    assert "`qfuse store verify`" in met.err
    verified = qfuse("store", "verify")
    assert verified.code == 5
    assert "set aside in quarantine/; the next run recomputes them" in verified.err
    assert qfuse("store", "verify").code == 0
    assert qfuse("run", "c.yaml", "--set", "steps.fuse.options.rule=best").code == 0


def test_an_artifact_without_its_file_is_corrupt(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("run", "c.yaml").code == 0
    shutil.rmtree(next(iter((tmp_path / ".qfuse/store/quality").iterdir())), ignore_errors=True)
    (stored,) = (tmp_path / ".qfuse/store/embed").glob("??/*.h5")
    stored.unlink()
    answer = qfuse("run", "c.yaml", "--set", "steps.fuse.options.rule=best")
    assert answer.code == 5
    assert "run `qfuse store verify`, then run again" in answer.err
