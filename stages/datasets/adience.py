"""Reader `adience`: Adience's five lists of faces, compared each with each.

Conventions
    Lists      fold_0_data.txt … fold_4_data.txt, tab-separated, with a header; user_id,
               original_image and face_id are read, by their names. Lines count from 1, the
               header's.
    Images     beside the lists: aligned/USER/landmark_aligned_face.FACE.ORIGINAL, or
               faces/USER/coarse_tilt_aligned_face. and the same. Neither is aligned as a
               recognition model wants it: `align` detects faces in them.
    Face       its id is USER/FACE.ORIGINAL. Every face is a template. Order is that of the lists.
    Subject    the face_id: a number for one person, not for one face. A user is an album, often of
               several people.
    Repeats    117 of the authors' 19,487 lines repeat another one. A line that is equal to an
               earlier one counts once; one that says something else of the same face in the same
               photograph is refused. Blanks and tabs at a line's end do not count, nor do blank
               lines.
    Pairs      every unordered pair of faces once, which are never written out: all faces have the
               one role FACE.
    Folds      no user or person is in two lists, so comparing one list with another would give no
               mated pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Batch
from pipeline.core.stage import Options
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files
from stages.datasets.file_account import account, passed_over
from stages.datasets.folder import IMAGE_EXTENSIONS as SUFFIXES
from stages.datasets.folder import (
    digest_images,
    file_names,
    find_one_file,
    folder_of,
    names_below,
    need_files,
)
from stages.datasets.manifests import CountsCheck, need_whole
from stages.datasets.problems import Problems
from stages.tables.tables import LAYOUT, FaceLayout, ProtocolLists, build_tables, singletons

FACE = "face"
COLUMNS = ("user_id", "original_image", "face_id")
IMAGE_SETS = {"aligned": "landmark_aligned_face", "faces": "coarse_tilt_aligned_face"}


class AdienceOptions(Options):
    """Which lists, which set of images, and whether the lists must be the authors' own."""

    folds: tuple[Annotated[int, Field(ge=0, le=4)], ...] = (0, 1, 2, 3, 4)
    """Which of the five lists."""
    images: Literal["aligned", "faces"] = "aligned"
    """The aligned images or the faces as they were cut out."""
    counts: CountsCheck = "any"
    """published: all five lists as the authors gave them; other lists exist as well."""
    root: str = ""
    """Sub-folder to look in, if lists of the same names lie in several."""


@dataclass
class _ListedFaces:
    """What the lists say, row by row."""

    subject: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    # face id → (its line, where that is)
    lines: dict[str, tuple[str, str]] = field(default_factory=dict)
    repeated: int = 0

    @property
    def mated(self) -> int:
        """How many pairs are of one person."""
        return sum(n * (n - 1) // 2 for n in Counter(self.subject).values())


@register("reader", "adience")
class AdienceReader:
    """Every face a template of its own; all pairs of them."""

    name: ClassVar[str] = "adience"
    version: ClassVar[int] = 3
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = AdienceOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: AdienceOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """The lists, and every image that they may name; `read` reports missing lists."""
        names = names_below(file_names(files), self.options.root)
        stem = f"/{IMAGE_SETS[self.options.images]}."
        return [
            *self._lists(names, Problems(files.root)),
            *(name for name in names if stem in name),
        ]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables.

        Raises InvalidInput if a list is missing, with the first ten lines of each that are wrong or
        contradict another, and if the counts should be the published ones and are not.
        """
        files = need_files(files, self.name)
        problems = Problems(files.root)
        faces = self._faces(files, problems)
        if self.options.counts == "published" and not problems:
            found = {
                "faces": len(faces.path),
                "subjects": len(set(faces.subject)),
                "mated": faces.mated,
            }
            need_whole(self.name, found, problems)
        problems.refuse()
        ids = list(faces.lines)
        if not ids:
            raise InvalidInput(f"{files.root}: the lists name no face.")
        tables = ProtocolLists(
            face_id=ids,
            path=faces.path,
            sha256=digest_images(files, faces.path),
            subject=faces.subject,
            role_template=ids,
            role=[FACE] * len(ids),
            all_pairs=(FACE, FACE),
            **singletons(ids, faces.subject),
        )
        return build_tables(tables, str(files.root))

    def notes(self, files: Files | None, tables: Mapping[str, Batch]) -> list[str]:
        """Say how many lines repeat another, and what became of every file."""
        files = need_files(files, self.name)
        problems, names = Problems(files.root), names_below(file_names(files), self.options.root)
        repeated = self._faces(files, problems).repeated
        if repeated:
            said = [f"lines of the lists that repeat another exactly count once: {repeated:,} such"]
        else:
            said = []
        used = [*self._lists(names, problems), *tables["faces"]["path"].tolist()]
        passed = passed_over(
            files, used, SUFFIXES, "not in the lists", folder_of(self.options.root)
        )
        return [*said, *account(files, tables["faces"], passed)]

    def _faces(self, files: Files, problems: Problems) -> _ListedFaces:
        faces = _ListedFaces()
        for name in self._lists(names_below(file_names(files), self.options.root), problems):
            self._read_list(files, name, faces, problems)
        return faces

    def _lists(self, names: Sequence[str], problems: Problems) -> list[str]:
        advice = (
            "set dataset.path to the folder that holds the five lists, and dataset.options.folds to"
            " those that are wanted"
        )
        folds = dict.fromkeys(self.options.folds)
        found = [find_one_file(names, f"fold_{fold}_data.txt", problems, advice) for fold in folds]
        return [name for name in found if name is not None]

    def _read_list(self, files: Files, name: str, faces: _ListedFaces, problems: Problems) -> None:
        try:
            lines = [line.rstrip() for line in files.read(name).decode("utf-8-sig").splitlines()]
        except UnicodeDecodeError as error:
            problems.add(name, [f"it is not UTF-8 text ({error.reason} at byte {error.start})"])
            return
        header = lines[0].split("\t") if lines else []
        if lacking := [column for column in COLUMNS if column not in header]:
            problems.add(
                name,
                [f"line 1 should name tab-separated columns, and {', '.join(lacking)} among them"],
            )
            return
        at = [header.index(column) for column in COLUMNS]
        folder = name[: name.rfind("/") + 1] + self.options.images
        for number, line in enumerate(lines[1:], 2):
            if not line:
                continue
            cells = line.split("\t")
            if len(cells) <= max(at):
                problems.add(
                    name, [f"line {number}: expected {len(header)} columns, found {len(cells)}"]
                )
                continue
            user, original, face = (cells[i] for i in at)
            if (
                not (user and original and face)
                or "/" in user + original + face
                or user in (".", "..")
            ):
                problems.add(
                    name,
                    [
                        f"line {number}: {user!r:.60}, {original!r:.60} and {face!r:.60} name no"
                        " image"
                    ],
                )
                continue
            own = f"{user}/{face}.{original}"
            if own in faces.lines:
                before, where = faces.lines[own]
                if line == before:
                    faces.repeated += 1
                else:
                    problems.add(
                        name,
                        [f"line {number}: face {own} is listed already, and otherwise, in {where}"],
                    )
                continue
            faces.lines[own] = line, f"{name}, line {number}"
            faces.subject.append(face)
            faces.path.append(
                f"{folder}/{user}/{IMAGE_SETS[self.options.images]}.{face}.{original}"
            )
