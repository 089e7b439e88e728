"""Detectors on the same photographs: what each finds, how far their landmarks are apart, and what
they are worth to recognition.
"""

from __future__ import annotations

import json
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.numerics import PROFILES
from pipeline.core.stage import Context
from stages.commands.known_models import model_folders
from stages.detectors.detected_faces import DetectedFaces
from stages.detectors.opening import detector_named
from tests.accept.command import SHARED, Check, Place, table
from tests.accept.recognition import pick

DETECTORS = ("yunet_320", "mtcnn")
COUNT, EVERY = 1000, 6  # photographs; of the 6,000 pairs, every sixth
FOUND, APART, ACCURACY = 99.0, 0.10, 98.5  # percent; of the distance of the eyes; percent


def detectors() -> tuple[list[Check], str]:
    """Compare YuNet and MTCNN on a thousand photographs and a thousand pairs of LFW."""
    place = Place.fresh("detectors")
    folders = (SHARED / "models", _with_mtcnn(place))
    images = _photographs()
    context = Context(PROFILES["cpu-fp32"], model_folders=folders)
    found, speed = {}, {}
    for name in DETECTORS:
        detector = detector_named(context, name)
        for image in images[:20]:
            detector.detect(image)
        begin = time.perf_counter()
        found[name] = [detector.detect(image) for image in images]
        speed[name] = len(images) / (time.perf_counter() - begin)
    apart = _apart(found, images)
    accuracy = _accuracy(place, folders)
    rows = [["detector", "a face in", "more than one", "accuracy, 1,000 pairs", "images a second"]]
    checks = []
    for name, faces in found.items():
        share = 100 * float(np.mean([len(each) > 0 for each in faces]))
        several = 100 * float(np.mean([len(each) > 1 for each in faces]))
        rows.append(
            [
                name,
                f"{share:.1f} %",
                f"{several:.1f} %",
                f"{accuracy[name]:.2f} %",
                f"{speed[name]:.0f}",
            ]
        )
        checks += [
            Check(f"{name}, a face in", f"≥ {FOUND} %", f"{share:.1f} %", share >= FOUND),
            Check(
                f"{name}, accuracy of edgeface_xxs on 1,000 pairs",
                f"≥ {ACCURACY} %",
                f"{accuracy[name]:.2f} %",
                accuracy[name] >= ACCURACY,
            ),
        ]
    median, most = float(np.median(apart)), float(np.quantile(apart, 0.95))
    checks.append(
        Check(
            "median distance of the landmarks of both, of the distance of the eyes",
            f"≤ {APART}",
            f"{median:.3f}",
            median <= APART,
        )
    )
    text = (
        f"{len(images):,} photographs of LFW, drawn by the hashes of their names; the face nearest"
        f" the centre. Both find the same one in {len(apart):,}: its landmarks are {median:.3f} of"
        f" the distance of the eyes apart in the median (mean of the five), and 95 % within"
        f" {most:.3f}. Every sixth of the 6,000 pairs, flip-add, ten folds. Speed: one thread,"
        " decoded photographs of 150 × 150 pixels."
    )
    return checks, f"{table(rows)}\n\n{text}"


def _with_mtcnn(place: Place) -> Path:
    """Return a folder that holds MTCNN's weights; they are fetched if none does."""
    for folder in model_folders():
        if (folder / "mtcnn.safetensors").is_file():
            return folder.absolute()
    place.run("models", "fetch", "mtcnn", "--folder", "weights", "--accept-licence")
    return place.folder / "weights"


def _photographs() -> list[np.ndarray]:
    with zipfile.ZipFile(SHARED / "data" / "lfw.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        drawn = sorted(names, key=lambda name: sha256(name.encode()).digest())[:COUNT]
        return [
            np.asarray(
                cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR),
                np.uint8,
            )
            for name in drawn
        ]


def _apart(found: dict[str, list[DetectedFaces]], images: list[np.ndarray]) -> np.ndarray:
    """Return the mean distance of the landmarks of one face, as shares of the eyes' distance."""
    apart = []
    for one, other, image in zip(*(found[name] for name in DETECTORS), images, strict=True):
        if not len(one) or not len(other):
            continue
        x, y = image.shape[1] / 2, image.shape[0] / 2
        i, j = one.nearest(x, y), other.nearest(x, y)
        if other.overlap(one.box[i])[j] < 0.3:
            continue
        eyes = np.linalg.norm(one.landmarks[i, 1] - one.landmarks[i, 0])
        away = np.linalg.norm(one.landmarks[i] - other.landmarks[j], axis=1)
        apart.append(away.mean() / eyes)
    return np.array(apart)


def _accuracy(place: Place, folders: tuple[Path, ...]) -> dict[str, float]:
    """Return the accuracy of edgeface_xxs in percent, aligned by each detector."""
    with zipfile.ZipFile(SHARED / "data" / "lfw.zip") as archive:
        listed = next(name for name in archive.namelist() if name.endswith("pairs.txt"))
        lines = archive.read(listed).decode().splitlines()[1:][::EVERY]
        (place.folder / "lfw").mkdir()
        text = "\n".join(["10\t50", *lines])
        (place.folder / "lfw/pairs.txt").write_text(f"{text}\n")
        named = _named(lines)
        for name in archive.namelist():
            if name.endswith(".jpg") and Path(name).stem in named:
                path = place.folder / "lfw" / Path(name).parent.name / Path(name).name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(archive.read(name))
    config = {
        "name": "detectors",
        "dataset": {"reader": "lfw", "path": "lfw"},
        "models": {"folders": [str(folder) for folder in folders]},
        "factors": {"detector": list(DETECTORS)},
        "steps": {
            "align": {"options": {"detector": "$detector"}},
            "embed": {"options": {"model": "edgeface_xxs", "flip": "add"}},
            "compare": {"inputs": {"templates": "embed"}},
            "evaluate_verification": {"options": {"fmr": [0.01], "replicates": 100}},
        },
        "report": {"options": {"title": "Detectors"}},
    }
    (place.folder / "c.yaml").write_text(json.dumps(config))
    place.run("run", "c.yaml")
    rows = place.numbers("detectors")["table"]
    return {name: 100 * pick(rows, "accuracy", detector=name)["value"] for name in DETECTORS}


def _named(lines: list[str]) -> set[str]:
    """Return the faces NAME_0001 of lines NAME 1 2 and NAME 1 OTHER 2."""
    found = set()
    for words in (line.split("\t") for line in lines):
        pairs = [(words[0], words[1]), (words[-2] if len(words) == 4 else words[0], words[-1])]
        found |= {f"{name}_{int(number):04}" for name, number in pairs}
    return found
