"""What IJB-B's and IJB-C's layouts share: the manifest, their files, subjects and roles.

Conventions
    Subject    as the 1:N lists say. A template that they do not name is of the subject of those
               that it is mated with: subjects are the connected components of the mated
               comparisons, named "s" and their smallest template id if no list names them. A
               template in no mated comparison has the subject "" (unknown).
    Roles      gallery_1 and gallery_2 as the 1:N lists say, `gallery` for both together, and
               `probe`.
    Order      templates are sorted by their number, comparisons stay in the order of their list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.config.validation import validate
from pipeline.config.yaml_text import read_yaml
from pipeline.core.schema import Array, Batch, text
from pipeline.errors import counted
from pipeline.files.file_tree import Files
from stages.datasets.folder import digest_images
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.shipped_files import resource

GALLERIES = ("gallery_1", "gallery_2")
Name = Literal["ijbc", "ijbb"]


class Manifest(BaseModel):
    """A set as published (data_manifests/ijbc.yaml): counts, and file names by what they list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: str
    title: str
    licence: str
    source: str
    counts: dict[str, int]
    lists: dict[str, str]


def manifest(name: Name) -> Manifest:
    """Return the manifest of IJB-B or IJB-C."""
    path = resource(f"data_manifests/{name}.yaml")
    found: Manifest = validate(Manifest, read_yaml(path, "manifest"), str(path))
    return found


def image_digests(files: Files, paths: Sequence[str], names: Sequence[str]) -> Array:
    """Return the sha256 (text) of each image, as `digest_images` does.

    `names` are all files of the data set, so that absent ones are not looked for.
    """
    there = set(names)
    found = [path for path in paths if path in there]
    known = dict(zip(found, digest_images(files, found), strict=True))
    return text(known.get(path, "") for path in paths)


def rows_of(ids: Array, known: Array) -> Array:
    """Return the row (int64) of each id in `known`, which is sorted; -1 if it is not in it."""
    if not len(known):
        return np.full(len(ids), -1)
    rows = np.searchsorted(known, ids)
    rows[rows == len(known)] = 0
    rows[known[rows] != ids] = -1
    return rows


@dataclass(frozen=True)
class IdentificationList:
    """A 1:N list: its file, and each row's template id (int64) and subject (text), if given."""

    file: str
    template: Array
    subject: Array | None

    def rows(self, known: Array) -> Array:
        """Return its templates' rows, each once, sorted; those not in the data set are left out."""
        rows = np.unique(rows_of(self.template, known))
        return rows[rows >= 0]

    @property
    def subjects(self) -> int:
        """How many people it is of; without subjects, how many templates."""
        if self.subject is not None:
            return len(set(self.subject.tolist()))
        return len(np.unique(self.template))


def need_known(
    listed: Iterable[IdentificationList], known: Array, faces: str, problems: Problems
) -> None:
    """Tell which lists name a template that has no face."""
    for each in listed:
        strange = np.flatnonzero(rows_of(each.template, known) < 0)
        words = [
            f"line {row + 2}: template {each.template[row]} is not in {faces}"
            for row in strange[:SHOWN_PROBLEMS].tolist()
        ]
        problems.add(each.file, words, len(strange))


def listed_subjects(
    listed: Iterable[IdentificationList], known: Array, problems: Problems
) -> Array:
    """Return the subject (text) that the lists give each template.

    It is None if they give none, or an empty one.
    """
    subject = np.full(len(known), None, dtype=object)
    for each in listed:
        if each.subject is None:
            continue
        rows = rows_of(each.template, known)
        given = (rows >= 0) & (each.subject != "")
        lines = np.flatnonzero(given)
        rows, names = rows[lines], each.subject[lines]
        first = np.unique(rows, return_index=True)[1]
        new = first[[value is None for value in subject[rows[first]]]] if len(first) else first
        subject[rows[new]] = names[new]
        other = np.flatnonzero(subject[rows] != names)
        words = [
            f"line {lines[i] + 2}: template {known[rows[i]]} is of subject {names[i]!r}, and of"
            f" {subject[rows[i]]!r} before"
            for i in other[:SHOWN_PROBLEMS].tolist()
        ]
        problems.add(each.file, words, len(other))
    return subject


def subject_codes(subject: Array) -> Array:
    """Return a number (int32) for each subject (text), equal if the subjects are."""
    import pandas as pd

    return np.asarray(pd.factorize(subject)[0], np.int32)


def need_once(file: str, a: Array, b: Array, known: Array, problems: Problems) -> None:
    """Tell which comparisons repeat an earlier one, in either order.

    a, b are rows of `known`; -1: not in it.
    """
    key = np.minimum(a, b) * np.int64(len(known))
    key += np.maximum(a, b)  # negative if a template is not known
    in_order = np.sort(key)
    in_order = in_order[np.searchsorted(in_order, 0) :]
    if not (in_order[1:] == in_order[:-1]).any():
        return
    by_key = np.argsort(key, kind="stable")
    before, after = by_key[:-1], by_key[1:]
    again = np.sort(after[(key[after] == key[before]) & (key[after] >= 0)])
    words = [
        f"line {i + 1}: templates {known[a[i]]} and {known[b[i]]} are compared in line"
        f" {np.argmax(key == key[i]) + 1} already"
        for i in again[:SHOWN_PROBLEMS].tolist()
    ]
    problems.add(file, words, len(again))


def refuse_contradictions(tables: Mapping[str, Batch], file: str, problems: Problems) -> None:
    """Tell which comparisons are called mated but of two subjects, or non-mated but of one."""
    templates, comparisons = tables["templates"], tables["comparisons"]
    code = subject_codes(templates["subject"])
    unknown = templates["subject"] == ""
    a, b = comparisons["a"], comparisons["b"]
    wrong = (code[a] == code[b]) != comparisons["mated"]
    wrong &= ~(unknown[a] | unknown[b])
    lines = np.flatnonzero(wrong)
    words = []
    for line in lines[:SHOWN_PROBLEMS].tolist():
        (one, two), (s, t) = (
            [templates[column][rows[line]] for rows in (a, b)]
            for column in ("template_id", "subject")
        )
        mated = bool(comparisons["mated"][line])
        if s != t:
            apart = f"template {one} is of subject {s!r} and {two} of {t!r}"
        else:
            apart = f"{one} and {two} are both of {s!r}"
        words.append(f"line {line + 1}: called {'mated' if mated else 'non-mated'}, but {apart}")
    problems.add(file, words, len(lines))


def roles(listed: Mapping[str, IdentificationList], known: Array) -> Batch:
    """Return the table of roles, from the lists by role; `gallery` is both galleries."""
    rows = {role: each.rows(known) for role, each in listed.items()}
    galleries = [rows[name] for name in GALLERIES if name in rows]
    parts = {**{name: rows[name] for name in GALLERIES if name in rows}}
    if galleries:
        parts["gallery"] = np.unique(np.concatenate(galleries))
    if "probe" in rows:
        parts["probe"] = rows["probe"]
    return Batch(
        {
            "template": np.concatenate([np.empty(0, np.int64), *parts.values()]),
            "role": text(role for role, each in parts.items() for _ in range(len(each))),
        }
    )


def listed_counts(listed: Mapping[str, IdentificationList], probes: bool) -> dict[str, int]:
    """Return the number of subjects in each gallery and, if asked for, the number of probes.

    `probes` says that the listed probes are those the manifest counts.
    """
    found = {role: listed[role].subjects for role in GALLERIES if role in listed}
    return found | (
        {"probe": len(np.unique(listed["probe"].template))} if probes and "probe" in listed else {}
    )


def count_differences(published: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Return a sentence for each count that is not the published one, if that is known."""
    called = {name: f"subjects of {name}" for name in GALLERIES} | {"probe": "probes"}
    return [
        f"{called.get(what, what)}: expected {published[what]:,}, found {count:,}"
        for what, count in found.items()
        if count != published.get(what, count)
    ]


def need_whole_set(
    name: Name,
    found: Mapping[str, int],
    folder: str,
    paths: Iterable[str],
    names: Iterable[str],
    problems: Problems,
) -> None:
    """Tell which counts are not the published ones, and how many images are missing.

    `paths`, in `folder`, are missing if they are not among `names`.
    """
    words = count_differences(manifest(name).counts, found)
    there, images = set(names), dict.fromkeys(paths)
    lacking = [path for path in images if path not in there]
    are = "is" if len(lacking) == 1 else "are"
    first = lacking[0].removeprefix(folder) if lacking else ""
    if lacking:
        lack = [
            f"{len(lacking):,} of {counted(len(images), 'image')} {are} missing, the first {first}"
        ]
    else:
        lack = []
    last = words or lack
    if last:
        last[-1] += (
            "; complete the copy, or set dataset.options.counts to any to take what is there"
        )
    problems.add(f"this is not the whole of {name}", words)
    problems.add(folder or "images", lack)


def assembled(
    faces: Mapping[str, Array],
    members: Mapping[str, Array],
    known: Array,
    subject: Array,
    comparisons: Mapping[str, Array],
    of_roles: Batch,
) -> dict[str, Batch]:
    """Return the six tables; a face's subject is that of the first template that holds it.

    `members` are (template row, face row, media) in any order; `comparisons` are a, b (rows) and
    mated.
    """
    order = np.argsort(members["template"], kind="stable")
    count = len(faces["face_id"])
    holder = np.zeros(count, np.int64)
    holder[members["face"][::-1]] = members["template"][::-1]
    return {
        "faces": Batch({**faces, "subject": subject[holder] if count else text([])}),
        "members": Batch({name: members[name][order] for name in ("template", "face", "media")}),
        "templates": Batch({"template_id": text(known.tolist()), "subject": subject}),
        "roles": of_roles,
        "comparisons": Batch({**comparisons, "fold": np.full(len(comparisons["a"]), -1, np.int16)}),
        "pairings": Batch({"role_a": text([]), "role_b": text([])}),
    }
