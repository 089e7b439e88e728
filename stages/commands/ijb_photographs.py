"""Sets of IJB-C's shape for `qfuse synth ijbc`: embeddings from a seed, or crops of photographs.

Conventions
    Embeddings the faces of the reader `synthetic` at the same scale, seed and dimension, embedding
               for embedding. Landmarks and detector score are made up, the score as a hint of
               quality. There is no image.
    Crops      the detector finds the face nearest the centre of each photograph; a crop is its box,
               half as large again on every side; its landmarks are the detector's. Photographs
               without a face are left out. A subject needs four photographs, gives `MOST` of them
               at most, and has a template for every two of them, up to `TEMPLATES`. Every
               photograph is a medium of its own, and its folder is its subject.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.core.schema import Array
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files
from stages.datasets.folder import file_names, identity_generator, is_image, lowest_ranked
from stages.datasets.ijb import write
from stages.datasets.ijb.write import JanusSet
from stages.datasets.synthetic import SUBJECTS, SynthOptions, make_set
from stages.detectors.detected_faces import Detector
from stages.faces.align import TEMPLATE
from stages.faces.images import Unusable, decode

LEAST, MOST, TEMPLATES = 4, 128, 7  # photographs of a subject; its templates at most
_MAX_PIXELS = 50_000_000


def from_noise(options: SynthOptions) -> JanusSet:
    """Return a set at embedding level; the same options give the same set."""
    made, columns, truth = make_set(options)
    # A stream of its own, so that the embeddings are those of the reader `synthetic`.
    rng = np.random.default_rng(np.random.SeedSequence([options.seed, 1]))
    subjects, count = len(made.enrolled), len(made.template)
    a, b = write.draw_comparisons(made.template_subject, subjects, options.scale, rng)
    size = rng.uniform(0.5, 2, (count, 1, 1))
    landmarks = (TEMPLATE + rng.normal(0, 2, (count, 5, 2))) * size + 10
    return JanusSet(
        template_id=write.draw_template_ids(len(made.template_subject), rng),
        subject=made.template_subject + 1,
        template=made.template,
        medium=made.medium + 1,
        still=made.still,
        landmarks=landmarks,
        box=np.concatenate(
            [np.full((count, 2), 10.0), np.repeat(112 * size[:, :, 0], 2, axis=1)], axis=1
        ),
        score=np.clip(0.7 + 0.3 * truth.quality + rng.normal(0, 0.05, count), 0.1, 1),
        first_gallery=write.draw_galleries(subjects, rng),
        a=a,
        b=b,
        beside={"embeddings.npy": columns["embedding"], "quality.npy": columns["quality"]},
    )


@dataclass
class _Crops:
    """What was found in the photographs that were looked at."""

    image: list[bytes] = field(default_factory=list)
    landmarks: list[Array] = field(default_factory=list)
    box: list[Array] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    template: list[int] = field(default_factory=list)


def from_photographs(
    files: Files,
    detector: Detector,
    scale: float,
    seed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[JanusSet, Callable[[int], bytes]]:
    """Return a set of crops of SUBJECT/…/photo.jpg, and what gives the JPEG bytes of each face.

    Raises InvalidInput if there are not as many subjects with four photographs as the scale asks
    for. `tell` is called with a sentence on what was left out.
    """
    own: dict[str, list[str]] = {}
    for name in filter(is_image, file_names(files)):
        own.setdefault(name.rpartition("/")[0], []).append(name)
    enough = [
        subject for subject, photographs in own.items() if subject and len(photographs) >= LEAST
    ]
    wanted = max(2, round(SUBJECTS * scale))
    if len(enough) < wanted:
        raise InvalidInput(
            f"{files.root}: scale {scale:g} asks for {wanted:,} subjects, and {len(enough):,} have"
            f" {LEAST} photographs or more (SUBJECT/photo.jpg); lower --scale to"
            f" {len(enough) / SUBJECTS:.4f}, or give other --faces."
        )
    chosen = sorted(lowest_ranked(enough, wanted, seed, "subjects"))
    references, probes = _Crops(), _Crops()
    probe_subject: list[int] = []
    subjects = without = 0
    for person in chosen:
        order = identity_generator(seed, "images", person).permutation(len(own[person]))[:MOST]
        found = [
            crop
            for i in order.tolist()
            if (crop := _crop(files, own[person][i], detector)) is not None
        ]
        without += len(order) - len(found)
        if len(found) < 2:
            continue
        parts = np.array_split(np.arange(len(found)), min(max(2, len(found) // 2), TEMPLATES))
        for k, part in enumerate(parts):
            side, number = (references, subjects) if k == 0 else (probes, len(probe_subject))
            probe_subject += [subjects] if k else []
            for i in part.tolist():
                for column, value in zip(
                    (side.image, side.landmarks, side.box, side.score), found[i], strict=True
                ):
                    column.append(value)  # type: ignore[attr-defined]
                side.template.append(number)
        subjects += 1
    if subjects < 2:
        raise InvalidInput(
            f"{files.root}: faces were found of {subjects} subjects, and a set needs two; give"
            " other --faces."
        )
    if without or subjects < wanted:
        tell(
            f"no face in {without:,} photographs, which were left out; {subjects:,} of {wanted:,}"
            " subjects remain"
        )
    return _photographed(references, probes, np.array(probe_subject), subjects, scale, seed)


def _photographed(
    references: _Crops, probes: _Crops, probe_subject: Array, subjects: int, scale: float, seed: int
) -> tuple[JanusSet, Callable[[int], bytes]]:
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    subject = np.concatenate([np.arange(subjects), probe_subject])
    a, b = write.draw_comparisons(subject, subjects, scale, rng)
    images = references.image + probes.image
    made = JanusSet(
        template_id=write.draw_template_ids(len(subject), rng),
        subject=subject + 1,
        template=np.array(references.template + [subjects + t for t in probes.template]),
        medium=np.arange(1, len(images) + 1),
        still=np.ones(len(images), bool),
        landmarks=np.array(references.landmarks + probes.landmarks),
        box=np.array(references.box + probes.box),
        score=np.array(references.score + probes.score),
        first_gallery=write.draw_galleries(subjects, rng),
        a=a,
        b=b,
        beside={},
    )
    return made, images.__getitem__


def _crop(files: Files, name: str, detector: Detector) -> tuple[bytes, Array, Array, float] | None:
    """Return the crop (JPEG), its landmarks, box and detector score; None without a face."""
    from PIL import Image

    try:
        image = decode(files.read(name), _MAX_PIXELS)
    except (Unusable, InvalidInput):
        return None
    height, width = image.shape[:2]
    faces = detector.detect(np.ascontiguousarray(image[:, :, ::-1]))
    if not len(faces):
        return None
    i = faces.nearest(width / 2, height / 2)
    box = faces.box[i].astype(np.float64)
    low = np.clip(np.floor(box[:2] - box[2:] / 2), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(box[:2] + box[2:] * 1.5), low + 1, [width, height]).astype(int)
    buffer = io.BytesIO()
    Image.fromarray(image[low[1] : high[1], low[0] : high[0]]).save(buffer, "JPEG", quality=95)
    return (
        buffer.getvalue(),
        faces.landmarks[i] - low,
        np.concatenate([box[:2] - low, box[2:]]),
        float(faces.score[i]),
    )
