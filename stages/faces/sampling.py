"""sampling: a folder of photographs → two crops each of some people, as `align` makes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.core.parallel_map import spread
from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput, counted
from pipeline.files.file_tree import open_files
from stages.datasets.folder import digest_images, file_names, is_image
from stages.faces.align import Align, AlignOptions
from stages.faces.feeding import Sample
from stages.models.cards import ModelCard

LEAST_PEOPLE = 50
AT_ONCE = 16  # photographs in a piece of work


def sampled(
    path: Path, people: int, detector: str, context: Context, told: Callable[[str], None]
) -> Sample:
    """Return crops of up to `people` people of a folder or zip, one folder for each person.

    People, and two photographs of each, are drawn by the hashes of their names, so that the same
    ones come again. `told` takes a sentence on what was drawn. Raises InvalidInput if fewer than
    LEAST_PEOPLE have two photographs in which a face is found.
    """
    files = open_files(path)
    of_person: dict[str, list[str]] = {}
    for name in filter(is_image, file_names(files)):
        of_person.setdefault(name.rpartition("/")[0], []).append(name)
    several = {person: names for person, names in of_person.items() if len(names) > 1}
    drawn = sorted(several, key=_hash)[:people]
    if len(drawn) < LEAST_PEOPLE:
        raise InvalidInput(
            f"{path}: {counted(len(drawn), 'folder')} with two photographs or more; to compare ways"
            f" of feeding takes {LEAST_PEOPLE} people, each with a folder of their own."
        )
    names = [name for person in drawn for name in sorted(several[person], key=_hash)[:2]]
    context = replace(context, files=lambda: files)
    crops = aligned(names, digest_images(files, names), detector, context)
    found = (crops["status"] == Status.OK).reshape(-1, 2).all(axis=1)
    if found.sum() < LEAST_PEOPLE:
        raise InvalidInput(
            f"{path}: a face was found in both photographs of {found.sum()} of {len(drawn)} people;"
            f" to compare ways of feeding takes {LEAST_PEOPLE}."
        )
    pairs = crops["crop"].reshape(-1, 2, *crops["crop"].shape[1:])[found]
    told(
        f"{found.sum():,} people of {len(several):,} with two photographs or more in {path}, their"
        f" faces found by {detector}"
    )
    first, second = (np.ascontiguousarray(pairs[:, i]) for i in (0, 1))
    return Sample(first, second, len(drawn))


def usable_detector(cards: Mapping[str, ModelCard], folders: tuple[Path, ...]) -> str:
    """Return the name of the first detector whose file is in one of the folders.

    Raises InvalidInput if there is none.
    """
    for name, card in cards.items():
        if card.kind == "detector" and any(os.path.isfile(f / card.file) for f in folders):
            return name
    raise InvalidInput(
        "photographs need a face detector, and none is in"
        f" {', '.join(map(str, folders))}: `qfuse models fetch yunet_2023`."
    )


def aligned(names: list[str], digests: list[str], detector: str, context: Context) -> Batch:
    """Return the crops of photographs, rows as `align` stores them, by all cores."""
    stage = Align(AlignOptions(detector=detector), context)
    stage.open()
    rows = Batch({"path": text(names), "sha256": text(digests)})
    cuts = [*range(0, len(names), AT_ONCE), len(names)]
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        loaded = spread(
            lambda cut: stage.load(rows.take(slice(*cut))), list(pairwise(cuts)), pool, cores
        )
    return stage.run(rows, {}, [found for piece in loaded for found in piece])["crops"]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
