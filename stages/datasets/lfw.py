"""Readers of LFW: `lfw` for its 6,000 pairs, `lfw_templates` for templates against templates.

Conventions
    Tree       images are NAME/NAME_0001.jpg, wherever in the folder or zip that lies; no other file is read.
    Face       its id is NAME_0001 and its subject NAME; faces are sorted by id.
    pairs.txt  found by its name. Line 1 gives folds and pairs of each kind in a fold; every fold is so many
               mated pairs (NAME I J), then as many non-mated ones (NAME I NAME J). Folds count from 0, lines
               from 1.
    Templates  `lfw_templates` is a stand-in for a template benchmark on real faces: of every identity with
               enough images, half make template NAME/A (reference) and half NAME/B (probe). Some identities
               are left out of the gallery, so that their probes have no mate in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.errors import InvalidInput
from pipeline.files import Files
from pipeline.registry import register
from pipeline.schema import Batch
from pipeline.stage import Options
from stages.datasets.folder import (
    digest_images,
    file_names,
    identity_generator,
    is_image,
    lowest_ranked,
    need_files,
)
from stages.tables import LAYOUT, FaceLayout, Protocol, build_tables, singletons

_FACE = re.compile(r"(.+)_\d{4}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SHOWN = 10  # problems printed
_MAX_FOLDS = 1000


class LfwOptions(Options):
    """Which list of pairs, and whether faces outside it are kept."""

    pairs: str = "pairs.txt"  # file name, or path in the tree where several have that name
    faces: Literal["all", "pairs"] = "all"


@register("reader", "lfw")
class LfwReader:
    """LFW's 10-fold protocol: every face a template of its own, and a list of comparisons."""

    name: ClassVar[str] = "lfw"
    version: ClassVar[int] = 1
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = LfwOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: LfwOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """The list of pairs and every image."""
        return [_find(files, self.options.pairs), *sorted(_images(files).values())]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables.

        Raises InvalidInput with the first ten problems of the list, by line; a pair may name no face.
        """
        files = need_files(files, self.name)
        images = _images(files)
        list_name = _find(files, self.options.pairs)
        a, b, mated, fold = _parse_pairs(files.read(list_name), images, f"{files.root}: {list_name}")
        faces = sorted(images if self.options.faces == "all" else {*a, *b})
        subjects = [_subject(face) for face in faces]
        paths = [images[face] for face in faces]
        found = Protocol(
            face_id=faces,
            path=paths,
            sha256=digest_images(files, paths),
            subject=subjects,
            comparison_a=a,
            comparison_b=b,
            mated=mated,
            fold=fold,
            **singletons(faces, subjects),
        )
        return build_tables(found, str(files.root))


class LfwTemplatesOptions(Options):
    """How large the experiment is, and the seed of every random choice in it."""

    min_images: int = Field(6, ge=2)
    max_images: int = Field(16, ge=2)  # of an identity that has more, so many are chosen
    left_out: float = Field(1 / 3, ge=0, lt=1)  # fraction of identities that are not enrolled in the gallery
    seed: int = Field(0, ge=0)
    identities: int | None = Field(None, ge=1)  # at most so many identities; all where null


@register("reader", "lfw_templates")
class LfwTemplatesReader:
    """Two templates an identity, every A against every B, and a gallery that lacks some identities."""

    name: ClassVar[str] = "lfw_templates"
    version: ClassVar[int] = 1
    backends: ClassVar[tuple[str, ...]] = ("numpy",)
    Options: ClassVar[type[Any]] = LfwTemplatesOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: LfwTemplatesOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """Every image: which are chosen depends on all names."""
        return sorted(_images(files).values())

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables; only faces that a template holds are in them.

        Raises InvalidInput where no identity has `min_images` images.
        """
        files = need_files(files, self.name)
        images = _images(files)
        halves = self._halves(files, images)
        names = list(dict.fromkeys(template.rpartition("/")[0] for template in halves))
        count = round(len(names) * self.options.left_out)
        left_out = lowest_ranked(names, count, self.options.seed, "left out")
        members = [(template, face) for template, half in halves.items() for face in half]
        faces = sorted(face for _, face in members)
        paths = [images[face] for face in faces]
        roles = [(f"{name}/A", "reference") for name in names] + [(f"{name}/B", "probe") for name in names]
        roles += [(f"{name}/A", "gallery") for name in names if name not in left_out]
        found = Protocol(
            face_id=faces,
            path=paths,
            sha256=digest_images(files, paths),
            subject=[_subject(face) for face in faces],
            template_id=list(halves),
            template_subject=[template.rpartition("/")[0] for template in halves],
            member_template=[template for template, _ in members],
            member_face=[face for _, face in members],
            member_media=[face for _, face in members],
            role_template=[template for template, _ in roles],
            role=[role for _, role in roles],
            all_pairs=("reference", "probe"),
        )
        return build_tables(found, str(files.root))

    def _halves(self, files: Files, images: Mapping[str, str]) -> dict[str, list[str]]:
        """Template id → its faces, sorted by identity; A has the odd one."""
        own: dict[str, list[str]] = {}
        for face in sorted(images):
            own.setdefault(_subject(face), []).append(face)
        names = [name for name, faces in own.items() if len(faces) >= self.options.min_images]
        if not names:
            raise InvalidInput(
                f"{files.root}: none of {len(own)} identities has {self.options.min_images} images or more; "
                "lower dataset.options.min_images."
            )
        if self.options.identities is not None:
            names = sorted(lowest_ranked(names, self.options.identities, self.options.seed, "identities"))
        halves: dict[str, list[str]] = {}
        for name in names:
            order = identity_generator(self.options.seed, "images", name).permutation(len(own[name]))
            chosen = [own[name][i] for i in order[: self.options.max_images].tolist()]
            middle = (len(chosen) + 1) // 2
            halves[f"{name}/A"], halves[f"{name}/B"] = sorted(chosen[:middle]), sorted(chosen[middle:])
        return halves


def _subject(face: str) -> str:
    return face.rpartition("_")[0]


def _find(files: Files, name: str) -> str:
    """Return the one file of the tree that has this name, or lies at this path."""
    names = file_names(files)
    found = [n for n in names if n == name] or [n for n in names if n.endswith(f"/{name}")]
    if not found:
        raise InvalidInput(f"{files.root}: there is no file {name!r} in it; set dataset.options.pairs to the list of pairs.")
    if len(found) > 1:
        raise InvalidInput(
            f"{files.root}: several files are called {name!r}: {', '.join(found[:_SHOWN])}; "
            "set dataset.options.pairs to the path of one."
        )
    return found[0]


def _images(files: Files) -> dict[str, str]:
    """Return face id → path. Raises InvalidInput where there is no face, or a face has two images."""
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
    if not images:
        raise InvalidInput(f"{files.root}: no image NAME/NAME_0001.jpg in it; set dataset.path to LFW's folder or zip.")
    return images


def _parse_pairs(data: bytes, images: Mapping[str, str], where: str) -> tuple[list[str], list[str], list[bool], list[int]]:
    """Return (face a, face b, mated, fold) of every pair. Raises InvalidInput with at most ten problems."""
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    folds, each = _header(lines[0] if lines else "", where)
    problems: list[str] = []
    expected, found = folds * 2 * each, len(lines) - 1
    if found != expected:
        problems.append(f"line 1 announces {folds} folds of 2 × {each} pairs = {expected}, found {found}")
    pairs: list[tuple[str, str]] = []
    for row, line in enumerate(lines[1:]):
        try:
            pairs.append(_pair(line, row % (2 * each) < each, images))
        except ValueError as problem:
            problems.append(f"line {row + 2}: {problem}")
    if problems:
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise InvalidInput(f"{where}: " + "; ".join(problems[:_SHOWN]) + more)
    mated = [row % (2 * each) < each for row in range(len(pairs))]
    fold = [row // (2 * each) for row in range(len(pairs))]
    return [a for a, _ in pairs], [b for _, b in pairs], mated, fold


def _header(line: str, where: str) -> tuple[int, int]:
    """Return (folds, pairs of each kind in a fold); the development lists give the second only."""
    numbers = [int(part) if _NUMBER.fullmatch(part) else 0 for part in line.split()]
    folds, each = numbers if len(numbers) == 2 else [1, *numbers] if len(numbers) == 1 else [0, 0]
    if not (1 <= folds <= _MAX_FOLDS and each >= 1):
        raise InvalidInput(f"{where}: line 1 should be the number of folds and of pairs, as '10 300', found {line!r:.60}.")
    return folds, each


def _pair(line: str, mated: bool, images: Mapping[str, str]) -> tuple[str, str]:
    """Return the two faces of a line. Raises ValueError saying what is wrong with it."""
    parts = line.split()
    form = "NAME I J (a mated pair)" if mated else "NAME I NAME J (a non-mated pair)"
    if len(parts) != (3 if mated else 4):
        raise ValueError(f"expected {form}, found {line!r:.80}")
    (name_a, a), (name_b, b) = parts[:2], ([parts[0], parts[2]] if mated else parts[2:])
    if not (_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)):
        raise ValueError(f"expected {form} with image numbers I and J, found {line!r:.80}")
    if not mated and name_a == name_b:
        raise ValueError(f"a non-mated pair names {name_a} twice")
    faces = f"{name_a}_{a.zfill(4)}", f"{name_b}_{b.zfill(4)}"
    if faces[0] == faces[1]:
        raise ValueError(f"compares {faces[0]} with itself")
    for face in faces:
        if face not in images:
            raise ValueError(f"a pair naming an unknown face: there is no image {_subject(face)}/{face}")
    return faces
