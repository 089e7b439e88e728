"""One numerics profile, one result: whatever is killed and however many workers load. Across
threads: nearly one.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np

from pipeline.core.numerics import PROFILES
from pipeline.core.schema import Status
from pipeline.run.runner import Runner
from pipeline.session import open_session
from pipeline.store import hdf5
from stages.models.backends import open_model
from stages.models.cards import read_cards, read_weights
from tests.accept.command import ROOT, SHARED, Check, Place, table

KILLS = 20
WORKERS = (1, 2, 3, 5)
CONFIG = """
extends: {base}
name: interruption
dataset: {{path: "{zip}", options: {{identities: 60}}, shard_rows: {{faces: 64, templates: 32}}}}
factors: {{seed: [0], method: [lightqnet, feature-norm], rule: [mean, quality-linear]}}
report: null
steps: {{fuse: {{stored: true}}, compare: {{stored: true}}, search: {{stored: true}}}}
"""


def _config(place: Place) -> str:
    path = place.folder / "interruption.yaml"
    path.write_text(
        CONFIG.format(base=ROOT / "configs/lfw_templates.yaml", zip=SHARED / "data/lfw.zip"),
        encoding="utf-8",
    )
    return str(path)


def interruptions() -> tuple[list[Check], str]:
    """Run once undisturbed; then, for every store, with other workers, and with kill -9 at seeded
    random moments.
    """
    place = Place.fresh("interruptions")
    config = _config(place)
    _, wall = place.run("run", config, "--store", "undisturbed", "--workers", "2")
    expected = place.digests("undisturbed")
    same_workers = []
    for workers in WORKERS:
        place.run("run", config, "--store", f"workers-{workers}", "--workers", str(workers))
        same_workers.append(place.digests(f"workers-{workers}") == expected)
    same: list[bool] = []
    rng, kills, lost = random.Random(0), 0, 0  # noqa: S311  a seeded experiment, no secret
    while kills < KILLS:
        store = f"killed-{len(same)}"
        for _ in range(5):
            child = place.start("run", config, "--store", store, "--workers", "2")
            time.sleep(rng.uniform(0.5, wall))
            kills += child.poll() is None
            child.kill()
            child.communicate()
            kept = _created(place.folder / store)
            place.run("plan", config, "--store", store)
            lost += sum(not path.exists() for path in kept)
        before = _created(place.folder / store)
        place.run("run", config, "--store", store)
        after = _created(place.folder / store)
        lost += sum(after.get(path) != inode for path, inode in before.items())
        same.append(place.digests(store) == expected)
    text = (
        f"{len(expected)} artifacts of {_rows(place.folder / 'undisturbed')} rows, {wall:.0f} s"
        f" undisturbed; {kills} kills over {len(same)} stores, at moments between 0.5 s and that."
    )
    return [
        Check(
            f"workers {', '.join(map(str, WORKERS))}",
            "the same column digests",
            _share(same_workers),
            all(same_workers),
        ),
        Check(
            f"{kills} times kill -9, then run to the end",
            "the same column digests",
            _share(same),
            all(same),
        ),
        Check("finished artifacts computed again after a kill", "0", str(lost), lost == 0),
    ], text


def _created(store: Path) -> dict[Path, int]:
    """Every committed artifact and its inode: another inode would be another computation."""
    return {
        path.with_suffix(".h5"): path.with_suffix(".h5").stat().st_ino
        for path in store.glob("*/??/[!.]*.json")
    }


def _rows(store: Path) -> int:
    return sum(hdf5.read(path, ["status"]).rows for path in store.glob("embed/??/*.h5"))


def _share(same: list[bool]) -> str:
    return f"{sum(same)} of {len(same)} stores"


def threads() -> tuple[list[Check], str]:
    """Embed the same crops with 1, 2 and 4 threads a model and compare the embeddings."""
    place = Place.fresh("threads")
    config = Path(_config(place))
    store = place.folder / "store"
    place.run("run", str(config), "--until", "align", "--store", str(store))
    session = open_session(config, store=store, until="align", readonly=True)
    (step,) = session.plan.steps.values()
    aligned = Runner(session.plan, session.store).results(step, "crops")
    crops = aligned["crop"][aligned["status"] == Status.OK]
    cards = read_cards(ROOT / "data_manifests/models.yaml")
    rows, lowest = [["model", "threads", "faces", "lowest cosine to 1 thread"]], 1.0
    for name in ("edgeface_xxs", "mobilefacenet"):
        found = {}
        for count in (1, 2, 4):
            profile = PROFILES["cpu-fp32"].model_copy(update={"threads": count})
            weights = read_weights(SHARED / "models" / cards[name].file, cards[name].sha256)
            embedding = open_model(cards[name], weights, profile)(crops).embedding
            assert embedding is not None
            wide = embedding.astype(np.float64)
            found[count] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        for count in (2, 4):
            cosine = float((found[1] * found[count]).sum(axis=1).min())
            lowest = min(lowest, cosine)
            rows.append([name, str(count), str(len(crops)), f"{cosine:.12f}"])
    return [
        Check(
            "cpu-fp32, across thread counts",
            "cosine ≥ 0.999999",
            f"{lowest:.12f}",
            lowest >= 0.999999,
        )
    ], table(rows)
