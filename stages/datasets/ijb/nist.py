"""Reader `ijb_nist`: IJB-B and IJB-C as NIST gives them: whole images, boxes, csv protocols.

Conventions
    Lists      are found by their names anywhere in the tree (data_manifests/ijbc.yaml): the 1:N
               galleries and probes, or those of protocols/test4 (gallery_G1.csv, gallery_G2.csv,
               probes.csv); the 1:1 lists are two template ids a line. Columns are found by the
               header: TEMPLATE_ID, SUBJECT_ID (may be missing), FILENAME (older lists: FILE),
               FACE_X, FACE_Y, FACE_WIDTH, FACE_HEIGHT, MEDIA_ID and SIGHTING_ID (may be missing),
               in any order and case; others are not looked at.
    Face       is a box in an image: its id is FILENAME[x,y,width,height].
    Medium     is the MEDIA_ID if one is given (older lists: a medium has several sightings
               there), else the sighting; else, of a file frames/V_N.png, video:V; else image: and
               the file.
    Mated      no list says so: two templates are mated if they have one subject.
    Whole      is a tree whose galleries, mixed probes (with the templates of both) and `matches`
               count as published, and all of whose images are there. Faces are not counted: the
               published number is of the common package's crops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch
from pipeline.core.stage import Options
from pipeline.files.file_tree import Files
from stages.datasets.file_account import account, passed_over
from stages.datasets.folder import (
    IMAGE_EXTENSIONS,
    file_names,
    find_one_file,
    is_image,
    names_below,
    need_files,
)
from stages.datasets.ijb import protocol as protocol
from stages.datasets.ijb.lists import bad_names, join_pieces, read_csv, read_pieces
from stages.datasets.ijb.protocol import Name
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.tables import LAYOUT, FaceLayout

BOX = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")
OPTIONAL = ("SUBJECT_ID", "MEDIA_ID", "SIGHTING_ID")
FACE_LIST = {
    "TEMPLATE_ID": "id",
    "FILENAME": "text",
    **dict.fromkeys(OPTIONAL, "text"),
    **dict.fromkeys(BOX, "number"),
}
OLDER = {"FILENAME": "FILE"}
PAIR_LIST = {"template 1": "id", "template 2": "id"}
TEST4 = {
    "gallery_1": "test4/gallery_G1.csv",
    "gallery_2": "test4/gallery_G2.csv",
    "probe": "test4/probes.csv",
}


class IjbNistOptions(Options):
    """Which set, which of its lists, and where in the tree."""

    name: Name = "ijbc"
    """IJB-B or IJB-C."""
    counts: Literal["published", "any"] = "published"
    """published: refuse a set that is not whole; any: take what is there."""
    protocol: Literal["1N", "test4"] | None = None
    """Whose galleries and probes; null: 1N if it is there."""
    probes: Literal["mixed", "img", "video"] = "mixed"
    """Which list of probes of 1N."""
    comparisons: Literal["matches", "covariates", "none"] = "matches"
    """Which list of 1:1 comparisons."""
    root: str = ""
    """Sub-folder in which the lists lie, if the tree holds several of one name."""
    images: str | None = None
    """Folder that FILENAME is relative to; null: where the files are found."""


@register("reader", "ijb_nist")
class IjbNistReader:
    """NIST's tree: 1:N with two galleries, and a 1:1 list, mated by its subjects."""

    name: ClassVar[str] = "ijb_nist"
    version: ClassVar[int] = 4
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = IjbNistOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: IjbNistOptions) -> None:
        self.options = options
        self._manifest = protocol.manifest(options.name)

    def sources(self, files: Files) -> list[str]:
        """The lists and every image; `read` reports missing lists."""
        names = file_names(files)
        return [
            *self._lists(names, Problems(files.root)).values(),
            *(name for name in names if is_image(name)),
        ]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables.

        Raises InvalidInput with the first ten problems of every file: missing lists, lines that are
        not as they should be, templates of two subjects, comparisons that are listed twice or of
        templates that have no face or no subject, counts that are not the published ones, missing
        images.
        """
        files = need_files(files, self.name)
        problems = Problems(files.root)
        names = file_names(files)
        lists = self._lists(names, problems)
        problems.refuse()
        found = {
            what: read_csv(files, path, FACE_LIST, problems, OPTIONAL, OLDER)
            for what, path in lists.items()
            if what != "comparisons"
        }
        pairs = {name: np.empty(0, np.int64) for name in PAIR_LIST}
        if "comparisons" in lists:
            pairs = join_pieces(
                read_pieces(files, lists["comparisons"], PAIR_LIST, ",", problems), PAIR_LIST
            )
        problems.refuse()

        listed = {
            what: protocol.IdentificationList(
                lists[what], columns["TEMPLATE_ID"], columns.get("SUBJECT_ID")
            )
            for what, columns in found.items()
        }
        for what, columns in found.items():
            wrong = bad_names(columns["FILENAME"], files)
            problems.add(
                lists[what],
                [f"line {i + 2}: {words}" for i, words in wrong.items()][:SHOWN_PROBLEMS],
                len(wrong),
            )
            size = np.stack([columns["FACE_WIDTH"], columns["FACE_HEIGHT"]])
            empty = np.flatnonzero((size <= 0).any(axis=0))
            words = [
                f"line {i + 2}: the box should be larger than 0, found {size[:, i].tolist()}"
                for i in empty[:SHOWN_PROBLEMS]
            ]
            problems.add(lists[what], words, len(empty))
        known = np.unique(np.concatenate([each.template for each in listed.values()]))
        subject = protocol.listed_subjects(listed.values(), known, problems)
        subject[[value is None for value in subject]] = ""
        a, b = (protocol.rows_of(pairs[name], known) for name in PAIR_LIST)
        if "comparisons" in lists:
            _need_subjects(lists["comparisons"], list(pairs.values()), (a, b), subject, problems)
            protocol.need_once(lists["comparisons"], a, b, known, problems)
        base = self._image_folder(
            files, names, [columns["FILENAME"] for columns in found.values()], problems
        )
        # the last entry is for unknown templates, row -1
        person = np.append(protocol.subject_codes(subject), np.int32(-1))
        mated = (person[a] == person[b]) & (a >= 0)
        if self.options.counts == "published":
            images = [
                base + name for columns in found.values() for name in columns["FILENAME"].tolist()
            ]
            counted = self._counts(lists, listed, mated)
            protocol.need_whole_set(self.options.name, counted, base, images, names, problems)
        problems.refuse()

        faces, members = _faces_and_members(list(found.values()), known)
        paths = [base + name for name in faces.pop("file").tolist()]
        faces["path"] = np.array(paths, dtype=object)
        faces["sha256"] = protocol.image_digests(files, paths, names)
        comparisons = {"a": a, "b": b, "mated": mated}
        return protocol.assembled(
            faces, members, known, subject, comparisons, protocol.roles(listed, known)
        )

    def notes(self, files: Files | None, tables: Mapping[str, Batch]) -> list[str]:
        """Say what became of every file."""
        files, faces = need_files(files, self.name), tables["faces"]
        used = [
            *self._lists(file_names(files), Problems(files.root)).values(),
            *faces["path"].tolist(),
        ]
        return account(files, faces, passed_over(files, used, IMAGE_EXTENSIONS, "not in the lists"))

    def _lists(self, names: Sequence[str], problems: Problems) -> dict[str, str]:
        """The path of each list that is used.

        They are galleries, probes, comparisons, and the faces of covariate comparisons.
        """
        wanted, own = self._manifest.lists, names_below(names, self.options.root)
        endings = {what: wanted[what] for what in protocol.GALLERIES} | {
            "probe": wanted[self.options.probes]
        }
        if self.options.protocol == "test4" or (
            self.options.protocol is None and not _any(own, endings) and _any(own, TEST4)
        ):
            endings = dict(TEST4)
        advice = (
            "set dataset.path to NIST's folder or .zip, and dataset.options name, protocol and"
            " probes to what it holds"
        )
        lists = {
            what: find_one_file(own, ending, problems, advice) for what, ending in endings.items()
        }
        if self.options.comparisons != "none":
            advice = "set dataset.options.comparisons to none, where 1:N is all that is wanted"
            lists["comparisons"] = find_one_file(
                own, wanted[self.options.comparisons], problems, advice
            )
        if self.options.comparisons == "covariates":
            lists["covariate_faces"] = find_one_file(own, wanted["covariate_faces"], problems)
        return {what: path for what, path in lists.items() if path is not None}

    def _counts(
        self,
        lists: Mapping[str, str],
        listed: Mapping[str, protocol.IdentificationList],
        mated: Array,
    ) -> dict[str, int]:
        """What there is of what the manifest counts, by its words."""
        mixed = lists["probe"].endswith(self._manifest.lists["mixed"])
        found = protocol.listed_counts(listed, mixed)
        if mixed:
            ids = [listed[what].template for what in (*protocol.GALLERIES, "probe")]
            found["templates"] = len(np.unique(np.concatenate(ids)))
        if self.options.comparisons == "matches":
            rows, same = len(mated), int(mated.sum())
            found |= {"comparisons": rows, "mated": same, "non-mated": rows - same}
        return found

    def _image_folder(
        self, files: Files, names: Sequence[str], listed: Sequence[Array], problems: Problems
    ) -> str:
        """The folder that FILENAME is relative to, as a prefix: where a file is found first."""
        if self.options.images is not None:
            return f"{self.options.images.strip('/')}/" if self.options.images.strip("/") else ""
        wanted = {name for column in listed for name in column.tolist()}
        found: set[str] = set()
        for name in filter(is_image, names):
            parts = name.split("/")
            found |= {
                "/".join(parts[:i]) for i in range(len(parts)) if "/".join(parts[i:]) in wanted
            }
        if len(found) > 1:
            several = ", ".join(repr(folder) for folder in sorted(found)[:SHOWN_PROBLEMS])
            words = (
                f"the files listed lie in several folders: {several}; set dataset.options.images"
                " to one"
            )
            problems.add("images", [words])
        folder = next(iter(found), "")
        return f"{folder}/" if folder else ""


def _any(names: Sequence[str], endings: Mapping[str, str]) -> bool:
    return any(
        name == ending or name.endswith(f"/{ending}")
        for ending in endings.values()
        for name in names
    )


def _need_subjects(
    file: str, ids: Sequence[Array], rows: Sequence[Array], subject: Array, problems: Problems
) -> None:
    """Tell which comparisons name a template that has no face, no subject, or is the other one."""
    lacks = np.append(subject == "", False)  # the last entry is for unknown templates, row -1
    for each, row in zip(ids, rows, strict=True):
        strange = np.flatnonzero(row < 0)
        words = [
            f"line {i + 1}: template {each[i]} has no face"
            for i in strange[:SHOWN_PROBLEMS].tolist()
        ]
        problems.add(file, words, len(strange))
        nobody = np.flatnonzero(lacks[row])
        words = [
            f"line {i + 1}: template {each[i]} has no subject, so nothing says whether it is mated"
            for i in nobody[:SHOWN_PROBLEMS]
        ]
        problems.add(file, words, len(nobody))
    itself = np.flatnonzero((rows[0] == rows[1]) & (rows[0] >= 0))
    words = [
        f"line {i + 1}: template {ids[0][i]} is compared with itself"
        for i in itself[:SHOWN_PROBLEMS].tolist()
    ]
    problems.add(file, words, len(itself))


def _faces_and_members(
    found: Sequence[Mapping[str, Array]], known: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the faces, in the order of the lists, and the members of templates, each once.

    `file` of a face is its FILENAME.
    """
    import pandas as pd

    absent = {"MEDIA_ID": "", "SIGHTING_ID": ""}
    frame = pd.concat([pd.DataFrame({**absent, **columns}) for columns in found], ignore_index=True)
    frame["template"] = protocol.rows_of(frame["TEMPLATE_ID"].to_numpy(), known)
    frame["face"] = frame.groupby(["FILENAME", *BOX], sort=False).ngroup()
    frame = frame.drop_duplicates(["template", "face"])
    faces = frame.drop_duplicates("face").sort_values("face", kind="stable")
    box = faces[list(BOX)].to_numpy(np.float64)
    name = faces["FILENAME"].to_numpy(object)
    shape = [",".join(f"{value:.12g}" for value in row) for row in box.tolist()]
    file = frame["FILENAME"].astype(object)
    video = file.str.extract(r"^(?:.*/)?frames?/(?:.*/)?([^/]+)_[^/_]+$", expand=False)
    derived = ("video:" + video).where(video.notna(), "image:" + file)  # no sighting is called so
    medium = frame["SIGHTING_ID"].astype(object).where(frame["SIGHTING_ID"] != "", derived)
    medium = frame["MEDIA_ID"].astype(object).where(frame["MEDIA_ID"] != "", medium)
    return (
        {
            "face_id": np.array(
                [f"{n}[{s}]" for n, s in zip(name, shape, strict=True)], dtype=object
            ),
            "file": name,
            "box": box.astype(np.float32),
        },
        {
            "template": frame["template"].to_numpy(np.int64),
            "face": frame["face"].to_numpy(np.int64),
            "media": medium.to_numpy(object),
        },
    )
