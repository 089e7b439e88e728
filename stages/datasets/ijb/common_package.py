"""Reader `ijb`: IJB-B and IJB-C in the common package: crops with landmarks, or embeddings.

Conventions
    Package    the folder that holds meta/ and loose_crop/, wherever in the data set it lies:
               meta/ijbc_face_tid_mid.txt (a line is image, template, media),
               meta/ijbc_name_5pts_score.txt (image, x1, y1 … x5, y5, score; line for line the same
               images) and meta/ijbc_template_pair_label.txt (template, template, 1 = mated). 1:N
               lists in meta/ are used where they are. data_manifests/ijbc.yaml and ijbb.yaml name
               all files and the published counts.
    Face       is an image; its id is the image's name. Its landmarks and detector score are the
               protocol's.
    Beside     `embeddings` and `quality` are files of the package, row for row as the face list:
               .npy of float16, float32 or float64, (n, d) and (n,) or (n, 1), where a row that
               failed is nan; or for quality a text, a line of which is a number or nan, or an image
               and such a number, between blanks, tabs, commas or semicolons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, text
from pipeline.core.stage import Options
from pipeline.files.file_tree import Files
from stages.datasets.file_account import account, passed_over
from stages.datasets.folder import (
    IMAGE_EXTENSIONS,
    file_names,
    find_one_file,
    folder_of,
    names_below,
    need_files,
)
from stages.datasets.ijb import protocol as protocol
from stages.datasets.ijb.lists import bad_names, first_line, read_csv, read_list, read_pieces
from stages.datasets.ijb.npy import read_array
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.score_text import separator_of
from stages.tables.subjects import inferred_subjects
from stages.tables.tables import LAYOUT, FaceLayout

FACE_LIST = {"image": "text", "template": "id", "media": "text"}
LANDMARK_LIST = {
    "image": "text",
    **{f"{axis}{i}": "number" for i in range(1, 6) for axis in "xy"},
    "score": "number",
}
PAIR_LIST = {"template 1": "id", "template 2": "id", "label": "label"}
IDENTIFICATION_LIST = {"TEMPLATE_ID": "id", "SUBJECT_ID": "text"}
REQUIRED = ("faces", "points", "pairs")
# a word where a score should be
_HEADING = re.compile(r"(?:^|[\s,;])(?!nan$|inf)[a-z_]+(\.scalar)?[,;]?$", re.IGNORECASE)


class IjbOptions(Options):
    """Which set, whether it has to be whole, and what lies beside its lists."""

    name: protocol.Name = "ijbc"
    """IJB-B or IJB-C."""
    counts: Literal["published", "any"] = "published"
    """published: refuse a set that is not whole; any: take what is there."""
    root: str = ""
    """Sub-folder to look in, if the data set holds several packages."""
    probes: Literal["mixed", "img", "video"] = "mixed"
    """Which list of probes, for 1:N."""
    embeddings: str | None = None
    """Path in the package of embeddings that are there already."""
    quality: str | None = None
    """Path in the package of quality scores that are there already."""


@dataclass(frozen=True)
class _Package:
    """Paths in the data set: the package's folder, and each list that is there.

    `lists` is by what a list holds.
    """

    base: str
    lists: Mapping[str, str]


@register("reader", "ijb")
class IjbReader:
    """The common package: a listed 1:1 protocol and, if its lists are there, 1:N searches."""

    name: ClassVar[str] = "ijb"
    version: ClassVar[int] = 2
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = IjbOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: IjbOptions) -> None:
        self.options = options
        self._manifest = protocol.manifest(options.name)

    def sources(self, files: Files) -> list[str]:
        """The lists, what lies beside them, and every image; `read` reports missing lists."""
        names = names_below(file_names(files), self.options.root)
        package = self._package(names, Problems(files.root))
        images = [name for name in names if name.startswith(f"{package.base}loose_crop/")]
        return [*package.lists.values(), *self._extra(package), *images]

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables.

        Raises InvalidInput with the first ten problems of every file: missing lists, lines that are
        not as they should be, lists that do not fit together, comparisons that are listed twice or
        contradict each other, counts that are not the published ones, missing images.
        """
        files = need_files(files, self.name)
        problems = Problems(files.root)
        names = names_below(file_names(files), self.options.root)
        package = self._package(names, problems)
        problems.refuse()
        lists = package.lists
        rows = read_list(files, lists["faces"], FACE_LIST, problems)
        points = read_list(files, lists["points"], LANDMARK_LIST, problems)
        listed = self._listed(files, lists, problems)
        known = np.unique(rows["template"])
        comparisons, strange = _comparisons(files, lists["pairs"], known, problems)
        problems.refuse()

        count = len(rows["image"])
        _same_images(rows["image"], points["image"], lists["points"], lists["faces"], problems)
        given = self._beside(files, package.base, rows["image"], problems)
        for file, words, more in strange:
            problems.add(file, words, more)
        protocol.need_once(lists["pairs"], comparisons["a"], comparisons["b"], known, problems)
        wrong = bad_names(rows["image"], files)
        problems.add(
            lists["faces"],
            [f"line {row + 1}: {what}" for row, what in wrong.items()][:SHOWN_PROBLEMS],
            len(wrong),
        )
        protocol.need_known(listed.values(), known, lists["faces"], problems)
        if (
            not any(name.startswith(f"{package.base}loose_crop/") for name in names)
            and self.options.embeddings is None
        ):
            advice = (
                "put the images there, or set dataset.options.embeddings to a file of embeddings"
            )
            problems.add(f"{package.base}loose_crop/", [f"there is no image; {advice}"])
        if len(points["image"]) == count:
            given["landmarks"] = np.stack(
                [points[f"{axis}{i}"] for i in range(1, 6) for axis in "xy"], axis=1
            )
            given["landmarks"] = given["landmarks"].reshape(-1, 5, 2).astype(np.float32)
            given["score"] = points["score"].astype(np.float32)
        face, first = _one_face_an_image(rows, given, lists, problems)
        paths = (f"{package.base}loose_crop/" + rows["image"][first]).tolist()
        if self.options.counts == "published":
            found = self._counts(len(first), known, comparisons, listed)
            images = paths if self.options.embeddings is None else []
            protocol.need_whole_set(
                self.options.name, found, f"{package.base}loose_crop/", images, names, problems
            )
        problems.refuse()

        subject = protocol.listed_subjects(listed.values(), known, problems)
        mated = comparisons["mated"]
        subject = inferred_subjects(
            known, subject, comparisons["a"][mated], comparisons["b"][mated]
        )
        faces: dict[str, Array] = {"face_id": rows["image"][first], "path": text(paths)}
        faces["sha256"] = protocol.image_digests(files, paths, names)
        once = len(first) == count
        faces |= {name: values if once else values[first] for name, values in given.items()}
        members = {
            "template": np.searchsorted(known, rows["template"]),
            "face": face,
            "media": rows["media"],
        }
        tables = protocol.assembled(
            faces, members, known, subject, comparisons, protocol.roles(listed, known)
        )
        protocol.refuse_contradictions(tables, lists["pairs"], problems)
        problems.refuse()
        return tables

    def notes(self, files: Files | None, tables: Mapping[str, Batch]) -> list[str]:
        """Say how many faces have no quality, and what became of every file."""
        files, faces, said = need_files(files, self.name), tables["faces"], list[str]()
        if self.options.quality is not None:
            none = int(np.isnan(faces["quality"]).sum())
            words = (
                f"{none:,} of {faces.rows:,} faces have no quality (nan in {self.options.quality})"
            )
            said += [words] if none else []
        package = self._package(
            names_below(file_names(files), self.options.root), Problems(files.root)
        )
        used = [*package.lists.values(), *self._extra(package), *faces["path"].tolist()]
        passed = passed_over(
            files, used, IMAGE_EXTENSIONS, "not in the lists", folder_of(self.options.root)
        )
        return [*said, *account(files, faces, passed)]

    def _extra(self, package: _Package) -> list[str]:
        """The paths of what lies beside the lists."""
        return [
            package.base + name
            for name in (self.options.embeddings, self.options.quality)
            if name is not None
        ]

    def _package(self, names: Sequence[str], problems: Problems) -> _Package:
        wanted = self._manifest.lists
        advice = (
            "set dataset.path to the folder (or .zip) of the package, and dataset.options.name to"
            " ijbc or ijbb"
        )
        lists = {
            what: find_one_file(names, f"meta/{wanted[what]}", problems, advice)
            for what in REQUIRED
        }
        at = next((path for path in lists.values() if path is not None), "")
        base = at[: at.rfind("meta/")] if at else ""
        there = set(names)
        for what in (*protocol.GALLERIES, self.options.probes):
            path = f"{base}meta/{wanted[what]}"
            lists[what] = path if path in there else None
        return _Package(base, {what: path for what, path in lists.items() if path is not None})

    def _listed(
        self, files: Files, lists: Mapping[str, str], problems: Problems
    ) -> dict[str, protocol.IdentificationList]:
        """The 1:N lists that are there, by role."""
        found = {}
        for what in (*protocol.GALLERIES, self.options.probes):
            if what in lists:
                columns = read_csv(
                    files, lists[what], IDENTIFICATION_LIST, problems, ("SUBJECT_ID",)
                )
                role = "probe" if what == self.options.probes else what
                if "TEMPLATE_ID" in columns:
                    found[role] = protocol.IdentificationList(
                        lists[what], columns["TEMPLATE_ID"], columns.get("SUBJECT_ID")
                    )
        return found

    def _beside(
        self, files: Files, base: str, images: Array, problems: Problems
    ) -> dict[str, Array]:
        """Embeddings and quality, row for row as the face list."""
        found, count = {}, len(images)
        if self.options.embeddings is not None:
            found["embedding"] = read_array(
                files, base + self.options.embeddings, (count, None), problems
            )
        if self.options.quality is None:
            return found
        name = base + self.options.quality
        if name.endswith(".npy"):
            found["quality"] = read_array(files, name, (count,), problems)
            return found
        line = first_line(files, name)
        separator = separator_of(line)
        if _HEADING.search(line):
            asked = "a score, or an image and its score, of the first face"
            problems.add(
                name, [f"line 1 should be {asked}, and is the heading {line!r:.80}: remove it"]
            )
            return found
        two, before = separator in line, problems.count
        kinds = {"image": "text", "score": "score"} if two else {"score": "score"}
        columns = read_list(files, name, kinds, problems, separator)
        found["quality"] = columns["score"].astype(np.float32)
        if problems.count > before:  # lines that could not be read are missing from the columns
            return found
        if two:
            bare = np.array([image.rpartition("/")[2] for image in columns["image"]], dtype=object)
            _same_images(images, bare, name, "the face list", problems)
        elif len(columns["score"]) != count:
            problems.add(
                name,
                [
                    f"expected {count:,} lines, as the face list has, found"
                    f" {len(columns['score']):,}"
                ],
            )
        return found

    def _counts(
        self,
        faces: int,
        known: Array,
        comparisons: Mapping[str, Array],
        listed: Mapping[str, protocol.IdentificationList],
    ) -> dict[str, int]:
        """What there is, by the words of the manifest; of what it does not count, nothing."""
        rows, mated = len(comparisons["mated"]), int(comparisons["mated"].sum())
        found = {
            "faces": faces,
            "templates": len(known),
            "comparisons": rows,
            "mated": mated,
            "non-mated": rows - mated,
        }
        return found | protocol.listed_counts(listed, self.options.probes == "mixed")


def _comparisons(
    files: Files, name: str, known: Array, problems: Problems
) -> tuple[dict[str, Array], list[tuple[str, list[str], int]]]:
    """Return a, b (int64 rows of `known`) and mated of the pair list, and unknown templates.

    The latter as (file, words, count) of lines that name no template.
    """
    parts: list[list[Array]] = [
        [np.empty(0, np.int32)],
        [np.empty(0, np.int32)],
        [np.empty(0, bool)],
    ]
    words: list[str] = []
    count = 0
    for piece in read_pieces(files, name, PAIR_LIST, " ", problems):
        ids = [piece.columns[f"template {i}"] for i in (1, 2)]
        rows = [protocol.rows_of(each, known) for each in ids]
        for each, found in zip(ids, rows, strict=True):
            strange = np.flatnonzero(found < 0)
            count += len(strange)
            words += [
                f"line {piece.line + i}: template {each[i]} has no face"
                for i in strange[:SHOWN_PROBLEMS].tolist()
            ]
        itself = np.flatnonzero((rows[0] == rows[1]) & (rows[0] >= 0))
        count += len(itself)
        words += [
            f"line {piece.line + i}: template {ids[0][i]} is compared with itself"
            for i in itself[:SHOWN_PROBLEMS].tolist()
        ]
        for part, values in zip(parts, (*rows, piece.columns["label"]), strict=True):
            part.append(values.astype(part[0].dtype))
    a, b, mated = (np.concatenate(part) for part in parts)
    strange_ones = [(name, words[:SHOWN_PROBLEMS], count)] if count else []
    return {"a": a.astype(np.int64), "b": b.astype(np.int64), "mated": mated}, strange_ones


def _same_images(expected: Array, found: Array, file: str, other: str, problems: Problems) -> None:
    """Tell if two lists do not name the same image in the same line."""
    both = min(len(expected), len(found))
    differ = np.flatnonzero(expected[:both] != found[:both])
    words = [
        f"line {i + 1}: {found[i]!r:.60}, but {other} has {expected[i]!r:.60}"
        for i in differ[:SHOWN_PROBLEMS].tolist()
    ]
    problems.add(file, words, len(differ))
    if len(expected) != len(found):
        problems.add(
            f"{file}, in all",
            [f"expected {len(expected):,} lines, as {other} has, found {len(found):,}"],
        )


def _one_face_an_image(
    rows: Mapping[str, Array],
    given: Mapping[str, Array],
    lists: Mapping[str, str],
    problems: Problems,
) -> tuple[Array, Array]:
    """Return each line's face (int64) and each face's first line.

    Images whose lines contradict each other go to `problems`.
    """
    import pandas as pd

    face, _ = pd.factorize(rows["image"])
    face = np.asarray(face, np.int64)
    first = np.unique(face, return_index=True)[1]
    if len(first) == len(face):
        return face, first
    again = np.flatnonzero(first[face] != np.arange(len(face)))
    before = first[face[again]]
    for name, values in given.items():
        if len(values) != len(face):
            continue  # reported already
        same = (values[again] == values[before]) | (
            np.isnan(values[again]) & np.isnan(values[before])
        )
        other = np.flatnonzero(~same.reshape(len(again), -1).all(axis=1))
        words = [
            f"line {again[i] + 1}: image {rows['image'][again[i]]!r:.60} has another {name} than in"
            f" line {before[i] + 1}"
            for i in other[:SHOWN_PROBLEMS].tolist()
        ]
        file = lists["points"] if name in ("landmarks", "score") else name
        problems.add(file, words, len(other))
    twice = np.flatnonzero(
        pd.DataFrame({"template": rows["template"], "face": face}).duplicated().to_numpy()
    )
    words = [
        f"line {i + 1}: image {rows['image'][i]!r:.60} is in template {rows['template'][i]} already"
        for i in twice[:SHOWN_PROBLEMS].tolist()
    ]
    problems.add(lists["faces"], words, len(twice))
    return face, first
