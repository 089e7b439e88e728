"""What is computed from stored embeddings has the same bits on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from same_bits import ALL, config, digests, start

from stages.datasets.synthetic import SynthOptions, synthesise
from stages.datasets.tables_file import write_tables

MACHINES = {
    "old": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": ALL,
        "OPENBLAS_NUM_THREADS": "2",
    },
    "new": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "",
        "OPENBLAS_NUM_THREADS": "1",
    },
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two stores of one set, filled at the same time as two kinds of machine would."""
    folder = tmp_path_factory.mktemp("bits")
    write_tables(
        folder / "tables.h5", synthesise(SynthOptions(scale=0.004, dimension=96, seed=3)), {}
    )
    ways = {"old": config(folder, "old", threads=2, backend="torch"), "new": config(folder, "new")}
    children = {name: start(way, folder / name, **MACHINES[name]) for name, way in ways.items()}
    for child in children.values():
        _, error = child.communicate(timeout=240)
        assert child.returncode == 0, error
    return {name: folder / name for name in ways}


def test_every_artifact_below_embeddings_is_the_same_on_two_kinds_of_machine(
    stores: dict[str, Path],
) -> None:
    old, new = digests(stores["old"]), digests(stores["new"])
    assert len({output for output, _, _ in old}) >= 12
    assert old == new
