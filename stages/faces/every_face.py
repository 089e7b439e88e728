"""every_face: photographs → a data set in which every face that is found is a row.

`align` gives one face for each row, so a photograph of a group needs a row for each of its faces.
Their landmarks stand in the tables, and `align` uses them unchanged.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.core.parallel_map import spread
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput, counted
from pipeline.files.file_tree import Files
from stages.datasets.folder import file_names, is_image
from stages.detectors.detected_faces import DetectedFaces, Detector
from stages.faces.finding import chooser, find
from stages.faces.images import Unusable, decode
from stages.tables.tables import ProtocolLists, build_tables, singletons


@dataclass(frozen=True)
class EveryFace:
    """The tables, how many photographs there are, and those that gave no row, with the reason."""

    tables: dict[str, Batch]
    photographs: int
    left_out: dict[str, str]


def every_face(
    files: Files,
    below: str,
    detector: Detector,
    max_pixels: int,
    at: Callable[[str], None] = lambda _: None,
) -> EveryFace:
    """Return the faces of all photographs of a tree, by path, those of one with the best first.

    below: the tree's own path, as the tables shall name it ("" or FOLDER/). The third face of a
    photograph is PATH#3: a template of its own, of no known subject. A photograph is looked at as
    it lies or turned, whichever way its best face is found. `at` is called with the path of each
    photograph that is begun. Raises InvalidInput if no face is found.
    """
    left_out: dict[str, str] = {}
    names = list(filter(is_image, file_names(files, left_out=left_out)))

    def looked_at(name: str) -> tuple[str, DetectedFaces] | str:
        at(name)
        try:
            data = files.read(name)
            found = find(decode(data, max_pixels), detector, chooser("score"))
        except Unusable as problem:
            return problem.reason
        except InvalidInput as problem:  # of the file
            return str(problem)
        return (hashlib.sha256(data).hexdigest(), found.faces) if len(found.faces) else "no face"

    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        answers = spread(looked_at, names, pool, cores)
    unnamed = len(left_out)
    left_out |= {n: said for n, said in zip(names, answers, strict=True) if isinstance(said, str)}
    found = [
        (f"{below}{name}", *answer)
        for name, answer in zip(names, answers, strict=True)
        if not isinstance(answer, str)
    ]
    if not found:
        raise InvalidInput(
            f"{files.root}: no face was found in {counted(len(names), 'photograph')}; expected"
            " photographs of people, in the folder or below it."
        )
    return EveryFace(_tables(found, str(files.root)), len(names) + unnamed, left_out)


def _tables(found: Sequence[tuple[str, str, DetectedFaces]], where: str) -> dict[str, Batch]:
    """Return the tables of photographs: their paths, digests and faces."""
    rows = [(path, sha256, i) for path, sha256, faces in found for i in range(len(faces))]
    ids = [f"{path}#{i + 1}" for path, _, i in rows]
    unknown = [""] * len(ids)
    box, landmarks, score = (
        np.concatenate([getattr(faces, name) for *_, faces in found])
        for name in ("box", "landmarks", "score")
    )
    return build_tables(
        ProtocolLists(
            face_id=ids,
            path=[path for path, *_ in rows],
            sha256=[sha256 for _, sha256, _ in rows],
            subject=unknown,
            columns={"box": box, "landmarks": landmarks, "score": score},
            **singletons(ids, unknown),
        ),
        where,
    )
