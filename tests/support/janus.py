"""Tiny packages in IJB-C's layouts, by hand and in memory, and how tests read them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.config.validation import validate
from pipeline.core.schema import Batch
from stages.datasets.ijb.common_package import IjbReader
from stages.datasets.ijb.nist import IjbNistReader

FACES = "10.jpg 3 1\n11.jpg 3 1\n12.jpg 7 2\n13.jpg 20 3\n14.jpg 21 4\n15.jpg 21 5\n16.jpg 30 6\n"
PAIRS = "3 7 1\n3 21 0\n20 21 1\n20 7 0\n3 30 0\n"
GALLERY_1 = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n3,Ada,img/1.png\n3,Ada,img/2.png\n"
GALLERY_2 = "subject_id,template_id\nBob,20\n"
PROBES = "TEMPLATE_ID,SUBJECT_ID\n7,Ada\n21,Bob\n30,Cleo\n"


def points(faces: str = FACES) -> str:
    """The 5-point file for a face list: x1 is the number in the image's name."""
    names = [line.split()[0] for line in faces.splitlines()]
    return "".join(f"{n} {n.split('.')[0]} 2 3 4 5 6 7 8 9 10.5 0.75\n" for n in names)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Tree:
    """Files in memory."""

    root = Path("janus")

    def __init__(self, content: dict[str, str | bytes]) -> None:
        self.content = {
            name: data.encode() if isinstance(data, str) else data for name, data in content.items()
        }

    def names(self) -> list[str]:
        return sorted(self.content)

    def read(self, name: str) -> bytes:
        try:
            return self.content[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def digests(self, names: Iterable[str], limit: int | None = None) -> list[str]:
        return [
            hashlib.sha256(self.content[n]).hexdigest() if n in self.content else "" for n in names
        ]

    def write(self, folder: Path) -> Path:
        for name, data in self.content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder


def package(
    prefix: str = "", *, lists: bool = False, crops: bool = True, **others: str | bytes | None
) -> Tree:
    """The common package; `others` replace its files (faces, points, pairs) or add meta/ files by
    name, None removes.
    """
    made: dict[str, str | bytes | None] = {"faces": FACES, "pairs": PAIRS}
    made |= {"gallery_1": GALLERY_1, "gallery_2": GALLERY_2, "probes": PROBES} if lists else {}
    made |= others
    if "points" not in made:
        made["points"] = points(made["faces"]) if isinstance(made["faces"], str) else points()
    called = {
        "faces": "meta/ijbc_face_tid_mid.txt",
        "points": "meta/ijbc_name_5pts_score.txt",
        "pairs": "meta/ijbc_template_pair_label.txt",
        "gallery_1": "meta/ijbc_1N_gallery_G1.csv",
        "gallery_2": "meta/ijbc_1N_gallery_G2.csv",
        "probes": "meta/ijbc_1N_probe_mixed.csv",
    }
    content = {
        prefix + called.get(what, what): data for what, data in made.items() if data is not None
    }
    if crops:
        content |= {f"{prefix}loose_crop/{n}.jpg": f"image {n}" for n in range(10, 17)}
    return Tree(content)


def read(tree: object, **options: object) -> dict[str, Batch]:
    """Read a package; any counts unless they are asked for."""
    return IjbReader(validate(IjbReader.Options, {"counts": "any", **options}, "options")).read(
        tree
    )


def read_nist(tree: object, **options: object) -> dict[str, Batch]:
    """Read NIST's tree; any counts unless they are asked for."""
    return IjbNistReader(
        validate(IjbNistReader.Options, {"counts": "any", **options}, "options")
    ).read(tree)


def members(tables: dict[str, Batch]) -> dict[str, list[tuple[str, str]]]:
    """Template id → (face id, medium) of its members, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    table = tables["members"]
    for template, face, medium in zip(
        table["template"], table["face"], table["media"], strict=True
    ):
        name = tables["templates"]["template_id"][template]
        found.setdefault(name, []).append((tables["faces"]["face_id"][face], medium))
    return found


def subjects(tables: dict[str, Batch]) -> dict[str, str]:
    return dict(
        zip(tables["templates"]["template_id"], tables["templates"]["subject"], strict=True)
    )


def having(tables: dict[str, Batch], role: str) -> list[str]:
    roles = tables["roles"]
    return tables["templates"]["template_id"][roles["template"][roles["role"] == role]].tolist()


def comparisons(tables: dict[str, Batch]) -> list[tuple[str, str, bool]]:
    ids, listed = tables["templates"]["template_id"], tables["comparisons"]
    return list(zip(ids[listed["a"]], ids[listed["b"]], listed["mated"].tolist(), strict=True))
