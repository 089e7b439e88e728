"""Reader `tinyface`: folders in TinyFace's manner, searched 1:N.

Conventions
    Tree       Gallery_Match/, Probe/ and Gallery_Distractor/, side by side wherever in the folder
               or zip they lie (Testing_Set/); images may lie deeper inside. Without
               Gallery_Distractor/ there are no distractors.
    Face       an image; its id is its path from there on. Every face is a template of its own.
    Subject    in Gallery_Match/ and Probe/ what stands before the last underscore: SUBJECT_N.jpg.
               The set's own .mat lists are not read, and it has not been confirmed that they
               agree with these names. A distractor has no subject.
    Roles      `gallery` is matches and distractors, `gallery_match` the matches alone; `probe`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pipeline.core.registry import register
from pipeline.core.schema import Batch
from pipeline.core.stage import Options
from pipeline.files.file_tree import Files
from stages.datasets.file_account import account, passed_over
from stages.datasets.folder import (
    IMAGE_EXTENSIONS,
    digest_images,
    file_names,
    folder_of,
    is_image,
    names_below,
    need_files,
)
from stages.datasets.manifests import CountsCheck, need_whole
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.tables import LAYOUT, FaceLayout, ProtocolLists, build_tables, singletons

MATCH, DISTRACTOR, PROBE = "Gallery_Match", "Gallery_Distractor", "Probe"
FOLDERS = {"gallery match": MATCH, "distractors": DISTRACTOR, "probes": PROBE}
ROLES_OF_FOLDERS = {
    MATCH: ("gallery", "gallery_match"),
    DISTRACTOR: ("gallery",),
    PROBE: ("probe",),
}
_SUBJECT_NAME = re.compile(r"(.+)_[0-9]+")


class TinyFaceOptions(Options):
    """Whether the set has to be whole, and where to look for it."""

    counts: CountsCheck = "published"
    """published: refuse a set that is not whole."""
    root: str = ""
    """Sub-folder to look in, if there are several sets of the three folders."""


@register("reader", "tinyface")
class TinyFaceReader:
    """Every probe against one gallery, with distractors; every image a template."""

    name: ClassVar[str] = "tinyface"
    version: ClassVar[int] = 2
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = TinyFaceOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: TinyFaceOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """Every image of the three folders."""
        return [path for _, path, _ in self._images(files, Problems(files.root))]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables, faces in the order of their paths.

        Raises InvalidInput if Gallery_Match/ or Probe/ is missing or not unique, an image in
        them does not name its subject, or counts are not the published ones.
        """
        files = need_files(files, self.name)
        problems = Problems(files.root)
        images = self._images(files, problems)
        subjects = [_subject(face, folder, problems) for face, _, folder in images]
        if self.options.counts == "published" and not problems:
            count = {
                what: sum(folder == name for _, _, folder in images)
                for what, name in FOLDERS.items()
            }
            need_whole(self.name, count, problems)
        problems.refuse()
        faces, paths = [face for face, _, _ in images], [path for _, path, _ in images]
        roles = [(face, role) for face, _, folder in images for role in ROLES_OF_FOLDERS[folder]]
        found = ProtocolLists(
            face_id=faces,
            path=paths,
            sha256=digest_images(files, paths),
            subject=subjects,
            role_template=[face for face, _ in roles],
            role=[role for _, role in roles],
            **singletons(faces, subjects),
        )
        return build_tables(found, str(files.root))

    def notes(self, files: Files | None, tables: Mapping[str, Batch]) -> list[str]:
        """Say what became of every file."""
        files, faces = need_files(files, self.name), tables["faces"]
        otherwise = f"not in {MATCH}/, {DISTRACTOR}/ or {PROBE}/"
        root = folder_of(self.options.root)
        return account(
            files,
            faces,
            passed_over(files, faces["path"].tolist(), IMAGE_EXTENSIONS, otherwise, root),
        )

    def _images(self, files: Files, problems: Problems) -> list[tuple[str, str, str]]:
        """(path below the folder of the three, path, which of the three) of every image, sorted."""
        found, bases = [], dict[str, None]()
        for path in names_below(file_names(files), self.options.root):
            parts = PurePosixPath(path).parts[:-1]
            folder = next((part for part in parts if part in ROLES_OF_FOLDERS), None)
            if folder is not None and is_image(path):
                base = "".join(f"{part}/" for part in parts[: parts.index(folder)])
                bases[base] = None
                found.append((path.removeprefix(base), path, folder))
        if len(bases) > 1:
            several = ", ".join(
                base or "the data set itself" for base in list(bases)[:SHOWN_PROBLEMS]
            )
            problems.add(
                "folders",
                [
                    f"the three are in several places: {several}; set dataset.options.root to one"
                    " of them"
                ],
            )
        for folder in (MATCH, PROBE):
            if not any(each == folder for _, _, each in found):
                advice = (
                    "set dataset.path to the folder that holds Gallery_Match/, Gallery_Distractor/"
                    " and Probe/"
                )
                problems.add(f"{folder}/", [f"there is no image in it; {advice}"])
        return found


def _subject(face: str, folder: str, problems: Problems) -> str:
    """Return the subject that an image's name gives; none for a distractor."""
    if folder == DISTRACTOR:
        return ""
    named = _SUBJECT_NAME.fullmatch(PurePosixPath(face).stem)
    if named is None:
        problems.add(f"{folder}/", [f"{face} should be called SUBJECT_N, as 12_3.jpg"])
    return named[1] if named else ""
