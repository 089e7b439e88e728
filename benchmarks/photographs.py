"""Photographs: decoding, alignment and detection alone, and a whole run beside its parts.

Real ones lie under QFUSE_SHARED; without them their lines say so.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count as counted_from
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common_method as common
from benchmarks.material import PROFILE, WORKERS, Row
from pipeline.core.schema import Array, Batch, text
from pipeline.files.file_tree import Zip
from pipeline.store.store import Store
from stages.detectors.yunet import YuNet
from stages.faces import align, embed, images
from stages.models.backends import open_model
from stages.models.cards import read_cards, read_weights
from stages.shipped_files import resource as shipped
from stages.tables.schemas import CROPS, DETECTIONS, EMBEDDINGS

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared"))
SIDES = (112, 250, 500)  # pixels of a photograph
MAX_PIXELS = 50_000_000
DETECTOR, MODEL = "yunet_320", "edgeface_xxs"
SHARD = 1024  # rows; as a run has


def rows(folder: Path, shared: Path = SHARED) -> list[Row]:
    """Return the lines; runs store what they make in `folder`, which is empty."""
    lines = [alignment(side) for side in SIDES]
    if not (shared / "data" / "lfw.zip").is_file():
        absent = "the photographs are not here: QFUSE_SHARED does not name them"
        return [*lines, Row("detection and a whole run on LFW", lambda: None, absent=absent)]
    lfw = Lfw(shared, folder)
    return [*lines, lfw.detection(), lfw.whole_run()]


def alignment(side: int, count: int = 200) -> Row:
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
            [align.warp(images.decode(jpeg, MAX_PIXELS), points) for jpeg, points in pairs]
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


class Lfw:
    """The photographs of LFW and what a run makes of them, whole or in parts."""

    def __init__(self, shared: Path, folder: Path, most: int | None = None) -> None:
        cards = read_cards(shipped("data_manifests/models.yaml"))
        weights = [
            read_weights(shared / "models" / cards[name].file, cards[name].sha256)
            for name in (DETECTOR, MODEL)
        ]
        self.detector = YuNet(weights[0])
        self.model = open_model(cards[MODEL], weights[1], PROFILE)
        self.files = Zip(shared / "data" / "lfw.zip")
        self.names = [name for name in self.files.names() if name.endswith(".jpg")][:most]
        self.shared, self.folder, self._made = shared, folder, counted_from()

    def detection(self, count: int = 300) -> Row:
        """The detector's work on photographs in memory."""
        seen = [
            np.ascontiguousarray(images.decode(self.files.read(name), MAX_PIXELS)[:, :, ::-1])
            for name in self.names[:count]
        ]
        return Row(
            f"detection: YuNet on {len(seen)} LFW photographs of {seen[0].shape[1]} px, one thread",
            lambda: [self.detector.detect(image) for image in seen],
            amount=len(seen),
            unit="images/s",
            told=lambda found: f"{sum(len(each) > 0 for each in found):,} with a face",
        )

    def whole_run(self) -> Row:
        """`qfuse run` in a process, from nothing; beside it its parts, one after another."""
        return Row(
            f"`qfuse run` on LFW, {len(self.names):,} photographs, YuNet and {MODEL}, nothing"
            f" stored; its parts alone, {WORKERS} threads",
            self.run,
            self.parts,
            told_of_run,
            cost="the parts are the run's own work, without planning, digests and checks",
        )

    def run(self) -> dict[str, Any]:
        """Return the seconds of each step, and of processors, of a run into an empty store."""
        place = self.folder / f"run-{next(self._made)}"
        place.mkdir()
        config = {
            "name": "bench",
            "dataset": {"reader": "lfw", "path": str(self.shared / "data" / "lfw.zip")},
            "models": {"folders": [str(self.shared / "models")]},
            "steps": {
                "align": {"options": {"detector": DETECTOR}},
                "embed": {"options": {"model": MODEL, "flip": "none"}},
            },
        }
        (place / "bench.yaml").write_text(json.dumps(config), encoding="utf-8")
        python = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
        before = _processor_seconds(resource.RUSAGE_CHILDREN)
        done = subprocess.run(  # noqa: S603
            [*python, "run", "bench.yaml", "--json"], cwd=place, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"qfuse run ended with {done.returncode}: {done.stderr.strip()}")
        steps = json.loads(done.stdout)["steps"]
        spent = {name: step["seconds"] for name, step in steps.items()}
        return {**spent, "processors": _processor_seconds(resource.RUSAGE_CHILDREN) - before}

    def parts(self) -> dict[str, float]:
        """Return the seconds of each part, and of processors, on as many threads as a run has."""
        before, seconds = _processor_seconds(resource.RUSAGE_SELF), {}
        size = PROFILE.compute_batch
        with ThreadPoolExecutor(WORKERS) as pool:

            def spread(part: str, function: Callable[[Any], Any], items: Any) -> list[Any]:
                begin = time.perf_counter()
                found = list(pool.map(function, items))
                seconds[part] = time.perf_counter() - begin
                return found

            faces = [
                face
                for group in spread("align", self._aligned, _cut(self.names, size))
                for face in group
            ]
            crops = np.stack([crop for crop, _ in faces])
            said = spread("model", self.model, _cut(crops, size))
            embedded = np.concatenate([each.embedding for each in said])
            store = Store(self.folder / f"parts-{next(self._made)}")
            starts = range(0, len(faces), SHARD)
            spread("write", lambda start: _commit(store, start, faces, crops, embedded), starts)
        return {**seconds, "processors": _processor_seconds(resource.RUSAGE_SELF) - before}

    def _aligned(self, names: list[str]) -> list[tuple[Array, Any]]:
        found = []
        for name in names:
            image = images.decode(self.files.read(name), MAX_PIXELS)
            faces = self.detector.detect(np.ascontiguousarray(image[:, :, ::-1]))
            nearest = faces.nearest(image.shape[1] / 2, image.shape[0] / 2)
            landmarks = faces.landmarks[nearest]
            found.append((align.warp(image, landmarks), (faces.box[nearest], landmarks)))
        return found


def _commit(store: Store, start: int, faces: list[Any], crops: Array, embedded: Array) -> None:
    """Store one shard of detections, crops and embeddings."""
    places = [place for _, place in faces[start : start + SHARD]]
    status = np.zeros(len(places), np.uint8)
    detections = {
        "status": status,
        "reason": text([""] * len(places)),
        "box": np.array([box for box, _ in places], np.float32),
        "landmarks": np.array([landmarks for _, landmarks in places], np.float32),
        "score": np.ones(len(places), np.float32),
        "faces_found": np.ones(len(places), np.int32),
    }
    part = slice(start, start + SHARD)
    for output, batch, schema in (
        ("align.detections", Batch(detections), DETECTIONS),
        ("align.crops", Batch({"status": status, "crop": crops[part]}), CROPS),
        ("embed", embed.as_embeddings(embedded[part], status), EMBEDDINGS),
    ):
        store.commit(output, f"{start:064x}", batch, schema, {})


def told_of_run(parts: dict[str, float], run: dict[str, float]) -> str:
    """Say how long each part took, and how much of the step `embed` its model takes alone."""
    alone = ", ".join(f"{name} {parts[name]:.1f} s" for name in ("align", "model", "write"))
    return (
        f"alone: {alone}; in the run: align {run['align']:.1f} s, embed {run['embed']:.1f} s, of"
        f" which the model {parts['model'] / run['embed']:.0%}; processors busy"
        f" {run['processors']:.1f} s, with the parts {parts['processors']:.1f} s"
    )


def _processor_seconds(of: int) -> float:
    used = resource.getrusage(of)
    return used.ru_utime + used.ru_stime


def _cut(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]
