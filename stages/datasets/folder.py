"""Reader `folder`: one folder a subject, in a folder or zip; and helpers for image trees.

Conventions
    Tree       SUBJECT/any/nesting/image.jpg. A face's id is its path below `root`.
    Account    every file below the data set's path is an image that is used, or passed over:
               hidden, a system's own, of another suffix, above `root`, in no subject's folder, or
               what the walk could not follow. `notes` counts them by reason, and names subjects
               without any usable image, images that are repeated or cannot be read, and names
               that may mean one subject. Every reader of image trees has such an account
               (`stages.datasets.file_account`).
    Media      "face": every image is a medium. "folder": the first folder below the subject is one
               (a video, say), and an image directly below the subject is a still, a medium of its
               own.
    Split      media, not images, go to the reference or to the probe side: frames of one video are
               never compared with each other. A subject with a single medium has a reference only.
    Chance     is drawn identity by identity, from the seed and the identity's name, so that adding
               an identity changes no other one's faces.
    Missing    an image that is not there keeps its row, with no sha256; one that may not or cannot
               be read keeps it with UNREADABLE in that place. A later stage marks both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Batch
from pipeline.core.stage import Options
from pipeline.errors import InvalidInput, counted
from pipeline.files.file_tree import MAX_FILE_BYTES, Files
from stages.datasets.file_account import (
    account,
    folders_of_no_subject,
    hidden,
    misplaced_folders,
    passed_over,
    repeated_photographs,
    suffix,
)
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.comparisons import role_rows
from stages.tables.tables import GROWING, FaceLayout, ProtocolLists, build_tables

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "webp", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "gif", "heic", "heif"),
)


def need_files(files: Files | None, reader: str) -> Files:
    """Return `files`. Raises InvalidInput if the config gave no path."""
    if files is None:
        raise InvalidInput(
            f"reader {reader!r} reads files: set dataset.path to the folder or the .zip that holds"
            " them."
        )
    return files


def file_names(
    files: Files,
    extensions: Sequence[str] = IMAGE_EXTENSIONS,
    left_out: dict[str, str] | None = None,
) -> list[str]:
    """Return all names of the tree that are text, sorted.

    Raises InvalidInput if the name of an image is not text; with `left_out` it is put in there, and
    why.
    """
    names = []
    for name in files.names():
        try:
            name.encode()  # a text column is UTF-8
        except UnicodeEncodeError:
            if is_image(name, extensions) and left_out is not None:
                left_out[name] = "its name is not UTF-8; rename the file"
            elif is_image(name, extensions):
                raise InvalidInput(
                    f"{files.root}: the name {name!r} is not UTF-8; rename the file."
                ) from None
        else:
            names.append(name)
    return names


def folder_of(root: str) -> str:
    """Return the prefix of all file names in the folder `root`; "" for the data set itself."""
    return f"{root.strip('/')}/" if root.strip("/") else ""


def names_below(names: Iterable[str], root: str) -> list[str]:
    """Return the names that lie below the folder `root` of the data set."""
    prefix = folder_of(root)
    return [name for name in names if name.startswith(prefix)]


def find_one_file(
    names: Iterable[str], ending: str, problems: Problems, needed: str = ""
) -> str | None:
    """Return the one file whose path ends so.

    `needed` says what to do if it is absent; empty if it may be absent.
    """
    found = [name for name in names if name == ending or name.endswith(f"/{ending}")]
    if len(found) > 1:
        several = ", ".join(found[:SHOWN_PROBLEMS])
        problems.add(
            ending,
            [
                f"several files have this name: {several}; set dataset.options.root to the folder"
                " of one"
            ],
        )
    if not found and needed:
        problems.add(ending, [f"there is no such file; {needed}"])
    return found[0] if len(found) == 1 else None


def digest_images(files: Files, names: Iterable[str]) -> list[str]:
    """Return the sha256 (hex) of every file; "" if absent, UNREADABLE if it can be no sample.

    The latter is damaged inside its archive, too large, a link out of the tree, or without
    permission to read.
    """
    return files.digests(names, MAX_FILE_BYTES)


def is_image(name: str, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> bool:
    """Whether a relative file name is an image's, and not a hidden companion of one."""
    return not hidden(name) and suffix(name) in extensions


def identity_generator(seed: int, purpose: str, identity: str) -> np.random.Generator:
    """Return a generator that depends on the seed, the purpose and one identity alone."""
    return np.random.default_rng(_hash(seed, purpose, identity))


def lowest_ranked(identities: Iterable[str], count: int, seed: int, purpose: str) -> set[str]:
    """Return the `count` identities whose hashes rank lowest: a seeded choice in any order."""
    return set(sorted(identities, key=lambda name: (_hash(seed, purpose, name), name))[:count])


def _hash(seed: int, purpose: str, identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|{purpose}|{identity}".encode()).digest())


class FolderOptions(Options):
    """What is one template, what is one medium, and whether templates are split in two sides."""

    root: str = ""
    """Sub-folder in which the subjects' folders lie; for a zip that wraps them in one."""
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS
    """Endings of the files that are images."""
    templates: Literal["subject", "face"] = "subject"
    """All of a subject, or each face alone."""
    media: Literal["face", "folder"] = "face"
    """Each face, or all that lie in one folder."""
    probe_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of each subject's media that is the probe; 0: nothing to compare."""
    left_out: float = Field(0.0, ge=0, lt=1)
    """Share of subjects that are not enrolled in the gallery."""
    seed: int = Field(0, ge=0)
    """Draws the probes, and who is left out."""


@register("reader", "folder")
class FolderReader:
    """Subjects' folders → templates; with `probe_fraction`, also every reference × every probe."""

    name: ClassVar[str] = "folder"
    version: ClassVar[int] = 2
    backends: ClassVar[tuple[str, ...]] = ("numpy",)
    Options: ClassVar[type[Any]] = FolderOptions
    layout: ClassVar[FaceLayout] = GROWING

    def __init__(self, options: FolderOptions) -> None:
        self.options = options
        self._root = f"{root}/" if (root := options.root.strip("/")) else ""
        self._extensions = tuple(extension.lower().lstrip(".") for extension in options.extensions)

    def sources(self, files: Files) -> list[str]:
        """Every image of the tree."""
        return [path for path, _ in self._images(files)]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables, faces in the order of their paths.

        Raises InvalidInput if there is no image in a subject's folder, or a split was asked for and
        no subject has two media.
        """
        files = need_files(files, self.name)
        images = self._images(files)
        if not images:
            raise InvalidInput(
                f"{files.root}: no image ({', '.join(self._extensions)}) in a folder below"
                f" {self.options.root or 'it'}; expected SUBJECT/image.jpg. Move images into a"
                " folder a subject, or set dataset.path, or dataset.options.root and extensions."
            )
        paths, faces = [path for path, _ in images], [face for _, face in images]
        subjects = [face.partition("/")[0] for face in faces]
        media = [self._medium(face) for face in faces]
        part = self._parts(subjects, media)
        if self.options.probe_fraction and "probe" not in part.values():
            many, todo = "images", "give"
            if self.options.media == "folder":
                many, todo = "media", "set dataset.options.media to face, or give"
            raise InvalidInput(
                f"{files.root}: probe_fraction {self.options.probe_fraction} asks for probes, and"
                f" no subject has two {many} to split: {todo} subjects a second one. For"
                " templates alone set dataset.options.probe_fraction to 0, and leave out"
                " the steps that compare, search and evaluate."
            )
        # id → (subject, part), in order of first appearance
        templates: dict[str, tuple[str, str]] = {}
        member_template = []
        for face, subject, medium in zip(faces, subjects, media, strict=True):
            side = part.get(medium, "")
            whole = f"{subject}/{side}" if side else subject
            template = face if self.options.templates == "face" else whole
            templates.setdefault(template, (subject, side))
            member_template.append(template)
        roles = [(template, side) for template, (_, side) in templates.items() if side]
        enrolled = self._enrolled(subjects)
        roles += [
            (template, "gallery")
            for template, (subject, side) in templates.items()
            if side == "reference" and subject in enrolled
        ]
        found = ProtocolLists(
            face_id=faces,
            path=paths,
            sha256=digest_images(files, paths),
            subject=subjects,
            template_id=list(templates),
            template_subject=[subject for subject, _ in templates.values()],
            member_template=member_template,
            member_face=faces,
            member_media=media,
            role_template=[template for template, _ in roles],
            role=[role for _, role in roles],
            all_pairs=("reference", "probe") if roles else None,
        )
        return build_tables(found, str(files.root))

    def notes(self, files: Files, tables: Mapping[str, Batch]) -> list[str]:
        """Return sentences on what was passed over, and on what is doubtful."""
        single = (
            tables["templates"].rows and self.options.probe_fraction and self._without_probe(tables)
        )
        alone = []
        if single:
            have = "has" if single == 1 else "have"
            medium = "medium" if self.options.media == "folder" else "image"
            alone = [
                f"{counted(single, 'subject')} {have} no probe: a reference takes the only"
                f" {medium}."
            ]
        faces = tables["faces"]
        used = faces["path"].tolist()
        passed = passed_over(files, used, self._extensions, "in no subject's folder", self._root)
        advice = "Convert their files, or name their suffixes in dataset.options.extensions."
        return [
            *account(files, faces, passed),
            *folders_of_no_subject(
                files, passed, set(faces["subject"].tolist()), self._root, advice
            ),
            *misplaced_folders(used, self._root, nested=self.options.media == "folder"),
            *repeated_photographs(faces),
            *alone,
        ]

    def _without_probe(self, tables: Mapping[str, Batch]) -> int:
        subject, probes = tables["templates"]["subject"], role_rows(tables["roles"], "probe")
        return len(set(subject.tolist()) - set(subject[probes].tolist()))

    def _images(self, files: Files) -> list[tuple[str, str]]:
        """(path, path below `root`) of every image in a subject's folder, sorted."""
        names = [
            name for name in file_names(files, self._extensions) if name.startswith(self._root)
        ]
        below = [(name, name.removeprefix(self._root)) for name in names]
        return [
            (name, face) for name, face in below if "/" in face and is_image(name, self._extensions)
        ]

    def _medium(self, face: str) -> str:
        parts = face.split("/")
        return "/".join(parts[:2]) if self.options.media == "folder" and len(parts) > 2 else face

    def _parts(self, subjects: Sequence[str], media: Sequence[str]) -> Mapping[str, str]:
        """Medium → reference or probe; empty if nothing is split."""
        part: dict[str, str] = {}
        if not self.options.probe_fraction:
            return part
        own: dict[str, dict[str, None]] = {}
        for subject, medium in zip(subjects, media, strict=True):
            own.setdefault(subject, {})[medium] = None
        for subject, units in own.items():
            names = sorted(units)
            wanted = round(len(names) * self.options.probe_fraction)
            # both sides get one, as long as there are two
            probes = min(max(1, wanted), len(names) - 1)
            order = identity_generator(self.options.seed, "split", subject).permutation(len(names))
            for rank, index in enumerate(order.tolist()):
                part[names[index]] = "probe" if rank < probes else "reference"
        return part

    def _enrolled(self, subjects: Sequence[str]) -> set[str]:
        every = set(subjects)
        count = round(len(every) * self.options.left_out)
        return every - lowest_ranked(every, count, self.options.seed, "left out")
