"""Weight rules: what each face counts for in its template.

q is a face's quality, x its embedding, N the faces of its medium; min, max, mean, deviation and
percentiles are those of the reference set's quality.

Each function's docstring is the formula of a face's weight; `qfuse steps` lists them.

The two scripts fix features and media by themselves. They stand on unit features here: ‖x‖ times
the unit embedding is the raw one. With `embed.flip` none and add, the second has eight variants.
CR-FIQA's script takes min and max over the very set that it fuses, so that the worst face of all
counts nothing and one outlier rescales everything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput
from stages.exact import functions, products, sums, vectors
from stages.fusion.rules import Floats, Parameter, UsableFaces, weight_rule

FLAG = Parameter(1, 0, 1, closed=True, whole=True)
_FACES_AT_ONCE = 1024  # faces whose template is gathered at a time


@weight_rule("mean")
def mean(faces: UsableFaces) -> Floats:
    """1."""
    return np.ones(len(faces.template))


@weight_rule("media-mean")
def media_mean(faces: UsableFaces) -> Floats:
    """1 / N."""
    return 1.0 / np.bincount(faces.medium)[faces.medium]


@weight_rule("norm")
def norm(faces: UsableFaces) -> Floats:
    """‖x‖."""
    return faces.norm


@weight_rule("detector", needs=("detections",))
def detector(faces: UsableFaces) -> Floats:
    """The detector's score."""
    return np.maximum(faces.detector, 0)


@weight_rule("quality-minmax", needs=("quality", "statistics"))
def quality_minmax(faces: UsableFaces) -> Floats:
    """(q − min) / (max − min), from 0 to 1."""
    span = faces.maximum - faces.minimum
    if not span > 0:
        return np.ones(len(faces.template))
    return np.clip((faces.quality - faces.minimum) / span, 0, 1)


@weight_rule("quality-linear", needs=("quality",))
def quality_linear(faces: UsableFaces) -> Floats:
    """max(q, 0)."""
    return np.maximum(faces.quality, 0)


@weight_rule("quality-power", needs=("quality",), version=2, p=2.0)
def quality_power(faces: UsableFaces, p: float) -> Floats:
    """max(q, 0)^p."""
    # Scaled by the template's best first, so that no power overflows or vanishes for all of its
    # faces.
    best = _by_template(np.maximum, faces, np.maximum(faces.quality, 0))
    ratio = np.divide(np.maximum(faces.quality, 0), best, out=np.zeros(len(best)), where=best > 0)
    return functions.power(ratio, p)


@weight_rule("quality-softmax", needs=("quality", "statistics"), version=2, T=0.5)
def quality_softmax(faces: UsableFaces, T: float) -> Floats:  # noqa: N803  the field's letter for a temperature
    """exp(z / T), z = (q − mean) / deviation; T → ∞ is mean, T → 0 best."""
    if not faces.deviation > 0:
        return np.ones(len(faces.template))
    z = (faces.quality - faces.mean) / faces.deviation
    # Less the template's largest z, so that exp cannot overflow; a common factor changes nothing.
    return functions.exp((z - _by_template(np.maximum, faces, z)) / T)


@weight_rule("quality-rank", needs=("quality", "statistics"))
def quality_rank(faces: UsableFaces) -> Floats:
    """The share of the reference set that q exceeds, from 0 to 1."""
    if len(faces.percentiles) == 0 or not np.isfinite(faces.percentiles).all():
        return np.ones(len(faces.template))
    # If percentiles are equal, as with coarse scores, their middle stands for all of them.
    values, number = np.unique(faces.percentiles, return_inverse=True)
    level = np.bincount(number, np.arange(101)) / np.bincount(number)
    return np.interp(faces.quality, values, level / 100)


@weight_rule("threshold", needs=("quality",), t=Parameter(0.5, low=-np.inf))
def threshold(faces: UsableFaces, t: float) -> Floats:
    """1 where q ≥ t; where no face of the template is, 1 for its best."""
    kept = (faces.quality >= t).astype(np.float64)
    return np.where(
        _by_template(np.maximum, faces, kept) > 0, kept, _top_faces(faces, faces.quality, 1)
    )


@weight_rule("top-k", needs=("quality",), k=3)
def top_k(faces: UsableFaces, k: float) -> Floats:
    """1 for the k best faces."""
    return _top_faces(faces, faces.quality, k)


@weight_rule("top-fraction", needs=("quality",), f=Parameter(0.5, high=1))
def top_fraction(faces: UsableFaces, f: float) -> Floats:
    """1 for the best ⌈f · n⌉ of a template's n faces."""
    # 0.1 · 30 is a little more than 3 in binary.
    return _top_faces(faces, faces.quality, np.maximum(1, np.ceil(_sizes(faces) * f - 1e-9)))


@weight_rule("best", needs=("quality",))
def best(faces: UsableFaces) -> Floats:
    """1 for the best face."""
    return _top_faces(faces, faces.quality, 1)


@weight_rule("trimmed", version=2, f=Parameter(0.2, high=0.99))
def trimmed(faces: UsableFaces, f: float) -> Floats:
    """0 for the ⌊f · n⌋ faces farthest (by cosine) from the template's mean, 1 for the others."""
    return _top_faces(faces, _closeness(faces), _sizes(faces) - np.floor(_sizes(faces) * f + 1e-9))


@weight_rule("medoid", version=2)
def medoid(faces: UsableFaces) -> Floats:
    """1 for the face nearest to all others of the template (the largest sum of cosines)."""
    # A unit vector's sum of cosines with all, itself included, is its product with their sum, which
    # has the mean's direction.
    return _top_faces(faces, _closeness(faces), 1)


@weight_rule("crfiqa-script", needs=("quality", "statistics"), script=True)
def crfiqa_script(faces: UsableFaces) -> Floats:
    """‖x‖ · (q − min) / (max − min) / N: CR-FIQA's script for IJB-C."""
    span = faces.maximum - faces.minimum
    if not span > 0:
        raise InvalidInput(
            "crfiqa-script divides by max − min of the quality, which is 0 here: the scores are all"
            " equal."
        )
    # A face below the minimum of another reference set counts nothing; below 0 it would push the
    # template away.
    return np.asarray(
        faces.norm * np.maximum(faces.quality - faces.minimum, 0) / span * media_mean(faces)
    )


@weight_rule(
    "insightface-script",
    needs=lambda parameters: ("detections",) if parameters["detector"] else (),
    script=True,
    norm=FLAG,
    detector=FLAG,
)
def insightface_script(faces: UsableFaces, norm: float, detector: float) -> Floats:
    """(‖x‖ or 1) · (detector score or 1) / N: the common script for IJB-B and IJB-C."""
    weight: Floats = media_mean(faces)
    weight = weight * faces.norm if norm else weight
    return weight * np.maximum(faces.detector, 0) if detector else weight


def _top_faces(faces: UsableFaces, values: Floats, count: float | Floats) -> Floats:
    """Return 1 for the `count` faces of each template with the largest values, 0 for others.

    Of equal values the earlier face comes first.
    """
    # rank inside a template = place in the sorted list less where the template begins in it
    order = np.lexsort((np.arange(len(values)), -values, faces.template))
    starts = _starts(faces)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return (rank < count).astype(np.float64)


def _closeness(faces: UsableFaces) -> Floats:
    """Return the cosine of each face with the plain mean of its template."""
    if len(faces.template) == 0:
        return np.empty(0)
    starts = _starts(faces)
    own = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(faces.template)))
    equal = sums.shares(own, np.ones(len(own)), len(starts))
    mean = vectors.units(
        sums.weighted(faces.embedding, vectors.inverse_lengths(faces.norm), own, equal, len(starts))
    )
    found = np.empty(len(own))
    for start in range(0, len(own), _FACES_AT_ONCE):
        cut = slice(start, start + _FACES_AT_ONCE)
        found[cut] = products.paired(vectors.units(faces.embedding[cut]), mean[own[cut]])
    return found


def _sizes(faces: UsableFaces) -> Floats:
    """Return, for each face, how many faces its template has."""
    return _by_template(np.add, faces, np.ones(len(faces.template)))


def _starts(faces: UsableFaces) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(faces.template, prepend=-1))


def _by_template(reduce: np.ufunc, faces: UsableFaces, values: Floats) -> Floats:
    """Return, for each face, the reduction of `values` over its template."""
    starts = _starts(faces)
    if len(starts) == 0:
        return values
    reduced = reduce.reduceat(values, starts)
    return np.asarray(np.repeat(reduced, np.diff([*starts, len(values)])))
