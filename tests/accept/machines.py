"""One set of embeddings, every artifact below them on machines of every kind that this one can be
made to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.schema import Batch
from pipeline.store import hdf5
from stages.datasets.synthetic import SynthOptions, synthesise
from stages.datasets.tables_file import write_tables
from stages.tables.tables import ProtocolLists, build_tables, singletons
from tests.accept.command import Check, Place
from tests.support.same_bits import ALL, config, digests, start

KERNELS = ("Prescott", "Sandybridge", "Haswell", "Zen", "SkylakeX")
BEYOND = ("", "X86_V3", ALL)  # what NumPy leaves unused
THREADS = (1, 2, 4)
ENROLLED, SEEKING = 34_000, 600  # so many that a search selects before it scores


def machines() -> tuple[list[Check], str]:
    """Compute all artifacts below one set of embeddings under every kernel, dispatch, number of
    threads and back end.
    """
    place = Place.fresh("machines")
    expected, tried = None, 0
    same: dict[str, list[bool]] = {}
    tables = synthesise(SynthOptions(scale=0.01, dimension=512, seed=3))
    write_tables(place.folder / "tables.h5", tables, {})
    for number, (way, arguments, machine) in enumerate(_ways()):
        path, store = config(place.folder, f"way-{number}", **way), place.folder / f"store-{number}"
        _run(path, store, *arguments, **machine)
        found = digests(store)
        expected = expected or found
        tried += 1
        for name in (
            f"kernel {machine['OPENBLAS_CORETYPE']}",
            f"{way['threads']} threads",
            way["backend"],
            *arguments[-1:],
        ):
            same.setdefault(name, []).append(found == expected)
    checks = [
        Check(
            f"{name}, {len(seen)} runs",
            "the same column digests",
            f"{sum(seen)} of {len(seen)}",
            all(seen),
        )
        for name, seen in same.items()
    ]
    rows = _rows(place.folder / "store-0")
    checks += [_permuted(place, tables), _large(place)]
    text = (
        f"{len(expected or ())} artifacts below {rows} embeddings of 512 numbers, {tried} runs."
        f" Kernels {', '.join(KERNELS)} of OpenBLAS × NumPy's dispatch as it is, without X86_V3,"
        f" and without all that is beyond its baseline × {', '.join(map(str, THREADS))} threads;"
        " FAISS and torch; in one process and with `--dask local:2`."
    )
    return checks, text


def _ways() -> Iterator[tuple[dict[str, Any], tuple[str, ...], dict[str, str]]]:
    for number, (kernel, beyond, threads) in enumerate(product(KERNELS, BEYOND, THREADS)):
        machine = {"OPENBLAS_CORETYPE": kernel, "NPY_DISABLE_CPU_FEATURES": beyond}
        yield {"threads": threads, "backend": ("faiss", "torch")[number % 2]}, (), machine
    for kernel, backend in product(("Prescott", "Haswell"), ("faiss", "torch")):
        machine = {"OPENBLAS_CORETYPE": kernel, "NPY_DISABLE_CPU_FEATURES": ""}
        yield {"threads": 1, "backend": backend}, ("--dask", "local:2"), machine


def _permuted(place: Place, tables: Mapping[str, Batch]) -> Check:
    """The same embeddings, their templates, members and comparisons in another order: the same
    numbers.

    But for error versus discard at steps, whose form cuts a run of equal quality by the place of
    comparisons in the list.
    """
    folder = place.folder / "permuted"
    folder.mkdir()
    write_tables(folder / "tables.h5", _shuffled(tables), {})
    _run(config(place.folder, "in-order", at_steps=False), place.folder / "in-order")
    _run(config(folder, "permuted", at_steps=False), folder / "store")
    before, after = (_numbers(store) for store in (place.folder / "in-order", folder / "store"))
    same = sum(one == other for one, other in zip(before, after, strict=True))
    return Check(
        "templates and their members permuted",
        "the same numbers",
        f"{same} of {len(after)}",
        before == after,
    )


def _large(place: Place) -> Check:
    """A gallery of which a search selects candidates before it scores them."""
    folder = place.folder / "large"
    folder.mkdir()
    write_tables(folder / "tables.h5", _crowd(), {})
    found = []
    for number, (kernel, backend) in enumerate(
        product(("Prescott", "Haswell"), ("faiss", "torch"))
    ):
        path = config(folder, f"way-{number}", backend=backend, rules=("mean", "norm"))
        _run(path, folder / f"store-{number}", "--until", "search", OPENBLAS_CORETYPE=kernel)
        found.append(digests(folder / f"store-{number}"))
    same = [each == found[0] for each in found]
    return Check(
        "a gallery searched by selection",
        "the same column digests",
        f"{sum(same)} of {len(same)}",
        all(same),
    )


def _shuffled(tables: Mapping[str, Batch]) -> dict[str, Batch]:
    """Return the same set with its templates, members and comparisons in another order."""
    rng, made = np.random.default_rng(0), dict(tables)
    order = rng.permutation(tables["templates"].rows)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    made["templates"] = tables["templates"].take(order)
    for name, columns in {
        "members": ["template"],
        "roles": ["template"],
        "comparisons": ["a", "b"],
    }.items():
        rows = tables[name].take(rng.permutation(tables[name].rows))
        made[name] = Batch({**rows.columns, **{column: place[rows[column]] for column in columns}})
    made["members"] = made["members"].take(np.argsort(made["members"]["template"], kind="stable"))
    return made


def _crowd() -> dict[str, Batch]:
    """Return a set of single faces: a gallery, a tenth of it copies, and probes."""
    rng, names = np.random.default_rng(0), [f"f{i}" for i in range(ENROLLED + SEEKING)]
    embedding = rng.standard_normal((len(names), 512)).astype(np.float32)
    embedding[: ENROLLED // 10] = embedding[ENROLLED - ENROLLED // 10 : ENROLLED]
    embedding[ENROLLED:] += 3 * embedding[:SEEKING]
    found = ProtocolLists(
        face_id=names,
        path=[""] * len(names),
        sha256=[""] * len(names),
        subject=names,
        role_template=names,
        role=["gallery"] * ENROLLED + ["probe"] * SEEKING,
        columns={"embedding": embedding, "quality": np.ones(len(names), np.float32)},
        **singletons(names, names),
    )
    return build_tables(found, "a crowd")


def _run(path: Path, store: Path, *arguments: str, **machine: str) -> None:
    child = start(path, store, *arguments, **machine)
    _, error = child.communicate(timeout=1800)
    if child.returncode:
        raise RuntimeError(f"{path.name} ended with {child.returncode}: {error}")


def _numbers(store: Path) -> list[str]:
    """Return what evaluations found, replicates included, but the areas of the legacy form, which
    is one at steps.
    """
    found = (hdf5.read(path) for path in store.glob("*.numbers/??/*.h5"))
    kept = (batch.take(np.flatnonzero(batch["metric"] != "erc_auc")) for batch in found)
    return sorted(repr([column.tolist() for column in batch.columns.values()]) for batch in kept)


def _rows(store: Path) -> int:
    return sum(hdf5.read(path, ["status"]).rows for path in store.glob("embed/??/*.h5"))
