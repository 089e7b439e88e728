"""Hostile input of every kind ends in an answer or in a sentence; and the guard that says so does
see what it must.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import tables
from hostile.guard import Breach, attempt, prepared
from hostile.kinds import KINDS
from pipeline.errors import CorruptArtifact, InvalidInput
from pipeline.store.store import Store
from pipeline.system.interruption import SIGNALS

# The same inputs every time: `make accept` is where new ones are looked for, in processes that may
# die of them.
NO_CHANCE = Random(0)  # noqa: S311
EXAMPLES = {"whole commands": 8, "images": 40, "zip archives": 40}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put back the handlers of signals: a command that is called in this process ends it at the
    next one.
    """
    before, told = (
        {number: signal.getsignal(number) for number in SIGNALS},
        signal.set_wakeup_fd(-1),
    )
    yield
    signal.set_wakeup_fd(told)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_of_hostile_input_is_an_answer_or_a_sentence(
    kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"

    @settings(
        deadline=None,
        max_examples=EXAMPLES.get(kind, 50),
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def meet(rng: Random) -> None:
        shutil.rmtree(place, ignore_errors=True)
        prepared(place)
        attempt(KINDS[kind], rng, place)

    meet()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_names_an_input(kind: str, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        for seed in range(12):
            KINDS[kind](Random(seed), prepared(tmp_path / name / str(seed)))  # noqa: S311
        files = sorted(
            path
            for path in (tmp_path / name).glob("*/given/**/*")
            if path.is_file() and not path.is_symlink()
        )
        made.append(
            {
                str(path.relative_to(tmp_path / name)): hashlib.sha256(
                    path.read_bytes()
                ).hexdigest()
                for path in files
            }
        )
    assert made[0] == made[1]


def raises(folder: Path) -> None:
    raise ValueError("what a traceback is made of")


def says_nothing(folder: Path) -> None:
    raise InvalidInput(" ")


def writes(folder: Path) -> None:
    try:
        (folder.parent / "made").write_text("")
    except OSError:
        raise InvalidInput("as if nothing had been") from None


def removes(folder: Path) -> None:
    (folder.parent / "beside/secret").unlink()


def reads(folder: Path) -> None:
    (folder / "../beside/secret").read_text()


def follows(folder: Path) -> None:
    (folder / "link").read_text()


def runs(folder: Path) -> None:
    os.system("true")  # noqa: S605, S607


def never_ends(folder: Path) -> None:
    while True:
        time.sleep(0.01)


def leaves(folder: Path) -> None:
    # by a library, of whose files Python hears nothing
    with h5py.File(folder.parent / "beside/left.h5", "w"):
        pass


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (raises, "ValueError: what a traceback"),
        (says_nothing, "InvalidInput without a sentence"),
        (writes, "wrote outside"),
        (removes, "changed outside: os.remove"),
        (reads, "read outside"),
        (follows, "read outside"),
        (runs, "ran code: os.system"),
        (never_ends, "no end after 0.2 s"),
        (leaves, "left beside the given folder"),
    ],
)
def test_the_guard_sees(bad: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    (prepared(tmp_path / "place") / "link").symlink_to("../beside/secret")
    with pytest.raises(Breach, match=said):
        attempt(lambda rng, folder: lambda: bad(folder), NO_CHANCE, tmp_path / "place", seconds=0.2)


def test_the_guard_lets_pass_what_is_read_and_written_inside(tmp_path: Path) -> None:
    def call(folder: Path) -> None:
        (folder / "x").write_text("x")
        (folder / "x").rename(folder / "y")

    prepared(tmp_path / "place")
    assert (
        attempt(lambda rng, folder: lambda: call(folder), NO_CHANCE, tmp_path / "place")
        == "answered"
    )


def kept(folder: Path) -> tuple[Store, Path]:
    """A store with one small artifact, and the artifact's file."""
    root = folder / "store"
    data, receipt, marker, _ = tables.stored()
    path = root / "toy" / tables.KEY[:2] / f"{tables.KEY}.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    path.with_suffix(".json").write_bytes(receipt)
    (root / "format.json").write_bytes(marker)
    return Store(root, readonly=True), path


def test_two_zero_bytes_that_became_ones_are_found_where_an_artifact_is_read(
    tmp_path: Path,
) -> None:
    store, path = kept(tmp_path)
    with h5py.File(path) as file:
        start, data = file["v"].id.get_chunk_info(0).byte_offset, bytearray(path.read_bytes())
    at = next(i for i in range(start + 2, start + 100, 2) if data[i : i + 2] == b"\0\0")
    data[at : at + 2] = b"\xff\xff"
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact):
        store.read("toy", tables.KEY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", '"many"'),
        ("sha256", "3"),
        ("status", "[]"),
        ("created", "null"),
        ("provenance", "[" * 100_000),
    ],
    ids=lambda text: text[:6],
)
def test_a_forged_receipt_with_a_field_of_another_type_is_corrupt(
    tmp_path: Path, field: str, value: str
) -> None:
    store, path = kept(tmp_path)
    fields = json.loads(path.with_suffix(".json").read_bytes())
    rest = {name: item for name, item in fields.items() if name not in ("seal", field)}
    path.with_suffix(".json").write_bytes(
        tables.resealed(f'{json.dumps(rest)[:-1]},"{field}":{value}'.encode())
    )
    with pytest.raises(CorruptArtifact):
        store.receipt("toy", tables.KEY)


def test_a_damaged_artifact_is_never_read_as_other_columns_where_one_bit_flipped(
    tmp_path: Path,
) -> None:
    store, path = kept(tmp_path)
    data, digest = path.read_bytes(), tables.stored()[3]
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 100).tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = store.read("toy", tables.KEY).digest()
        except CorruptArtifact:
            continue
        assert found == digest
