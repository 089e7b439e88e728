"""Small artifacts for tests of the store, also in child processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline.keys import key_of
from pipeline.schema import Batch, Field, Schema, text
from pipeline.store import Receipt, Store

TOY = Schema("toy", (Field("status", "uint8"), Field("name", "text"), Field("x", "float64")))
KEY, OTHER = key_of("one"), key_of("other")


def batch(seed: int = 0, rows: int = 5) -> Batch:
    x = np.random.default_rng(seed).normal(size=rows)
    return Batch({"status": np.arange(rows, dtype=np.uint8) // 4 * 6, "name": text(range(rows)), "x": x})


def commit(store: Store, key: str = KEY, seed: int = 0, output: str = "toy") -> Receipt:
    return store.commit(output, key, batch(seed), TOY, {"step": "s"})


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid
