"""Write a set in IJB-C's layouts, common package and NIST, for `ijb` and `ijb_nist`.

Conventions
    Folders    package/ and nist/ in the folder that is written, which appears when it is complete.
    Images     are numbered from 1 in the order of faces: loose_crop/N.jpg in the package, img/N.jpg
               (a still) or frames/N.jpg in NIST's tree. A medium's number is its SIGHTING_ID there.
    Templates  one reference a subject, which is in one of the two galleries; every other template
               is a probe.
    Pairs      mated: a reference and a probe of one subject; non-mated: of two, drawn without
               repeats. A small set has fewer such pairs than its share of IJB-C's list, as pairs
               grow with the square of the scale: then it has them all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.core.schema import Array
from stages.datasets.ijb.protocol import manifest

Layout = Literal["package", "nist", "both"]
_ROWS = 1 << 20  # written at a time


@dataclass(frozen=True)
class JanusSet:
    """A whole set: T templates, the first S the subjects' references; n faces by template."""

    template_id: Array  # (T,) int64, increasing
    subject: Array  # (T,) int64, the subject's number
    template: Array  # (n,) int64, row of template_id
    medium: Array  # (n,) int64
    still: Array  # (n,) bool
    landmarks: Array  # (n, 5, 2) px, x to the right
    box: Array  # (n, 4) px: x, y, width, height
    score: Array  # (n,) detector score
    first_gallery: Array  # (S,) bool; the others are in the second one
    a: Array  # (comparisons,) int64, row of template_id
    b: Array  # (comparisons,) int64
    beside: Mapping[str, Array]  # file name → float32 rows, of the package

    @property
    def mated(self) -> Array:
        return np.asarray(self.subject[self.a] == self.subject[self.b])

    def counts(self) -> dict[str, int]:
        """Return how many there are, by the words of the manifest."""
        rows, mated = len(self.a), int(self.mated.sum())
        first, subjects = int(self.first_gallery.sum()), len(self.first_gallery)
        return {
            "subjects": subjects,
            "templates": len(self.template_id),
            "faces": len(self.template),
            "comparisons": rows,
            "mated": mated,
            "non-mated": rows - mated,
            "gallery_1": first,
            "gallery_2": subjects - first,
            "probe": len(self.template_id) - subjects,
        }


def draw_galleries(subjects: int, rng: np.random.Generator) -> Array:
    """Return which subjects (bool) are in the first gallery.

    Its share is that of IJB-C's; each gallery has at least one subject.
    """
    counts = manifest("ijbc").counts
    share = counts["gallery_1"] / (counts["gallery_1"] + counts["gallery_2"])
    first = np.zeros(subjects, bool)
    first[rng.permutation(subjects)[: min(max(1, round(subjects * share)), subjects - 1)]] = True
    return first


def draw_comparisons(
    subject: Array, subjects: int, scale: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return a and b (int64 template rows), sorted: references against probes.

    Of each kind there are IJB-C's number times `scale`. `subject` is (T,); the first `subjects`
    templates are the references, in the order of subjects.
    """
    counts, probes = manifest("ijbc").counts, len(subject) - subjects
    own = subject[subjects:]
    mated = own * probes + np.arange(probes)
    mated = rng.permutation(mated)[: round(counts["mated"] * scale)]
    wanted = min(round(counts["non-mated"] * scale), (subjects - 1) * probes)
    drawn = rng.choice(subjects * probes, min(wanted + probes, subjects * probes), replace=False)
    drawn = drawn[own[drawn % probes] != drawn // probes][:wanted]
    pairs = np.sort(np.concatenate([mated, drawn]))
    return pairs // probes, subjects + pairs % probes


def draw_template_ids(count: int, rng: np.random.Generator) -> Array:
    """Return increasing numbers (int64) with gaps, as IJB-C's are."""
    return np.cumsum(rng.integers(1, 5, count))


def write_set(
    folder: Path, made: JanusSet, layout: Layout, image: Callable[[int], bytes] | None = None
) -> None:
    """Write `made`; `image` gives the bytes of a face's image (JPEG).

    The folder must not exist yet. Raises OSError.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        part.mkdir(parents=True)
        if layout != "nist":
            _write_package(part / "package", made, image)
        if layout != "package":
            _write_nist(part / "nist", made, image)
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_package(folder: Path, made: JanusSet, image: Callable[[int], bytes] | None) -> None:
    import pandas as pd

    names, meta = manifest("ijbc").lists, folder / "meta"
    meta.mkdir(parents=True)
    name = _numbers(made) + ".jpg"
    ids = {"image": name, "template": made.template_id[made.template], "media": made.medium}
    _write(meta / names["faces"], pd.DataFrame(ids), " ")
    points = pd.DataFrame(np.round(made.landmarks.reshape(-1, 10).astype(np.float64), 3))
    points.insert(0, "image", name)
    points["score"] = np.round(made.score.astype(np.float64), 6)
    _write(meta / names["points"], points, " ")
    _write_pairs(meta / names["pairs"], made, " ", {"label": made.mated.astype(np.int8)})
    _write_lists(meta, made)
    for file, rows in made.beside.items():
        _write_array(folder / file, rows)
    if image is not None:
        (folder / "loose_crop").mkdir()
        for i, file in enumerate(name.tolist()):
            (folder / "loose_crop" / file).write_bytes(image(i))


def _write_nist(folder: Path, made: JanusSet, image: Callable[[int], bytes] | None) -> None:
    (folder / "protocol").mkdir(parents=True)
    _write_lists(folder / "protocol", made)
    _write_pairs(folder / "protocol" / manifest("ijbc").lists["matches"], made, ",", {})
    if image is not None:
        for kind in ("img", "frames"):
            (folder / "images" / kind).mkdir(parents=True)
        for i, file in enumerate(_files(made).tolist()):
            (folder / "images" / file).write_bytes(image(i))


def _write_lists(folder: Path, made: JanusSet) -> None:
    """The 1:N lists, one row a face."""
    import pandas as pd

    subjects = len(made.first_gallery)
    frame = pd.DataFrame(
        {
            "TEMPLATE_ID": made.template_id[made.template],
            "SUBJECT_ID": made.subject[made.template],
            "FILENAME": _files(made),
            "SIGHTING_ID": made.medium,
            **dict(
                zip(
                    ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT"),
                    made.box.round().astype(np.int64).T,
                    strict=True,
                )
            ),
        }
    )
    first = np.append(made.first_gallery, np.zeros(len(made.template_id) - subjects, bool))[
        made.template
    ]
    is_probe = made.template >= subjects
    for what, rows in (
        ("gallery_1", first),
        ("gallery_2", ~first & ~is_probe),
        ("mixed", is_probe),
    ):
        _write(folder / manifest("ijbc").lists[what], frame[rows], ",", header=True)


def _write_pairs(path: Path, made: JanusSet, separator: str, more: Mapping[str, Array]) -> None:
    import pandas as pd

    columns = {"a": made.a, "b": made.b, **more}
    for start in range(0, max(1, len(made.a)), _ROWS):
        part = {name: values[start : start + _ROWS] for name, values in columns.items()}
        part |= {side: made.template_id[part[side]] for side in "ab"}
        _write(path, pd.DataFrame(part), separator)


def _write_array(path: Path, rows: Array) -> None:
    """Write a .npy file. np.save gives no reason if the disk refuses."""
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
        file.write(np.ascontiguousarray(rows).data)


def _write(path: Path, frame: object, separator: str, header: bool = False) -> None:
    frame.to_csv(path, sep=separator, header=header, index=False, mode="a", lineterminator="\n")  # type: ignore[attr-defined]


def _numbers(made: JanusSet) -> Array:
    return np.arange(1, len(made.template) + 1).astype(str).astype(object)


def _files(made: JanusSet) -> Array:
    return np.where(made.still, "img/", "frames/").astype(object) + _numbers(made) + ".jpg"
