"""The field's common evaluation scripts, in our own words: what the project is measured against.

Conventions
    These functions are meant to be slow in the way those scripts are: a Python loop over templates
    and media, each of which scans all faces; gathered rows multiplied element by element; every
    similarity sorted; templates and scores in float64, which is what NumPy's zeros are. They are
    not wrong, and their results are compared with ours. Nothing else uses them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def media_templates(features: Array, template: Array, medium: Array) -> Array:
    """Return (t, d) float64 unit templates: the mean inside each medium, summed over media.

    features (n, d) float32, raw; template, medium (n,) int64. This is the 1:1 script for IJB sets,
    without detector scores.
    """
    wanted = np.unique(template)
    out = np.zeros((len(wanted), features.shape[1]))
    for row, number in enumerate(wanted):
        (mine,) = np.where(template == number)
        media = medium[mine]
        parts = []
        for one, count in zip(*np.unique(media, return_counts=True), strict=True):
            inside = features[mine[media == one]]
            parts.append(inside if count == 1 else np.mean(inside, axis=0, keepdims=True))
        out[row] = np.sum(np.concatenate(parts), axis=0)
    return out / np.sqrt(np.sum(out**2, axis=-1, keepdims=True))


def minmax_templates(features: Array, template: Array, quality: Array) -> Array:
    """Return (t, d) float64 unit templates: sums of raw features times min-max quality (n,)."""
    scaled = (quality - quality.min()) / (quality.max() - quality.min())
    weighted = features * scaled[:, None]
    wanted = np.unique(template)
    out = np.zeros((len(wanted), features.shape[1]))
    for row, number in enumerate(wanted):
        out[row] = np.sum(weighted[np.where(template == number)], axis=0)
    # a template of only the worst face of all has no vector: nan
    with np.errstate(invalid="ignore"):
        return out / np.sqrt(np.sum(out**2, axis=-1, keepdims=True))


def pair_scores(unit: Array, a: Array, b: Array, batch: int = 100_000) -> Array:
    """Return (m,) float64 cosines of unit rows a and b: gather a batch, multiply, sum."""
    scores = np.zeros(len(a))
    for start in range(0, len(a), batch):
        cut = slice(start, start + batch)
        scores[cut] = np.sum(unit[a[cut]] * unit[b[cut]], axis=-1)
    return scores


def tar_table(
    scores: Array, mated: Array, targets: tuple[float, ...]
) -> tuple[Array, Array, float]:
    """Return (TAR, false matches) at the ROC point nearest each FMR target, and the AUC.

    All are scikit-learn's.

    With every point of the curve: by default scikit-learn leaves out those on straight stretches,
    and the nearest of what is left has the same TAR but other counts.
    """
    from sklearn.metrics import auc, roc_curve

    fmr, tar, _ = roc_curve(mated, scores, drop_intermediate=False)
    area = auc(fmr, tar)
    fmr, tar = np.flipud(fmr), np.flipud(tar)  # of equally near points the one with the larger FMR
    nearest = [int(np.argmin(np.abs(fmr - target))) for target in targets]
    return tar[nearest], np.rint(fmr[nearest] * np.sum(~mated)).astype(np.int64), float(area)


def discard_steps(
    scores: Array, mated: Array, quality: Array, targets: tuple[float, ...], fractions: Array
) -> Array:
    """Return FNMR (targets, fractions) of the legacy error versus discard, as its script does.

    At each step all qualities are sorted again and the poorest are dropped; then for each FMR all
    distances that are left are sorted, and the threshold is the one whose FMR is nearest, the most
    lenient of equals.
    """
    distance = np.arccos(np.clip(scores.astype(np.float64), -1, 1)) / np.pi
    found = np.zeros((len(targets), len(fractions)))
    for step, fraction in enumerate(fractions):
        kept = np.argsort(quality, kind="stable")[int(fraction * len(quality)) :]
        near, truth = distance[kept], mated[kept]
        for row, target in enumerate(targets):
            order = np.argsort(near)
            fmr = np.cumsum(~truth[order]) / np.sum(~truth)
            apart = np.abs(fmr - target)
            threshold = near[order][np.flatnonzero(apart == apart.min())[-1]]
            found[row, step] = 1 - np.mean(near[truth] < threshold) if truth.any() else np.nan
    return found


def mate_ranks(
    gallery: Array, probes: Array, gallery_subject: Array, probe_subject: Array
) -> tuple[Array, Array]:
    """Return (rank of the mate, best score), each (p,), from the whole sorted similarity matrix.

    Rank 0: no mate.
    """
    similarity = probes @ gallery.T
    order = np.argsort(-similarity, axis=1)
    rank = np.zeros(len(probes), np.int64)
    for i in range(len(probes)):
        (found,) = np.where(gallery_subject[order[i]] == probe_subject[i])
        rank[i] = found[0] + 1 if len(found) else 0
    return rank, similarity[np.arange(len(probes)), order[:, 0]]


def top_candidates(gallery: Array, probes: Array, k: int) -> tuple[Array, Array]:
    """Return each probe's k best gallery rows and their scores, (p, k).

    By the whole similarity matrix, argpartition and a sort.
    """
    similarity = probes @ gallery.T
    part = np.argpartition(-similarity, k, axis=1)[:, :k]
    score = np.take_along_axis(similarity, part, axis=1)
    order = np.argsort(-score, axis=1)
    return np.take_along_axis(part, order, axis=1), np.take_along_axis(score, order, axis=1)


def flat_index(gallery: Array, probes: Array, k: int) -> tuple[Array, Array]:
    """Return each probe's k best gallery rows and scores, (p, k), by FAISS's flat index."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    scores, rows = index.search(probes, k)
    return rows, scores


def aligned_crop(jpeg: bytes, landmarks: Array, template: Array) -> Array:
    """Return the crop (112, 112, 3) uint8 RGB: decode, Umeyama's fit (TPAMI 1991), OpenCV warp."""
    import cv2

    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    source, target = landmarks - landmarks.mean(axis=0), template - template.mean(axis=0)
    u, s, vt = np.linalg.svd(target.T @ source / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ np.diag(signs) @ vt
    scale = (s * signs).sum() / source.var(axis=0).sum()
    move = template.mean(axis=0) - scale * turn @ landmarks.mean(axis=0)
    return cv2.warpAffine(image, np.column_stack([scale * turn, move]), (112, 112), borderValue=0)
