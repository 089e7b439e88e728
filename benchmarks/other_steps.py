"""The other steps: large galleries, alignment, storage; both ways on the same arrays."""

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
from stages.faces import align, images
from stages.matching import candidates, search
from stages.tables.schemas import EMBEDDINGS

SIDES = (112, 250, 500)  # pixels of a photograph


def rows(made: Material, folder: Path) -> list[Row]:
    """Return the lines; `folder` is an empty one for what those about storage write."""
    alignment = [_alignment(side) for side in SIDES]
    return [*_large_galleries(made), *alignment, *_storage(made, folder)]


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


def _alignment(side: int, count: int = 200) -> Row:
    import cv2

    rng = np.random.default_rng(0)
    photographs, landmarks = [], []
    for _ in range(count):
        smooth = cv2.resize(
            rng.integers(0, 256, (25, 25, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC
        )
        photographs.append(
            cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        )
        landmarks.append(
            (align.TEMPLATE + rng.normal(0, 2, (5, 2)) + (side - align.SIZE) / 2).astype(np.float32)
        )

    def ours() -> Array:
        pairs = zip(photographs, landmarks, strict=True)
        return np.array(
            [align.warp(images.decode(jpeg, 50_000_000), points) for jpeg, points in pairs]
        )

    def theirs() -> Array:
        pairs = zip(photographs, landmarks, strict=True)
        return np.array(
            [common.aligned_crop(jpeg, points, align.TEMPLATE) for jpeg, points in pairs]
        )

    def compared(x: Array, y: Array) -> str:
        return f"largest pixel difference {int(np.abs(x.astype(int) - y.astype(int)).max())} of 255"

    name = (
        f"align: {count} JPEGs of {side} px, landmarks given, to {align.SIZE} px crops, one thread"
    )
    cost = "both decode by libjpeg-turbo and warp by OpenCV, which is nearly all of the work"
    return Row(name, ours, theirs, compared, count, "images/s", cost)


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
