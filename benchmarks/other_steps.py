"""The other steps: large galleries, storage; both ways on the same arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common_method as common
from benchmarks.material import Material, Row
from benchmarks.set_to_set import TOP
from pipeline.core.schema import Array
from pipeline.store.store import Store
from stages.exact import vectors
from stages.matching import candidates, search
from stages.tables.schemas import EMBEDDINGS


def rows(made: Material, folder: Path) -> list[Row]:
    """Return the lines; `folder` is an empty one for what those about storage write."""
    return [*_large_galleries(made), *_storage(made, folder)]


def _large_galleries(made: Material) -> list[Row]:
    crowd = vectors.units(made.embedded["embedding"][:100_000])
    seekers = made.unit[made.roles("probe")][:1000]
    return [
        Row(
            f"1:N, {len(crowd):,} enrolled, {len(seekers):,} probes, {TOP} candidates, one thread:"
            f" {name}",
            partial(_search, crowd, seekers, select),
            partial(theirs, crowd, seekers, TOP),
            _same_candidates,
            cost=(
                "the product of probes and gallery is most of the work, and the same on both sides"
            ),
            threads=1,
        )
        for name, select, theirs in (
            ("torch selects; FAISS flat", candidates.with_torch, common.flat_index),
            ("FAISS selects; FAISS flat", candidates.with_faiss, common.flat_index),
            ("torch selects; NumPy, argpartition", candidates.with_torch, common.top_candidates),
        )
    ]


def _search(
    gallery: Array, probes: Array, select: Callable[[Array], candidates.Select]
) -> tuple[Array, Array]:
    return search.exact_top(gallery, probes, TOP, select(gallery))


def _storage(made: Material, folder: Path) -> list[Row]:
    """Commit a shard to a new store and read it; beside it NumPy's own file.

    Committing includes checksums, fsync, and reading back to compare.
    """
    batch = made.embedded.take(slice(0, 65_536))
    size = sum(array.nbytes for array in batch.values() if array.dtype != object) / 1e6
    store, number, file = Store(folder / "store"), iter(range(10**6)), folder / "embedding.npy"

    def commit() -> str:
        key = f"{next(number):064x}"
        store.commit("embed", key, batch, EMBEDDINGS, {})
        return key

    first = commit()
    np.save(file, batch["embedding"])
    return [
        Row(
            f"store: commit {batch.rows:,} embeddings; NumPy: save, neither checked nor fsynced",
            commit,
            lambda: np.save(file, batch["embedding"]),
            amount=size,
            unit="MB/s",
            cost=(
                "a shard is digested, written with a checksum on each chunk, fsynced, read back,"
                " digested again and linked"
            ),
        ),
        Row(
            "store: read them, checksums checked; NumPy: load",
            lambda: store.read("embed", first),
            lambda: np.load(file),
            lambda theirs, ours: (
                "identical" if np.array_equal(theirs, ours["embedding"]) else "DIFFERENT"
            ),
            size,
            "MB/s",
            "HDF5 recomputes the checksum of every chunk, and NumPy's file has none",
        ),
    ]


def _same_candidates(theirs: Any, ours: Any) -> str:
    same = np.mean(theirs[0] == ours[0]) * 100
    return (
        f"{same:.5g} % of places identical; scores within {np.abs(theirs[1] - ours[1]).max():.1e}"
    )
