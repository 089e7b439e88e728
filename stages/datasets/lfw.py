"""Readers of LFW: `lfw` for its 6,000 pairs and lists like it, `lfw_templates` for templates.

Conventions
    Tree       images are NAME/NAME_0001.jpg, wherever in the folder or zip that lies; a flat list
               may name any image.
    Face       its id is NAME_0001 and its subject NAME (`stages.datasets.listed_faces`); faces are
               sorted by id.
    Pairs      pairs.txt, found by its name, in one of the forms of `stages.datasets.pair_lists`.
               Lines count from 1.
    Missing    a pair with a missing image is refused; with `counts: any` it is left out and
               reported.
    Repeated   a pair that is listed again, in either order, counts again and is reported.
    Templates  `lfw_templates` is a stand-in for a template benchmark on real faces: of every
               identity with enough images, half make template NAME/A (reference) and half NAME/B
               (probe). Some identities are left out of the gallery, so that their probes have no
               mate in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Batch
from pipeline.core.stage import Options
from pipeline.errors import InvalidInput, counted
from pipeline.files.file_tree import Files
from stages.datasets.file_account import (
    account,
    folders_of_no_subject,
    passed_over,
    repeated_photographs,
)
from stages.datasets.folder import (
    IMAGE_EXTENSIONS,
    digest_images,
    file_names,
    identity_generator,
    is_image,
    lowest_ranked,
    need_files,
)
from stages.datasets.listed_faces import (
    all_images,
    found_pairs,
    named_images,
    named_subject,
    refuse_contradictions,
    subjects_of_faces,
)
from stages.datasets.manifests import CountsCheck
from stages.datasets.pair_lists import PairList, read_pairs
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.tables import LAYOUT, FaceLayout, ProtocolLists, build_tables, singletons


class LfwOptions(Options):
    """Which list of pairs, whether other faces are kept, and whether every image must exist."""

    pairs: str = "pairs.txt"
    """File name of the list, or its path in the tree if several have that name."""
    faces: Literal["all", "pairs"] = "all"
    """All that are there, or those in the list of pairs."""
    counts: CountsCheck = "published"
    """any: a pair of which an image is not there is left out."""


@register("reader", "lfw")
class LfwReader:
    """LFW's 10-fold protocol: every face a template of its own, and a list of comparisons."""

    name: ClassVar[str] = "lfw"
    version: ClassVar[int] = 2
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = LfwOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: LfwOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """The list of pairs and every image."""
        return [
            _find(files, self.options.pairs),
            *(name for name in file_names(files) if is_image(name)),
        ]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables.

        Raises InvalidInput with the first ten problems of the list, by line: pairs that are not as
        they should be, of an image that is not there (unless `counts` is any), or that contradict
        what is known of the subjects.
        """
        files = need_files(files, self.name)
        problems = Problems(files.root)
        listed, images, lacking = self._pairs(files, problems)
        where = self.options.pairs
        if self.options.counts == "published":
            advice = (
                "; complete the copy, or set dataset.options.counts to any to leave such pairs out"
            )
            words = lacking[:SHOWN_PROBLEMS]
            problems.add(
                where, [*words[:-1], *(word + advice for word in words[-1:])], len(lacking)
            )
        named = {name for p in listed.pairs for name in (p.a, p.b)}
        faces = sorted(images if self.options.faces == "all" else named)
        subject = subjects_of_faces(faces, images, listed.pairs)
        refuse_contradictions(listed.pairs, dict(zip(faces, subject, strict=True)), where, problems)
        if lacking and not listed.pairs and not problems:
            problems.add(
                where,
                [
                    f"no pair has both of its images; {lacking[0]}; set dataset.path to what holds"
                    " them"
                ],
            )
        problems.refuse()
        paths = [images[face] for face in faces]
        found = ProtocolLists(
            face_id=faces,
            path=paths,
            sha256=digest_images(files, paths),
            subject=subject,
            comparison_a=[pair.a for pair in listed.pairs],
            comparison_b=[pair.b for pair in listed.pairs],
            mated=[pair.mated for pair in listed.pairs],
            fold=listed.fold,
            **singletons(faces, subject),
        )
        return build_tables(found, str(files.root))

    def notes(self, files: Files | None, tables: Mapping[str, Batch]) -> list[str]:
        """Say how many pairs were left out or repeated, and what became of every file."""
        files = need_files(files, self.name)
        name, said = self.options.pairs, list[str]()
        if self.options.counts == "any":
            listed, _, lacking = self._pairs(files, Problems(files.root))
            count = len(listed.pairs) + len(lacking)
            if lacking:
                said += [
                    f"{len(lacking):,} of {count:,} pairs of {name} are left out; {lacking[0]}"
                ]
        otherwise = (
            f"not in {name}" if self.options.faces == "pairs" else "not called NAME/NAME_0001"
        )
        used = [_find(files, name), *tables["faces"]["path"].tolist()]
        passed = passed_over(files, used, IMAGE_EXTENSIONS, otherwise)
        return [*said, *_again(tables, name), *account(files, tables["faces"], passed)]

    def _pairs(
        self, files: Files, problems: Problems
    ) -> tuple[PairList, dict[str, str], list[str]]:
        """The pairs whose images are there, the path of every face, and what other pairs lack."""
        name = _find(files, self.options.pairs)
        listed = read_pairs(files.read(name), name, problems)
        problems.refuse()
        images = all_images(files) if listed.flat else _images(files)
        kept, lacking = found_pairs(listed, images, name, problems)
        return kept, images, lacking


class LfwTemplatesOptions(Options):
    """How large the experiment is, and the seed of every random choice in it."""

    min_images: int = Field(6, ge=2)
    """Identities with fewer images are left out."""
    max_images: int = Field(16, ge=2)
    """Of an identity that has more, so many are drawn."""
    left_out: float = Field(1 / 3, ge=0, lt=1)
    """Share of identities that are not enrolled in the gallery."""
    seed: int = Field(0, ge=0)
    """Draws images, sides and who is left out."""
    identities: int | None = Field(None, ge=1)
    """At most so many identities; all if null."""


@register("reader", "lfw_templates")
class LfwTemplatesReader:
    """Two templates an identity, every A against every B, and a gallery without some identities."""

    name: ClassVar[str] = "lfw_templates"
    version: ClassVar[int] = 2
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

        Raises InvalidInput if no identity has `min_images` images.
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
        roles = [(f"{name}/A", "reference") for name in names] + [
            (f"{name}/B", "probe") for name in names
        ]
        roles += [(f"{name}/A", "gallery") for name in names if name not in left_out]
        found = ProtocolLists(
            face_id=faces,
            path=paths,
            sha256=digest_images(files, paths),
            subject=[named_subject(face) for face in faces],
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

    def notes(self, files: Files | None, tables: Mapping[str, Batch]) -> list[str]:
        """Say what became of every file, who has nothing usable, and which photographs repeat."""
        files = need_files(files, self.name)
        images, faces = _images(files), tables["faces"]
        usable = set(images.values())
        not_chosen = "not chosen (dataset.options.min_images, max_images, identities)"

        def otherwise(name: str) -> str:
            return not_chosen if name in usable else "not called NAME/NAME_0001"

        passed = passed_over(files, faces["path"].tolist(), IMAGE_EXTENSIONS, otherwise)
        # that people's folders lie in
        folders = Counter(PurePosixPath(name).parts[:-2] for name in usable)
        root = "".join(f"{part}/" for part in folders.most_common(1)[0][0])
        people = {named_subject(face) for face in images}
        advice = "Convert their files to JPEG or PNG."
        return [
            *account(files, faces, passed),
            *folders_of_no_subject(files, passed, people, root, advice),
            *repeated_photographs(faces),
        ]

    def _halves(self, files: Files, images: Mapping[str, str]) -> dict[str, list[str]]:
        """Template id → its faces, sorted by identity; A has the odd one."""
        own: dict[str, list[str]] = {}
        for face in sorted(images):
            own.setdefault(named_subject(face), []).append(face)
        names = [name for name, faces in own.items() if len(faces) >= self.options.min_images]
        if not names:
            raise InvalidInput(
                f"{files.root}: none of {len(own)} identities has {self.options.min_images} images"
                " or more; lower dataset.options.min_images."
            )
        if self.options.identities is not None:
            names = sorted(
                lowest_ranked(names, self.options.identities, self.options.seed, "identities")
            )
        halves: dict[str, list[str]] = {}
        for name in names:
            order = identity_generator(self.options.seed, "images", name).permutation(
                len(own[name])
            )
            chosen = [own[name][i] for i in order[: self.options.max_images].tolist()]
            middle = (len(chosen) + 1) // 2
            halves[f"{name}/A"] = sorted(chosen[:middle])
            halves[f"{name}/B"] = sorted(chosen[middle:])
        return halves


def _again(tables: Mapping[str, Batch], name: str) -> list[str]:
    """Say how many pairs repeat an earlier one, in either order."""
    pairs, ids = tables["comparisons"], tables["templates"]["template_id"]
    both = np.sort(np.stack([pairs["a"], pairs["b"]], axis=1), axis=1)
    _, first = np.unique(both, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(both)), first)
    if not len(again):
        return []
    repeat, (a, b) = "repeats" if len(again) == 1 else "repeat", ids[both[again[0]]]
    return [
        f"{counted(len(again), 'pair')} of {name} {repeat} an earlier one, as it is or the other"
        f" way round (as {a} and {b}). Each counts as often as it is there."
    ]


def _find(files: Files, name: str) -> str:
    """Return the one file of the tree that has this name, or lies at this path."""
    names = file_names(files)
    found = [n for n in names if n == name] or [n for n in names if n.endswith(f"/{name}")]
    if not found:
        raise InvalidInput(
            f"{files.root}: there is no file {name!r} in it; set dataset.options.pairs to the list"
            " of pairs."
        )
    if len(found) > 1:
        raise InvalidInput(
            f"{files.root}: several files are called {name!r}: {', '.join(found[:SHOWN_PROBLEMS])};"
            " set dataset.options.pairs to the path of one."
        )
    return found[0]


def _images(files: Files) -> dict[str, str]:
    """Return face id → path. Raises InvalidInput if there is no face, or a face has two images."""
    images = named_images(files)
    if not images:
        raise InvalidInput(
            f"{files.root}: no image NAME/NAME_0001.jpg in it; set dataset.path to LFW's folder or"
            " zip."
        )
    return images
