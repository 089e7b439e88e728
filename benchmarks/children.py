"""What is measured in a process of its own, so that its memory can be measured.

`python -m benchmarks.children growth SCALE` runs the three 1:1 steps on a set of a scale; `streamed
FOLDER` runs them from embeddings that `prepare` has stored there, and commits what they give. Each
prints one JSON object. Memory is what the steps add at their peak: in `growth` to the process with
its embeddings and tables, in `streamed` to the interpreter after its imports.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # noqa: F401  what a step imports is not its time
from threadpoolctl import threadpool_limits

from benchmarks.material import (
    PROFILE,
    WORKERS,
    Material,
    Row,
    compare_all,
    dataset,
    fuse_by,
    run,
    stage_of,
    tar_and_auc,
)
from pipeline.core.schema import Batch, concat
from pipeline.core.stage import Source, Work
from pipeline.plan.shard_tables import tables_of_shard
from pipeline.store.store import Store
from stages.evaluation.verification import EvaluateVerification
from stages.fusion import fuse
from stages.matching.compare import Compare
from stages.tables.schemas import EMBEDDINGS, FUSED, SCORES
from stages.tables.tables import LAYOUT

ROOT = Path(__file__).resolve().parent.parent
SCALES = (0.25, 0.5, 1.0, 2.0)
SHARD_ROWS = 16_384  # embeddings of a stored shard
TOUCHED = 2 << 30  # bytes
READ_TABLES = ("members", "templates", "roles", "comparisons", "pairings")


def rows(made: Material, scale: float, folder: Path, in_memory: str) -> list[Row]:
    """Return the lines.

    `in_memory` names that of the three steps together, whose common time is theirs too.
    """
    prepare(made, folder)
    return [
        Row(
            f"the three together from {made.data.tables['faces'].rows:,} stored embeddings,"
            " checksums on, results committed",
            lambda: child("streamed", str(folder)),
            (in_memory,),
            told=lambda found: f"{found['megabytes']:.0f} MB beyond the interpreter",
            alone=True,
        ),
        *(
            Row(
                f"the three together at scale {scale * part:g}",
                lambda part=part: child("growth", str(scale * part)),
                told=lambda found: (
                    f"{found['comparisons']:,} comparisons, {found['each']:.1f} ns each with all"
                    f" three; scores {found['scored']:.1f} ns; {found['megabytes']:.0f} MB beside"
                    " embeddings and tables"
                ),
                alone=True,
            )
            for part in SCALES
        ),
    ]


def child(*arguments: str) -> dict[str, Any]:
    """Return what a process of this module prints."""
    command = [sys.executable, "-m", "benchmarks.children", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def prepare(made: Material, folder: Path) -> None:
    """Store the embeddings in shards, and the tables that the steps read."""
    store = Store(folder)
    for number, start in enumerate(range(0, made.embedded.rows, SHARD_ROWS)):
        store.commit(
            "embed",
            f"{number:064x}",
            made.embedded.take(slice(start, start + SHARD_ROWS)),
            EMBEDDINGS,
            {},
        )
    for name in READ_TABLES:
        store.commit(
            f"ingest.{name}", f"{0:064x}", made.data.tables[name], LAYOUT.schemas[name], {}
        )


def growth(scale: float) -> dict[str, float]:
    made = Material.make(scale)
    _touch_memory()
    mated, before = made.listed["mated"], _peak(reset=True)
    begin = time.perf_counter()
    fused = fuse_by(made.data, "mean", made.embedded, made.scored, features="raw", media="mean")
    built = time.perf_counter()
    scores = compare_all(made.data, fused)
    scored = time.perf_counter()
    tar_and_auc(scores, mated)
    took, count = time.perf_counter() - begin, len(scores)
    megabytes = (_peak() - before) / 1e6
    each, alone = took / count * 1e9, (scored - built) / count * 1e9
    return {
        "seconds": took,
        "comparisons": count,
        "each": each,
        "scored": alone,
        "megabytes": megabytes,
    }


def streamed(folder: Path) -> dict[str, float]:
    _touch_memory()
    before = _peak(reset=True)
    store = Store(folder)
    tables: Mapping[str, Batch] = {
        name: store.read(f"ingest.{name}", f"{0:064x}") for name in READ_TABLES
    }
    faces = tables["members"].rows
    blank = np.full(faces, "", object)  # names of faces are not read here
    data = dataset({**tables, "faces": Batch({"face_id": blank})}, faces=SHARD_ROWS)
    stage = stage_of(fuse.Fuse, rule="mean", features="raw", media="mean")
    judge = stage_of(EvaluateVerification, replicates=0)
    key, begin = f"{os.getpid():064x}", time.perf_counter()

    def shard(bounds: tuple[int, int]) -> Batch:
        part = tables_of_shard(stage, data, *bounds)
        return stage.compute(
            Work(*bounds, part, {"embeddings": _stored(store, faces, part)}, pool, WORKERS)
        )[""]

    with ThreadPoolExecutor(WORKERS) as pool:
        fused = concat(list(pool.map(shard, data.axes["templates"].shards)))
        # What comes next reads from memory what is committed meanwhile.
        commits = [pool.submit(store.commit, "fuse", key, fused, FUSED, {})]
        scores = run(stage_of(Compare), data, templates=fused)
        commits.pop().result()
        del fused  # nothing else reads them: a run lets them go now
        commits.append(pool.submit(store.commit, "compare", key, scores, SCORES, {}))
        numbers = run(judge, data, scores=scores)
        store.commit("evaluate_verification.numbers", key, numbers, judge.produces["numbers"], {})
        for commit in commits:
            commit.result()
    return {"seconds": time.perf_counter() - begin, "megabytes": (_peak() - before) / 1e6}


def _stored(store: Store, faces: int, part: Mapping[str, Batch]) -> Source:
    """Return the stored shards with the members of one shard of templates, as a run does."""
    starts = np.arange(0, faces, SHARD_ROWS)
    needed = np.unique(part["members"]["face"] // SHARD_ROWS)
    return Source(
        tuple(starts[needed].tolist()),
        tuple(np.minimum(starts[needed] + SHARD_ROWS, faces).tolist()),
        lambda index, columns: store.read("embed", f"{needed[index]:064x}", columns),
    )


def _touch_memory() -> None:
    """Write to as many bytes as the steps will need, and free them.

    A virtual machine backs memory when it is first touched, at up to 3 ms a megabyte: that is not
    the time of a step.
    """
    np.ones(TOUCHED, np.uint8)


def _peak(reset: bool = False) -> int:
    """Return the bytes of memory at the peak since the last reset; after a reset, those of now."""
    if reset:
        ctypes.CDLL(None).malloc_trim(
            0
        )  # otherwise memory freed before would hide what is allocated later
        Path("/proc/self/clear_refs").write_text("5")
    line = next(
        row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


def main() -> None:
    what, given = sys.argv[1:]
    with threadpool_limits(PROFILE.threads):
        print(json.dumps(growth(float(given)) if what == "growth" else streamed(Path(given))))


if __name__ == "__main__":
    main()
