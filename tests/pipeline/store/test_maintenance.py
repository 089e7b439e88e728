"""What `pipeline.store.store` promises of damage: it is found, told with the artifact's name, set
aside, and made good.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import KEY, OTHER, batch, commit, flip
from machine import public_folder, unprivileged

from pipeline.core.schema import Batch, Field, Schema
from pipeline.errors import CorruptArtifact, ResourceRefused
from pipeline.store import maintenance
from pipeline.store.maintenance import DamagedArtifact
from pipeline.store.receipt import sealed, unsealed
from pipeline.store.store import Store
from pipeline.system.canonical_json import key_of
from pipeline.system.processes import temporary


def only(store: Store) -> DamagedArtifact:
    """The one problem of a store."""
    (problem,) = filter(None, map(store.check_artifact, store.receipts()))
    return problem


def test_a_sound_artifact_has_no_problem(store: Store) -> None:
    commit(store)
    assert [store.check_artifact(path) for path in store.receipts()] == [None]


def swap_receipt(path: Path) -> None:
    """Give an artifact the sound receipt of another one."""
    receipt = path.with_suffix(".json")
    receipt.write_bytes(sealed(replace(unsealed(receipt.read_bytes(), "toy", KEY), key=OTHER)))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "bit": (flip, "expected sha256"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:100]), "bytes, found 100"),
    "emptied": (lambda path: path.write_bytes(b""), "bytes, found 0"),
    "gone": (lambda path: path.unlink(), "the file is gone"),
    "bit of the receipt": (lambda path: flip(path.with_suffix(".json")), "the receipt is damaged"),
    "half a receipt": (
        lambda path: path.with_suffix(".json").write_bytes(b"{"),
        "the receipt is damaged",
    ),
    "receipt of another key": (swap_receipt, "the receipt belongs to another artifact"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_kind_of_damage_is_found_set_aside_and_made_good(store: Store, kind: str) -> None:
    damage, reason = DAMAGE[kind]
    commit(store, OTHER, seed=1)
    commit(store)
    damage(store.path("toy", KEY))
    problem = only(store)
    assert (problem.path, problem.output, problem.key) == (store.path("toy", KEY), "toy", KEY)
    assert reason in problem.reason
    assert store.set_aside("toy", KEY, problem.reason)
    assert store.present("toy") == {OTHER}
    commit(store)
    assert [store.check_artifact(path) for path in store.receipts()] == [None, None]
    assert store.read("toy", KEY).digest() == batch().digest()


def test_an_artifact_that_has_gone_meanwhile_has_no_problem(store: Store) -> None:
    commit(store)
    (path,) = store.receipts()
    path.unlink()
    assert store.check_artifact(path) is None


def test_a_disk_that_cannot_give_the_bytes_of_a_file_is_a_problem_of_that_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store)
    # gives EIO
    monkeypatch.setattr(
        maintenance, "file_digest", lambda path: Path("/proc/self/mem").read_bytes()
    )
    assert only(store).reason == "it cannot be read (Input/output error)"


def test_a_file_that_may_not_be_read_is_no_problem_of_the_file() -> None:
    with public_folder() as folder:
        store = Store(folder / "store")
        commit(store)
        store.path("toy", KEY).chmod(0)
        with (
            unprivileged(),
            pytest.raises(ResourceRefused, match=r"\.h5 cannot be read \(Permission denied\)"),
        ):
            store.check_artifact(store.path("toy", KEY).with_suffix(".json"))


def test_every_flipped_bit_is_found_and_never_read_as_data(store: Store) -> None:
    schema = Schema(
        "many", (Field("x", "float32", (64,)), Field("name", "text"), Field("status", "uint8"))
    )
    x = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    many = Batch({"x": x, "name": batch(0, 40)["name"], "status": np.zeros(40, np.uint8)})
    batches = {("toy", KEY): batch(), ("toy", OTHER): batch(1), ("many", KEY): many}
    commit(store)
    commit(store, OTHER, seed=1)
    store.commit("many", KEY, many, schema, {"preimage": {"stage": "many"}})
    rng, met = np.random.default_rng(0), 0
    for _ in range(200):
        output, key = list(batches)[rng.integers(3)]
        path = store.path(output, key).with_suffix([".h5", ".json"][rng.integers(2)])
        image = path.read_bytes()
        flip(path, int(rng.integers(8 * len(image))))
        assert only(store).path == store.path(output, key)
        damage, found = read_again(store, path, output, key)
        met += damage is not None
        if damage is None:  # the bit stands for nothing
            assert path.suffix == ".h5"
            assert found == batches[output, key].digest()
        else:
            assert (damage.output, damage.key) == (output, key)
            assert str(path) in str(damage)
        path.write_bytes(image)
    assert met > 100
    assert not any(map(store.check_artifact, store.receipts()))


def read_again(
    store: Store, path: Path, output: str, key: str
) -> tuple[CorruptArtifact | None, str]:
    """Return the error that reading a file or a receipt anew raises, and the digest of the
    columns."""
    fresh = Store(store.root, readonly=True)
    try:
        return None, (
            fresh.read(output, key).digest()
            if path.suffix == ".h5"
            else fresh.receipt(output, key).digest
        )
    except CorruptArtifact as damage:
        return damage, ""


def test_many_artifacts_are_verified_side_by_side_and_the_bytes_of_each_are_told(
    store: Store,
) -> None:
    for i in range(20):
        commit(store, key_of(i), i)
    receipts = list(store.receipts())
    for path in (receipts[3], receipts[11]):
        flip(path.with_suffix(".h5"))
    sizes: list[int] = []
    problems = maintenance.verify(receipts, 4, sizes.append)
    assert [problem.path.with_suffix(".json") for problem in problems] == [
        receipts[3],
        receipts[11],
    ]
    assert sizes == [path.with_suffix(".h5").stat().st_size for path in receipts]


# -- set aside
# --------------------------------------------------------------------------------------------------


def test_what_is_set_aside_is_kept_with_the_reason(store: Store) -> None:
    commit(store)
    flip(store.path("toy", KEY))
    image = store.path("toy", KEY).read_bytes()
    assert store.set_aside("toy", KEY, "looked odd")
    aside = {path.suffix: path for path in (store.root / "quarantine").iterdir()}
    assert aside[".h5"].read_bytes() == image
    assert json.loads(aside[".json"].read_bytes())["key"] == KEY
    assert aside[".reason"].read_text() == f"{store.path('toy', KEY)}: looked odd\n"


def test_what_is_sound_or_gone_is_not_set_aside(store: Store) -> None:
    before = commit(store)
    assert not store.set_aside("toy", KEY, "another process has computed it again meanwhile")
    assert not store.set_aside("toy", OTHER, "it is not there")
    assert store.receipt("toy", KEY) == before
    assert not (store.root / "quarantine").exists()


def test_nothing_is_set_aside_in_a_read_only_store(store: Store) -> None:
    commit(store)
    flip(store.path("toy", KEY))
    with pytest.raises(
        ResourceRefused, match="was opened read-only; nothing can be set aside in it"
    ):
        Store(store.root, readonly=True).set_aside("toy", KEY, "a bit")
    assert store.present("toy") == {KEY}


def test_what_was_set_aside_before_is_never_replaced_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    for value in b"abc":
        commit(store)
        store.path("toy", KEY).write_bytes(bytes([value]))
        store.set_aside("toy", KEY, "once more")
        for reason in (store.root / "quarantine").glob("*-2.reason"):
            reason.unlink()  # someone has tidied up, and left the rest
    aside = (store.root / "quarantine").glob("*.h5")
    assert sorted(path.read_bytes() for path in aside) == [b"a", b"b", b"c"]
    assert list(store.receipts()) == []


def test_a_receipt_that_was_read_before_is_read_anew_after_it_was_set_aside(store: Store) -> None:
    commit(store)
    first = store.receipt("toy", KEY)
    flip(store.path("toy", KEY))
    store.set_aside("toy", KEY, "a bit")
    with pytest.raises(CorruptArtifact):
        store.receipt("toy", KEY)
    assert commit(store).created > first.created
    assert store.receipt("toy", KEY).created > first.created


def test_reading_what_is_damaged_or_gone_is_an_error_that_names_the_artifact(store: Store) -> None:
    commit(store)
    path = store.path("toy", KEY)

    def told(read: Callable[[str, str], object], sentence: str) -> None:
        with pytest.raises(CorruptArtifact, match=sentence) as damage:
            read("toy", KEY)
        assert (damage.value.output, damage.value.key) == ("toy", KEY)

    path.write_bytes(path.read_bytes()[:-10])
    told(store.read, r"the file is damaged \(.*\); a run that needs it computes it again")
    path.unlink()
    told(
        store.read,
        "the receipt is there but the file is gone; a run that needs it computes it again",
    )
    path.with_suffix(".json").write_bytes(b"{")
    store = Store(store.root)  # a receipt is read once
    told(store.receipt, "the receipt is damaged; a run that needs it computes it again")
    path.with_suffix(".json").unlink()
    told(store.read, "it is not in the store; a run that needs it computes it again")
    told(store.receipt, "it is not in the store; a run that needs it computes it again")


def test_a_receipt_that_may_not_be_read_is_no_damaged_one() -> None:
    with public_folder() as folder:
        store = Store(folder / "store")
        commit(store)
        store.path("toy", KEY).with_suffix(".json").chmod(0)
        with (
            unprivileged(),
            pytest.raises(ResourceRefused, match=r"\.json cannot be read \(Permission denied\)"),
        ):
            store.receipt("toy", KEY)


def test_receipts_come_in_order_and_without_those_being_written(store: Store) -> None:
    for output in ("b", "a"):
        for key in (OTHER, KEY):
            commit(store, key, output=output)
    path = store.path("a", KEY)
    temporary(path.with_suffix(".json")).write_bytes(b"{")
    found = [(path.parent.parent.name, path.stem) for path in store.receipts()]
    assert found == sorted((output, key) for output in "ab" for key in (OTHER, KEY))
    assert {path.parent.parent.name for path in store.receipts("a")} == {"a"}
    assert store.present("a") == {KEY, OTHER}
