"""Faces that fill the frame: photographs of LFW enlarged until the face takes 83 % of the picture,
as phones take them.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np

from stages.detectors.yunet import YuNet
from stages.models.cards import read_weights
from tests.accept.command import SHARED, Check, Place, table

COUNT, SIDES, FILL = 60, (1024, 1600), 1.2
LEAST, MEDIAN = 0.5, 0.95


def closeups() -> tuple[list[Check], str]:
    """Compare each close-up's embedding with that of the photograph it was made of."""
    place = Place.fresh("closeups")
    made = _make(place.folder / "people")
    config = {
        "name": "closeups",
        "dataset": {"reader": "folder", "path": "people", "options": {"templates": "face"}},
        "models": {"folders": [str(SHARED / "models")]},
        "steps": {
            "align": {},
            "embed": {"options": {"model": "edgeface_xxs"}},
            "fuse": {"options": {"rule": "mean"}},
        },
    }
    (place.folder / "c.yaml").write_text(json.dumps(config))
    place.run("run", "c.yaml")
    place.run("build", "c.yaml", "templates.h5")
    with h5py.File(place.folder / "templates.h5") as file:
        unit = dict(zip(file["template_id"].asstr()[:], file["embedding"][:], strict=True))
    rows, checks = [["pixels", "below 0.5, or not found", "least", "median"]], []
    for side in SIDES:
        cosine = np.nan_to_num(
            [float(unit[f"{name}/photo.jpg"] @ unit[f"{name}/{side}.jpg"]) for name in made], nan=-1
        )
        below, median = int((cosine < LEAST).sum()), float(np.median(cosine))
        rows.append(
            [f"{side} × {side}", f"{below} of {len(made)}", f"{cosine.min():.3f}", f"{median:.4f}"]
        )
        checks += [
            Check(
                f"{len(made)} close-ups of {side} pixels: cosine below {LEAST}",
                "0",
                str(below),
                below == 0,
            ),
            Check(
                f"{len(made)} close-ups of {side} pixels: median cosine",
                f"≥ {MEDIAN}",
                f"{median:.4f}",
                median >= MEDIAN,
            ),
        ]
    return (
        checks,
        f"Cosine with the photograph that a close-up was made of, EdgeFace-XXS.\n\n{table(rows)}",
    )


def _make(folder: Path) -> list[str]:
    """Write NAME/photo.jpg and NAME/SIDE.jpg; return the names."""
    detector = YuNet(read_weights(SHARED / "models" / "yunet_n_320_320.onnx", None))
    made = []
    with zipfile.ZipFile(SHARED / "data" / "lfw.zip") as archive:
        first: dict[str, str] = {}
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            first.setdefault(name.split("/")[-2], name)
        people = sorted(first)
        for person in people[:: len(people) // COUNT][:COUNT]:
            data = archive.read(first[person])
            image = np.asarray(
                cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8
            )
            faces = detector.detect(image)
            if not len(faces):
                continue
            x, y, width, height = faces.box[faces.nearest(image.shape[1] / 2, image.shape[0] / 2)]
            (folder / person).mkdir(parents=True)
            (folder / person / "photo.jpg").write_bytes(data)
            for side in SIDES:
                scale = side / (max(width, height) * FILL)
                move = np.array(
                    [
                        [scale, 0, side / 2 - (x + width / 2) * scale],
                        [0, scale, side / 2 - (y + height / 2) * scale],
                    ]
                )
                large = cv2.warpAffine(
                    image,
                    move,
                    (side, side),
                    flags=cv2.INTER_CUBIC,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                cv2.imwrite(str(folder / person / f"{side}.jpg"), large)
            made.append(person)
    return made
