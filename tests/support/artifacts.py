"""Small artifacts for tests of the store, also in child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np

from pipeline.core.schema import Batch, Field, Schema, text
from pipeline.store.store import Receipt, Store
from pipeline.system.canonical_json import key_of

TOY = Schema("toy", (Field("status", "uint8"), Field("name", "text"), Field("x", "float64")))
KEY, OTHER = key_of("one"), key_of("other")


def batch(seed: int = 0, rows: int = 5) -> Batch:
    x = np.random.default_rng(seed).normal(size=rows)
    return Batch(
        {"status": np.arange(rows, dtype=np.uint8) // 4 * 6, "name": text(range(rows)), "x": x}
    )


def commit(store: Store, key: str = KEY, seed: int = 0, output: str = "toy") -> Receipt:
    return store.commit(output, key, batch(seed), TOY, {"step": "s"})


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def flip(path: Path, bit: int | None = None) -> None:
    """Change one bit of a file, by default one in its middle."""
    data = bytearray(path.read_bytes())
    bit = len(data) * 4 if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def child(
    code: str, *arguments: object, before: tuple[str, ...] = (), **more: str
) -> subprocess.Popen[str]:
    """Start Python on `code`, which knows this module's names, after the words `before`; `more`
    joins its environment.
    """
    folders = (Path(__file__).parent, Path(__file__).parents[2])
    places = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **more}
    words = [
        *before,
        sys.executable,
        "-c",
        f"import sys\nfrom artifacts import *\n{code}",
        *map(str, arguments),
    ]
    return subprocess.Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, env=places)


def dead_process() -> int:
    """Return the number of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid
