"""Faces that a list of pairs names: their images in a tree, and their subjects.

Conventions
    Face       NAME/NAME_0001.jpg is the face NAME_0001 of the subject NAME. A flat list may name
               any other image, too: a face whose id is its path, and whose subject follows from
               the mated pairs.
    Found      a flat list names an image by its path, by the end of it, or by a path that ends with
               it (as from another machine), with its extension or without. So one of
               the two paths must end with the other. A name that could mean several images is
               refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files
from stages.datasets.file_account import suffix
from stages.datasets.folder import IMAGE_EXTENSIONS, file_names, is_image
from stages.datasets.pair_lists import ListedPair, PairList
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.subjects import inferred_subjects

_FACE = re.compile(r"(.+)_\d{4}")


def named_subject(face: str) -> str:
    """Return the NAME of a face NAME_0001."""
    return face.rpartition("_")[0]


def named_images(files: Files) -> dict[str, str]:
    """Return face id → path of every NAME/NAME_0001.jpg.

    Raises InvalidInput if a face has two images.
    """
    images: dict[str, str] = {}
    for name in file_names(files):
        path = PurePosixPath(name)
        match = _FACE.fullmatch(path.stem)
        if match is None or match[1] != path.parent.name or not is_image(name):
            continue
        if images.setdefault(path.stem, name) != name:
            raise InvalidInput(
                f"{files.root}: face {path.stem!r} has two images, {images[path.stem]} and {name}; "
                "set dataset.path to the folder of one version of LFW."
            )
    return images


def all_images(files: Files) -> dict[str, str]:
    """Return face id → path of every image of the tree.

    Raises InvalidInput if a face has two images.
    """
    images = named_images(files)
    there = set(images.values())
    return images | {
        name: name for name in file_names(files) if is_image(name) and name not in there
    }


def found_pairs(
    listed: PairList, images: Mapping[str, str], where: str, problems: Problems
) -> tuple[PairList, list[str]]:
    """Return the pairs whose images are there, by face ids, and what each other pair lacks.

    `problems` takes pairs that could mean several images, or that name one image twice.
    """
    by_stem: dict[str, list[str]] = {}
    for face, path in images.items() if listed.flat else ():
        by_stem.setdefault(PurePosixPath(path).stem, []).append(face)
    kept, lacking, words = [], [], []
    for pair, fold in zip(listed.pairs, listed.fold, strict=True):
        each = [
            _candidates(name, images, by_stem if listed.flat else None) for name in (pair.a, pair.b)
        ]
        names = dict(zip((pair.a, pair.b), each, strict=True))
        if several := next(
            ((name, found) for name, found in names.items() if len(found) > 1), None
        ):
            paths = ", ".join(images[face] for face in several[1][:SHOWN_PROBLEMS])
            words.append(f"line {pair.line}: {several[0]} could be any of {paths}; name its path")
        elif absent := next((name for name, found in names.items() if not found), None):
            path = absent if listed.flat else f"{named_subject(absent)}/{absent}"
            other = by_stem.get(PurePosixPath(_without_extension(absent)).name)  # of a flat list
            elsewhere = (
                f" (one of that name is {images[other[0]]}, in another folder)" if other else ""
            )
            lacking.append(
                f"line {pair.line}: a pair naming an unknown face: there is no image"
                f" {path}{elsewhere}"
            )
        elif each[0] == each[1]:
            words.append(f"line {pair.line}: compares {each[0][0]} with itself")
        else:
            kept.append((replace(pair, a=each[0][0], b=each[1][0]), fold))
    problems.add(where, words[:SHOWN_PROBLEMS], len(words))
    return PairList([pair for pair, _ in kept], [fold for _, fold in kept], listed.flat), lacking


def subjects_of_faces(
    faces: Sequence[str], images: Mapping[str, str], pairs: Sequence[ListedPair]
) -> list[str]:
    """Return each face's subject: its NAME or, if its id is a path, what mated pairs tell."""
    row = {face: i for i, face in enumerate(faces)}
    given = np.array(
        [None if images[face] == face else named_subject(face) for face in faces], dtype=object
    )
    mated = np.array(
        [(row[pair.a], row[pair.b]) for pair in pairs if pair.mated], np.int64
    ).reshape(-1, 2)
    found = inferred_subjects(np.array(faces, dtype=object), given, mated[:, 0], mated[:, 1])
    return [subject or f"s{face}" for subject, face in zip(found.tolist(), faces, strict=True)]


def refuse_contradictions(
    pairs: Sequence[ListedPair], subject: Mapping[str, str], where: str, problems: Problems
) -> None:
    """Tell which pairs are called mated though of two subjects, or non-mated though of one."""
    words = []
    for pair in pairs:
        a, b = subject[pair.a], subject[pair.b]
        if pair.mated and a != b:
            words.append(
                f"line {pair.line}: called mated, but {pair.a} is of {a} and {pair.b} of {b}"
            )
        elif not pair.mated and a == b:
            words.append(
                f"line {pair.line}: called non-mated, but {pair.a} and {pair.b} are both of {a}"
            )
    problems.add(where, words[:SHOWN_PROBLEMS], len(words))


def _candidates(
    name: str, images: Mapping[str, str], by_stem: Mapping[str, Sequence[str]] | None
) -> list[str]:
    """Return the faces that a name in a list may mean: a face id or, in a flat list, a path."""
    if by_stem is None:
        return [name] if name in images else []
    bare = _without_extension(name)
    fits = [
        face
        for face in by_stem.get(PurePosixPath(bare).name, ())
        if _end_alike(bare, _without_extension(images[face]))
    ]
    closer = [
        [face for face in fits if images[face] == name],
        [face for face in fits if _end_alike(images[face], name)],
    ]
    return next(filter(None, closer), fits)


def _without_extension(path: str) -> str:
    """Return a path without an image's extension."""
    return (
        path.removesuffix(PurePosixPath(path).suffix) if suffix(path) in IMAGE_EXTENSIONS else path
    )


def _end_alike(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")
