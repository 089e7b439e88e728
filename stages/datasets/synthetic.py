"""Reader `synthetic`: embeddings in the shape of IJB-C, made from a seed; it reads no file.

Conventions
    Shape      at scale 1: 3,531 subjects, 23,124 templates and 469,375 faces, as IJB-C; all grow
               with the scale. Template sizes are heavy-tailed; some probes are a single face.
    Media      a template is a few stills, then videos; frames of a video share most of their noise,
               so that a long bad video spoils a plain mean.
    Roles      one reference a subject; every other template is a probe; half of the references are
               the gallery, so that the probes of the other half have no mate in it. Every reference
               is compared with every probe (IJB-C lists a part of such a product: about as many
               mated pairs, a fifth of the non-mated).
    Face       unit(u + sigma(t) · e) · norm, where u is its subject's unit centre, e is noise of
               expected length 1 and t in (0, 1) its true quality. Some subjects are look-alikes:
               their centres are correlated.
    Quality    what the set shows is t with noise, clipped to [0.001, 1]. The norm is a weaker hint
               of t.
    Weights    without shared noise, weighting each u + sigma·e by 1 / sigma² is best:
               `optimal_weights`. The variance that the set shows makes this the weight 1 / variance
               of a unit embedding: the truth, known here alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch
from pipeline.core.stage import Options
from pipeline.errors import ResourceRefused
from pipeline.files.file_tree import Files
from pipeline.system.available import available_memory
from stages.tables.tables import LAYOUT, FaceLayout, ProtocolLists, build_tables

SUBJECTS, TEMPLATES, FACES = 3531, 23124, 469375
_FACES_AT_ONCE = 16384  # faces made at a time: bounds the memory beside the result itself


class SynthOptions(Options):
    """Size, seed and difficulty of a synthetic set, tuned for the default dimension."""

    scale: float = Field(0.02, gt=0, le=4)
    """Size; 1 is IJB-C's."""
    seed: int = Field(0, ge=0)
    """Draws everything."""
    dimension: int = Field(128, ge=2, le=4096)
    """Numbers of an embedding."""
    quality_noise: float = Field(0.1, ge=0, le=10)
    """Standard deviation of observed − true quality."""
    sigma_best: float = Field(0.3, gt=0, le=100)
    """Noise at true quality 1."""
    sigma_worst: float = Field(7.5, gt=0, le=100)
    """Noise at true quality 0."""
    shared_noise: float = Field(0.8, ge=0, le=1)
    """Share of the noise variance that a medium's faces have in common."""
    single_probes: float = Field(0.15, ge=0, le=1)
    """Share of probes that are one face."""
    size_spread: float = Field(1.3, ge=0, le=4)
    """Sigma of the log-normal template sizes."""
    frames: float = Field(15.0, ge=1)
    """Mean length of a video."""
    look_alikes: float = Field(0.4, ge=0, le=1)
    """Share of subjects that resemble three others."""
    resemblance: float = Field(0.35, ge=0, lt=1)
    """Correlation of their centres."""


@dataclass(frozen=True)
class HiddenTruth:
    """What a synthetic set does not show; arrays (n,) have one entry a face, in table order."""

    quality: Array  # (n,) float32, true quality
    sigma: Array  # (n,) float32, noise level
    centre: Array  # (subjects, dimension) float32, unit length
    subject: Array  # (n,) int64, row of `centre`


@dataclass(frozen=True)
class Structure:
    """Who is where, as numbers.

    Templates are the references (one a subject, in order), then the probes.
    """

    template_subject: Array  # (templates,) int64
    template: Array  # (n,) int64, sorted
    medium: Array  # (n,) int64, from 0, sorted
    still: Array  # (n,) bool
    enrolled: Array  # (subjects,) bool


def noise_level(quality: Array, options: SynthOptions) -> Array:
    """Return sigma (float32) for faces of this true quality: geometric from worst to best."""
    ratio = np.log(options.sigma_best / options.sigma_worst)
    return np.asarray(options.sigma_worst * np.exp(ratio * quality), dtype=np.float32)


def optimal_weights(sigma: Array) -> Array:
    """Return the weights (float32) of *unit-length* faces that amount to 1 / sigma² on u + sigma·e.

    The length of u + sigma·e is about √(1 + sigma²), which making it unit length divided by.
    """
    return np.asarray(np.sqrt(1 + sigma**2) / sigma**2, dtype=np.float32)


def synthesise(options: SynthOptions) -> dict[str, Batch]:
    """Return the six tables, with `embedding` (not normalised), `quality` and `variance`.

    The quality is the observed one, the variance the true one.
    """
    return _synthesise(options)[0]


def synthesise_truth(options: SynthOptions) -> HiddenTruth:
    """Return the hidden side of the same set; it is made anew, as the tables do not hold it."""
    return _synthesise(options)[1]


@register("reader", "synthetic")
class SyntheticReader:
    """A synthetic set as a data set: no path, no image."""

    name: ClassVar[str] = "synthetic"
    version: ClassVar[int] = 2
    backends: ClassVar[tuple[str, ...]] = ("numpy",)
    Options: ClassVar[type[Any]] = SynthOptions
    layout: ClassVar[FaceLayout] = LAYOUT

    def __init__(self, options: SynthOptions) -> None:
        self.options = options

    def sources(self, files: Files) -> list[str]:
        """None: the options say everything."""
        return []

    def read(self, files: Files | None) -> dict[str, Batch]:
        """Return the tables."""
        return synthesise(self.options)


def _synthesise(options: SynthOptions) -> tuple[dict[str, Batch], HiddenTruth]:
    made, columns, truth = make_set(options)
    return _tables(options, made, columns), truth


def make_set(options: SynthOptions) -> tuple[Structure, dict[str, Array], HiddenTruth]:
    """Return the structure, the optional columns of faces, and the hidden truth.

    The columns are `embedding` and `quality`, float32.
    """
    # Independent streams, so that an option of one part leaves the random numbers of the others as
    # they are.
    structure_rng, quality_rng, centre_rng, noise_rng = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(options.seed).spawn(4)
    )
    made = _structure(options, structure_rng)
    _need_memory(4 * len(made.template) * options.dimension)
    quality = _true_quality(made, quality_rng)
    sigma = noise_level(quality, options)
    observed = quality + quality_rng.normal(0, options.quality_noise, len(quality))
    norm = 20 * np.exp(0.2 * (quality - 0.5) + quality_rng.normal(0, 0.1, len(quality)))
    subject = made.template_subject[made.template]
    centre = _centres(options, len(made.enrolled), centre_rng)
    columns = {
        "embedding": _embeddings(options, made, centre, sigma, norm.astype(np.float32), noise_rng),
        "quality": np.clip(observed, 1e-3, 1).astype(np.float32),
        "variance": (1 / optimal_weights(sigma) / options.dimension)[:, None],
    }
    return made, columns, HiddenTruth(quality, sigma, centre, subject)


def _need_memory(embeddings: int) -> None:
    available = available_memory()
    if available is not None and embeddings > available:
        raise ResourceRefused(
            f"the set's embeddings alone take {embeddings / 1e9:,.1f} GB of memory, and"
            f" {available / 1e9:,.1f} GB are available: lower its scale or its dimension."
        )


def _structure(options: SynthOptions, rng: np.random.Generator) -> Structure:
    subjects = max(2, round(SUBJECTS * options.scale))
    templates = max(2 * subjects, round(TEMPLATES * options.scale))
    faces = max(templates, round(FACES * options.scale))
    probes = templates - subjects
    # Every subject has a probe; the others go to a few subjects more than to the rest.
    popularity = rng.lognormal(0, 0.7, subjects)
    more = rng.choice(subjects, probes - subjects, p=popularity / popularity.sum())
    probe_subject = np.sort(np.concatenate([np.arange(subjects), more]))

    weight = rng.lognormal(0, options.size_spread, templates)
    weight[subjects:][rng.random(probes) < options.single_probes] = 0
    share = np.cumsum(weight) / weight.sum()  # references never weigh 0
    extra = np.round(share * (faces - templates)).astype(np.int64)
    size = 1 + np.diff(extra, prepend=0)  # adds up to `faces` exactly

    start = np.cumsum(size) - size
    template = np.repeat(np.arange(templates), size)
    position = np.arange(size.sum()) - start[template]
    stills = 1 + rng.poisson(2, templates)
    still = position < stills[template]
    begins = (
        still | (position == stills[template]) | (rng.random(len(template)) < 1 / options.frames)
    )
    enrolled = np.zeros(subjects, dtype=bool)
    enrolled[rng.permutation(subjects)[: subjects // 2]] = True
    return Structure(
        template_subject=np.concatenate([np.arange(subjects), probe_subject]),
        template=template,
        medium=np.cumsum(begins) - 1,
        still=still,
        enrolled=enrolled,
    )


def _true_quality(made: Structure, rng: np.random.Generator) -> Array:
    """Return (n,) float32 in (0, 1): mostly the medium's, partly the face's; frames are worse."""
    media = int(made.medium[-1]) + 1
    good, poor = rng.beta(3, 1.8, media), rng.beta(1.8, 2.4, media)
    own = rng.beta(2, 2, len(made.medium))
    shared = np.where(made.still, good[made.medium], poor[made.medium])
    return np.asarray(0.6 * shared + 0.4 * own, dtype=np.float32)


def _centres(options: SynthOptions, subjects: int, rng: np.random.Generator) -> Array:
    """Return (subjects, d) float32 unit centres; look-alikes come in groups of four."""
    own = _unit(rng.standard_normal((subjects, options.dimension), dtype=np.float32))
    alike = rng.permutation(subjects)[: round(subjects * options.look_alikes)]
    common = _unit(rng.standard_normal((len(alike) // 4 + 1, options.dimension), dtype=np.float32))
    rho = np.float32(options.resemblance)
    own[alike] = np.sqrt(1 - rho) * own[alike] + np.sqrt(rho) * common[np.arange(len(alike)) // 4]
    return _unit(own)


def _embeddings(
    options: SynthOptions,
    made: Structure,
    centre: Array,
    sigma: Array,
    norm: Array,
    rng: np.random.Generator,
) -> Array:
    """Return (n, d) float32 of length `norm`, block by block."""
    d, rho = options.dimension, np.float32(options.shared_noise)
    common = rng.standard_normal((int(made.medium[-1]) + 1, d), dtype=np.float32)
    subject = made.template_subject[made.template]
    out = np.empty((len(sigma), d), dtype=np.float32)
    for first in range(0, len(out), _FACES_AT_ONCE):
        rows = slice(first, first + _FACES_AT_ONCE)
        noise = rng.standard_normal(out[rows].shape, dtype=np.float32)
        noise = np.sqrt(1 - rho) * noise + np.sqrt(rho) * common[made.medium[rows]]
        noise *= (sigma[rows] / np.sqrt(np.float32(d)))[:, None]
        out[rows] = _unit(centre[subject[rows]] + noise) * norm[rows][:, None]
    return out


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _tables(options: SynthOptions, made: Structure, columns: dict[str, Array]) -> dict[str, Batch]:
    subjects, faces = len(made.enrolled), len(made.template)
    subject_id = [f"s{i:05d}" for i in range(subjects)]
    template_id = [f"t{i:06d}" for i in range(len(made.template_subject))]
    template_subject = [subject_id[i] for i in made.template_subject.tolist()]
    face_id = [f"f{i:07d}" for i in range(faces)]
    template = made.template.tolist()
    kind = np.where(made.still, "still", "video").tolist()
    roles = [(t, "reference" if i < subjects else "probe") for i, t in enumerate(template_id)]
    roles += [(template_id[i], "gallery") for i in np.flatnonzero(made.enrolled).tolist()]
    found = ProtocolLists(
        face_id=face_id,
        path=[""] * faces,
        sha256=[""] * faces,
        subject=[template_subject[t] for t in template],
        template_id=template_id,
        template_subject=template_subject,
        member_template=[template_id[t] for t in template],
        member_face=face_id,
        member_media=[f"{k}{m:06d}" for k, m in zip(kind, made.medium.tolist(), strict=True)],
        role_template=[t for t, _ in roles],
        role=[role for _, role in roles],
        all_pairs=("reference", "probe"),
        columns=columns,
    )
    return build_tables(found, f"synthetic set of scale {options.scale:g}")
