"""Reader `bin`: LFW, AgeDB-30, CFP-FP, CALFW and CPLFW as packed by InsightFace (lfw.bin …).

Conventions Pack a file of 2n encoded images and n truth values; images 2i and 2i + 1 are pair i.
`files.image_pack` says how it is read without trusting it. dataset.path is the file itself. Face
images with the same bytes are one face, and each face is a template. Its id is the number, seven
digits, of the first of them in the pack. `repeated: each` makes every image a face of its own.
Crops the images are aligned already: `align: {options: {detector: none}}` takes them as they are.
Subject a pack names nobody. Faces that mated pairs join, through any number of pairs, are of one
subject, named "s" and the first of its faces; a face in no mated pair is a subject of its own. If
one person's faces are joined by no mated pair, they count as several subjects, so intervals may be
somewhat too narrow. A non-mated pair of one subject contradicts itself and is refused; `subjects:
unknown` gives no face a subject. Fold ten of the same length in the order of the pairs, if their
number divides by ten; else none (-1).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch
from pipeline.core.stage import Options
from pipeline.errors import InvalidInput
from pipeline.files.digests import UNREADABLE
from pipeline.files.file_tree import Files
from pipeline.files.image_pack import IMAGES, PAIRS
from stages.datasets.folder import digest_images, need_files
from stages.datasets.manifests import CountsCheck, need_whole
from stages.datasets.problems import SHOWN_PROBLEMS, Problems
from stages.tables.tables import LAYOUT, FaceLayout, ProtocolLists, build_tables, singletons

FOLDS = 10
_MATED = re.compile(rb"(?:[01]\n)+")


class BinPackOptions(Options):
    """Which benchmark a pack is of, and who is in it."""

    name: Literal["lfw", "agedb_30", "cfp_fp", "calfw", "cplfw"] | None = None
    """The benchmark whose counts the pack has to have; null: none are asked for."""
    counts: CountsCheck = "published"
    """published: refuse a pack of other counts."""
    repeated: Literal["once", "each"] = "once"
    """Images of the same bytes: one face, or one each."""
    subjects: Literal["joined", "unknown"] = "joined"
    """People as mated pairs join them, or unknown."""


@register("reader", "bin")
class BinPackReader:
    """A listed 1:1 protocol on aligned crops, in ten folds."""

    name: ClassVar[str] = "bin"
    version: ClassVar[int] = 1
    backends: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Any]] = BinPackOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: BinPackOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """The pairs and every image."""
        return files.names()

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables, faces and pairs in the order of the pack.

        Raises InvalidInput if the file is no pack, its counts are not the published ones, a pair
        holds the same image twice, or a non-mated pair contradicts the mated ones.
        """
        files = need_files(files, self.name)
        problems = Problems(files.root)
        mated = _mated(files)
        pairs, images = len(mated), [f"{IMAGES}{i:07d}" for i in range(2 * len(mated))]
        digests = digest_images(files, images)
        content, first = _distinct(digests)
        if self.options.name is not None and self.options.counts == "published":
            count = int(mated.sum())
            need_whole(
                self.options.name,
                {"pairs": pairs, "mated": count, "non-mated": pairs - count},
                problems,
            )
        if self.options.repeated == "once":
            face = content
            _need_two(content, problems)
        else:
            face = first = np.arange(2 * pairs)
        subject = np.full(len(first), "", dtype=object)
        if self.options.subjects == "joined":
            joined = _subject_of_images(content, mated)
            _need_apart(joined, content, mated, problems)
            subject = np.array([f"s{row:07d}" for row in joined[first].tolist()], dtype=object)
        problems.refuse()
        ids = [f"{row:07d}" for row in first.tolist()]
        a, b = ([ids[row] for row in side] for side in face.reshape(-1, 2).T.tolist())
        found = ProtocolLists(
            face_id=ids,
            path=[images[row] for row in first.tolist()],
            sha256=[digests[row] for row in first.tolist()],
            subject=subject.tolist(),
            comparison_a=a,
            comparison_b=b,
            mated=mated.tolist(),
            fold=(
                (np.arange(pairs) * FOLDS // pairs).tolist() if pairs % FOLDS == 0 else [-1] * pairs
            ),
            **singletons(ids, subject.tolist()),
        )
        return build_tables(found, str(files.root))


def _mated(files: Files) -> Array:
    """Return which pairs are mated (n,) bool."""
    try:
        lines = files.read(PAIRS)
    except FileNotFoundError:
        lines = b""
    if not _MATED.fullmatch(lines):
        raise InvalidInput(
            f"{files.root} is not a pack of images; set dataset.path to the .bin file itself, as"
            " lfw.bin."
        )
    return np.asarray(np.frombuffer(lines, np.uint8)[::2] == ord("1"))


def _distinct(digests: list[str]) -> tuple[Array, Array]:
    """Return the content of each image (2n,) as a number, and the first image of each content.

    Contents are numbered in the order of the pack.
    """
    numbers: dict[str, int] = {}
    first: list[int] = []
    content = np.empty(len(digests), np.int64)
    for row, digest in enumerate(digests):
        # an image that cannot be read equals no other one
        key = digest if digest not in ("", UNREADABLE) else f"{digest} {row}"
        content[row] = numbers.setdefault(key, len(numbers))
        if content[row] == len(first):
            first.append(row)
    return content, np.array(first, np.int64)


def _subject_of_images(content: Array, mated: Array) -> Array:
    """Return for each image (2n,) the first image of the subject that it is of."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = content.reshape(-1, 2)[mated].T
    size = int(content.max()) + 1
    count, group = connected_components(
        coo_array((np.ones(len(a), bool), (a, b)), shape=(size, size)), directed=False
    )
    of = group[content]
    smallest = np.full(count, len(content))
    np.minimum.at(smallest, of, np.arange(len(content)))
    return np.asarray(smallest[of])


def _need_two(content: Array, problems: Problems) -> None:
    """Tell which pairs are of one image with itself."""
    same = np.flatnonzero(content[::2] == content[1::2])
    words = [
        f"pair {i}: images {2 * i} and {2 * i + 1} are the same bytes"
        for i in same[:SHOWN_PROBLEMS].tolist()
    ]
    if words:
        words[-1] += "; to compare them nevertheless, set dataset.options.repeated to each"
    problems.add("pairs", words, len(same))


def _need_apart(joined: Array, content: Array, mated: Array, problems: Problems) -> None:
    """Tell which non-mated pairs are of one subject, as mated pairs or equal bytes show."""
    wrong = np.flatnonzero(~mated & (joined[::2] == joined[1::2]))
    words = [
        f"pair {i}: called non-mated, but its images {2 * i} and {2 * i + 1} are "
        + ("the same bytes" if content[2 * i] == content[2 * i + 1] else "joined by mated pairs")
        for i in wrong[:SHOWN_PROBLEMS].tolist()
    ]
    if words:
        words[-1] += (
            "; to go on without subjects, and so without intervals, set dataset.options.subjects to"
            " unknown"
        )
    problems.add("subjects", words, len(wrong))
